"""Reads the rows of raw files (JSON, JSONL, CSV, TSV, Parquet, text; .gz and .zst) one by one, each with its line."""

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import zstandard
from upath import UPath

from llmops_assets.datasets.reading import raw
from llmops_assets.datasets.reading.json_array import Pieces, read_array
from llmops_assets.datasets.reading.raw import (
    DEFAULT_LIMITS,
    RAW_SAMPLE,
    Limits,
    Raw,
    RowFault,
    clean_sample,
    decode,
    encoding_reason,
    gather,
)
from resources.encryption import NO_KEYS, Keyring

LARGEST_EXPANSION = 300
"""How many times its size a compressed file may expand; text reaches 30, a bomb 1,000."""

SMALLEST_BOMB = 64 * 2**20
"""Bytes below which expansion is not judged."""

PARQUET_ROWS = 10_000
"""Rows of a Parquet file that are decoded at a time."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")


def list_files(folder: UPath) -> list[tuple[str, UPath]]:
    """All files under `folder` with their names relative to it, sorted; hidden ones left out."""
    found = []
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder)) if hasattr(path, "relative_to") else path.name
        if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
            found.append((name, path))
    return sorted(found)


class _Limited(io.RawIOBase):
    """A decompressed stream that stops with a fault when it expands beyond reason."""

    def __init__(self, stream: Any, limit: int) -> None:
        self._stream, self._limit, self._read = stream, limit, 0

    def readable(self) -> bool:
        return True

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


def _open(path: UPath, limits: Limits, keys: Keyring) -> tuple[BinaryIO, str]:
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


def read_file(path: UPath, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS) -> Iterator[Raw]:
    """Every row of one file, sealed with one of `keys` or not, with the line (Parquet: row) that it begins at."""
    stream, suffix = _open(path, limits, keys)
    with stream:
        try:
            if suffix in (".jsonl", ".ndjson"):
                yield from _read_lines_of_json(stream, limits)
            elif suffix == ".json":
                yield from _read_json(stream, limits)
            elif suffix in (".csv", ".tsv"):
                yield from _read_csv(stream, suffix, limits)
            elif suffix == ".parquet":
                yield from _read_parquet(stream)
            elif suffix in (".txt", ".md"):
                yield from _read_text(stream, limits)
            else:
                reason = f"no reader for files ending in {suffix or 'nothing'}: use one of {', '.join(SUFFIXES)}"
                yield Raw(1, None, RowFault("", reason))
        except RowFault as fault:
            # A fault of the whole stream: what was read before it stands.
            yield Raw(1, None, fault)


@dataclass(frozen=True)
class Block:
    """Whole lines of a file of JSON lines, the first of them numbered `line`."""

    line: int
    data: bytes

    def parts(self, pieces: int = 64) -> Iterator["Block"]:
        """The block cut into smaller ones, at ends of lines."""
        start, line = 0, self.line
        step = max(1, len(self.data) // pieces)
        while start < len(self.data):
            end = self.data.find(b"\n", start + step) + 1 or len(self.data)
            yield Block(line, self.data[start:end])
            line += self.data.count(b"\n", start, end)
            start = end

    def rows(self) -> Iterator[Raw]:
        """The lines one by one."""
        for number, line in enumerate(self.data.split(b"\n"), start=self.line):
            if line := line.strip():
                yield decode(number, line)


def read_blocks(path: UPath, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS) -> Iterator[Block | Raw] | None:
    """The lines of a file of JSON lines in blocks, with a fault for each line over the limit; None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    if not suffixes or suffixes[-1] not in (".jsonl", ".ndjson"):
        return None
    return _blocks_of(path, limits, keys)


def _blocks_of(path: UPath, limits: Limits, keys: Keyring) -> Iterator[Block | Raw]:
    stream, _ = _open(path, limits, keys)
    size = min(raw.BLOCK, limits.line)
    line, rest, broken = 1, b"", None
    with stream:
        while broken is None:
            data, broken = gather(stream, size)
            if line == 1 and not rest:
                data = data.removeprefix(b"\xef\xbb\xbf")
            ended = broken is not None or not data
            first, newline, others = data.partition(b"\n")
            # Only the line that was begun before can be over the limit: the others fit into what was read at once.
            if len(rest) + len(first) > limits.line:
                rest, data = b"", others
                if not newline and not ended:
                    data, broken = _skip_line(stream, size)
                if broken is None:
                    yield Raw(line, None, RowFault("", f"the line is longer than {limits.line:,} bytes"))
                line += 1
            cut = len(data) if ended else data.rfind(b"\n") + 1
            block, rest = (rest + data[:cut], data[cut:]) if cut or ended else (b"", rest + data)
            if block.strip():
                yield Block(line, block)
            line += block.count(b"\n")
            if ended:
                break
    if broken is not None:
        # What was read before the stream broke stands.
        yield Raw(line, None, broken)


def _skip_line(stream: BinaryIO, size: int) -> tuple[bytes, RowFault | None]:
    """Read to the end of a line without keeping it: what was read beyond it, and a fault of the stream."""
    while True:
        data, fault = gather(stream, size)
        end = data.find(b"\n") + 1
        if end or fault is not None or not data:
            return (data[end:] if end else b""), fault


