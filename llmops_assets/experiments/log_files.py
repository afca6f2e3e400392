"""Reads a log of an experiment from CSV, JSON lines or Parquet: its columns, and its rows a piece at a time."""

import codecs
import csv
import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import msgspec
import polars as pl

from llmops_assets.datasets.reading.encodings import HEAD, encoding_of
from llmops_assets.experiments.log_columns import LogError

ROWS = 100_000
"""Rows in memory at once."""
_PARQUET_ROWS = 150_000
"""The same of Parquet, which is read by columns: of these there are fewer, and none is text that is not asked for."""
_SEPARATORS = (",", "\t", ";", "|")
_PARQUET = b"PAR1"
_BLOCK = 2**20
_NO_LOGS = {
    b"PK\x03\x04": "a workbook or an archive: save its sheet as CSV (UTF-8)",
    b"\xd0\xcf\x11\xe0": "an old workbook: save its sheet as CSV (UTF-8)",
    b"\x1f\x8b": "compressed: unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it first",
}
"""What files that begin so are, instead of logs."""


@dataclass(frozen=True)
class Log:
    """A log: its columns as they are called there, what was noticed in reading it, and its rows.

    pieces: the rows of some columns, some at a time and in their order, from the beginning whenever it is called. A
    column of CSV is text, of Parquet what it is there. Raises LogError where a row cannot be read.
    """

    path: Path
    columns: tuple[str, ...]
    pieces: Callable[[Sequence[str]], Iterator[pl.DataFrame]]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, frame: pl.DataFrame, path: Path, notes: Sequence[str] = ()) -> "Log":
        """Rows that are in memory; `path` is what messages call them."""

        def pieces(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
            for offset in range(0, frame.height, ROWS):
                yield frame.select(columns).slice(offset, ROWS)

        return cls(path, tuple(frame.columns), pieces, tuple(notes))


def read_log(path: Path) -> Log:
    """The log in a file. Raises LogError for a file that is no such log, with the line where one can be named."""
    if path.is_dir():
        raise LogError(f"{path} is a folder: name a CSV, JSON lines or Parquet file")
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if not head.strip():
        raise LogError(f"{path} is empty")
    if other := next((what for begin, what in _NO_LOGS.items() if head.startswith(begin)), None):
        raise LogError(f"{path} is {other}")
    if head.startswith(_PARQUET):
        return _parquet(path)
    text, notes = _text(path, head)
    begins = (head if text is None else text[:HEAD].encode()).lstrip(codecs.BOM_UTF8).lstrip()[:1]
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json") or begins in (b"{", b"["):
        frame = _json(path, text if text is not None else path.read_text(encoding="utf-8-sig"))
        if not frame.height:
            raise LogError(f"{path} has no rows")
        return Log.of(frame, path, notes)
    return _csv(path, text, notes)


def line_of(index: int, path: Path) -> str:
    """Where the row with that index is in a file, for messages."""
    if path.suffix.lower() in (".parquet", ".jsonl", ".ndjson"):
        return f"row {index + 1}"
    return f"line {index + 2}"


def _parquet(path: Path) -> Log:
    fault = f"{path} begins like Parquet and cannot be read"
    try:
        scan = pl.scan_parquet(path, glob=False)
        names, height = scan.collect_schema().names(), scan.select(pl.len()).collect().item()
    except pl.exceptions.PolarsError as error:
        raise LogError(f"{fault}: {error}") from error
    if not height:
        raise LogError(f"{path} has no rows")

    def pieces(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        chosen = scan.select(columns)
        try:
            # Row groups are as large as whoever wrote them liked, a million rows for some: a piece takes what it needs
            # of them, and costs little for what it leaves.
            for offset in range(0, height, _PARQUET_ROWS):
                yield chosen.slice(offset, _PARQUET_ROWS).collect()
        except pl.exceptions.PolarsError as error:
            raise LogError(f"{fault}: {error}") from error

    return Log(path, tuple(names), pieces)


def _text(path: Path, head: bytes) -> tuple[str | None, list[str]]:
    """The text of a file, None where it can be read as it lies there: UTF-8, with lines that end as usual."""
    encoding, mark = encoding_of(head)
    old_lines = b"\r" in head and b"\n" not in head
    if encoding == "utf-8" and not old_lines and _is_utf8(path):
        return None, []
    data, notes = path.read_bytes(), []
    try:
        text = data[mark:].decode(encoding)
    except UnicodeDecodeError:
        try:
            text, notes = data.decode("cp949"), ["read as CP949: it is not UTF-8"]
        except UnicodeDecodeError as error:
            raise LogError(
                f"{path} is neither UTF-8 nor CP949 text (byte {error.start:,}): save it as UTF-8"
            ) from error
    return text.replace("\r", "\n") if old_lines else text, notes


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            while block := file.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", True)
    except UnicodeDecodeError:
        return False
    return True


def _csv(path: Path, text: str | None, notes: Sequence[str]) -> Log:
    def opened() -> TextIO:
        return open(path, encoding="utf-8-sig", newline="") if text is None else io.StringIO(text, newline="")

    with opened() as lines:
        first = lines.readline().strip("\r\n")
        named = first.strip().lower().startswith("sep=")
        separator = (first.strip()[4:5] or None) if named else None
        first = lines.readline().strip("\r\n") if named else first
    separator = separator or max(_SEPARATORS, key=first.count)
    names = [name.strip() for name in next(csv.reader([first], delimiter=separator), [])]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise LogError(f"{path} has the column {doubled[0]!r} more than once: rename one of them")
    source = path if text is None else text.encode()
    scan = pl.scan_csv(source, separator=separator, infer_schema=False, skip_lines=int(named), glob=False)

    def pieces(columns: Sequence[str]) -> Iterator[pl.DataFrame]:
        rows = 0
        try:
            # All columns: of a row with too many fields a choice of columns would be read, and nothing said.
            for piece in scan.collect_batches(chunk_size=ROWS):
                rows += piece.height
                yield piece.rename(dict(zip(piece.columns, names, strict=True))).select(columns)
        except pl.exceptions.PolarsError as error:
            raise LogError(_csv_fault(path, opened, separator, len(names), str(error))) from error
        if not rows:
            raise LogError(f"{path} has a header and no rows")

    return Log(path, tuple(names), pieces, tuple(notes))


def _csv_fault(path: Path, opened: Callable[[], TextIO], separator: str, width: int, error: str) -> str:
    with opened() as text:
        reader = csv.reader(text, delimiter=separator)
        try:
            for record in reader:
                if len(record) > width:
                    return f"{path}, line {reader.line_num}: {len(record)} fields, and the header has {width}"
        except csv.Error as fault:
            return f"{path}, line {reader.line_num}: {fault}"
    with opened() as text:
        odd = next((number for number, line in enumerate(text, 1) if line.count('"') % 2), None)
    if odd is not None:
        mark = 'a quotation mark (") that nothing closes, or that stands inside of a field: write it twice there'
        return f"{path}, line {odd}: {mark}"
    return f"{path} cannot be read as CSV: {error.splitlines()[0]}"


def _json(path: Path, text: str) -> pl.DataFrame:
    if text.lstrip().startswith("["):
        try:
            rows = msgspec.json.decode(text)
        except msgspec.DecodeError as error:
            raise LogError(f"{path} is not valid JSON: {error}") from error
        faulty = next((n for n, row in enumerate(rows, 1) if not isinstance(row, dict)), None)
        if faulty is not None:
            raise LogError(f"{path}, entry {faulty}: every entry must be an object")
    else:
        rows = _json_lines(path, text)
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame({name: _scalars(path, name, [row.get(name) for row in rows]) for name in names})


def _json_lines(path: Path, text: str) -> list[dict[str, object]]:
    decoder = msgspec.json.Decoder(dict[str, object])
    rows = []
    # Not `splitlines`, which parts lines within strings, at U+2028 and others. Returns alone are an old Mac's lines.
    for number, line in enumerate(re.split(r"\r\n|\n|\r", text), 1):
        if not line.strip():
            continue
        try:
            rows.append(decoder.decode(line))
        except msgspec.DecodeError as error:
            # Python's own writer puts NaN and Infinity, which JSON does not have.
            raise LogError(f"{path}, line {number}: {error}; every line must be one JSON object") from error
    return rows


def _scalars(path: Path, name: str, values: list[object]) -> pl.Series:
    """A column as floats where all are numbers, else as text, so that `5` and `"5"` are read alike."""
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        if all(value is None or isinstance(value, int) for value in values):
            return pl.Series(name, values, pl.Int64, strict=False)
        return pl.Series(name, values, pl.Float64, strict=False)
    # A nested value is text that is no number, and is named as such where it is asked for.
    return pl.Series(name, [None if v is None else v if isinstance(v, str) else _plain(v) for v in values], pl.String)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, int | float) else msgspec.json.encode(value).decode()
