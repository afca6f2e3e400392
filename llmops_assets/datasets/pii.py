"""Personal data in whole tables: a prefilter that changes no result, then the patterns, then names."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import msgspec
import polars as pl

from llmops_assets.datasets import privacy, texts

SPANS = {
    "text": pl.UInt32(),
    "start": pl.UInt32(),
    "end": pl.UInt32(),
    "type": pl.String(),
    "score": pl.Float64(),
}

_ROUNDS = 6
"""What stood behind a masked number may now stand behind its label: masking is repeated, and ends long before this."""

NameFinder = Callable[[list[str]], list[list[privacy.Span]]]
"""Names in each of some texts; `names.find_names` is one."""

_ANY = r"[0-9@]|이름|성함|성명|본명|예금주|수취인|수령인|신청인|고객명|계약자|분|의|(?i:name)"
_NAME_KEYS = ("name", "이름", "성명", "성함", "고객명", "customer_name", "user_name", "full_name")


@dataclass(frozen=True)
class Masked:
    """A table without its personal data. `rows` numbers the rows that changed; `counts` are spans by type."""

    frame: pl.DataFrame
    counts: dict[str, int]
    rows: list[int]


def candidates(values: pl.Series, patterns: Iterable[privacy.Pattern]) -> list[tuple[privacy.Pattern, list[int]]]:
    """For each pattern the texts that it could be found in, by number; a superset of those that it is found in.

    Texts with characters that are folded first (full-width digits, odd dashes) are candidates for all patterns.
    """
    frame = pl.DataFrame({"value": values, "text": pl.int_range(len(values), eager=True)})
    odd = pl.col("value").str.contains(privacy.FOLDABLE)
    frame = frame.with_columns(odd.alias("odd")).filter(pl.col("odd") | pl.col("value").str.contains(_ANY))
    patterns = list(patterns)
    flags = frame.select(
        "text",
        *(
            (pl.col("odd") | pl.col("value").str.contains(privacy.superset(pattern.expression))).alias(str(number))
            for number, pattern in enumerate(patterns)
        ),
    )
    return [(pattern, flags.filter(pl.col(str(number)))["text"].to_list()) for number, pattern in enumerate(patterns)]


def find(
    values: pl.Series, names: NameFinder | None = None, patterns: Iterable[privacy.Pattern] = privacy.PATTERNS
) -> pl.DataFrame:
    """Spans of personal data in each text: columns `text` (number), `start`, `end` (characters), `type`, `score`.

    The same spans as `privacy.find` gives for each text alone, and with `names` those of names besides. Overlaps are
    resolved; the result is in order.
    """
    found: dict[int, list[privacy.Span]] = {}
    folded: dict[int, tuple[str, list[int] | None]] = {}
    distinct = values.unique(maintain_order=True)
    for pattern, numbers in candidates(distinct, patterns):
        for number in numbers:
            if number not in folded:
                folded[number] = privacy.fold(distinct[number])
            text, positions = folded[number]
            for start, end in privacy.matches(pattern, text):
                if positions is not None:
                    start, end = positions[start], positions[end - 1] + 1
                found.setdefault(number, []).append(privacy.Span(start, end, pattern.type, pattern.score))
    if names is not None:
        for number, spans in enumerate(names(distinct.to_list())):
            if spans:
                found.setdefault(number, []).extend(spans)
    resolved = [
        (number, span.start, span.end, span.type, span.score)
        for number in sorted(found)
        for span in privacy.resolve(found[number])
    ]
    spans = pl.DataFrame(resolved, schema=SPANS, orient="row")
    if len(distinct) == len(values):
        return spans
    where = pl.DataFrame({"value": values, "number": pl.int_range(len(values), dtype=pl.UInt32, eager=True)}).join(
        pl.DataFrame({"value": distinct, "text": pl.int_range(len(distinct), dtype=pl.UInt32, eager=True)}),
        on="value",
        how="left",
    )
    return (
        where.join(spans, on="text")
        .select(pl.col("number").alias("text"), "start", "end", "type", "score")
        .sort("text", "start")
    )


def replace(values: pl.Series, spans: pl.DataFrame, placeholders: Mapping[str, str]) -> pl.Series:
    """The texts with each span's placeholder in its place."""
    if not spans.height:
        return values
    numbers, masked = [], []
    for number, part in spans.group_by("text", maintain_order=True):
        found = [privacy.Span(s, e, t, p) for s, e, t, p in part.select("start", "end", "type", "score").iter_rows()]
        numbers.append(number[0])
        masked.append(privacy.replace(values[number[0]], found, placeholders))
    return values.scatter(numbers, masked)


