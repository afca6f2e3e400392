"""Messages of a canonical conversation: what they consist of, and how a chat template and a file are given them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

FIELDS = ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content", "weight")
"""Fields of a message, in order. `content` is text, "" for a call without words; `tool_calls` is the JSON list of calls
(``{"id", "type": "function", "function": {"name", "arguments"}}``, the arguments an object); `weight` is 0 for a turn
without loss, null or 1 for one with it. All but role and content may be null."""

TOOLS = "tools"
"""Column beside the messages: the JSON list of the tools that the conversation may call, as OpenAI writes them."""

NO_LOSS = 0


def for_template(
    messages: Sequence[Mapping[str, Any]], tools: str | Sequence[Any] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools of a row as `apply_chat_template` takes them.

    Fields without a value and `weight` are left out; `tool_calls` and `tools` are parsed.
    """
    return [_rendered(message, without=("weight",)) for message in messages], _parsed(tools) or None


def as_written(
    messages: Sequence[Mapping[str, Any]], tools: str | Sequence[Any] | None = None
) -> tuple[list[dict[str, Any]], list[dict[str, Any]] | None]:
    """Messages and tools of a row as a user writes them: what `for_template` gives, and the weights."""
    return [_rendered(message) for message in messages], _parsed(tools) or None


def carries_loss(message: Mapping[str, Any]) -> bool:
    """Whether a model is trained to write this message: the assistant's, unless its weight is 0."""
    return message["role"] == "assistant" and message.get("weight") != NO_LOSS


def calls_of(message: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The calls that a message makes, parsed; none for one that only speaks."""
    return _parsed(message.get("tool_calls")) or []


def plain(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Whether messages consist of roles and texts alone."""
    return all(message.get(name) is None for message in messages for name in FIELDS[2:])


def _rendered(message: Mapping[str, Any], without: tuple[str, ...] = ()) -> dict[str, Any]:
    found = {name: value for name, value in message.items() if value is not None and name not in without}
    if "tool_calls" in found:
        found["tool_calls"] = _parsed(found["tool_calls"])
    return found


def _parsed(value: str | Sequence[Any] | None) -> list[dict[str, Any]] | None:
    if value is None:
        return None
    return json.loads(value) if isinstance(value, str) else list(value)
