"""Asks whether the caller may call the endpoint that the request names."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.layers.base import Layer


class Authorize(Layer):
    """403 naming the endpoint, and what is missing: by the policy's table of role × action, and the credential's
    endpoints.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        self.gateway.callers.check_may_call(call, call.endpoint.name)
        return proceed(call)
