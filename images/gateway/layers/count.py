"""Counts requests and how long they took, for Prometheus."""

import time

from images.gateway.api import Operation
from images.gateway.call import Answer, Call, Proceed
from images.gateway.layers.base import Layer


class Count(Layer):
    """Every request to a model once, when it is over: by endpoint, model and status, never by user or key."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        call.on_close(lambda: self._count(call))
        return await proceed(call)

    def _count(self, call: Call) -> None:
        metrics, name = self.gateway.metrics, call.endpoint.name if call.endpoint else ""
        exposure = call.exposure
        if exposure is None:
            metrics.requests_of(name, "", call.status).inc()
            return
        metrics.requests_of(name, exposure.model_ref, call.status).inc()
        metrics.seconds_of(name, exposure.model_ref).observe(time.monotonic() - call.begun)
        if exposure.ttft_ms is not None:
            metrics.first_token_of(name, exposure.model_ref).observe(exposure.ttft_ms / 1000)
