"""Reads what is asked of a model, strictly: 400 naming the field, before anything else is done with it."""

from images.gateway.api import Operation
from images.gateway.body import read_json
from images.gateway.call import Answer, Call, Proceed
from images.gateway.chat_request import check_fields, check_messages, who_asks
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway
from images.gateway.layers.base import Layer
from images.gateway.routes import Endpoint


class Validate(Layer):
    """Fills `body`, `endpoint`, `end_user`, `query` and `is_streamed` of a call."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        body = call.body = await read_json(call)
        call.endpoint = endpoint_of(self.gateway, body.get("model"), call)
        call.end_user = who_asks(call, body)
        check_fields(body)
        call.query = check_messages(body)
        call.is_streamed = bool(body.get("stream"))
        return await proceed(call)


def endpoint_of(gateway: Gateway, name: object, call: Call) -> Endpoint:
    """The endpoint that a request names; ApiError 404 where there is none, 503 while its routes cannot be read."""
    if not isinstance(name, str):
        raise ApiError(400, "`model` should be the name of an endpoint", param="model")
    endpoint = gateway.table.endpoints.get(name)
    if endpoint is None and name in gateway.table.faults:
        raise ApiError(
            503, f"the routes of endpoint {name!r} cannot be read; the gateway's log says why", code="not_ready"
        )
    if endpoint is None:
        mine = [known for known in gateway.table.endpoints if gateway.callers.may_call(call.caller, known)]
        known = ", ".join(sorted(mine)) or "none yet"
        raise ApiError(404, f"there is no endpoint {name!r}; known are: {known}", code="model_not_found", param="model")
    return endpoint
