"""Opens a raw file: unsealed, decompressed within limits, as UTF-8; says so where it is something else than named."""

import gzip
import io
import re
from typing import Any, BinaryIO

import zstandard
from upath import UPath

from llmops_assets.datasets.reading.accounting import Account, Counted
from llmops_assets.datasets.reading.encodings import HEAD, Wrapped, as_utf8
from llmops_assets.datasets.reading.raw import DEFAULT_LIMITS, Limits, RowFault, gather
from resources.encryption import NO_KEYS, Keyring

LARGEST_EXPANSION = 300
"""How many times its size a compressed file may expand; text reaches 30, a bomb 1,000."""

SMALLEST_BOMB = 64 * 2**20
"""Bytes below which expansion is not judged."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow", ".feather", ".xlsx", ".txt", ".md")
ARROW = (".arrow", ".feather")
EXCEL = ".xlsx"


class _Limited(Wrapped):
    """A decompressed stream that stops with a fault when it expands beyond reason."""

    def __init__(self, stream: Any, limit: int) -> None:
        super().__init__(stream)
        self._limit, self._read = limit, 0

    def readinto(self, buffer: Any) -> int:
        try:
            # In small pieces, so that little is lost of a file that ends in the middle.
            data = self._stream.read(min(len(buffer), 1 << 18))
        except (EOFError, OSError, zstandard.ZstdError) as error:
            raise RowFault("", f"the compressed file is damaged or ends early ({error})") from error
        self._read += len(data)
        if self._read > self._limit:
            raise RowFault(
                "", f"the file expands to more than {self._limit:,} bytes: decompress it and register what it holds"
            )
        buffer[: len(data)] = data
        return len(data)


def _decompressed(path: UPath, limits: Limits, keys: Keyring) -> tuple[BinaryIO, str]:
    """The decompressed stream of a file and the suffix of what is inside."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    raw = keys.reader(path.open("rb"), path)
    if suffixes and suffixes[-1] in (".gz", ".zst"):
        limit = min(limits.file, max(SMALLEST_BOMB, path.stat().st_size * LARGEST_EXPANSION))
        if suffixes[-1] == ".gz":
            stream: Any = gzip.GzipFile(fileobj=raw)
        else:
            stream = zstandard.ZstdDecompressor(max_window_size=2**27).stream_reader(raw, read_across_frames=True)
        return io.BufferedReader(_Limited(stream, limit), 1 << 20), (suffixes[-2] if len(suffixes) > 1 else "")
    return raw, (suffixes[-1] if suffixes else "")


def open_file(path: UPath, limits: Limits, keys: Keyring, account: Account) -> tuple[BinaryIO, str]:
    """The stream of a file (its text as UTF-8, its lines counted into the account) and the suffix of what is inside.

    Raises RowFault where the first bytes show that the file is something else than its name says.
    """
    stream, suffix = _decompressed(path, limits, keys)
    if suffix not in SUFFIXES:
        return stream, suffix
    head, broken = gather(stream, HEAD)
    if suffix in (".parquet", *ARROW, EXCEL) and not head.startswith(LFS_POINTER):
        return _whole(stream, head, broken), suffix
    if found := disguised(head, suffix):
        stream.close()
        raise RowFault("", found)
    if broken is not None:
        # What came before the stream broke is read, and then it breaks again.
        return io.BufferedReader(Counted(io.BufferedReader(_Broken(head, stream, broken)), account), 1 << 20), suffix
    text, _ = as_utf8(stream, head)
    return io.BufferedReader(Counted(text, account), 1 << 20), suffix


def _whole(stream: BinaryIO, head: bytes, broken: RowFault | None) -> BinaryIO:
    """A stream that can be read from any place, after its first bytes were looked at."""
    if broken is not None:
        raise broken
    if stream.seekable():
        stream.seek(0)
        return stream
    return io.BytesIO(head + stream.read())


def has_plain_lines(path: UPath, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS) -> bool:
    """Whether the lines of a file that is not compressed can be read from its bytes as they are."""
    stream, _ = _decompressed(path, limits, keys)
    with stream:
        head, _ = gather(stream, HEAD)
        return as_utf8(stream, head)[1]


class _Broken(Wrapped):
    """The beginning of a stream, and the fault that ended it."""

    def __init__(self, head: bytes, stream: BinaryIO, fault: RowFault) -> None:
        super().__init__(stream)
        self._head, self._fault = io.BytesIO(head), fault

    def readinto(self, buffer: Any) -> int:
        data = self._head.read(len(buffer))
        if not data:
            raise self._fault
        buffer[: len(data)] = data
        return len(data)


LFS_POINTER = b"version https://git-lfs.github.com/spec/"
LFS_REASON = "a Git LFS pointer and not the file itself: run `git lfs pull` where it was cloned"
_MAGIC = (
    (b"PK\x03\x04", "a ZIP archive or an Excel workbook: unpack it, or let its name end in .xlsx"),
    (b"\xd0\xcf\x11\xe0", "an old Excel or Word file: save it as .xlsx or CSV (UTF-8)"),
    (b"\x1f\x8b", "compressed by gzip: add .gz to its name"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd: add .zst to its name"),
    (b"PAR1", "a Parquet file: let its name end in .parquet"),
    (b"ARROW1", "an Arrow file: let its name end in .arrow"),
    (b"%PDF-", "a PDF document: save its text"),
)
_TAR_AT = 257
"""Where a tar archive says that it is one."""
_PAGE = re.compile(rb"\s*<(!doctype html|html[\s>])", re.IGNORECASE)


def disguised(head: bytes, suffix: str) -> str | None:
    """What a file is by its first bytes, where its name says something else, and what to do."""
    if head.startswith(LFS_POINTER):
        return LFS_REASON
    for magic, what in _MAGIC:
        if head.startswith(magic):
            return f"not {suffix.removeprefix('.').upper()} but {what}"
    if head[_TAR_AT : _TAR_AT + 5] == b"ustar":
        return f"not {suffix.removeprefix('.').upper()} but a tar archive: unpack it"
    if suffix not in (".txt", ".md") and _PAGE.match(head):
        return f"not {suffix.removeprefix('.').upper()} but a web page (an error page?): download the file again"
    return None
