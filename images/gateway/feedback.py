"""Takes what users say of an answer."""

from starlette.concurrency import run_in_threadpool

from images.gateway.body import read_json
from images.gateway.call import Answer, Call
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway


async def rate(gateway: Gateway, call: Call) -> Answer:
    """POST /v1/feedback: {request_id, rating, comment?, user?} on an answer."""
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
    await run_in_threadpool(_keep, gateway, request_id, rating, user, comment)
    gateway.metrics.feedback.labels(rating).inc()
    return Answer.of({"request_id": request_id, "rating": rating}, 201)


def _keep(gateway: Gateway, request_id: str, rating: int, user: str | None, comment: str | None) -> None:
    # Who rates must get the very name that the answer's exposure has: a rating by another user does not count.
    salt = gateway.exposures.pending_salt(request_id)
    if salt is None:
        endpoint = gateway.catalog.exposed_by(request_id)
        if endpoint is None:
            raise ApiError(404, f"there was no answer {request_id!r} to rate", code="unknown_request")
        known = gateway.table.endpoints.get(endpoint)
        salt = known.salt if known else ""
    gateway.catalog.add_feedback(
        request_id,
        rating,
        user=None if user is None else gateway.exposures.pseudonym(user, salt),
        comment=None if comment is None else gateway.mask(comment),
    )
