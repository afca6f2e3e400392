"""Reads a log of an experiment from CSV, JSON lines or Parquet, as columns of text and numbers."""

import csv
import io
from pathlib import Path

import msgspec
import polars as pl

from llmops_assets.datasets.reading.encodings import encoding_of
from llmops_assets.experiments.log_columns import LogError

_SEPARATORS = (",", "\t", ";", "|")
_PARQUET = b"PAR1"


def read_log(path: Path) -> tuple[pl.DataFrame, list[str]]:
    """The rows of a log, and what was noticed in reading it; a column of CSV is text, of Parquet what it is there.

    Raises LogError for a file that is no such log, with the line where one can be named.
    """
    if path.is_dir():
        raise LogError(f"{path} is a folder: name a CSV, JSON lines or Parquet file")
    data = path.read_bytes()
    if not data.strip():
        raise LogError(f"{path} is empty")
    if data.startswith(_PARQUET):
        return _parquet(path, data), []
    text, notes = _text(path, data)
    if path.suffix.lower() in (".jsonl", ".ndjson", ".json") or text.lstrip()[:1] in ("{", "["):
        rows = _json(path, text)
    else:
        rows = _csv(path, text)
    if not rows.height:
        raise LogError(f"{path} has a header and no rows")
    return rows, notes


def line_of(index: int, path: Path) -> str:
    """Where the row with that index is in a file, for messages."""
    if path.suffix.lower() in (".parquet", ".jsonl", ".ndjson"):
        return f"row {index + 1}"
    return f"line {index + 2}"


def _parquet(path: Path, data: bytes) -> pl.DataFrame:
    try:
        rows = pl.read_parquet(io.BytesIO(data))
    except pl.exceptions.PolarsError as error:
        raise LogError(f"{path} begins like Parquet and cannot be read: {error}") from error
    if not rows.height:
        raise LogError(f"{path} has no rows")
    return rows


def _text(path: Path, data: bytes) -> tuple[str, list[str]]:
    encoding, mark = encoding_of(data[: 64 * 2**10])
    try:
        return data[mark:].decode(encoding), []
    except UnicodeDecodeError:
        pass
    try:
        return data.decode("cp949"), ["read as CP949: it is not UTF-8"]
    except UnicodeDecodeError as error:
        raise LogError(f"{path} is neither UTF-8 nor CP949 text (byte {error.start:,}): save it as UTF-8") from error


def _csv(path: Path, text: str) -> pl.DataFrame:
    first, _, rest = text.partition("\n")
    separator = None
    if first.strip().lower().startswith("sep="):
        separator, text = first.strip()[4:5] or None, rest
        first = rest.partition("\n")[0]
    separator = separator or max(_SEPARATORS, key=first.count)
    header = next(csv.reader([first.rstrip("\r")], delimiter=separator), [])
    names = [name.strip() for name in header]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise LogError(f"{path} has the column {doubled[0]!r} more than once: rename one of them")
    try:
        rows = pl.read_csv(text.encode(), separator=separator, infer_schema=False, has_header=True)
    except pl.exceptions.PolarsError as error:
        raise LogError(_csv_fault(path, text, separator, len(header), str(error))) from error
    return rows.rename(dict(zip(rows.columns, names, strict=True)))


def _csv_fault(path: Path, text: str, separator: str, width: int, error: str) -> str:
    reader = csv.reader(io.StringIO(text), delimiter=separator)
    try:
        for record in reader:
            if len(record) > width:
                return f"{path}, line {reader.line_num}: {len(record)} fields, and the header has {width}"
    except csv.Error as fault:
        return f"{path}, line {reader.line_num}: {fault}"
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
    for number, line in enumerate(text.splitlines(), 1):
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
