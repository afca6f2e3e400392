"""A whole answer as the events of a stream, for clients that asked for one and servers that give none."""

from typing import Any

import msgspec

from images.gateway.events import DONE

_KEPT = ("id", "created", "model", "system_fingerprint", "service_tier")


def as_events(body: bytes, kind: str) -> bytes | None:
    """The events that say what a completion says (chat or text), each whole, up to the end mark; None where a choice of
    it has no end."""
    found: dict[str, Any] = msgspec.json.decode(body)
    head = {name: found[name] for name in _KEPT if name in found}
    head["object"] = "chat.completion.chunk" if kind == "chat" else "text_completion"
    if not all(choice.get("finish_reason") for choice in found["choices"]):
        return None
    choices = [_chat(choice) if kind == "chat" else choice for choice in found["choices"]]
    events = [{**head, "choices": [choice]} for choice in choices]
    if isinstance(found.get("usage"), dict):
        events.append({**head, "choices": [], "usage": found["usage"]})
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events) + DONE


def _chat(choice: dict[str, Any]) -> dict[str, Any]:
    message = dict(choice.get("message") or {})
    if isinstance(message.get("tool_calls"), list):
        message["tool_calls"] = [{"index": n, **call} for n, call in enumerate(message["tool_calls"])]
    return {**{name: value for name, value in choice.items() if name != "message"}, "delta": message}
