"""Puts the prompt version that the endpoint names around what the user wrote."""

from images.gateway.api import Operation
from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Prompt(Layer):
    """Changes `call.payload["messages"]`, and notes the version for the exposure."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        return await proceed(call)
