"""Reviewing answers, and making data of what was reviewed."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from llmops_assets.operations.access import authorise
from llmops_assets.operations.datasets import Registered, register_dataset
from llmops_assets.operations.errors import Refused
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.access import READ_TEXTS
from llmops_assets.specs.dataset import DatasetSpec, reviewed_answers_of
from llmops_assets.traffic import feedback
from llmops_assets.traffic.agreement import cohen_kappa
from llmops_assets.traffic.feedback import Decision, Kind
from llmops_assets.wiring import Wiring
from resources.catalog.reviews import Review
from resources.files import plain_folder
from resources.traffic.context import sent_of


@dataclass(frozen=True)
class Item:
    """An answer that is to be reviewed, what was decided on it, and by whom."""

    answer: dict[str, Any]
    reviews: Sequence[Review]
    decision: Decision

    @property
    def request_id(self) -> str:
        return str(self.answer["request_id"])

    @property
    def before(self) -> str | None:
        """All that the model was sent, where that was more than the question; or why it is not on record."""
        sent = sent_of(self.answer)
        if sent.missing is not None:
            return f"not on record: {sent.missing}"
        return None if sent.is_lone else sent.conversation


@dataclass(frozen=True)
class Queue:
    """Answers to be reviewed, oldest first; `kappa` is Cohen's κ of the first two reviewers of each answer."""

    items: Sequence[Item]
    kappa: float | None
    bursts: Sequence[str]
    brigades: Sequence[feedback.Brigade] = ()


def review_queue(wiring: Wiring, endpoint: str | None = None) -> Queue:
    """Everything that is to be reviewed or was, of an endpoint or of all."""
    rules = wiring.policy.traffic
    reviews = wiring.catalog.reviews.all(endpoint=endpoint)
    answers = wiring.catalog.reviews.candidates(
        endpoint=endpoint, rating_at_most=rules.review_rating, sample_share=rules.review_sample
    )
    if rules.consent == "required":
        answers = [answer for answer in answers if answer["consent"]]
    suspects = {user for brigade in feedback.brigades(answers) for user in brigade.users}
    items = []
    for answer in answers:
        theirs = reviews.get(answer["request_id"], [])
        # What many said at once is learned from only if two people agree on it, however many are needed else.
        quorum = 2 if answer["user"] in suspects else rules.reviewers
        items.append(Item(answer, theirs, feedback.decide(answer, theirs, quorum)))
    pairs = [(r[0].verdict, r[1].verdict) for r in reviews.values() if len(r) > 1]
    return Queue(items, cohen_kappa(pairs), feedback.bursts(answers), feedback.brigades(answers))


def read_queue(wiring: Wiring, actor: str, endpoint: str | None = None) -> Queue:
    """`review_queue` for somebody who wants to read it; Forbidden for who may not read what users write."""
    authorise(wiring, actor, READ_TEXTS)
    return review_queue(wiring, endpoint)


def read_item(wiring: Wiring, actor: str, request_id: str) -> Item:
    """`review_item` for somebody who wants to read it; Forbidden for who may not read what users write."""
    authorise(wiring, actor, READ_TEXTS)
    return review_item(wiring, request_id)


def review_item(wiring: Wiring, request_id: str) -> Item:
    """One answer with its reviews; NotFound where there is none of that id, Refused where it may not be reviewed."""
    wiring.catalog.reviews.answer(request_id)
    for item in review_queue(wiring).items:
        if item.request_id == request_id:
            return item
    raise Refused(
        f"{request_id} is not to be reviewed: its user did not agree, it holds no text any more, or nobody complained "
        "of it and it is in no sample"
    )


def review(
    wiring: Wiring, actor: str, request_id: str, verdict: str, *, text: str | None = None, reason: str | None = None
) -> Item:
    """Decide on an answer: `accept` (the correction, else the answer, is right), `fix` with the right text, `reject`.

    Raises Forbidden, NotFound, and Refused for a fix without a text or for an answer that may not be reviewed.
    """
    authorise(wiring, actor, "review.decide")
    item = review_item(wiring, request_id)
    if verdict == "fix" and not (text and text.strip()):
        raise Refused("a fix needs the right answer: give it with --answer")
    if verdict == "accept" and not (item.answer.get("correction") or item.answer["response"]):
        raise Refused(f"{request_id} has no answer that could be accepted: fix or reject it")
    mask = Masker.of(wiring.policy)
    kept = mask(text) if verdict == "fix" and text else None
    wiring.catalog.reviews.decide(request_id, actor, verdict, kept, None if reason is None else mask(reason))
    return review_item(wiring, request_id)


@dataclass(frozen=True)
class FeedbackDataset:
    """What was registered, with how many rows, and how many answers were left out by reason."""

    registered: Registered
    rows: int
    left_out: dict[str, int]
    bursts: Sequence[str]


def feedback_dataset(
    wiring: Wiring, actor: str, *, endpoint: str, name: str, version: str, kind: Kind, owner: str
) -> FeedbackDataset:
    """Register the reviewed answers of an endpoint as a dataset version like any other.

    They are masked, apart from what is in other versions already (so a suite and the training data share no question),
    and split by conversation. Raises Refused when nothing is left, and what `register_dataset` raises.
    """
    authorise(wiring, actor, "review.export")
    found = review_queue(wiring, endpoint)
    built = feedback.build(
        kind,
        [item.answer for item in found.items],
        {item.request_id: item.decision for item in found.items},
        user_share=wiring.policy.traffic.user_share,
        address_share=wiring.policy.traffic.address_share,
        known=_known(wiring, but_of=name),
    )
    if not built.rows:
        why = ", ".join(f"{count} × {reason}" for reason, count in built.left_out.items()) or "nothing was reviewed"
        raise Refused(f"no reviewed answer of endpoint {endpoint!r} becomes a row: {why}")
    values: dict[str, Any] = {
        "name": name,
        "version": version,
        "type": kind,
        "owner": owner,
        "description": reviewed_answers_of(endpoint),
    }
    if kind != "eval_suite":
        values["split"] = {"group_by": "session", "stratify_by": None}
    # What people said is plain here until it is registered: gone when this process is killed, too.
    with plain_folder(wiring.settings.root / "uploads") as folder:
        file = folder / f"{name}.jsonl"
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in built.rows), encoding="utf-8")
        spec = DatasetSpec.model_validate({**values, "files": [str(file)]})
        registered = register_dataset(wiring, actor, spec, [str(file)])
    return FeedbackDataset(registered, len(built.rows), dict(built.left_out), built.bursts)


def _known(wiring: Wiring, but_of: str) -> set[str]:
    """The questions of all other datasets, as `as_asked` writes them: what is trained on is no test."""
    known: set[str] = set()
    for record in wiring.records.all(SplitsRecord):
        if record.dataset.partition("@")[0] == but_of:
            continue
        for manifest in record.manifests.values():
            for batch in wiring.store.batches(manifest):
                known.update(feedback.asked_in(batch, record.type))
    return known
