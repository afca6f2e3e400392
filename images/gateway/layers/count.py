"""Counts requests and how long they took for Prometheus, and tells logs and traces of them."""

import time
from collections.abc import Awaitable

from starlette.concurrency import run_in_threadpool

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.gateway import Gateway
from images.gateway.layers.base import Layer
from images.gateway.telemetry.logs import log_request
from images.gateway.telemetry.traces import Traces
from images.gateway.usage import tokens_of


class Count(Layer):
    """Every request to a model once, when it is over: by endpoint, model and status, never by user or key."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        address = gateway.settings.otlp_endpoint
        self.traces = Traces(address) if address else None

    async def close(self) -> None:
        if self.traces is not None:
            await run_in_threadpool(self.traces.close)

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        call.on_close(lambda: self._close(call))
        return proceed(call)

    def _close(self, call: Call) -> None:
        seconds = time.monotonic() - call.begun
        self._count(call, seconds)
        if not call.is_probe:
            log_request(call, seconds)
            if self.traces is not None:
                self.traces.record(call, seconds)

    def _count(self, call: Call, seconds: float) -> None:
        metrics, name = self.gateway.metrics, call.endpoint.name if call.endpoint else ""
        exposure = call.exposure
        if exposure is None:
            metrics.count(metrics.requests, name, "", call.status)
            if call.refusal is not None:
                metrics.count(metrics.refusals, name, call.refusal)
            return
        model = exposure.model_ref
        prompt, completion, _ = tokens_of(call)
        metrics.count_request(name, model, call.status, prompt, completion)
        metrics.observe(metrics.seconds, seconds, name, model)
        if exposure.ttft_ms is not None:
            first = exposure.ttft_ms / 1000
            metrics.observe(metrics.first_token, first, name, model)
            if (pieces := call.notes.get("pieces", 0)) > 1:
                metrics.observe(metrics.between_tokens, (seconds - first) / (pieces - 1), name, model)
