"""Makes canonical rows of what users bring; a bad row is set aside with its reason, never lost or changed to fit."""

import hashlib
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import polars as pl
from upath import UPath

from llmops_assets.datasets import schema
from llmops_assets.datasets.reading.accounting import Account
from llmops_assets.datasets.reading.fast import Columns, Decoder
from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.formats import convert
from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.raw import DEFAULT_LIMITS, RAW_SAMPLE, Limits, Raw, RowFault, clean_sample
from llmops_assets.datasets.reading.readers import Block, read_blocks, read_file
from llmops_assets.datasets.reading.relations import Labelled, Made, Relation
from llmops_assets.datasets.reading.values import kind_of
from llmops_assets.records.datasets import FileAccount
from resources.encryption import NO_KEYS, Keyring
from resources.row_upgrade import SCORE

BATCH_ROWS = 20_000

Refused = tuple[str, int, str, str, str]
"""File, line, field, reason and a sample of what stood there."""


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
        if value is None or isinstance(value, str):
            return value if value is None else _normal(value)
        if value and isinstance(value[0], Message):
            return [_normal_message(message) for message in value]
        return [_normal(text) for text in value]
    except RowFault as fault:
        raise RowFault(path, fault.reason) from None


def _normal_message(message: Message) -> Message:
    changed = {
        name: text
        for name in ("role", "content", "name", "tool_calls", "tool_call_id", "reasoning_content")
        if (before := getattr(message, name)) is not None and (text := _normal(before)) is not before
    }
    return replace(message, **changed) if changed else message


def _canonical(content: Mapping[str, Any]) -> str:
    """The text that identifies a row: its content alone, without metadata."""
    parts: list[str] = []
    for name, value in content.items():
        if value is None:
            continue
        parts.append(f"\x1c{name}")
        if isinstance(value, str):
            parts.append(value)
        else:
            parts.extend("\x1f".join(item.texts()) if isinstance(item, Message) else item for item in value)
    return "\x1e".join(parts)


def _identity(content: Mapping[str, Any], judged: Mapping[str, Any]) -> str:
    """The hash of a row's content with what was said of it, which makes another row of the same texts."""
    said = {name: str(value).lower() for name, value in judged.items() if value is not None}
    return row_hash({**content, **said})


def _normal_relation(relation: Relation) -> Relation:
    try:
        return replace(relation, other=_normal(relation.other))
    except RowFault as fault:
        raise RowFault("label", fault.reason) from None


def _labelled_row(made: Made) -> dict[str, Any]:
    """The row that labels made, identified by what it says now."""
    row = made.row
    content = {name: row[name] for name in ("anchor", "positives", "negatives")}
    row["row_id"] = _identity(content, {SCORE: row[SCORE]})
    if neutral := row.pop("neutral", None):
        extra = {**msgspec.json.decode(row["extra"]), "neutral": neutral}
        row["extra"] = msgspec.json.encode(extra, order="sorted").decode()
    return row


def row_hash(content: Mapping[str, Any]) -> str:
    """16 hex digits of SHA-256 over the content of a row."""
    return hashlib.sha256(_canonical(content).encode("utf-8")).hexdigest()[:16]


def _sample(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return clean_sample(value)
    try:
        return msgspec.json.encode(value, enc_hook=str)[:RAW_SAMPLE].decode("utf-8", "replace")
    except RecursionError:
        return ""
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
    accounts: dict[str, FileAccount] | None = None,
    fates: Fates | None = None,
) -> Iterator[Batch]:
    """Canonical rows of all files in batches, each with what was refused.

    `files` are pairs of the name to report and the path to read. A row is refused (never changed into something that
    fits) when it cannot be decoded, has the wrong types, breaks a rule of its type's schema, or, with
    `require_category`, has no category; its file, line, field and reason go to the quarantine. Text is put into NFC.
    `row_id` is the hash of the row's content; the second exact repeat in the version is called ``<hash>-2``, and so on.
    What became of the lines of each file is in `accounts`, by its name, once all batches were taken;
    what became of each key is added to `fates`.
    """
    how = _How(dataset_type, mapping, limits, require_category, keys, fates if fates is not None else Fates())
    open_accounts: dict[str, Account] = {}
    rows, refused = Counter[str](), Counter[str]()
    for batch in _batches(files, how, batch_rows, open_accounts):
        rows.update(dict(batch.rows["file"].value_counts().iter_rows()))
        refused.update(dict(batch.quarantine["file"].value_counts().iter_rows()))
        yield batch
    if accounts is not None:
        for name, account in open_accounts.items():
            accounts[name] = account.closed(rows[name], refused[name])


