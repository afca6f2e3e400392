"""Asks the model server of the assigned variant, and another one where it does not answer."""

import logging
import time
from collections.abc import AsyncIterator

import msgspec

from images.gateway import proxy
from images.gateway.api import Operation
from images.gateway.call import Answer, Call, Proceed
from images.gateway.chat_request import with_usage
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.routes import Route
from images.gateway.shaping import Shaper, shaper_of
from images.gateway.usage import counted_in, counted_of, estimated

log = logging.getLogger("gateway")

# How long a backend that failed is asked last.
_AVOID_SECONDS = 5.0


class Proxy(Layer):
    """The end of the way down: what comes up from here is the model server's, in the shape that was asked for."""

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        on_backend = self.gateway.on_backend
        on_backend[call.route.backend] += 1

        def leave() -> None:
            on_backend[call.route.backend] -= 1

        call.on_close(leave)
        shaper = shaper_of(call.body)
        payload = msgspec.json.encode(with_usage(call.payload, call.route.engine))
        call.timings["asked"] = time.monotonic() - call.begun
        found = await self._ask_one_or_another(call, payload)
        if isinstance(found, proxy.Whole):
            call.usage = counted_of(found.body)
            return Answer(found.status, shaper.whole(found.body))
        call.on_close(found.close)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        events = self._relay(call, found, shaper)
        return Answer(events=events, content_type="text/event-stream; charset=utf-8", headers=headers)

    async def _ask_one_or_another(self, call: Call, payload: bytes) -> proxy.Whole | proxy.Stream:
        """Ask the assigned backend and, when it fails, one other; ApiError 502 when neither answers."""
        gateway, endpoint, exposure = self.gateway, call.endpoint, call.exposure
        try:
            return await self._ask(call, call.route, payload)
        except proxy.BackendFailed as failure:
            first = failure
        gateway.failed_at[call.route.backend] = time.monotonic()
        log.warning("%s: %s", endpoint.name, first)
        other = endpoint.instead_of(call.route, self._to_avoid())
        if other is None:
            exposure.error = str(first)
            raise ApiError(502, f"endpoint {endpoint.name!r} does not answer", code="backend_failed") from first
        gateway.metrics.retries_of(endpoint.name).inc()
        gateway.on_backend[call.route.backend] -= 1
        gateway.on_backend[other.backend] += 1
        # The variant stays the assigned one: an analysis by what was meant must not lose its failures.
        call.route = other
        exposure.backend, exposure.model_ref = other.backend, other.model_ref
        exposure.error = f"{first}; {other.backend} answered instead"
        try:
            return await self._ask(call, other, payload)
        except proxy.BackendFailed as second:
            gateway.failed_at[other.backend] = time.monotonic()
            log.warning("%s: %s", endpoint.name, second)
            exposure.error = f"{first}; {second}"
            raise ApiError(502, f"endpoint {endpoint.name!r} does not answer", code="backend_failed") from second

    async def _ask(self, call: Call, route: Route, payload: bytes) -> proxy.Whole | proxy.Stream:
        return await proxy.ask(
            self.gateway.connections,
            route,
            payload,
            request_id=call.request_id,
            name=proxy.renamed(call.endpoint.name),
            streamed=call.is_streamed,
            on_reconnect=self.gateway.metrics.reconnects_of(call.endpoint.name).inc,
        )

    def _to_avoid(self) -> set[str]:
        recently = time.monotonic() - _AVOID_SECONDS
        return {backend for backend, at in self.gateway.failed_at.items() if at > recently}

    async def _relay(self, call: Call, stream: proxy.Stream, shaper: Shaper) -> AsyncIterator[bytes]:
        """The stream's lines; a failure in its middle becomes an event that OpenAI's clients raise as an error."""
        pieces, last_usage = 0, b""
        try:
            async for read in stream.lines():
                pieces += read.count(b'"delta"')
                if b'"usage"' in read:
                    last_usage = read
                lines = shaper.feed(read)
                if lines:
                    yield lines
                if shaper.is_over:
                    break
            call.end(200)
        except proxy.BackendFailed as failure:
            log.warning("%s: %s", call.endpoint.name, failure)
            call.end(502, str(failure))
            fault = ApiError(502, "the model server broke off in the middle of its answer", code="backend_failed")
            yield fault.event()
        finally:
            call.usage = shaper.counted or counted_in(last_usage) or estimated(call, pieces)
            stream.close()
