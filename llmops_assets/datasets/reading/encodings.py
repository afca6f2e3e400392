"""What text a file's bytes stand for: UTF-16 and UTF-32 read as UTF-8, byte order marks and old line ends put right."""

import codecs
import io
from typing import BinaryIO

HEAD = 64 * 2**10
"""Bytes of a file that tell its encoding."""

_MARKS = (
    # UTF-32 first: its little-endian mark begins with that of UTF-16.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
_ZEROS = 0.02
"""Share of zero bytes from which a file without a mark may be UTF-16: spaces, commas and line ends have one each."""

_BETWEEN = " \n,"
_USUAL = 0.9
"""Share of usual characters from which bytes are taken for an encoding that no mark names."""


def _usual(char: str) -> bool:
    """Characters that most texts are made of: ASCII, Latin, Hangul, kana, Chinese and their punctuation."""
    code = ord(char)
    return (
        char in "\t\r\n"
        or 0x20 <= code < 0x7F
        or 0xA0 <= code < 0x250
        or 0x2000 <= code < 0x2070
        or 0x3000 <= code < 0x3400
        or 0x4E00 <= code < 0xA000
        or 0xAC00 <= code < 0xD7A4
        or 0xFF00 <= code < 0xFFF0
    )


def encoding_of(head: bytes) -> tuple[str, int]:
    """The encoding of a file by its first bytes, and how many of them are a mark: UTF-8 unless another is certain.

    UTF-16 and UTF-32 without a mark are known by their line ends, spaces and commas.
    """
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name, len(mark)
    if head.count(0) < _ZEROS * len(head) or len(head) < 4:
        return "utf-8", 0
    for name in reversed(_WIDE):
        width = 4 if "32" in name else 2
        text, swapped = (
            head[: len(head) // width * width].decode(other, "replace").removesuffix("\ufffd")
            for other in (name, name[:-2] + ("be" if name.endswith("le") else "le"))
        )
        # Two ASCII bytes read as one character look Chinese, and syllables end in a zero byte, too (가, 대, 관): which
        # way round it is tell spaces, commas and line ends.
        if sum(map(text.count, _BETWEEN)) <= 4 * sum(map(swapped.count, _BETWEEN)):
            continue
        if sum(map(_usual, text)) >= _USUAL * len(text):
            return name, 0
    return "utf-8", 0


class Wrapped(io.RawIOBase):
    """A stream made of another, which is closed with it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        self._stream.close()
        super().close()


class _Transcoded(Wrapped):
    """A stream of another encoding as UTF-8. What is no text there is none here: a byte that no UTF-8 has."""

    def __init__(self, head: bytes, stream: BinaryIO, encoding: str) -> None:
        super().__init__(stream)
        self._head, self._ready = head, b""
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogatepass")
        self._ended = False

    def readinto(self, buffer: memoryview) -> int:
        while not self._ready and not self._ended:
            data = self._head or self._stream.read1(1 << 18)
            self._head = b""
            self._ended = not data
            self._ready = self._decoded(data)
        part = self._ready[: len(buffer)]
        self._ready = self._ready[len(part) :]
        buffer[: len(part)] = part
        return len(part)

    def _decoded(self, data: bytes) -> bytes:
        try:
            return self._decoder.decode(data, final=not data).encode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            # A byte that is left over at the end, or a number that is no character.
            self._decoder.reset()
            text = data.decode(self._decoder_name(), "replace")
            return text.encode("utf-8", "surrogatepass").replace(b"\xef\xbf\xbd", b"\xff") or b"\xff"

    def _decoder_name(self) -> str:
        return type(self._decoder).__module__.removeprefix("encodings.").replace("_", "-")


class _OldLineEnds(Wrapped):
    """A stream whose lines end in a carriage return alone, with line feeds in their place."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._head = io.BytesIO(head)

    def readinto(self, buffer: memoryview) -> int:
        data = (self._head.read(len(buffer)) or self._stream.read1(len(buffer))).replace(b"\r", b"\n")
        buffer[: len(data)] = data
        return len(data)


class Rejoined(Wrapped):
    """What was read already, and then the rest of the stream."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._head = io.BytesIO(head)

    def readinto(self, buffer: memoryview) -> int:
        data = self._head.read(len(buffer)) or self._stream.read1(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def as_utf8(stream: BinaryIO, head: bytes) -> tuple[BinaryIO, bool]:
    """The text of a stream as UTF-8 bytes without a mark, and whether its bytes are those of the file.

    `head` are the first bytes, which were read from it already.
    """
    encoding, mark = encoding_of(head)
    head = head[mark:]
    as_it_is = encoding == "utf-8"
    if not as_it_is:
        stream = io.BufferedReader(_Transcoded(head, stream, encoding), 1 << 20)
        head = stream.peek(HEAD)[:HEAD]
        stream.read(len(head))
    if b"\r" in head and b"\n" not in head and b"\r" in head.rstrip(b"\r"):
        return io.BufferedReader(_OldLineEnds(head, stream), 1 << 20), False
    return io.BufferedReader(Rejoined(head, stream), 1 << 20), as_it_is
