"""Tool calls in the spellings that users bring, as canonical JSON."""

import json
import math
from typing import Any

import msgspec

from llmops_assets.datasets.reading.raw import RowFault, decode
from llmops_assets.datasets.reading.values import kind_of, text_of


def json_text(value: Any, path: str) -> str:
    """A value as JSON, compact, its keys in their order; RowFault for what no JSON can hold."""
    try:
        _check_numbers(value, path)
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise RowFault(path, f"it is no JSON: {error}") from None


def _check_numbers(value: Any, path: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise RowFault(path, f"{value} is no number of JSON")
    if isinstance(value, dict):
        for name, item in value.items():
            _check_numbers(item, f"{path}.{name}")
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check_numbers(item, f"{path}[{index}]")


def decoded(text: str, path: str, what: str) -> Any:
    """JSON in a text; RowFault at `path` with what is wrong in it."""
    found = decode(0, text.strip().encode("utf-8", "surrogatepass"))
    if found.fault is not None:
        where = f"{path}.{found.fault.field}" if found.fault.field else path
        raise RowFault(where, f"{what} is {found.fault.reason}")
    return found.value


def call_text(value: Any, path: str) -> str | None:
    """The canonical JSON list of calls, of a list, of one call, or of either as JSON; None where there is none."""
    calls = calls_of(value, path)
    return json_text(calls, path) if calls else None


def calls_of(value: Any, path: str) -> list[dict[str, Any]]:
    """Calls with their arguments as objects; RowFault naming the one that is none."""
    if isinstance(value, str):
        value = decoded(value, path, "a tool call")
    if isinstance(value, dict):
        return [_call(value, path)]
    if not isinstance(value, list):
        raise RowFault(path, f"expected a list of tool calls, got {kind_of(value)}")
    return [_call(item, f"{path}[{index}]") for index, item in enumerate(value)]


def _call(item: Any, path: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise RowFault(path, f"expected a tool call, got {kind_of(item)}")
    kind = item.get("type") or "function"
    if kind not in ("function", "tool_call"):
        raise RowFault(f"{path}.type", f"a call of type {kind!r}: only functions can be called")
    function = item.get("function", item)
    if not isinstance(function, dict):
        raise RowFault(f"{path}.function", f"expected an object with name and arguments, got {kind_of(function)}")
    name = function.get("name")
    where = path if function is item else f"{path}.function"
    if not isinstance(name, str) or not name.strip():
        raise RowFault(f"{where}.name", f"a call needs the name of its function, got {kind_of(name)}")
    given = next((key for key in ("arguments", "parameters", "args") if function.get(key) is not None), "arguments")
    known = {"name", given, "id", "type", "function", "index", "arguments", "parameters", "args"}
    extra = [key for key in (*item, *function) if key not in known]
    if extra:
        raise RowFault(f"{path}.{extra[0]}", f"a call has no {extra[0]!r}: it has id, type, and function")
    call: dict[str, Any] = {}
    if item.get("id") not in (None, ""):
        call["id"] = text_of(item["id"], f"{path}.id")
    arguments = _arguments(function.get(given), f"{where}.{given}")
    return call | {"type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(value: Any, path: str) -> dict[str, Any]:
    if value is None:
        return {}
    if isinstance(value, str):
        value = decoded(value, path, "the text of the arguments") if value.strip() else {}
    if not isinstance(value, dict):
        raise RowFault(path, f"the arguments of a call are an object (or JSON of one), got {kind_of(value)}")
    return value


def parsed(text: str) -> list[dict[str, Any]]:
    """Calls or tools of canonical JSON."""
    return msgspec.json.decode(text)
