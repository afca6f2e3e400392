"""Has what embeddings used put into the ledger: they are no exposures, which bring theirs along."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.layers.base import Layer


class Meter(Layer):
    """Every request for embeddings that reached a model, however it ended; a probe of the platform is none."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model and not operation.is_logged

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        call.on_close(lambda: self._note(call))
        return proceed(call)

    def _note(self, call: Call) -> None:
        if call.exposure is not None and not call.is_probe:
            self.gateway.embeddings_used.note(call)
