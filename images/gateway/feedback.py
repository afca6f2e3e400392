"""Takes what users say of an answer."""

import asyncio
import logging
import re
import time
import uuid

from starlette.concurrency import run_in_threadpool

from images.gateway.body import read_json
from images.gateway.call import Answer, Call
from images.gateway.errors import ApiError
from images.gateway.exposures import Rating, now
from images.gateway.gateway import Gateway
from resources.traffic.shipper import AWAY

log = logging.getLogger("gateway.feedback")

_MOST_CORRECTION = 20_000
_MOST_SCORES = 16
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_OURS = re.compile(r"req-[0-9a-f]{32}")
_OTHER_WORKERS_SECONDS = 2.0
_AGAIN_SECONDS = 0.25
# Longer than that nobody waits for a rating to be taken.
_CATALOG_SECONDS = 3.0


async def rate(gateway: Gateway, call: Call) -> Answer:
    """POST /v1/feedback: {request_id, rating, comment?, correction?, scores?, user?} on an answer.

    A rating that cannot be written to the catalog now is spooled, and written later.
    """
    gateway.callers.check_may_rate(call)
    body = await read_json(call)
    request_id, rating, comment = body.get("request_id"), body.get("rating"), body.get("comment")
    if not isinstance(request_id, str) or not request_id:
        raise ApiError(400, "`request_id` should be that of an answer's x-request-id", param="request_id")
    low, high = gateway.scale
    if not isinstance(rating, int) or isinstance(rating, bool) or not low <= rating <= high:
        raise ApiError(400, f"`rating` should be a whole number from {low} to {high}", param="rating")
    if comment is not None and not (isinstance(comment, str) and len(comment) <= 4000):
        raise ApiError(400, "`comment` should be a text of at most 4000 characters", param="comment")
    user = body.get("user")
    if user is not None and not (isinstance(user, str) and len(user) <= 200):
        raise ApiError(400, "`user` should be a text of at most 200 characters", param="user")
    # vLLM puts its own word before our id in the body of an answer.
    request_id = request_id.removeprefix("chatcmpl-")
    correction = body.get("correction")
    if correction is not None and not (isinstance(correction, str) and len(correction) <= _MOST_CORRECTION):
        raise ApiError(
            400, f"`correction` should be a text of at most {_MOST_CORRECTION} characters", param="correction"
        )
    entry = Rating(
        event=uuid.uuid4().hex,
        request_id=request_id,
        at=now(),
        rating=rating,
        user=user,
        comment=comment,
        correction=correction,
        scores=_scores(body.get("scores")),
    )
    await _keep(gateway, entry)
    gateway.metrics.feedback.labels(rating).inc()
    return Answer.of({"request_id": request_id, "rating": rating}, 201)


def _scores(found: object) -> dict[str, float] | None:
    if found is None:
        return None
    good = isinstance(found, dict) and len(found) <= _MOST_SCORES
    if not good or not all(_NAME.fullmatch(name) and _is_number(value) for name, value in found.items()):
        raise ApiError(
            400, f"`scores` should be an object of at most {_MOST_SCORES} numbers by short names", param="scores"
        )
    return {name: float(value) for name, value in found.items()}


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15


async def _keep(gateway: Gateway, entry: Rating) -> None:
    """Write a rating; into the spool when the catalog is away or slow: it is there under the same id, so only once."""
    until = time.monotonic() + (_OTHER_WORKERS_SECONDS if _OURS.fullmatch(entry.request_id) else 0.0)
    while True:
        writing = asyncio.ensure_future(run_in_threadpool(_write, gateway, entry))
        try:
            is_known = await asyncio.wait_for(asyncio.shield(writing), _CATALOG_SECONDS)
        except (*AWAY, TimeoutError):
            writing.add_done_callback(_look_at)
            if not gateway.exposures.put_rating(entry):
                raise ApiError(503, "the rating cannot be kept now: try again later", code="log_full") from None
            return
        if is_known:
            return
        if time.monotonic() > until:
            raise ApiError(404, f"there was no answer {entry.request_id!r} to rate", code="unknown_request")
        # Another worker may have given that answer a moment ago, and it is on its way to the catalog.
        await asyncio.sleep(_AGAIN_SECONDS)


def _look_at(writing: asyncio.Future) -> None:
    if not writing.cancelled() and (error := writing.exception()) is not None:
        log.warning("a rating goes through the spool: %s", type(error).__name__)


def _write(gateway: Gateway, entry: Rating) -> bool:
    """Write a rating to the catalog; False where nobody knows the answer."""
    # Who rates must get the very name that the answer's exposure has: a rating by another user does not count.
    salt = gateway.exposures.pending_salt(entry.request_id)
    if salt is None:
        endpoint = gateway.catalog.exposed_by(entry.request_id)
        if endpoint is None:
            return False
        known = gateway.table.endpoints.get(endpoint)
        salt = known.salt if known else ""
    entry.salt = salt
    gateway.exposures.write_rating(entry)
    return True
