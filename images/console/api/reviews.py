"""Routes of reviews: what waits for one, what was decided, and the dataset that comes of it."""

from typing import Any, Literal

from fastapi import APIRouter
from pydantic import Field

from images.console.bodies import Body, Name, Version
from images.console.pages import Cursor, Limit, page
from images.console.state import Asking, Here
from llmops_assets.operations import reviews

router = APIRouter(prefix="/reviews", tags=["reviews"])


class VerdictBody(Body):
    """What somebody decides on an answer: `fix` needs the right text."""

    verdict: Literal["accept", "fix", "reject"]
    text: str | None = Field(default=None, max_length=20_000)
    reason: str | None = Field(default=None, max_length=2000)


class FeedbackBody(Body):
    """A dataset version to make of an endpoint's reviewed answers."""

    endpoint: Name
    name: Name
    version: Version = Field(default="v1", min_length=1)
    type: Literal["sft_pair", "rlhf_pair", "eval_suite"] = "sft_pair"
    owner: str = Field(default="unassigned", max_length=100, min_length=1)


def plain(item: reviews.Item) -> dict[str, Any]:
    """An answer with its reviews as JSON."""
    shown = ("request_id", "endpoint", "model_ref", "at", "query", "response", "rating", "comment", "correction")
    decided = [
        {"reviewer": one.reviewer, "verdict": one.verdict, "text": one.text, "reason": one.reason, "at": one.at}
        for one in item.reviews
    ]
    answer = {name: item.answer.get(name) for name in shown}
    return {"id": item.request_id, "status": item.decision.state, **answer, "before": item.before, "reviews": decided}


@router.get("")
def list_(
    here: Here,
    asking: Asking,
    endpoint: str | None = None,
    status: str | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> dict[str, Any]:
    """Answers that users complained of, oldest first: `status` is open, waiting, disputed, accept, fix or reject."""
    queue = reviews.read_queue(here.wiring, asking.name, endpoint)
    wanted = [item for item in queue.items if status in (None, item.decision.state)]
    found = page(wanted, limit, cursor, lambda one: one.request_id)
    return {
        **found,
        "items": [plain(one) for one in found["items"]],
        "kappa": queue.kappa,
        "bursts": list(queue.bursts),
    }


@router.post("/{request_id}")
def decide(request_id: str, body: VerdictBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Decide on an answer; a later decision of the same reviewer takes the place of the earlier."""
    return plain(reviews.review(here.wiring, asking.name, request_id, body.verdict, text=body.text, reason=body.reason))


@router.post("", status_code=201)
def export(body: FeedbackBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Register what was reviewed of an endpoint as a dataset version like any other."""
    done = reviews.feedback_dataset(
        here.wiring,
        asking.name,
        endpoint=body.endpoint,
        name=body.name,
        version=body.version,
        kind=body.type,
        owner=body.owner,
    )
    return {"id": done.registered.key, "is_new": done.registered.new, "rows": done.rows, "left_out": done.left_out}
