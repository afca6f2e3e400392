"""The messages of an Arrow stream, walked before anything of them is decoded: rows, and the bytes they expand to.

The format (https://arrow.apache.org/docs/format/Columnar.html#ipc-streaming-format): each message is its length, a
flatbuffer and a body. A Feather file (version 2) is a magic word, the same stream, and a footer, which is not needed.
"""

import io
import struct
from dataclasses import dataclass
from typing import BinaryIO

from llmops_assets.datasets.reading.raw import RowFault

FILE_MAGIC = b"ARROW1\0\0"
FEATHER_1 = b"FEA1"
_CONTINUES = 0xFFFFFFFF
_DICTIONARY, _RECORDS = 2, 3
"""Kinds of messages that have a body."""


@dataclass(frozen=True)
class Walked:
    """Rows of all record batches, the bytes that their buffers are once decompressed, and where the stream begins."""

    rows: int
    expanded: int
    begins: int


def walk(stream: BinaryIO) -> Walked:
    """Walk an Arrow stream or file; raises RowFault where it is none, or ends before what it announces.

    What a length announces is compared with what is there before a reader may allocate it.
    """
    size = stream.seek(0, io.SEEK_END)
    stream.seek(0)
    head = stream.read(len(FILE_MAGIC))
    if head.startswith(FEATHER_1):
        raise RowFault(
            "", "a Feather file of version 1: write it again (`DataFrame.to_feather` of today), or as Parquet"
        )
    begins = len(FILE_MAGIC) if head == FILE_MAGIC else 0
    stream.seek(begins)
    rows = expanded = messages = 0
    try:
        while (length := _length(stream)) > 0:
            here = stream.tell()
            if here + length > size:
                if not messages:
                    raise IndexError(length)
                raise RowFault("", f"the Arrow file ends early: its message {messages + 1} goes on beyond the end")
            message = _Table.root(stream.read(length))
            kind, body = message.number(1, "B"), message.number(3, "q")
            if not 0 <= body <= size - here - length:
                raise RowFault("", f"the Arrow file ends early: the data of its message {messages + 1} is cut off")
            if kind in (_DICTIONARY, _RECORDS) and (records := message.table(2)):
                records = records.table(1) if kind == _DICTIONARY else records
                if records is not None:
                    rows += records.number(0, "q") if kind == _RECORDS else 0
                    expanded += _expanded(records, stream, here + length, body)
            stream.seek(here + length + body)
            messages += 1
    except (struct.error, IndexError, OverflowError):
        raise RowFault("", "not an Arrow file, or a damaged one") from None
    if not messages:
        raise RowFault("", "not an Arrow file, or an empty one")
    return Walked(rows, expanded, begins)


def _length(stream: BinaryIO) -> int:
    """Of the next message; 0 at the end. Streams of before 2019 have no mark before the length."""
    first = stream.read(4)
    if first == struct.pack("<I", _CONTINUES):
        first = stream.read(4)
    return struct.unpack("<i", first)[0] if first else 0


def _expanded(records: "_Table", stream: BinaryIO, start: int, body: int) -> int:
    """Bytes of the buffers of one batch: where they are compressed, each begins with how many it becomes."""
    if records.table(3) is None:
        return body
    total = 0
    for offset, length in records.pairs(2):
        if length >= 8 and 0 <= offset <= body - length:
            stream.seek(start + offset)
            announced = struct.unpack("<q", stream.read(8))[0]
            # -1 says that this one was left as it is.
            total += max(length - 8, announced)
    return total


@dataclass(frozen=True)
class _Table:
    """A table of a flatbuffer: fields by their number, absent ones with their defaults."""

    data: bytes
    at: int

    @classmethod
    def root(cls, data: bytes) -> "_Table":
        return cls(data, struct.unpack_from("<I", data)[0])

    def _field(self, index: int) -> int | None:
        vtable = self.at - struct.unpack_from("<i", self.data, self.at)[0]
        if vtable < 0:
            raise IndexError(vtable)
        if 4 + 2 * index >= struct.unpack_from("<H", self.data, vtable)[0]:
            return None
        offset = struct.unpack_from("<H", self.data, vtable + 4 + 2 * index)[0]
        return self.at + offset if offset else None

    def number(self, index: int, form: str) -> int:
        place = self._field(index)
        return 0 if place is None else struct.unpack_from(f"<{form}", self.data, place)[0]

    def table(self, index: int) -> "_Table | None":
        place = self._field(index)
        return None if place is None else _Table(self.data, place + struct.unpack_from("<I", self.data, place)[0])

    def pairs(self, index: int) -> list[tuple[int, int]]:
        """A vector of pairs of 64-bit numbers: the place and the length of each buffer."""
        place = self._field(index)
        if place is None:
            return []
        place += struct.unpack_from("<I", self.data, place)[0]
        count = struct.unpack_from("<I", self.data, place)[0]
        return [struct.unpack_from("<qq", self.data, place + 4 + 16 * number) for number in range(count)]