@dataclass(frozen=True)
class _How:
    """How the rows of all files are read."""

    dataset_type: str
    mapping: Mapping[str, str] | None
    limits: Limits
    require_category: bool
    keys: Keyring
    fates: Fates


def _batches(
    files: Iterable[tuple[str, UPath]], how: _How, batch_rows: int, accounts: dict[str, Account]
) -> Iterator[Batch]:
    numbers_given: dict[str, int] = {}
    rows = Columns(how.dataset_type)
    refused: list[Refused] = []
    any_batch = False
    for name, path in files:
        account = accounts[name] = Account(name)
        for piece in _pieces(name, path, how, account):
            if isinstance(piece, Columns):
                # Blocks are judged as they are; what was gathered before them comes first.
                if len(rows):
                    yield _judge(rows, refused, numbers_given, how.fates)
                    rows, refused = Columns(how.dataset_type), []
                yield _judge(piece, refused, numbers_given, how.fates)
                refused, any_batch = [], True
                continue
            if isinstance(piece, dict):
                rows.append(piece)
            else:
                refused.append(piece)
            if len(rows) >= batch_rows or len(refused) >= batch_rows:
                yield _judge(rows, refused, numbers_given, how.fates)
                rows, refused, any_batch = Columns(how.dataset_type), [], True
    if len(rows) or refused or not any_batch:
        yield _judge(rows, refused, numbers_given, how.fates)