def _lines(stream: BinaryIO, limits: Limits) -> Iterator[tuple[int, bytes | RowFault]]:
    """Numbered lines without their ends; a line over the limit is skipped in pieces."""
    number = 0
    while True:
        line = stream.readline(limits.line + 1)
        if not line:
            return
        number += 1
        if number == 1 and line.startswith(b"\xef\xbb\xbf"):
            line = line[3:]
        if len(line) > limits.line and not line.endswith(b"\n"):
            while (piece := stream.readline(limits.line)) and not piece.endswith(b"\n"):
                continue
            yield number, RowFault("", f"the line is longer than {limits.line:,} bytes")
            continue
        yield number, line.strip()


def _read_lines_of_json(stream: BinaryIO, limits: Limits) -> Iterator[Raw]:
    for number, line in _lines(stream, limits):
        if isinstance(line, RowFault):
            yield Raw(number, None, line)
        elif line:
            yield decode(number, line)


_CONTENT_LISTS = {"messages", "conversations"}
"""Fields of a row that are lists themselves: an object with one of them is a row, and not what holds the rows."""


def _read_json(stream: BinaryIO, limits: Limits) -> Iterator[Raw]:
    """An array of rows, one object that holds such an array, one row, or JSON lines in a file called .json.

    An array is read piece by piece, so it may be larger than the memory.
    """
    data, fault = gather(stream, min(raw.BLOCK, limits.line))
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] == b"[":
        yield from read_array(Pieces(stream, data, fault, limits))
        return
    first = data.lstrip().split(b"\n", 1)[0].strip()
    if fault is None and len(first) < len(data.strip()) and decode(1, first).fault is None:
        yield from _read_lines_of_json(io.BufferedReader(_Chained(data, stream), 1 << 20), limits)
        return
    whole = data
    while fault is None and len(whole) <= limits.line:
        data, fault = gather(stream, raw.BLOCK)
        if not data:
            break
        whole += data
    if fault is not None:
        raise fault
    if len(whole) > limits.line:
        yield Raw(1, None, RowFault("", f"one object of more than {limits.line:,} bytes: write an array or JSON lines"))
        return
    if not whole.strip():
        return
    row = decode(1, whole)
    holder = isinstance(row.value, dict) and len(row.value) == 1 and not _CONTENT_LISTS & row.value.keys()
    if holder and isinstance(next(iter(row.value.values())), list):
        for index, value in enumerate(next(iter(row.value.values())), start=1):
            yield Raw(index, value)
        return
    yield row


def _read_csv(stream: BinaryIO, suffix: str, limits: Limits) -> Iterator[Raw]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="surrogateescape", newline="")
    csv.field_size_limit(limits.line)
    first = text.readline(limits.line)
    delimiter = "\t" if suffix == ".tsv" else max(",;\t", key=first.count)
    # Tab-separated corpora carry bare quotation marks as text.
    quoting = csv.QUOTE_NONE if suffix == ".tsv" else csv.QUOTE_MINIMAL
    reader = csv.reader(_rejoin(first, text), delimiter=delimiter, quoting=quoting, strict=True)
    try:
        header = [name.strip() for name in next(reader)]
    except (StopIteration, csv.Error):
        yield Raw(1, None, RowFault("", "the file has no header row"))
        return
    if len(set(header)) < len(header):
        yield Raw(1, first[:RAW_SAMPLE], RowFault("", f"the header names a column twice: {header}"))
        return
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Raw(line, None, RowFault("", f"not CSV: {error}"))
            continue
        if not cells:
            continue
        if len(cells) != len(header):
            reason = f"{len(cells)} cells where the header has {len(header)}"
            yield Raw(line, clean_sample(delimiter.join(cells)), RowFault("", reason))
            continue
        joined = "".join(cells)
        if not joined.isascii() and any("\udc80" <= char <= "\udcff" for char in joined):
            bad = joined.encode("utf-8", "surrogateescape")
            yield Raw(line, clean_sample(joined), RowFault("", encoding_reason(bad)))
            continue
        yield Raw(line, dict(zip(header, cells, strict=True)))


def _rejoin(first: str, rest: Iterable[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def _read_parquet(stream: BinaryIO) -> Iterator[Raw]:
    import pyarrow.parquet

    source = stream if stream.seekable() else io.BytesIO(stream.read())
    try:
        file = pyarrow.parquet.ParquetFile(source)
        row = 0
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            for value in batch.to_pylist():
                row += 1
                yield Raw(row, value)
    except pa.ArrowException as error:
        yield Raw(1, None, RowFault("", f"not a Parquet file: {error}"))


def _read_text(stream: BinaryIO, limits: Limits) -> Iterator[Raw]:
    """Documents of plain text: separated by blank lines when there are any, else one a line."""
    data = stream.read(limits.line)
    blank = re.search(rb"\n[ \t\r]*\n", data.strip()) is not None
    chained = io.BufferedReader(_Chained(data, stream), 1 << 20)
    lines: list[str] = []
    start = size = 0
    for number, line in _lines(chained, limits):
        if isinstance(line, RowFault):
            yield Raw(number, None, line)
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            yield Raw(number, line[:RAW_SAMPLE].decode("utf-8", "replace"), RowFault("", encoding_reason(line)))
            continue
        if text:
            start = start or number
            size += len(text)
            lines.append(text)
        if lines and (not blank or not text or size > limits.line):
            yield Raw(start, {"text": "\n".join(lines)})
            lines, start, size = [], 0, 0
    if lines:
        yield Raw(start, {"text": "\n".join(lines)})


class _Chained(io.RawIOBase):
    def __init__(self, head: bytes, rest: BinaryIO) -> None:
        self._head, self._rest = io.BytesIO(head), rest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._head.read(len(buffer)) or self._rest.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
