"""Finds a person's rows in tables and raw files, whatever the spelling, and writes the files again without them."""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from upath import UPath

from llmops_assets.datasets import split, texts
from llmops_assets.datasets.reading.opening import has_plain_lines
from llmops_assets.datasets.reading.raw import DEFAULT_LIMITS, Limits
from llmops_assets.datasets.reading.readers import read_file
from resources.encryption import NO_KEYS, Keyring

SHORTEST = 2
"""Characters of a text below which it would be found nearly everywhere."""

FEWEST_DIGITS = 7
"""Digits from which a text of digits and separators is a number that people write in several ways."""

BATCH = 10_000
"""Raw rows that are looked through at a time."""

_DASHES = "[\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u30fc]"
_INVISIBLE = "[\u00ad\u200b\u200c\u200d\u2060\ufeff]"
_NUMBER = re.compile(r"\+?[0-9][0-9\s().\-/·]*[0-9]")
_EMAIL = re.compile(r"[^\s@]+@[^\s@]+\.[^\s@]+")
_SEPARATOR = r"[\s().\-/·]*"
_ESCAPE = re.compile(r'\\u([0-9a-fA-F]{4})|\\(["\\/bfnrt])')
_JSON_LINES = (".jsonl", ".ndjson")
_CONTROLS = {"b": " ", "f": " ", "n": "\n", "r": "\r", "t": "\t"}


def folded(text: str) -> str:
    """`text` as it is searched: NFKC (full-width forms, decomposed Hangul), plain dashes, nothing invisible."""
    if text.isascii():
        return text
    return re.sub(_INVISIBLE, "", re.sub(_DASHES, "-", unicodedata.normalize("NFKC", text)))


def folded_column(values: pl.Series) -> pl.Series:
    """`folded` of every text of a column."""
    return values.str.normalize("NFKC").str.replace_all(_DASHES, "-").str.replace_all(_INVISIBLE, "")


def unescaped(text: str) -> str:
    r"""`text` with its JSON escapes (``\u1234``, ``\"``, ``\n``) resolved, where it has any."""
    if "\\" not in text:
        return text
    plain = _ESCAPE.sub(lambda m: chr(int(m[1], 16)) if m[1] else _CONTROLS.get(m[2], m[2]), text)
    # Characters beyond the basic plane are escaped as two halves.
    return plain.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def spelling(text: str) -> str:
    """A regular expression (of Python and of Rust) for `text` in folded text, in any of its spellings.

    Numbers match with any separators, and a Korean one also with its country code; addresses and words match as a
    whole, in either case, with any white space between them.
    """
    value = folded(text).strip()
    if _NUMBER.fullmatch(value) and len(digits := re.sub("[^0-9]", "", value)) >= FEWEST_DIGITS:
        return f"(?:^|[^0-9])(?:{_number(digits, value.startswith('+'))})(?:[^0-9]|$)"
    body = r"\s+".join(re.escape(part) for part in value.split())
    if _EMAIL.fullmatch(value):
        return rf"(?:^|[^0-9A-Za-z._%+\-])(?i:{body})(?:[^0-9A-Za-z.\-]|\.(?:[^0-9A-Za-z]|$)|$)"
    before = "(?:^|[^0-9A-Za-z])" if value[0].isascii() and value[0].isalnum() else ""
    after = "(?:[^0-9A-Za-z]|$)" if value[-1].isascii() and value[-1].isalnum() else ""
    return f"{before}(?i:{body}){after}"


def _number(digits: str, international: bool) -> str:
    if international and digits.startswith("82"):
        digits = "0" + digits[2:].removeprefix("0")
    if digits.startswith("0") and 9 <= len(digits) <= 11:
        rest = _SEPARATOR.join(digits[1:])
        return rf"(?:\+?82{_SEPARATOR}0?|0){_SEPARATOR}{rest}"
    return _SEPARATOR.join(digits)


