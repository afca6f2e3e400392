"""Personal data in canonical rows: in their texts and in their metadata, found and masked table by table."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import count

import msgspec
import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.privacy import masking
from llmops_assets.privacy.pattern import Pattern
from llmops_assets.privacy.patterns import is_name
from llmops_assets.privacy.pii import NAME_KEYS, PATTERNS_ONLY, ROUNDS, Detector, find, may_hold, replaced


@dataclass(frozen=True)
class Masked:
    """A table without its personal data.

    `rows` numbers the rows that changed; `counts` are spans by type; `by_row` has the row and type of each span.
    """

    frame: pl.DataFrame
    counts: dict[str, int]
    rows: list[int]
    by_row: pl.DataFrame


def find_in_rows(rows: pl.DataFrame, dataset_type: str, how: Detector = PATTERNS_ONLY) -> pl.DataFrame:
    """Spans in all content and metadata of canonical rows: `row` (number), `column`, `part`, `start`, `end`, `type`,
    `score`, and the `text` that they are in.

    Metadata is `extra`; there a span covers one whole value and `start` and `end` are positions in that value.
    """
    flat = texts.flat_texts(rows, dataset_type).with_row_index("number")
    spans = find(flat["text"], how).rename({"text": "number"})
    content = spans.join(flat, on="number").select("row", "column", "part", "start", "end", "type", "score", "text")
    return pl.concat([content, _in_extra(rows, how)]).sort("row", "column", "part", "start")


def _leaves(value: object, key: str = "") -> Iterable[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _leaves(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _leaves(item, key)
    elif isinstance(value, (str, int)) and not isinstance(value, bool):
        yield key, str(value)


def _suspicious(rows: pl.DataFrame, patterns: tuple[Pattern, ...]) -> pl.DataFrame:
    keys = "(?i:" + "|".join(f'"{key}"' for key in NAME_KEYS) + ")"
    extra = pl.col("extra")
    return (
        rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "extra")
        # A value stands in the JSON as it is, unless it is escaped: what could be found in it could be found here.
        .filter(may_hold("extra", patterns) | extra.str.contains(keys) | extra.str.contains("\\", literal=True))
        .filter(extra != "{}")
    )


def _in_extra(rows: pl.DataFrame, how: Detector) -> pl.DataFrame:
    leaves = [
        (row, part, key.lower() in NAME_KEYS and is_name(text), text)
        for row, extra in _suspicious(rows, how.patterns).iter_rows()
        for part, (key, text) in enumerate(_leaves(msgspec.json.decode(extra)))
    ]
    table = pl.DataFrame(
        leaves, schema={"row": pl.UInt32, "part": pl.UInt32, "named": pl.Boolean, "text": pl.String}, orient="row"
    ).with_row_index("number")
    spans = find(table["text"], replace(how, names=None)).rename({"text": "number"})
    found = spans.join(table.filter(~pl.col("named")), on="number")
    named = table.filter("named").with_columns(
        start=pl.lit(0, pl.UInt32), end=pl.col("text").str.len_chars(), type=pl.lit("PERSON"), score=pl.lit(0.9)
    )
    columns = ["row", pl.lit("extra").alias("column"), "part", "start", "end", "type", "score", "text"]
    return pl.concat([found.select(columns), named.select(columns)]).sort("row", "part", "start")


def _masked_leaves(value: object, masked: Mapping[int, str], count: Iterator[int]) -> object:
    """The object with the leaves that are in `masked`, by their order, replaced."""
    if isinstance(value, dict):
        return {name: _masked_leaves(item, masked, count) for name, item in value.items()}
    if isinstance(value, list):
        return [_masked_leaves(item, masked, count) for item in value]
    if isinstance(value, (str, int)) and not isinstance(value, bool):
        return masked.get(next(count), value)
    return value


def _mask_extra(rows: pl.DataFrame, spans: pl.DataFrame, how: Detector) -> pl.Series:
    numbers, replaced = [], []
    for (row,), found in spans.group_by("row", maintain_order=True):
        masked = {}
        for (part,), places in found.group_by("part", maintain_order=True):
            kept = [masking.Span(*place) for place in places.select("start", "end", "type", "score").iter_rows()]
            masked[part] = masking.replace(places["text"][0], kept, how.placeholders, how.stand_in)
        value = _masked_leaves(msgspec.json.decode(rows["extra"][row]), masked, count())
        numbers.append(row)
        replaced.append(msgspec.json.encode(value, order="sorted").decode())
    return rows["extra"].scatter(numbers, replaced)


def mask_rows(rows: pl.DataFrame, dataset_type: str, how: Detector) -> Masked:
    """The rows with all personal data of content and metadata replaced by its type's placeholder.

    Masking is repeated on the rows that changed until nothing more is found, so that a second look finds nothing.
    """
    flat = texts.flat_texts(rows, dataset_type)
    by_row = [pl.DataFrame(schema={"row": pl.UInt32, "type": pl.String})]
    pending = pl.Series(range(flat.height), dtype=pl.UInt32)
    values = flat["text"]
    for _ in range(ROUNDS):
        found = find(values.gather(pending), how)
        if not found.height:
            break
        spans = found.with_columns(text=pending.gather(found["text"]))
        by_row.append(spans.select(flat["row"].gather(spans["text"]), "type"))
        values = replaced(values, spans, how)
        pending = spans["text"].unique(maintain_order=True)
    masked = texts.with_texts(rows, dataset_type, flat.with_columns(values.alias("text"))) if len(by_row) > 1 else rows
    extra = _in_extra(rows, how)
    if extra.height:
        by_row.append(extra.select("row", "type"))
        masked = masked.with_columns(_mask_extra(rows, extra, how))
    spans = pl.concat(by_row)
    return Masked(
        frame=masked,
        counts=dict(spans.group_by("type").len().sort("type").iter_rows()),
        rows=spans["row"].unique().sort().to_list(),
        by_row=spans,
    )
