"""Pages of reviews, usage, the audit log, and the erasure of a person's rows."""

from typing import Any

from fastapi import Response

from images.console.problems import Problem
from images.console.web.i18n import N_
from images.console.web.page import PER_PAGE, Asked, Posted, Slice, go, router, start_of
from llmops_assets.operations import audit, reviews
from llmops_assets.operations.access import authorise
from llmops_assets.operations.erasures import Planned, Request, erase, erasure_request, plan_erasure
from llmops_assets.operations.usage import BY, usage_by

pages = router()
COLUMNS = {
    "day": N_("Day (UTC)"),
    "key": N_("Key"),
    "team": N_("Team"),
    "endpoint": N_("Endpoint"),
    "model_ref": N_("Model"),
    "requests": N_("Requests"),
    "failed": N_("Failed requests"),
    "prompt_tokens": N_("Tokens of questions"),
    "completion_tokens": N_("Tokens of answers"),
    "estimated_tokens": N_("of these estimated"),
}
"""What the columns of usage are called."""
OPEN = ("open", "waiting", "disputed")


@pages.get("/reviews")
def queue(page: Asked, endpoint: str = "", all: bool = False) -> Response:
    """Answers that users complained of, and what was decided on them."""
    wiring = page.here.wiring
    start = start_of(page.request)
    found = reviews.read_queue(wiring, page.name, endpoint or None)
    items = [item for item in found.items if all or item.decision.state in OPEN]
    shown = Slice(list(items[start : start + PER_PAGE]), start, len(items))
    more: dict[str, Any] = {"endpoint": endpoint, "all": all, "kappa": found.kappa, "bursts": found.bursts}
    return page.show("reviews.html", found=shown, endpoints=wiring.catalog.endpoint_names(), **more)


@pages.post("/reviews/{request_id}")
def decide(page: Asked, request_id: str, form: Posted) -> Response:
    """Accept an answer, write the right one, or reject it."""
    verdict = form["verdict"]
    reviews.review(
        page.here.wiring, page.name, request_id, verdict, text=form.given("text"), reason=form.given("reason")
    )
    return go("/reviews", "reviewed")


@pages.get("/usage")
def usage(page: Asked, by: str = "model", since: str = "", until: str = "") -> Response:
    """What was used of the models: requests and tokens, summed."""
    names = [name for name in by.split(",") if name]
    rows = usage_by(page.here.wiring, page.name, names or ["model"], since=since or None, until=until or None)
    start = start_of(page.request)
    shown = Slice(rows[start : start + PER_PAGE], start, len(rows))
    choices = [(name, page.t(COLUMNS[kept])) for name, kept in BY.items()]
    choices += [("team,day", page.t(N_("team and day"))), ("endpoint,day", page.t(N_("endpoint and day")))]
    return page.show("usage.html", found=shown, by=by, since=since, until=until, choices=choices, columns=COLUMNS)


@pages.get("/audit")
def log(page: Asked, target: str = "", before: int | None = None) -> Response:
    """Who did what to what, newest first."""
    lines = audit.list_lines(page.here.wiring, page.name, target=target or None, limit=PER_PAGE + 1, before=before)
    after = lines[PER_PAGE - 1]["id"] if len(lines) > PER_PAGE else None
    return page.show("audit.html", lines=lines[:PER_PAGE], target=target, after=after, first=before is None)


def _request(form: Posted) -> Request:
    texts = [line.strip() for line in form["texts"].splitlines() if line.strip()]
    rows = [line.strip() for line in form["rows"].splitlines() if line.strip()]
    if not form["name"] or not (texts or rows):
        raise Problem(422, "name the dataset, and what is looked for: texts or row ids, one a line")
    return erasure_request(
        form["name"], texts=texts, rows=rows, everywhere=form.is_on("everywhere"), reason=form["reason"] or "on request"
    )


@pages.get("/catalog/forget")
def forget_form(page: Asked, name: str = "") -> Response:
    """The form of an erasure; it is planned first."""
    return page.show("forget.html", values={"name": name, "texts": "", "rows": "", "reason": ""}, planned=None)


@pages.post("/catalog/forget")
def forget(page: Asked, form: Posted) -> Response:
    """What would be erased; and, where that was looked at and said again, the erasure."""
    authorise(page.here.wiring, page.name, "dataset.forget")
    request = _request(form)
    planned: Planned = plan_erasure(page.here.wiring, request)
    if form["sure"] == planned.digest and planned.anything:
        done = erase(page.here.wiring, page.name, request, planned)
        return page.show("forgotten.html", found=done)
    return page.show("forget.html", values=form, planned=planned)
