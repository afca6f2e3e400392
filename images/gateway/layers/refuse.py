"""Has what was refused before a variant was assigned put on record, with its reason and without a word of it."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.layers.base import Layer


class Refuse(Layer):
    """Every request to a model that ended without an exposure, whoever ended it; a probe of the platform is none."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        call.on_close(lambda: self._note(call))
        return proceed(call)

    def _note(self, call: Call) -> None:
        if call.exposure is None and not call.is_probe:
            self.gateway.refusals.note(call)
