"""Hands the exposure of every request to the log, with what the client got."""

import time
from collections.abc import AsyncIterator

import msgspec

from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.events import has_text
from images.gateway.layers.base import Layer
from images.gateway.usage import tokens_of
from resources.traffic.context import context_of
from resources.traffic.entries import Usage

_AGREED = ("yes", "true", "1")
_MOST_LOGGED_BYTES = 4 * 1024 * 1024
"""Of a stream, whose events take some 250 bytes a token. What is longer is logged without its text: half is none."""
_LAST_PIECES = 3


class Log(Layer):
    """One exposure a request that was assigned a variant; a probe of the platform is none."""

    def applies(self, operation: Operation) -> bool:
        return operation.is_logged

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        parts: list[bytes] = []
        call.on_close(lambda: self._put(call, parts))
        answer = await proceed(call)
        if call.exposure is None or call.is_probe:
            return answer
        # From here on the client may know the id, and rate the answer.
        self.gateway.exposures.expect(call.exposure)
        if answer.events is None:
            parts.append(answer.body)
        else:
            answer.events = self._copied(call, answer.events, parts)
        return answer

    async def _copied(self, call: Call, events: AsyncIterator[bytes], parts: list[bytes]) -> AsyncIterator[bytes]:
        size, exposure = 0, call.exposure
        async for lines in events:
            if exposure.ttft_ms is None and has_text(lines):
                exposure.ttft_ms = 1000 * (time.monotonic() - call.begun)
            size += len(lines)
            if size > _MOST_LOGGED_BYTES:
                # Its end says how it ended: the reason, the counts, and that it is over.
                exposure.is_cut = True
                del parts[:-_LAST_PIECES]
            parts.append(lines)
            yield lines

    def _assigned(self, call: Call) -> str:
        return call.endpoint.routes[call.exposure.variant].model_ref

    def _put(self, call: Call, parts: list[bytes]) -> None:
        exposure = call.exposure
        if exposure is None or call.is_probe:
            return
        if call.usage is not None and exposure.streamed:
            parts.append(b"data: " + msgspec.json.encode({"usage": call.usage}) + b"\n\n")
        if exposure.model_ref != self._assigned(call):
            # What another model said must not be rated as if the assigned one had.
            exposure.source = "fallback"
        prompt, completion, is_estimated = tokens_of(call)
        exposure.used = Usage(call.caller.name, call.caller.team or "", prompt, completion, is_estimated)
        if (consent := call.header(b"x-llmops-consent")) is not None:
            exposure.consent = consent.strip().lower() in _AGREED
        if exposure.consent is not False:
            exposure.turns, exposure.context = context_of(call.body)
            exposure.address = self.gateway.callers.address_of(call)
        exposure.verdicts = msgspec.json.encode(call.verdicts).decode() if call.verdicts else None
        exposure.body = b"".join(parts)
        exposure.status = call.status
        exposure.error = exposure.error or call.error
        exposure.latency_ms = 1000 * (time.monotonic() - call.begun)
        self.gateway.exposures.put(exposure)
