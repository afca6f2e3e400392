"""Finds every text of a request or an answer that a model reads or wrote, and puts others in their place."""

import json
from collections.abc import Callable
from typing import Any

# What a model never reads, or what is no prose: names of things, identifiers, addresses of images.
_NO_TEXT = frozenset(
    ("role", "type", "id", "tool_call_id", "call_id", "image_url", "input_audio", "file", "file_data", "detail")
)
_NO_FIELD = frozenset(
    ("model", "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "stream", "stop")
)
_FEWEST_DIGITS = 10**7
"""A whole number below it is nobody's number."""

Change = Callable[[str, str], str]
"""Of a field's path and its text, what shall stand there."""


Found = list[tuple[str, str]]
"""Paths of fields and their texts."""


def texts(body: dict[str, Any]) -> Found:
    """(path, text) of everything in a request that a model may read: messages, parts, tools, results, variables.

    Parts of one message are one text besides, as a template puts them together.
    """
    found: Found = []
    for name, value in body.items():
        if name not in _NO_FIELD:
            _walk(value, name, found)
    return found


def _walk(value: Any, path: str, found: Found) -> None:
    if isinstance(value, str):
        found.append((path, value))
    elif isinstance(value, dict):
        for name, inner in value.items():
            if name not in _NO_TEXT:
                _walk(inner, f"{path}.{name}", found)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            _walk(inner, f"{path}[{index}]", found)
        if (joined := _joined(value)) is not None:
            found.append((path, joined))
    elif isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _FEWEST_DIGITS:
        found.append((path, str(value)))


def alone(found: Found) -> list[str]:
    """The texts without those that were put together of parts: each is counted once."""
    if not any(["content[" in path for path, _ in found]):
        return [text for _, text in found]
    in_parts = {path[:at] for path, _ in found for at, sign in enumerate(path) if sign == "["}
    return [text for path, text in found if path not in in_parts or path.rpartition(".")[2] != "content"]


def _joined(parts: list[Any]) -> str | None:
    """The text parts of a message in one, where there are several."""
    found = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
    return "".join(found) if len(found) > 1 else None


def changed(body: dict[str, Any], change: Change) -> dict[str, Any]:
    """A request with `change` made to each of its texts; what is not changed is the same object."""
    found = {name: value if name in _NO_FIELD else _changed(value, name, change) for name, value in body.items()}
    return found if any(found[name] is not value for name, value in body.items()) else body


def _changed(value: Any, path: str, change: Change) -> Any:
    if isinstance(value, str):
        return (
            change_json(value, lambda text: change(path, text))
            if path.endswith(".arguments")
            else (value if (new := change(path, value)) == value else new)
        )
    if isinstance(value, dict):
        found = {k: v if k in _NO_TEXT else _changed(v, f"{path}.{k}", change) for k, v in value.items()}
        return found if any(found[k] is not v for k, v in value.items()) else value
    if isinstance(value, list):
        new = [_changed(v, f"{path}[{i}]", change) for i, v in enumerate(value)]
        if (joined := _joined(new)) is not None and (whole := change(path, joined)) != joined:
            new = _in_first_part(new, whole)
        return new if any(a is not b for a, b in zip(new, value, strict=True)) else value
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _FEWEST_DIGITS:
        return value if (new := change(path, str(value))) == str(value) else new
    return value


def _in_first_part(parts: list[Any], text: str) -> list[Any]:
    """Parts of a message with one text for all of theirs: what spans two parts cannot be cut again where they met."""
    new, is_first = [], True
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("text"), str):
            part, is_first = {**part, "text": text if is_first else ""}, False
        new.append(part)
    return new


def change_json(text: str, change: Callable[[str], str]) -> str:
    """A JSON text with `change` made to its strings, keys and long numbers; as plain text where it is no JSON.

    Escaped letters hide nothing: they are read first. What needs no change stays as it was written.
    """
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return change(text)
    if not isinstance(value, dict | list | str):
        return text if (new := change(text)) == text else json.dumps(new, ensure_ascii=False)
    new = _json_changed(value, change)
    return text if new == value else json.dumps(new, ensure_ascii=False)


def _json_changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, dict):
        return {change(key): _json_changed(inner, change) for key, inner in value.items()}
    if isinstance(value, list):
        return [_json_changed(inner, change) for inner in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= _FEWEST_DIGITS:
        return value if (new := change(str(value))) == str(value) else new
    return value
