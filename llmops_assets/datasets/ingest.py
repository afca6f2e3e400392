"""Makes canonical rows of what users bring; a bad row is set aside with its reason, never lost or changed to fit."""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import polars as pl
import pyarrow as pa
from upath import UPath

from llmops_assets.datasets import schema
from llmops_assets.datasets.formats import Message, convert, kind_of
from llmops_assets.datasets.readers import DEFAULT_LIMITS, RAW_SAMPLE, Limits, RowFault, clean_sample, read_file
from resources.encryption import NO_KEYS, Keyring

BATCH_ROWS = 20_000


@dataclass
class Batch:
    """Some rows of one dataset version, and those that were refused among them."""

    rows: pl.DataFrame
    quarantine: pl.DataFrame


def _label(value: Any, path: str) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, (str, int, bool)):
        return value if isinstance(value, str) else str(value).lower()
    raise RowFault(path, f"expected text, got {kind_of(value)}")


def _score(value: Any) -> float | None:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            raise RowFault("quality_score", f"expected a number, got {value[:40]!r}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RowFault("quality_score", f"expected a number, got {kind_of(value)}")
    return float(value)


def _normal(text: str) -> str:
    """NFC, without the characters that no text holds; RowFault for a lone surrogate or a NUL."""
    if text.isascii():
        if "\0" in text:
            raise RowFault("", "a NUL character")
        return text
    if not unicodedata.is_normalized("NFC", text):
        text = unicodedata.normalize("NFC", text)
    if "\0" in text:
        raise RowFault("", "a NUL character")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise RowFault("", "a lone surrogate (\\ud800 to \\udfff) stands for no character") from None
    return text


def _normal_content(value: Any, path: str) -> Any:
    try:
        if isinstance(value, str):
            return _normal(value)
        if value and isinstance(value[0], tuple):
            return [(role, _normal(text)) for role, text in value]
        return [_normal(text) for text in value]
    except RowFault as fault:
        raise RowFault(path, fault.reason) from None


def _canonical(content: Mapping[str, Any]) -> str:
    """The text that identifies a row: its content alone, without metadata."""
    parts: list[str] = []
    for name, value in content.items():
        parts.append(f"\x1c{name}")
        if isinstance(value, str):
            parts.append(value)
        else:
            parts.extend("\x1f".join(item) if isinstance(item, tuple) else item for item in value)
    return "\x1e".join(parts)


def row_hash(content: Mapping[str, Any]) -> str:
    """16 hex digits of SHA-256 over the content of a row."""
    return hashlib.sha256(_canonical(content).encode("utf-8")).hexdigest()[:16]


def _message_array(values: list[list[Message]]) -> pa.Array:
    offsets, roles, texts = [0], [], []
    for turns in values:
        for role, text in turns:
            roles.append(role)
            texts.append(text)
        offsets.append(len(roles))
    struct = pa.StructArray.from_arrays(
        [pa.array(roles, pa.large_string()), pa.array(texts, pa.large_string())], ["role", "content"]
    )
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), struct)


def _frame(rows: list[dict[str, Any]], dataset_type: str) -> pl.DataFrame:
    columns: dict[str, pa.Array] = {}
    kinds = {pl.String: pa.large_string(), pl.Float64: pa.float64(), pl.Int64: pa.int64()}
    for name, dtype in schema.columns_of(dataset_type).items():
        values = [row[name] for row in rows]
        if dtype == schema.MESSAGES:
            columns[name] = _message_array(values)
        elif dtype == schema.TEXTS:
            columns[name] = pa.array(values, pa.large_list(pa.large_string()))
        else:
            columns[name] = pa.array(values, kinds[dtype.base_type()])
    return pl.DataFrame(pl.from_arrow(pa.table(columns)))


