"""Offers what was answered to the candidate of the endpoint, once the answer has gone out."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.layers.base import Layer


class Shadow(Layer):
    """Of requests whose answers are read by somebody, as the endpoint's `shadow` says; the client waits for none."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        if call.endpoint.shadow is not None and call.operation.is_logged:
            call.on_close(lambda: self.gateway.shadows.offer(call))
        return proceed(call)
