"""Frames of a spool: what was appended at once, sealed, with its length and checksum, so that a torn one is noticed."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

MARK = b"\xf1LLSPOOL"
"""Begins every frame: where one is damaged, reading goes on at the next."""
_HEAD = struct.Struct(">IIQI")
HEADER = len(MARK) + _HEAD.size


@dataclass(frozen=True, slots=True)
class Frame:
    """`count` entries numbered from `first`, in `payload`; `end` is the position behind the frame."""

    first: int
    count: int
    payload: bytes
    end: int


@dataclass(frozen=True, slots=True)
class Damage:
    """`size` bytes up to `end` that are no frame."""

    size: int
    end: int


def frame(first: int, count: int, payload: bytes) -> bytes:
    """The bytes of a frame."""
    return MARK + _HEAD.pack(len(payload), _checksum(first, count, payload), first, count) + payload


def frames(data: bytes, at: int = 0, *, is_complete: bool) -> Iterator[Frame | Damage]:
    """The frames of a segment from position `at` on, and what lies between them that is none.

    A segment that is not complete may end in a frame that is just being written: that one is left for later.
    """
    while at < len(data):
        found = _frame_at(data, at)
        if found is None:
            following = _next_frame(data, at + 1)
            if following is None and not is_complete:
                return
            end = len(data) if following is None else following
            yield Damage(end - at, end)
            at = end
        else:
            yield found
            at = found.end


def _next_frame(data: bytes, at: int) -> int | None:
    while (at := data.find(MARK, at)) >= 0:
        if _frame_at(data, at) is not None:
            return at
        at += 1
    return None


def _frame_at(data: bytes, at: int) -> Frame | None:
    if not data.startswith(MARK, at) or len(data) < at + HEADER:
        return None
    size, checksum, first, count = _HEAD.unpack_from(data, at + len(MARK))
    payload = data[at + HEADER : at + HEADER + size]
    if len(payload) < size or _checksum(first, count, payload) != checksum:
        return None
    return Frame(first, count, payload, at + HEADER + size)


def _checksum(first: int, count: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(struct.pack(">QI", first, count)))
