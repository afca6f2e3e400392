"""Reads the rows of raw files (JSON, JSONL, CSV, TSV, Parquet, text; .gz and .zst) one by one, each with its line."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
import pyarrow as pa
import zstandard
from upath import UPath

from resources.encryption import NO_KEYS, Keyring


@dataclass(frozen=True)
class Limits:
    """`line`: bytes of one line, row or document; a longer one is refused without being held in memory. `file`: bytes
    of one decompressed file."""

    line: int = 16 * 2**20
    file: int = 16 * 2**30


DEFAULT_LIMITS = Limits()

LARGEST_EXPANSION = 300
"""How many times its size a compressed file may expand; text reaches 30, a bomb 1,000."""

SMALLEST_BOMB = 64 * 2**20
"""Bytes below which expansion is not judged."""

RAW_SAMPLE = 500
"""Characters of a refused row that are kept with its reason."""

PARQUET_ROWS = 10_000
"""Rows of a Parquet file that are decoded at a time."""

SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".txt", ".md")


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


BLOCK = 8 * 2**20
"""Bytes of lines that are decoded in one go where all of them are well formed."""


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
                yield _decode(number, line)


def read_blocks(path: UPath, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS) -> Iterator[Block | Raw] | None:
    """The lines of a file of JSON lines in blocks, with a fault for each line over the limit; None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    if not suffixes or suffixes[-1] not in (".jsonl", ".ndjson"):
        return None
    return _blocks_of(path, limits, keys)


def _blocks_of(path: UPath, limits: Limits, keys: Keyring) -> Iterator[Block | Raw]:
    stream, _ = _open(path, limits, keys)
    size = min(BLOCK, limits.line)
    line, rest, broken = 1, b"", None
    with stream:
        while broken is None:
            data, broken = _gather(stream, size)
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


def _gather(stream: BinaryIO, size: int) -> tuple[bytes, RowFault | None]:
    """The next `size` bytes (fewer only at the end), also those that came before a fault of the stream."""
    pieces, missing = [], size
    try:
        while missing and (piece := stream.read1(missing)):
            pieces.append(piece)
            missing -= len(piece)
    except RowFault as fault:
        return b"".join(pieces), fault
    return b"".join(pieces), None


def _skip_line(stream: BinaryIO, size: int) -> tuple[bytes, RowFault | None]:
    """Read to the end of a line without keeping it: what was read beyond it, and a fault of the stream."""
    while True:
        data, fault = _gather(stream, size)
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


def _json_fault(data: bytes, error: Exception) -> RowFault:
    """A reason that helps, where the decoder's own is vague."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        return RowFault("", _encoding_reason(data))
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


def _encoding_reason(data: bytes) -> str:
    try:
        data.decode("cp949")
    except UnicodeDecodeError:
        return "not UTF-8 text"
    return "not UTF-8 text; it looks like CP949: convert it with `iconv -f cp949 -t utf-8`"


def _decode(line: int, data: bytes) -> Raw:
    try:
        return Raw(line, msgspec.json.decode(data))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Raw(line, data[:RAW_SAMPLE].decode("utf-8", "replace"), _json_fault(data, error))


def _read_lines_of_json(stream: BinaryIO, limits: Limits) -> Iterator[Raw]:
    for number, line in _lines(stream, limits):
        if isinstance(line, RowFault):
            yield Raw(number, None, line)
        elif line:
            yield _decode(number, line)


def _read_json(stream: BinaryIO, limits: Limits) -> Iterator[Raw]:
    """An array of rows, one object that holds such an array, one row, or JSON lines in a file called .json.

    An array is read piece by piece, so it may be larger than the memory.
    """
    data, fault = _gather(stream, min(BLOCK, limits.line))
    data = data.removeprefix(b"\xef\xbb\xbf")
    if data.lstrip()[:1] == b"[":
        yield from _read_array(_Pieces(stream, data, fault, limits))
        return
    first = data.lstrip().split(b"\n", 1)[0].strip()
    if fault is None and len(first) < len(data.strip()) and _decode(1, first).fault is None:
        yield from _read_lines_of_json(io.BufferedReader(_Chained(data, stream), 1 << 20), limits)
        return
    whole = data
    while fault is None and len(whole) <= limits.line:
        data, fault = _gather(stream, BLOCK)
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
    row = _decode(1, whole)
    holder = isinstance(row.value, dict) and len(row.value) == 1 and not _CONTENT_LISTS & row.value.keys()
    if holder and isinstance(next(iter(row.value.values())), list):
        for index, value in enumerate(next(iter(row.value.values())), start=1):
            yield Raw(index, value)
        return
    yield row


class _Pieces:
    """The bytes of a stream that are not read yet, as far as they were fetched."""

    def __init__(self, stream: BinaryIO, data: bytes, fault: RowFault | None, limits: Limits) -> None:
        self._stream, self.data, self.fault, self.limits = stream, data, fault, limits
        self.ended = fault is not None

    def fetch(self) -> bool:
        """Fetch more behind what is there; False when there is no more."""
        if self.ended:
            return False
        data, self.fault = _gather(self._stream, min(BLOCK, self.limits.line))
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
_CONTENT_LISTS = {"messages", "conversations"}
"""Fields of a row that are lists themselves: an object with one of them is a row, and not what holds the rows."""


def _read_array(pieces: _Pieces) -> Iterator[Raw]:
    """Rows of a JSON array. What is broken is given up alone: one fault for each gap, rows go on behind it."""
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
                yield _decode(at, data) if len(data) <= pieces.limits.line else Raw(at, None, _row_too_long(pieces))
                at += data.count(b"\n")
                position = start + len(data)
        line += pieces.data.count(b"\n", 0, taken)
        pieces.data = pieces.data[taken:]
    if pieces.fault is not None:
        raise pieces.fault


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


def _salvaged(pieces: _Pieces, line: int) -> tuple[int, list[Raw]]:
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
            found.append(_decode(line, text[position:end].encode("utf-8", "surrogateescape")))
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


def _row_too_long(pieces: _Pieces) -> RowFault:
    return RowFault("", f"the row is longer than {pieces.limits.line:,} bytes")


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
            yield Raw(line, clean_sample(joined), RowFault("", _encoding_reason(bad)))
            continue
        yield Raw(line, dict(zip(header, cells, strict=True)))


def _rejoin(first: str, rest: Iterable[str]) -> Iterator[str]:
    if first:
        yield first
    yield from rest


def clean_sample(text: str) -> str:
    return text[:RAW_SAMPLE].encode("utf-8", "replace").decode("utf-8", "replace")


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
            yield Raw(number, line[:RAW_SAMPLE].decode("utf-8", "replace"), RowFault("", _encoding_reason(line)))
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