_UNFORESEEN = (RowFault, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What a row raises that nobody thought of costs that row alone."""


def _unforeseen(error: Exception) -> RowFault:
    return RowFault("", f"the row could not be read ({type(error).__name__}: {str(error)[:120]})")


def _pieces(name: str, path: UPath, how: _How, account: Account) -> Iterator[Columns | dict[str, Any] | Refused]:
    """What is in one file, in order: whole blocks where every line is as expected, else rows and refusals.

    Rows that labels make together come last.
    """
    labelled = Labelled()

    def slowly(raws: Iterable[Raw]) -> Iterator[dict[str, Any] | Refused]:
        for raw in raws:
            try:
                if raw.fault is not None:
                    raise raw.fault
                row = _row(raw.value, how, name, raw.line)
                how.fates.end_row()
                relation = row.pop("relation", None)
                if relation is None:
                    yield row
                else:
                    labelled.add(row, relation)
            except _UNFORESEEN as error:
                fault = error if isinstance(error, RowFault) else _unforeseen(error)
                how.fates.refused(fault.field)
                how.fates.end_row()
                yield (name, raw.line, fault.field, fault.reason, _sample(raw.value))

    decoder = None if how.mapping else Decoder(how.dataset_type, how.fates)
    blocks = read_blocks(path, how.limits, how.keys, account) if decoder else None
    if blocks is None:
        yield from slowly(read_file(path, how.limits, how.keys, account))
        for made in labelled.made():
            account.joined += made.rows - 1
            if made.fault is None:
                yield _labelled_row(made)
            else:
                sample = _sample({key: made.row[key] for key in ("anchor", "positives", "negatives")})
                yield (name, made.row["line"], made.fault.field, made.fault.reason, sample)
        return
    for block in blocks:
        if isinstance(block, Raw):
            yield from slowly([block])
            continue
        whole = Columns(how.dataset_type)
        for piece in _decoded(decoder, block, name, how.require_category):
            if isinstance(piece, Columns):
                whole.extend(piece)
                continue
            for row in slowly(piece.rows()):
                if isinstance(row, dict):
                    whole.append(row)
                else:
                    yield row
        # What is refused comes first, so that one table is judged and stored, and not one for each piece.
        yield whole


def _decoded(
    decoder: Decoder, block: Block, file: str, require_category: bool, pieces: Sequence[int] = (64, 16)
) -> Iterator[Columns | Block]:
    """A block as columns; where a line is not as it should be, piece by piece, so that its neighbours stay fast."""
    columns = decoder.decode(block.data, block.line, file, require_category)
    if columns is not None or not pieces:
        yield block if columns is None else columns
        return
    for part in block.parts(pieces[0]):
        yield from _decoded(decoder, part, file, require_category, pieces[1:])


def _row(value: Any, how: _How, file: str, line: int) -> dict[str, Any]:
    content, rest = convert(value, how.dataset_type, how.mapping, how.fates)
    judged = {name: content.pop(name, None) for name in schema.JUDGED.get(how.dataset_type, {})}
    relation = content.pop("relation", None)
    content = {name: _normal_content(item, name) for name, item in content.items()}
    row = {
        **content,
        **judged,
        **({"relation": _normal_relation(relation)} if relation else {}),
        "row_id": _identity(content, judged),
        "source": _label(rest.pop("source", None), "source"),
        "category": _label(rest.pop("category", None), "category"),
        "quality_score": _score(rest.pop("quality_score", None)),
        "file": file,
        "line": line,
    }
    if row["category"] is not None:
        row["category"] = _normal(row["category"])
    elif how.require_category:
        raise RowFault("metadata.category", "a category is required by the policy and missing")
    try:
        row["extra"] = msgspec.json.encode(rest, enc_hook=str, order="sorted").decode() if rest else "{}"
    except (UnicodeEncodeError, TypeError, ValueError) as error:
        raise RowFault("metadata", f"metadata that is not text, numbers, lists and objects: {error}") from None
    return row


def _judge(columns: Columns, refused: list[Refused], numbers_given: dict[str, int], fates: Fates) -> Batch:
    """Apply the schema's rules, then give exact repeats their numbers (refused rows take none)."""
    dataset_type = columns.dataset_type
    frame = columns.frame()
    numbers = pl.int_range(frame.height, eager=True)
    # An identity of their own, so that repeated rows are no fault here: they are counted below.
    unique = frame.with_columns(row_id=numbers.cast(pl.String))
    broken = schema.faults(unique, dataset_type) if frame.height else {}
    refused = list(refused)
    content = list(schema.CONTENT[dataset_type])
    for index, rule in broken.items():
        row = frame.row(index, named=True)
        fates.rows[rule.field, "refused"] += 1
        refused.append(
            (row["file"], row["line"], rule.field, rule.reason, _sample({name: row[name] for name in content}))
        )
    if broken:
        frame = frame.filter(~numbers.is_in(list(broken)))
    frame = frame.with_columns(row_id=pl.Series(_numbered(frame["row_id"].to_list(), numbers_given), dtype=pl.String))
    refused.sort(key=lambda item: (item[0], item[1]))
    return Batch(
        rows=frame,
        quarantine=pl.DataFrame(refused, schema=schema.QUARANTINE, orient="row"),
    )


def _numbered(identities: list[str], numbers_given: dict[str, int]) -> list[str]:
    """The identities of a batch, repeats with their number; `numbers_given` counts those of all batches."""
    if numbers_given.keys().isdisjoint(identities) and len(set(identities)) == len(identities):
        numbers_given.update(dict.fromkeys(identities, 1))
        return identities
    numbered = []
    for identity in identities:
        count = numbers_given[identity] = numbers_given.get(identity, 0) + 1
        numbered.append(identity if count == 1 else f"{identity}-{count}")
    return numbered
