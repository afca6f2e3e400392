"""What a reader hands over: rows as they stood in a file, with their lines, or why they could not be decoded."""

from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from llmops_assets.datasets.reading.fault import RowFault
from llmops_assets.datasets.reading.json_faults import fault_of, repeated_key


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


def decode(line: int, data: bytes) -> Raw:
    """The JSON value in a line; where there is none, the beginning of the line and why."""
    try:
        value = msgspec.json.decode(data)
        fault = repeated_key(data, value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        value, fault = None, fault_of(data, error)
    return Raw(line, value) if fault is None else Raw(line, data[:RAW_SAMPLE].decode("utf-8", "replace"), fault)
