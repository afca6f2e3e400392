"""Says what is wrong with JSON that cannot be a row, and where in it: the decoder's own words are for programmers."""

import ast
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from llmops_assets.datasets.reading.fault import RowFault, encoding_reason

_LONGEST_LITERAL = 1 << 20
_SMALL = 1 << 14
_SPACED_COLON = re.compile(rb'"[ \t\r\n]+:')


class _Object(dict[str, Any]):
    """A decoded object that remembers which keys it had more than once."""

    repeated: dict[str, int]

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        names = [name for name, _ in pairs]
        self.repeated = {} if len(self) == len(names) else {n: names.count(n) for n in self if names.count(n) > 1}


class _Constant:
    """NaN or an infinity, which other readers take and JSON does not have."""

    def __init__(self, name: str) -> None:
        self.name = name


def keys_in(value: Any) -> int:
    """How many keys a decoded value has, at every depth."""
    if isinstance(value, dict):
        return len(value) + sum(map(keys_in, value.values()))
    if isinstance(value, list):
        return sum(map(keys_in, value))
    return 0


def written_keys(data: bytes) -> int | None:
    """How many keys stand in well-formed JSON, or more; None where only parsing tells.

    A key ends with a quotation mark and a colon. What is in a text cannot: there the mark is escaped. (A text that
    begins with a colon counts as a key, so the number may be too large, but never too small.)
    """
    if _SPACED_COLON.search(data):
        return None
    found = _pairs(data)
    if b"\\" not in data:
        return found
    return None if b'\\\\":' in data else found - data.count(b'\\":')


def _pairs(data: bytes) -> int:
    """How often a colon stands right behind a quotation mark."""
    if len(data) < _SMALL:
        return data.count(b'":')
    # Quotation marks are so frequent that a search for them is slower than looking at every byte.
    array = np.frombuffer(data, np.uint8)
    return int(np.count_nonzero((array[:-1] == ord('"')) & (array[1:] == ord(":"))))


def repeated_key(data: bytes, value: Any) -> RowFault | None:
    """The key that stands twice in one object of `data`, of which a decoder made `value` and kept the last alone."""
    if written_keys(data) == keys_in(value):
        return None
    return next((fault for fault in _faults(_parsed(data.decode("utf-8", "replace"))) if "key" in fault.reason), None)


def fault_of(data: bytes, error: Exception) -> RowFault:
    """Why bytes are no JSON value that can be a row."""
    if isinstance(error, RecursionError):
        return RowFault("", "the object is nested too deeply")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return RowFault("", encoding_reason(data))
    try:
        value = _parsed(text)
    except RecursionError:
        return RowFault("", "the object is nested too deeply")
    except ValueError as found:
        return RowFault("", _syntax(text, found, error))
    return next(_faults(value), RowFault("", f"not JSON: {error}"))


def _parsed(text: str) -> Any:
    # Numbers stay text: one of a million digits is a fault, and no work.
    return json.loads(text, object_pairs_hook=_Object, parse_constant=_Constant, parse_int=str, parse_float=float)


def _faults(value: Any, path: str = "") -> Iterator[RowFault]:
    if isinstance(value, _Object):
        for name, count in value.repeated.items():
            where = f"{path}.{name}" if path else name
            often = "twice" if count == 2 else f"{count} times"
            yield RowFault(where, f"the key stands {often} in one object: keep one")
        for name, item in value.items():
            where = f"{path}.{name}" if path else name
            if not _writable(name):
                yield RowFault(path, f"the key {name!r} has {_SURROGATE}")
            yield from _faults(item, where)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _faults(item, f"{path}[{index}]")
    elif isinstance(value, _Constant):
        yield RowFault(path, f"{value.name} is no number of JSON: write null, or leave the field out")
    elif isinstance(value, float) and not math.isfinite(value):
        yield RowFault(path, "a number that is too large for any reader")
    elif isinstance(value, str) and not _writable(value):
        yield RowFault(path, _SURROGATE)


_SURROGATE = "a lone surrogate (\\ud800 to \\udfff) stands for no character"


def _writable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _syntax(text: str, found: ValueError, error: Exception) -> str:
    """The kind of mistake that people and programs make, where it is one of them."""
    stripped = text.strip()
    place = found.pos if isinstance(found, json.JSONDecodeError) else 0
    if stripped.startswith("\ufeff"):
        return "not JSON: a byte order mark stands before the row: save the file without it"
    before = text[:place].rstrip()
    if before.endswith(",") and text[place : place + 1] in ("}", "]"):
        return f"not JSON: a comma stands before the closing {text[place]!r} (character {place + 1}): remove it"
    if isinstance(found, json.JSONDecodeError) and found.msg == "Extra data":
        rest = text[place:].strip()
        if rest[:1] in "{[":
            return "not JSON: several values stand in one line: write every row on a line of its own"
        return f"not JSON: text stands behind the row: {rest[:40]!r}"
    if _is_python(stripped):
        return (
            "not JSON but how Python shows an object (single quotes, True, None): "
            "write rows with json.dumps(row, ensure_ascii=False)"
        )
    if stripped[:1] in "{[" and place >= len(text.rstrip()):
        return "not JSON: the row ends early: it was cut, or goes on in the next line, and every row is one line"
    kind = found.msg if isinstance(found, json.JSONDecodeError) else ""
    if stripped[:1] in "{[" and kind.startswith("Unterminated string"):
        return f"not JSON: a text from character {place + 1} on does not end: the row was cut, or a quote is missing"
    if kind.startswith("Invalid control character"):
        return f"not JSON: a control character inside of a text (character {place + 1}): write it escaped, \\n or \\t"
    return f"not JSON: {error}"


def _is_python(text: str) -> bool:
    if len(text) > _LONGEST_LITERAL or text[:1] not in "{[(":
        return False
    try:
        return isinstance(ast.literal_eval(text), (dict, list, tuple))
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
        return False
