"""Reads what is asked of a model, strictly: 400 naming the field, before anything else is done with it."""

from images.gateway.body import read_json
from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.chat_request import INPUTS, who_asks
from images.gateway.errors import ApiError
from images.gateway.fields import FIELDS, check_fields
from images.gateway.gateway import Gateway
from images.gateway.layers.base import Layer
from images.gateway.messages import check_messages
from images.gateway.routes import Endpoint


class Validate(Layer):
    """Fills `body`, `endpoint`, `end_user`, `query` and `is_streamed` of a call."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        body = call.body = await read_json(call)
        call.endpoint = endpoint_of(self.gateway, body.get("model"), call)
        call.end_user = who_asks(call, body)
        kind = call.operation.kind
        check_fields(body, kind)
        call.query = check_messages(body) if kind == "chat" else _read(body, kind)
        call.is_streamed = body.get("stream") is True
        return await proceed(call)


def _read(body: dict, kind: str) -> str:
    """The text that a model is to read; empty where it comes as tokens."""
    field = INPUTS[kind]
    if field not in body:
        raise ApiError(400, f"`{field}` should be {FIELDS[kind][field][1]}", param=field)
    value = body[field]
    texts = [value] if isinstance(value, str) else [entry for entry in value if isinstance(entry, str)]
    return "\n".join(texts)


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
        mine = [known for known in gateway.table.endpoints if gateway.callers.may_call(call, known)]
        known = ", ".join(sorted(mine)) or "none yet"
        raise ApiError(404, f"there is no endpoint {name!r}; known are: {known}", code="model_not_found", param="model")
    return endpoint
