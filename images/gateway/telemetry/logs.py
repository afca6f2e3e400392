"""The program's log as lines of JSON, one of them for each request to a model."""

import json
import logging
from datetime import UTC, datetime
from typing import Any, Literal

from images.gateway.call import Call
from images.gateway.guards.verdict import Verdict
from images.gateway.usage import tokens_of

requests = logging.getLogger("gateway.requests")
"""Silent unless the log is JSON."""
requests.propagate = False
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON; what stands in its `fields` are fields of its own."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def configure(form: Literal["text", "json"]) -> None:
    """Have everything that is logged written to standard error in this form."""
    logging.basicConfig(level=logging.INFO, format=_TEXT)
    if form == "json":
        for handler in logging.getLogger().handlers:
            handler.setFormatter(JsonFormatter())
        requests.propagate = True


def fields_of(call: Call, seconds: float) -> dict[str, Any]:
    """What may be told of a request: names and figures, nothing that anybody wrote.

    Verdicts of guards name the guard and its decision; their reasons stay in the log of the program.
    """
    exposure, route = call.exposure, call.route
    prompt, completion, _ = tokens_of(call)
    return {
        "request_id": call.request_id,
        "operation": call.operation.kind,
        "endpoint": call.endpoint.name if call.endpoint else None,
        "model": route.model_ref if route else None,
        "variant": route.index if route else None,
        "status": call.status,
        "refusal": call.refusal,
        "seconds": round(seconds, 6),
        "first_token_seconds": None if exposure is None or exposure.ttft_ms is None else exposure.ttft_ms / 1000,
        "streamed": call.is_streamed,
        "input_tokens": prompt,
        "output_tokens": completion,
        "source": exposure.source if exposure else None,
        "prompt": exposure.prompt_version if exposure else None,
        "verdicts": _worst(call.verdicts),
    }


def log_request(call: Call, seconds: float) -> None:
    """One line for a request that is over."""
    if requests.propagate:
        requests.info("request", extra={"fields": fields_of(call, seconds)})


def _worst(verdicts: list[Verdict]) -> dict[str, str]:
    """The worst that each guard decided, by guard and what it looked at: of several passages each has a verdict."""
    order = ("pass", "mask", "refuse")
    worst: dict[str, str] = {}
    for verdict in verdicts:
        key = f"{verdict.guard}.{verdict.side}"
        worst[key] = max(worst.get(key, "pass"), verdict.outcome, key=order.index)
    return worst