def mask_texts(values: pl.Series, placeholders: Mapping[str, str], names: NameFinder | None = None) -> pl.Series:
    """The texts without their personal data: for showing some of them."""
    for _ in range(_ROUNDS):
        spans = find(values, names)
        if not spans.height:
            break
        values = replace(values, spans, placeholders)
    return values


def find_in_rows(rows: pl.DataFrame, dataset_type: str, names: NameFinder | None = None) -> pl.DataFrame:
    """Spans in all content and metadata of canonical rows: `row` (number), `column`, `part`, `start`, `end`, `type`,
    `score`, and the `text` that they are in.

    Metadata is `extra`; there a span covers one whole value and `start` and `end` are positions in that value.
    """
    flat = texts.flat_texts(rows, dataset_type).with_row_index("number")
    spans = find(flat["text"], names).rename({"text": "number"})
    content = spans.join(flat, on="number").select("row", "column", "part", "start", "end", "type", "score", "text")
    return pl.concat([content, _in_extra(rows)]).sort("row", "column", "part", "start")


def _leaves(value: object, key: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield key, str(value)


def _leaf_spans(key: str, text: str) -> list[privacy.Span]:
    if key.lower() in _NAME_KEYS and privacy.is_name(text):
        return [privacy.Span(0, len(text), "PERSON", 0.9)]
    return privacy.find(text)


def _suspicious(rows: pl.DataFrame) -> pl.DataFrame:
    keys = "|".join(f'"{key}"' for key in _NAME_KEYS)
    return (
        rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "extra")
        .filter(pl.col("extra").str.contains(rf"[0-9]{{4}}|@|(?i:{keys})|이름|성함"))
        .filter(pl.col("extra") != "{}")
    )


def _in_extra(rows: pl.DataFrame) -> pl.DataFrame:
    found = []
    for row, extra in _suspicious(rows).iter_rows():
        for part, (key, text) in enumerate(_leaves(msgspec.json.decode(extra))):
            found += [(row, "extra", part, s.start, s.end, s.type, s.score, text) for s in _leaf_spans(key, text)]
    schema = {
        "row": pl.UInt32,
        "column": pl.String,
        "part": pl.UInt32,
        "start": pl.UInt32,
        "end": pl.UInt32,
        "type": pl.String,
        "score": pl.Float64,
        "text": pl.String,
    }
    return pl.DataFrame(found, schema=schema, orient="row")


def _mask_leaves(value: object, placeholders: Mapping[str, str], key: str = "") -> object:
    if isinstance(value, dict):
        return {name: _mask_leaves(item, placeholders, str(name)) for name, item in value.items()}
    if isinstance(value, list):
        return [_mask_leaves(item, placeholders, key) for item in value]
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        spans = _leaf_spans(key, str(value))
        return privacy.replace(str(value), spans, placeholders) if spans else value
    return value


def mask_rows(
    rows: pl.DataFrame, dataset_type: str, placeholders: Mapping[str, str], names: NameFinder | None = None
) -> Masked:
    """The rows with all personal data of content and metadata replaced by its type's placeholder.

    Masking is repeated on the rows that changed until nothing more is found, so that a second look finds nothing.
    """
    flat = texts.flat_texts(rows, dataset_type)
    changed: set[int] = set()
    counts: dict[str, int] = {}
    pending = pl.Series(range(flat.height), dtype=pl.UInt32)
    values = flat["text"]
    for _ in range(_ROUNDS):
        found = find(values.gather(pending), names)
        if not found.height:
            break
        spans = found.with_columns(text=pending.gather(found["text"]))
        for type_, count in spans.group_by("type").len().iter_rows():
            counts[type_] = counts.get(type_, 0) + count
        values = replace(values, spans, placeholders)
        pending = spans["text"].unique(maintain_order=True)
        changed.update(flat["row"].gather(pending).to_list())
    masked = texts.with_texts(rows, dataset_type, flat.with_columns(values.alias("text"))) if changed else rows
    extra = _in_extra(rows)
    if extra.height:
        for type_, count in extra.group_by("type").len().iter_rows():
            counts[type_] = counts.get(type_, 0) + count
        numbers = extra["row"].unique(maintain_order=True).to_list()
        replaced = [
            msgspec.json.encode(
                _mask_leaves(msgspec.json.decode(rows["extra"][number]), placeholders), order="sorted"
            ).decode()
            for number in numbers
        ]
        masked = masked.with_columns(masked["extra"].scatter(numbers, replaced))
        changed.update(numbers)
    return Masked(frame=masked, counts=dict(sorted(counts.items())), rows=sorted(changed))
