"""Items of a conversation that name what they are by a type (OpenAI's Responses, LangChain), as messages with roles."""

from dataclasses import dataclass, field
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of, text_of

_LANGCHAIN = {"human": "user", "ai": "assistant", "system": "system", "tool": "tool", "function": "tool"}
_CALL, _OUTPUT, _THOUGHT = "function_call", "function_call_output", "reasoning"
_ROLE_KEYS = ("role", "from", "speaker", "author")


@dataclass
class Item:
    """A message at `index` of its list; `keys` are those of the file that are in it, None where it is as it stood."""

    index: int
    value: Any
    keys: set[str] | None = field(default=None)


def items_of(values: list[Any], path: str) -> list[Item]:
    """Items as messages, in order; what the assistant thinks, says and calls in a row is one turn of its own.

    RowFault for an item of a type that no text has a place for, and for thoughts that nothing follows.
    """
    if not any(isinstance(value, dict) and _typed(value) for value in values):
        return [Item(index, value) for index, value in enumerate(values)]
    found: list[Item] = []
    thoughts: list[str] = []
    for index, value in enumerate(values):
        where = f"{path}[{index}]"
        kind = _typed(value) if isinstance(value, dict) else None
        if kind == _THOUGHT:
            thoughts += _thoughts(value, where)
            continue
        item = Item(index, value) if kind is None else _message(value, kind, index, where)
        assistant = isinstance(item.value, dict) and item.value.get("role") == "assistant"
        if kind == _CALL and found and _is_assistants(found[-1].value):
            _join(found[-1], item)
            continue
        if thoughts and not assistant:
            raise RowFault(where, "a reasoning that no turn of the assistant follows")
        if thoughts:
            keys = item.keys if item.keys is not None else set(item.value)
            item = Item(index, {**item.value, "reasoning_content": "\n".join(thoughts)}, keys)
            thoughts = []
        found.append(item)
    if thoughts:
        raise RowFault(f"{path}[{len(values) - 1}]", "a reasoning that no turn of the assistant follows")
    return found


def _typed(value: dict[str, Any]) -> str | None:
    """What an item without a role says that it is."""
    if any(value.get(key) is not None for key in _ROLE_KEYS):
        return None
    kind = value.get("type")
    return kind if isinstance(kind, str) and kind not in ("text", "message") else None


def _is_assistants(value: Any) -> bool:
    return isinstance(value, dict) and value.get("role") == "assistant"


def _join(turn: Item, call: Item) -> None:
    """Add a call to the assistant's turn before it."""
    before = turn.value.get("tool_calls") or []
    rest = {name: item for name, item in call.value.items() if name not in ("role", "tool_calls") | turn.value.keys()}
    keys = (turn.keys if turn.keys is not None else set(turn.value)) | (call.keys or set())
    turn.value, turn.keys = {**rest, **turn.value, "tool_calls": [*before, *call.value["tool_calls"]]}, keys


def _message(value: dict[str, Any], kind: str, index: int, where: str) -> Item:
    if kind == _CALL:
        call = {"id": value.get("call_id", value.get("id")), "name": value.get("name")}
        call["arguments"] = value.get("arguments")
        rest = _without(value, {"type", "call_id", "name", "arguments", *(() if "call_id" in value else ("id",))})
        return Item(index, {**rest, "role": "assistant", "tool_calls": [call]}, set(value) - set(rest))
    if kind == _OUTPUT:
        rest = _without(value, {"type", "call_id", "output"})
        answer = {"role": "tool", "tool_call_id": value.get("call_id"), "content": value.get("output")}
        return Item(index, {**rest, **answer}, set(value) - set(rest))
    if kind.lower() in _LANGCHAIN:
        inner = value["data"] if isinstance(value.get("data"), dict) else value
        rest = _without(inner, {"type"})
        return Item(index, {**rest, "role": _LANGCHAIN[kind.lower()]}, {*value, *rest})
    raise RowFault(where, f"an item of type {kind!r}: only messages, calls of functions and what they gave are read")


def _without(value: dict[str, Any], names: set[str]) -> dict[str, Any]:
    return {name: item for name, item in value.items() if name not in names}


def _thoughts(value: dict[str, Any], where: str) -> list[str]:
    """What an item of reasoning says in words; an encrypted one says nothing, and its summary may be empty."""
    parts = [*(value.get("summary") or []), *(value.get("content") or [])]
    found = []
    for index, part in enumerate(parts):
        if not isinstance(part, dict):
            raise RowFault(f"{where}.summary[{index}]", f"expected a part with a text, got {kind_of(part)}")
        found.append(text_of(part.get("text"), f"{where}.summary[{index}].text"))
    return found
