"""Reads the rows of a JSON object that is too large to be held: its one list, piece by piece, with its notes."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from llmops_assets.datasets.reading.envelopes import ROW_FIELDS
from llmops_assets.datasets.reading.json_array import Pieces, read_array
from llmops_assets.datasets.reading.raw import Raw, RowFault

_SPACE = " \t\r\n"


@dataclass(frozen=True)
class _Opening:
    """What stands before the rows of an object: its notes, and the byte where the list of rows begins."""

    notes: dict[str, Any]
    list_at: int


def read_object(pieces: Pieces) -> Iterator[Raw]:
    """The rows of the list that the object in `pieces` holds, numbered from 1, each with the notes before the list.

    As `envelopes.rows_in` has it of a small object. What stands behind the list was not known when the rows were read:
    a fault says so. Raises RowFault where the object is a row of its own, or tells no list of rows at its beginning.
    """
    opening = _opening(pieces.data.decode("utf-8", "surrogateescape"), pieces.limits.line)
    notes = {name: value for name, value in opening.notes.items() if value is not None}
    pieces.data = pieces.data[opening.list_at :]
    for number, row in enumerate(read_array(pieces, behind=_behind), start=1):
        value = notes | row.value if row.fault is None and isinstance(row.value, dict) else row.value
        yield Raw(number, value, row.fault)


def _opening(text: str, limit: int) -> _Opening:
    decoder, at, notes = json.JSONDecoder(), _past(text, text.index("{") + 1), dict[str, Any]()
    too_long = RowFault("", f"one object of more than {limit:,} bytes: write an array or JSON lines")
    while True:
        try:
            name, at = decoder.raw_decode(text, at)
            at = _past(text, at)
            if not isinstance(name, str) or text[at : at + 1] != ":" or name.lower() in ROW_FIELDS or name in notes:
                raise too_long
            at = _past(text, at + 1)
            if text[at : at + 1] == "[" and text[_past(text, at + 1)] == "{":
                return _Opening(notes, len(text[:at].encode("utf-8", "surrogateescape")))
            notes[name], at = decoder.raw_decode(text, at)
        except (ValueError, IndexError, RecursionError) as error:
            raise too_long from error
        if isinstance(notes[name], dict | list):
            raise too_long
        at = _past(text, at)
        if text[at : at + 1] != ",":
            raise too_long
        at = _past(text, at + 1)


def _past(text: str, at: int) -> int:
    """The next place that is no white space."""
    while at < len(text) and text[at] in _SPACE:
        at += 1
    return at


def _behind(pieces: Pieces, line: int) -> Iterator[Raw]:
    """A fault for what the object has behind its list, which the rows read by then do not have."""
    pieces.data = pieces.data[1:]
    while len(pieces.data) <= pieces.limits.line and pieces.fetch():
        continue
    rest = pieces.data.decode("utf-8", "replace").strip()
    if rest == "}":
        return
    if not rest.endswith("}"):
        yield Raw(line, None, RowFault("", "the object is not closed: the file ends early"))
        return
    try:
        more = json.loads("{" + rest.lstrip(",")) if rest.startswith(",") else None
    except ValueError:
        more = None
    if not isinstance(more, dict):
        yield Raw(
            line, None, RowFault("", "not JSON: more stands behind the list of rows: write an array or JSON lines")
        )
        return
    if names := [name for name, value in more.items() if value is not None]:
        reason = (
            "stands behind the rows of an object that is too large to be held, so no row has it: write it before them"
        )
        yield Raw(line, None, RowFault(", ".join(names[:5]), reason))
