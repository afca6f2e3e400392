"""Reads the rows of a JSON array piece by piece, and goes on behind what is broken in it."""

import io
import json
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO

import msgspec

from llmops_assets.datasets.reading import raw
from llmops_assets.datasets.reading.raw import RAW_SAMPLE, Limits, Raw, RowFault, clean_sample, decode, gather


class Pieces:
    """The bytes of a stream that are not read yet, as far as they were fetched."""

    def __init__(self, stream: BinaryIO, data: bytes, fault: RowFault | None, limits: Limits) -> None:
        self._stream, self.data, self.fault, self.limits = stream, data, fault, limits
        self.ended = fault is not None

    def fetch(self) -> bool:
        """Fetch more behind what is there; False when there is no more."""
        if self.ended:
            return False
        data, self.fault = gather(self._stream, min(raw.BLOCK, self.limits.line))
        self.ended = self.fault is not None or not data
        self.data += data
        return bool(data)

    def skip_row(self) -> int:
        """Drop bytes up to where a row seems to begin on a line of its own, or the end; how many lines went with them.

        They are not kept while looking, so a row of any size can be skipped.
        """
        lines = 0
        start = 1
        while (found := _ROW_BYTES.search(self.data, start)) is None:
            lines += self.data.count(b"\n", 0, max(0, len(self.data) - 10))
            self.data, start = self.data[-10:], 0
            if not self.fetch():
                lines += self.data.count(b"\n")
                self.data = b""
                return lines
        lines += self.data.count(b"\n", 0, found.start())
        self.data = self.data[found.start() :]
        return lines


_CUT = re.compile(rb"\}[ \t\r\n]*,[ \t\r\n]*$")
_ROW_BYTES = re.compile(rb"\n[ \t]{0,8}\{")
_ROW_START = re.compile(r"\n[ \t]{0,8}\{")
_TRIED_CUTS = 100


def read_array(pieces: Pieces, behind: Callable[[Pieces, int], Iterator[Raw]] | None = None) -> Iterator[Raw]:
    """Rows of a JSON array. What is broken is given up alone: one fault for each gap, rows go on behind it.

    `behind` reads what comes from the bracket that closes the array on, where that is more than white space.
    """
    line = 1 + pieces.data.count(b"\n", 0, pieces.data.index(b"["))
    pieces.data = pieces.data[pieces.data.index(b"[") + 1 :]
    while True:
        head = len(pieces.data) - len(pieces.data.lstrip(b" \t\r\n,"))
        line += pieces.data.count(b"\n", 0, head)
        pieces.data = pieces.data[head:]
        if not pieces.data:
            if pieces.fetch():
                continue
            yield Raw(line, None, RowFault("", "the array is not closed: the file ends early"))
            break
        if pieces.data[:1] == b"]":
            yield from (behind or _behind)(pieces, line)
            break
        taken, rows = _leading_rows(pieces.data, whole=pieces.ended)
        if rows is None:
            if len(pieces.data) <= pieces.limits.line and pieces.fetch():
                continue
            if not pieces.ended and _first_is_cut_short(pieces.data):
                yield Raw(
                    line, clean_sample(pieces.data[:RAW_SAMPLE].decode("utf-8", "replace")), _row_too_long(pieces)
                )
                line += pieces.skip_row()
                continue
            taken, rows = _salvaged(pieces, line)
            yield from rows
        else:
            position, at = 0, line
            for row in rows:
                data = bytes(row)
                start = pieces.data.index(data, position)
                at += pieces.data.count(b"\n", position, start)
                yield decode(at, data) if len(data) <= pieces.limits.line else Raw(at, None, _row_too_long(pieces))
                at += data.count(b"\n")
                position = start + len(data)
        line += pieces.data.count(b"\n", 0, taken)
        pieces.data = pieces.data[taken:]
    if pieces.fault is not None:
        raise pieces.fault


def read_values(data: bytes, limits: Limits) -> Iterator[Raw]:
    """The values that stand in a text one after another; what is broken among them is given up alone."""
    pieces = Pieces(io.BytesIO(), data, None, limits)
    pieces.fetch()
    yield from _salvaged(pieces, 1)[1]


def _behind(pieces: Pieces, line: int) -> Iterator[Raw]:
    """A fault for what stands behind the end of an array, which is no part of it."""
    pieces.data = pieces.data[1:]
    while not pieces.data.strip():
        line += pieces.data.count(b"\n")
        pieces.data = b""
        if not pieces.fetch():
            return
    line += pieces.data.count(b"\n", 0, len(pieces.data) - len(pieces.data.lstrip()))
    sample = clean_sample(pieces.data.strip()[:RAW_SAMPLE].decode("utf-8", "replace"))
    yield Raw(line, sample, RowFault("", "not JSON: more stands behind the end of the array: write one array a file"))


def _leading_rows(data: bytes, whole: bool) -> tuple[int, list[msgspec.Raw] | None]:
    """As many elements as can be split off the front of an array's inside, and how many bytes they took.

    A cut is right when what is before it decodes as a list: inside of a string or an object it would not.
    """
    cut = data.rfind(b"]") if whole else len(data)
    for _ in range(_TRIED_CUTS):
        if not whole:
            cut = data.rfind(b"{", 0, cut)
            between = _CUT.search(data, max(0, cut - 64), cut) if cut > 0 else None
            while cut > 0 and between is None:
                cut = data.rfind(b"{", 0, cut)
                between = _CUT.search(data, max(0, cut - 64), cut) if cut > 0 else None
        if cut <= 0:
            break
        end = cut if whole else between.start() + 1
        try:
            return end, msgspec.json.decode(b"[" + data[:end] + b"]", type=list[msgspec.Raw])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            if whole:
                break
    return 0, None


def _salvaged(pieces: Pieces, line: int) -> tuple[int, list[Raw]]:
    """Rows at the front of an array's inside that is broken or has a row over the limit; how many bytes are done."""
    text = pieces.data.decode("utf-8", "surrogateescape")
    decoder, position, counted, found = json.JSONDecoder(), 0, 0, []
    while True:
        while position < len(text) and text[position] in " \t\r\n,":
            position += 1
        if position >= len(text) or text[position] == "]":
            break
        line += text.count("\n", counted, position)
        counted = position
        try:
            _, end = decoder.raw_decode(text, position)
            found.append(decode(line, text[position:end].encode("utf-8", "surrogateescape")))
        except (ValueError, RecursionError) as error:
            if not pieces.ended and _cut_short(error, text) and position > 0:
                break
            following = _ROW_START.search(text, position + 1)
            end = following.start() if following else len(text)
            sample = clean_sample(text[position : position + RAW_SAMPLE])
            found.append(Raw(line, sample, RowFault("", f"not JSON: {error}")))
        position = end
    return len(text[:position].encode("utf-8", "surrogateescape")), found


def _first_is_cut_short(data: bytes) -> bool:
    text = data.decode("utf-8", "surrogateescape")
    try:
        json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError) as error:
        return _cut_short(error, text)
    return False


def _cut_short(error: Exception, text: str) -> bool:
    """Whether an element could not be decoded only because the rest of it is not there yet."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.pos >= len(text) - 8 or error.msg.startswith("Unterminated string")


def _row_too_long(pieces: Pieces) -> RowFault:
    return RowFault("", f"the row is longer than {pieces.limits.line:,} bytes")