@dataclass(frozen=True)
class Wanted:
    """What identifies the person: texts in any spelling, patterns, values of metadata fields, ids of rows."""

    texts: tuple[str, ...] = ()
    patterns: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    rows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.texts or self.patterns or self.fields or self.rows):
            raise ValueError("nothing says whom to forget: give --match, --regex, --field or --row")
        for text in self.texts:
            if len(folded(text).strip()) < SHORTEST:
                raise ValueError(f"--match {text!r} is found nearly everywhere: give {SHORTEST} characters or more")
        for pattern in self.patterns:
            try:
                empty = re.compile(pattern).search("") is not None
                pl.Series([""]).str.contains(pattern)
            except (re.error, pl.exceptions.PolarsError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"--regex {pattern!r} is no regular expression that both engines know: {reason}"
                ) from None
            if empty:
                raise ValueError(f"--regex {pattern!r} matches the empty text, so every row: make it say more")

    @cached_property
    def expression(self) -> str | None:
        """One regular expression for all texts and patterns; None when there are none."""
        parts = [spelling(text) for text in self.texts] + [f"(?:{pattern})" for pattern in self.patterns]
        return "|".join(parts) or None

    @cached_property
    def _compiled(self) -> re.Pattern[str] | None:
        return re.compile(self.expression) if self.expression else None

    @cached_property
    def _row_hashes(self) -> set[str]:
        return {row.split("-")[0] for row in self.rows}

    def in_text(self, text: str) -> bool:
        """Whether a text, with or without JSON escapes, holds what is looked for."""
        if self._compiled is None:
            return False
        return any(self._compiled.search(folded(form)) is not None for form in {text, unescaped(text)})

    def in_value(self, value: Any) -> bool:
        """Whether a decoded raw row holds it: any text in it, or the value of a metadata field."""
        if self.in_text("\x1f".join(leaves_of(value))):
            return True
        return any(_same(_reach(value, name), wanted) for name, wanted in self.fields)

    def in_frame(self, frame: pl.DataFrame) -> pl.Series:
        """One boolean a row: whether any text in any of its columns, its metadata or its id is what is looked for."""
        found = pl.Series("found", [False] * frame.height, dtype=pl.Boolean)
        if not frame.height:
            return found
        if self.expression:
            for leaf in _leaves(frame):
                hits = leaf.filter(folded_column(leaf["text"]).str.contains(self.expression))["row"].unique()
                found = found.scatter(hits, True) if len(hits) else found
        if self.rows and "row_id" in frame.columns:
            found = found | frame["row_id"].str.split("-").list.first().is_in(list(self._row_hashes))
        if "extra" in frame.columns:
            for name, wanted in self.fields:
                values = folded_column(split.metadata(frame, name)).str.to_lowercase()
                found = found | (values == folded(wanted).lower()).fill_null(False)
        return found

    def digest(self, key: bytes) -> str:
        """Names the request without telling what it looks for: a keyed hash, the same for the same request."""
        parts = [
            sorted(folded(text) for text in self.texts),
            sorted(self.patterns),
            sorted(self.fields),
            sorted(self.rows),
        ]
        return hmac.new(key, msgspec.json.encode(parts), hashlib.sha256).hexdigest()[:32]

    def described(self) -> dict[str, int]:
        """How many of each kind there are: what may be written down."""
        kinds = {"match": self.texts, "regex": self.patterns, "field": self.fields, "row": self.rows}
        return {kind: len(values) for kind, values in kinds.items() if values}


def _same(value: Any, wanted: str) -> bool:
    return value is not None and folded(str(value)).lower() == folded(wanted).lower()


def _reach(value: Any, name: str) -> Any:
    """A field of a raw row: of its metadata, or of the row itself; ``a.b`` reaches inside."""
    if not isinstance(value, dict):
        return None
    for start in (value.get("metadata"), value):
        here = start
        for part in name.split("."):
            here = here.get(part) if isinstance(here, dict) else None
        if here is not None:
            return here
    return None


def leaves_of(value: Any) -> Iterator[str]:
    """Every text and number in a decoded value, as text; keys are no data."""
    if isinstance(value, dict):
        for item in value.values():
            yield from leaves_of(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves_of(item)
    elif value is not None and not isinstance(value, bool):
        yield value if isinstance(value, str) else str(value)


def _leaves(frame: pl.DataFrame) -> Iterator[pl.DataFrame]:
    """All texts of a table, in frames of `row` (number) and `text`, nested columns included."""
    for name in frame.columns:
        numbered = frame.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), pl.col(name).alias("text"))
        for leaf in _unnested(numbered):
            yield leaf
            escaped = leaf.filter(pl.col("text").str.contains("\\", literal=True))
            if escaped.height:
                yield escaped.with_columns(text=pl.Series([unescaped(t) for t in escaped["text"]], dtype=pl.String))


