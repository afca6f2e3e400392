"""Traces over OTLP, off unless an address is set: one span a request, by OpenTelemetry's names for generative AI."""

import logging
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from images.gateway.call import Call
from images.gateway.telemetry.logs import fields_of

if TYPE_CHECKING:
    from opentelemetry.trace import Span

log = logging.getLogger("gateway.traces")

# https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/
_OPERATIONS = {"chat": "chat", "completions": "text_completion", "embeddings": "embeddings"}
_QUEUE = 4096


class Traces:
    """Sends spans in a thread of its own, in batches; while nobody takes them they are dropped, and requests go on."""

    def __init__(self, endpoint: str) -> None:
        # Imported where traces are wanted alone: they cost half a second.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        exporter = OTLPSpanExporter(endpoint=f"{endpoint.rstrip('/')}/v1/traces", timeout=5)
        self._provider: TracerProvider = TracerProvider(resource=Resource.create({"service.name": "llmops-gateway"}))
        self._provider.add_span_processor(BatchSpanProcessor(exporter, max_queue_size=_QUEUE))
        self._tracer = self._provider.get_tracer("llmops.gateway")

    def record(self, call: Call, seconds: float) -> None:
        """The span of a request that is over, below the caller's own where its headers name one."""
        from opentelemetry.trace import SpanKind, StatusCode
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        end = time.time_ns()
        begun = end - int(seconds * 1e9)
        carrier = {name: value for name in ("traceparent", "tracestate") if (value := call.header(name.encode()))}
        context = TraceContextTextMapPropagator().extract(carrier)
        found = fields_of(call, seconds)
        operation = _OPERATIONS.get(call.operation.kind or "", "chat")
        span = self._tracer.start_span(
            f"{operation} {found['endpoint'] or ''}".strip(), context, SpanKind.SERVER, start_time=begun
        )
        span.set_attributes(_attributes(operation, call, found))
        if found["first_token_seconds"] is not None:
            span.add_event("gen_ai.first_token", timestamp=begun + int(found["first_token_seconds"] * 1e9))
        for verdict in call.verdicts:
            fields = msgspec.to_builtins(verdict)
            named = {f"llmops.guard.{name}": value for name, value in fields.items() if value is not None}
            span.add_event("llmops.guard", named, timestamp=end)
        if call.status is None or call.status >= 400:
            span.set_attribute("error.type", str(call.status))
            # By its status alone: a message may quote what somebody wrote.
            span.set_status(StatusCode.ERROR if (call.status or 500) >= 500 else StatusCode.UNSET)
        self._record_upstream(call, span, operation, begun, end)
        span.end(end)

    def _record_upstream(self, call: Call, parent: "Span", operation: str, begun: int, end: int) -> None:
        """The span of what was asked of a model server, below that of the request: from the asking to the end."""
        from opentelemetry.trace import SpanKind, StatusCode, set_span_in_context

        if (asked := call.timings.get("asked")) is None or call.replica is None:
            return
        model = call.route.model_ref if call.route else ""
        at = begun + int(asked * 1e9)
        span = self._tracer.start_span(
            f"{operation} {model}".strip(), set_span_in_context(parent), SpanKind.CLIENT, start_time=at
        )
        where = urlsplit(call.replica.url)
        span.set_attributes({"gen_ai.operation.name": operation, "gen_ai.request.model": model})
        span.set_attributes({"server.address": where.hostname or "", "llmops.backend": call.replica.backend})
        if where.port is not None:
            span.set_attribute("server.port", where.port)
        if (call.status or 500) >= 500:
            span.set_attribute("error.type", str(call.status))
            span.set_status(StatusCode.ERROR)
        span.end(end)

    def close(self) -> None:
        """Send what is left."""
        self._provider.shutdown()


def _attributes(operation: str, call: Call, found: dict[str, Any]) -> dict[str, Any]:
    attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "llmops",
        "gen_ai.request.model": found["endpoint"],
        "gen_ai.response.model": found["model"],
        "gen_ai.response.id": call.request_id,
        "gen_ai.response.time_to_first_chunk": found["first_token_seconds"],
        "gen_ai.usage.input_tokens": found["input_tokens"],
        "gen_ai.usage.output_tokens": found["output_tokens"],
        "gen_ai.request.max_tokens": call.body.get("max_completion_tokens", call.body.get("max_tokens")),
        "gen_ai.request.temperature": call.body.get("temperature"),
        "gen_ai.request.top_p": call.body.get("top_p"),
        "gen_ai.request.seed": call.body.get("seed"),
        "gen_ai.request.choice.count": call.body.get("n"),
        "gen_ai.prompt.name": found["prompt"],
        "http.response.status_code": call.status,
        "llmops.variant": found["variant"],
        "llmops.source": found["source"],
        "llmops.streamed": found["streamed"],
    }
    # A request that was refused before it was checked may hold anything under these names.
    return {name: value for name, value in attributes.items() if isinstance(value, str | int | float | bool)}