def _sample(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return clean_sample(value)
    try:
        return msgspec.json.encode(value, enc_hook=str)[:RAW_SAMPLE].decode("utf-8", "replace")
    except (UnicodeEncodeError, TypeError, ValueError):
        return clean_sample(repr(value))


def ingest(
    files: Iterable[tuple[str, UPath]],
    dataset_type: str,
    mapping: Mapping[str, str] | None = None,
    *,
    limits: Limits = DEFAULT_LIMITS,
    require_category: bool = False,
    batch_rows: int = BATCH_ROWS,
    keys: Keyring = NO_KEYS,
) -> Iterator[Batch]:
    """Canonical rows of all files in batches, each with what was refused.

    `files` are pairs of the name to report and the path to read. A row is refused (never changed into something that
    fits) when it cannot be decoded, has the wrong types, breaks a rule of its type's schema, or, with
    `require_category`, has no category; its file, line, field and reason go to the quarantine. Text is put into NFC.
    `row_id` is the hash of the row's content; the second exact repeat in the version is called ``<hash>-2``, and so on.
    """
    seen: dict[str, int] = {}
    rows: list[dict[str, Any]] = []
    refused: list[tuple[str, int, str, str, str]] = []
    any_batch = False
    for name, path in files:
        for raw in read_file(path, limits, keys):
            if raw.fault is not None:
                refused.append((name, raw.line, raw.fault.field, raw.fault.reason, _sample(raw.value)))
                continue
            try:
                rows.append(_row(raw.value, dataset_type, mapping, name, raw.line, require_category))
            except RowFault as fault:
                refused.append((name, raw.line, fault.field, fault.reason, _sample(raw.value)))
            if len(rows) >= batch_rows:
                yield _judge(rows, refused, dataset_type, seen)
                rows, refused, any_batch = [], [], True
    if rows or refused or not any_batch:
        yield _judge(rows, refused, dataset_type, seen)


def _row(
    value: Any, dataset_type: str, mapping: Mapping[str, str] | None, file: str, line: int, require_category: bool
) -> dict[str, Any]:
    content, rest = convert(value, dataset_type, mapping)
    content = {name: _normal_content(item, name) for name, item in content.items()}
    row = {
        **content,
        "row_id": row_hash(content),
        "source": _label(rest.pop("source", None), "source"),
        "category": _label(rest.pop("category", None), "category"),
        "quality_score": _score(rest.pop("quality_score", None)),
        "file": file,
        "line": line,
    }
    if row["category"] is not None:
        row["category"] = _normal(row["category"])
    elif require_category:
        raise RowFault("metadata.category", "a category is required by the policy and missing")
    try:
        row["extra"] = msgspec.json.encode(rest, enc_hook=str, order="sorted").decode() if rest else "{}"
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise RowFault("metadata", f"metadata that is not text, numbers, lists and objects: {error}") from None
    return row


def _judge(
    rows: list[dict[str, Any]],
    refused: list[tuple[str, int, str, str, str]],
    dataset_type: str,
    seen: dict[str, int],
) -> Batch:
    """Apply the schema's rules, then give exact repeats their numbers (refused rows take none)."""
    frame = _frame(rows, dataset_type)
    numbers = pl.int_range(frame.height, eager=True)
    # An identity of their own, so that repeated rows are no fault here: they are counted below.
    broken = schema.faults(frame.with_columns(row_id=numbers.cast(pl.String)), dataset_type) if rows else {}
    refused = list(refused)
    for index, rule in broken.items():
        row = rows[index]
        content = {name: row[name] for name in schema.CONTENT[dataset_type]}
        refused.append((row["file"], row["line"], rule.field, rule.reason, _sample(content)))
    if broken:
        frame = frame.filter(~numbers.is_in(list(broken)))
    identities = []
    for identity in frame["row_id"]:
        count = seen[identity] = seen.get(identity, 0) + 1
        identities.append(identity if count == 1 else f"{identity}-{count}")
    refused.sort(key=lambda item: (item[0], item[1]))
    return Batch(
        rows=frame.with_columns(row_id=pl.Series(identities, dtype=pl.String)),
        quarantine=pl.DataFrame(refused, schema=schema.QUARANTINE, orient="row"),
    )