def _unnested(numbered: pl.DataFrame) -> Iterator[pl.DataFrame]:
    dtype = numbered["text"].dtype
    if dtype == pl.String:
        yield numbered.drop_nulls("text")
    elif dtype in (pl.Categorical, pl.Enum):
        yield numbered.with_columns(pl.col("text").cast(pl.String)).drop_nulls("text")
    elif isinstance(dtype, pl.List):
        yield from _unnested(numbered.filter(pl.col("text").list.len() > 0).explode("text"))
    elif isinstance(dtype, pl.Struct):
        for inner in dtype.fields:
            yield from _unnested(numbered.with_columns(pl.col("text").struct.field(inner.name).alias("text")))


def contents(rows: pl.DataFrame, dataset_type: str) -> pl.Series:
    """The text of each row without case and spacing, by which a copy of it is known in another dataset."""
    whole = texts.whole_of(dataset_type).str.to_lowercase().str.replace_all(r"\s+", " ").str.strip_chars()
    return rows.select(whole.alias("content")).to_series()


@dataclass
class RawFile:
    """What a raw file holds of the person: lines (1-based, as the quarantine counts them) of its `rows` in all."""

    name: str
    rows: int = 0
    lines: set[int] = field(default_factory=set)
    unreadable: set[int] = field(default_factory=set)


def search_file(
    name: str, path: UPath, wanted: Wanted, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS
) -> RawFile:
    """The lines of a raw file that hold what is looked for, and those that nobody can read."""
    found = RawFile(name)
    for raw in read_file(path, limits, keys):
        found.rows += 1
        text = raw.value if isinstance(raw.value, str) else None
        if raw.fault is not None:
            found.unreadable.add(raw.line)
        if (text is not None and wanted.in_text(text)) or (text is None and wanted.in_value(raw.value)):
            found.lines.add(raw.line)
    return found


def name_without(name: str) -> str:
    """What a raw file is called after it was written again: JSON lines stay what they are, others become that."""
    return name if Path(name).suffix.lower() in _JSON_LINES else f"{name}.jsonl"


def without(
    path: UPath, lines: set[int], wanted: Wanted, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS
) -> Iterator[bytes]:
    """The rows of a raw file without some lines, as JSON lines.

    A file of JSON lines keeps every other byte as it was; rows of other formats keep their fields, and are ingested as
    the same rows. What cannot be read cannot be shown to be free of the person's data, so it is left out, too.
    """
    if path.suffix.lower() not in _JSON_LINES or not has_plain_lines(path, limits, keys):
        for raw in read_file(path, limits, keys):
            if raw.fault is None and raw.line not in lines:
                yield msgspec.json.encode(raw.value, enc_hook=str) + b"\n"
        return
    with keys.reader(path.open("rb"), path) as reader:
        for number, line in enumerate(_bounded(reader, limits.line), start=1):
            # A line that is no JSON was judged by a sample alone: the whole of it counts here.
            if number not in lines and line is not None and not wanted.in_text(line.decode("utf-8", "replace")):
                yield line


def _bounded(reader: Any, limit: int) -> Iterator[bytes | None]:
    """Lines with their ends; None for one that is longer than `limit` bytes."""
    while line := reader.readline(limit + 2):
        if len(line) <= limit + 1 or line.endswith(b"\n"):
            yield line
            continue
        while (rest := reader.readline(1 << 20)) and not rest.endswith(b"\n"):
            pass
        yield None


_SUCCESSOR = re.compile(r"(?P<stem>.+)-e(?P<number>\d+)")


def successor(version: str, taken: Iterable[str]) -> str:
    """The version that follows an erasure: ``v1`` → ``v1-e1`` → ``v1-e2``, the first that is free."""
    match = _SUCCESSOR.fullmatch(version)
    stem, number = (match["stem"], int(match["number"])) if match else (version, 0)
    known = set(taken)
    while True:
        number += 1
        if (name := f"{stem}-e{number}") not in known:
            return name


def descendants(roots: Iterable[str], sources: dict[str, list[str]]) -> set[str]:
    """Everything that was made, step by step, from `roots`; `sources` names what each thing was made from."""
    found = set(roots)
    while True:
        more = {key for key, made_from in sources.items() if key not in found and found & set(made_from)}
        if not more:
            return found
        found |= more


def drop_lines(data: bytes, is_theirs: Callable[[str], bool]) -> tuple[bytes, int]:
    """JSON lines without those of the person, and how many were left out."""
    kept: list[bytes] = []
    dropped = 0
    # As bytes: a text is also parted at U+2028 and others, and half of an entry would stay.
    for line in data.splitlines(keepends=True):
        if is_theirs(line.decode("utf-8", "replace")):
            dropped += 1
        else:
            kept.append(line)
    return b"".join(kept), dropped
