"""What a reader hands over: rows as they stood in a file, with their lines, or why they could not be decoded."""

import json
import re
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec


@dataclass(frozen=True)
class Limits:
    """`line`: bytes of one line, row or document; a longer one is refused without being held in memory. `file`: bytes
    of one decompressed file."""

    line: int = 16 * 2**20
    file: int = 16 * 2**30


DEFAULT_LIMITS = Limits()

RAW_SAMPLE = 500
"""Characters of a refused row that are kept with its reason."""

BLOCK = 8 * 2**20
"""Bytes of lines that are decoded in one go where all of them are well formed."""


class RowFault(Exception):
    """Why one row cannot be read: `field` is the path inside the row."""

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


@dataclass(frozen=True)
class Raw:
    """One row as it stood in the file: a decoded object, or the fault that prevented decoding."""

    line: int
    value: Any
    fault: RowFault | None = None


def gather(stream: BinaryIO, size: int) -> tuple[bytes, RowFault | None]:
    """The next `size` bytes (fewer only at the end), also those that came before a fault of the stream."""
    pieces, missing = [], size
    try:
        while missing and (piece := stream.read1(missing)):
            pieces.append(piece)
            missing -= len(piece)
    except RowFault as fault:
        return b"".join(pieces), fault
    return b"".join(pieces), None


def clean_sample(text: str) -> str:
    """The beginning of a text, without what UTF-8 cannot write."""
    return text[:RAW_SAMPLE].encode("utf-8", "replace").decode("utf-8", "replace")


def _json_fault(data: bytes, error: Exception) -> RowFault:
    """A reason that helps, where the decoder's own is vague."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return RowFault("", encoding_reason(data))
    if re.search(r"\\u[dD][89a-fA-F]", text) and _is_json(text):
        return RowFault("", "a lone surrogate (\\ud800 to \\udfff) stands for no character")
    if isinstance(error, RecursionError):
        return RowFault("", "the object is nested too deeply")
    return RowFault("", f"not JSON: {error}")


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def encoding_reason(data: bytes) -> str:
    """Why bytes are no UTF-8 text, and how to convert them where they look like CP949."""
    try:
        data.decode("cp949")
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return "not UTF-8 text; it looks like CP949: convert it with `iconv -f cp949 -t utf-8`"


def decode(line: int, data: bytes) -> Raw:
    """The JSON value in a line; where there is none, the beginning of the line and why."""
    try:
        return Raw(line, msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Raw(line, data[:RAW_SAMPLE].decode("utf-8", "replace"), _json_fault(data, error))
