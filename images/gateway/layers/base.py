"""What a layer is: something around the answering of a call."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.gateway import Gateway


class Layer:
    """A step on the way of every request, made once for a gateway.

    It answers by itself, raises ApiError to refuse, or awaits `proceed(call)` and gives on what comes back. What has
    nothing to wait for and nothing to do with the answer returns `proceed(call)` as it is: a coroutine of its own
    would cost each request. What must be done when a call is over, however it ends, it registers with `call.on_close`.
    """

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway

    def applies(self, operation: Operation) -> bool:
        """Whether requests for this operation pass the layer; decided once, at the start."""
        return True

    async def open(self) -> None:
        """Before the first request."""

    async def close(self) -> None:
        """After the last one."""

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        return proceed(call)
