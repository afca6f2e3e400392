"""Personal data in canonical rows: in their texts and in their metadata, found and masked table by table."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import msgspec
import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.batches import Batches, regrouped
from llmops_assets.datasets.quality import documents
from llmops_assets.privacy import masking
from llmops_assets.privacy.name_patterns import is_name
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


def find_in_rows(
    rows: pl.DataFrame, dataset_type: str, how: Detector = PATTERNS_ONLY, known: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Spans in all content and metadata of canonical rows: `row` (number), `column`, `part`, `start`, `end`, `type`,
    `score`, and the `text` that they are in.

    Metadata is `extra`, calls are ``messages.tool_calls``, tools are `tools`: JSON, of which `part` is the number of a
    value, and `start` and `end` are positions in that value. Texts in
    `known` (`all_texts` in which nothing is) are not searched.
    """
    flat = texts.flat_texts(rows, dataset_type)
    suspicious = _suspicious(documents.documents(rows, dataset_type), how)
    if known is not None:
        flat = flat.join(known, on=PLACE_AND_TEXT, how="anti", maintain_order="left")
        suspicious = suspicious.join(known, on=["row", "column", "text"], how="anti", maintain_order="left")
    flat = flat.with_row_index("number")
    spans = find(flat["text"], how).rename({"text": "number"})
    content = spans.join(flat, on="number").select("row", "column", "part", "start", "end", "type", "score", "text")
    return pl.concat([content, _in_documents(suspicious, how)]).sort("row", "column", "part", "start")


PLACE_AND_TEXT = ["row", "column", "part", "text"]
SPANS = {"row_id": pl.String, "column": pl.String, "part": pl.UInt32, "start": pl.UInt32, "end": pl.UInt32}
SPANS |= {"type": pl.String, "score": pl.Float64}
"""Spans as they are recorded: by row, and without the text that they are in."""


def recorded(spans: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """What `find_in_rows` found in these rows, for the record."""
    ids = rows.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "row_id")
    return spans.join(ids, on="row", how="left", maintain_order="left").select(list(SPANS))


def all_texts(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """Every text that is searched: `row` (number), `column`, `part`, `text`; of JSON the whole of it at once."""
    whole = documents.documents(rows, dataset_type).with_columns(part=pl.lit(0, pl.UInt32))
    return pl.concat([texts.flat_texts(rows, dataset_type), whole.select(PLACE_AND_TEXT)])


def with_spans(rows: Batches, spans: pl.DataFrame) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """The batches of a table, each with the recorded spans of its rows."""
    ids = pl.concat(list(rows(["row_id"]))).with_row_index("number")
    spans = spans.join(ids, on="row_id", how="left", maintain_order="left").sort("number", maintain_order=True)
    numbers, begin = spans["number"], 0
    for batch in regrouped(rows(None)):
        end = begin + batch.height
        first, last = numbers.search_sorted(begin), numbers.search_sorted(end)
        yield batch, spans[first:last].drop("number")
        begin = end


def in_rows(spans: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Recorded spans of some rows with `row`, the number in the table, instead of row_id; of no other rows."""
    ids = rows.select("row_id", pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"))
    return spans.join(ids, on="row_id", maintain_order="left").select(
        "row", "column", "part", "start", "end", "type", "score"
    )


def find_left(
    rows: Batches, dataset_type: str, how: Detector, brought: Batches, spans: pl.DataFrame
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame]]:
    """Personal data in rows that were cleaned: batches of them, each with its spans as `find_in_rows` gives them.

    `brought` are the rows before cleaning, in the same order, and `spans` what the same detector found in them. A text
    that stands in its row as it was brought, to the letter, and in which nothing was found then, is not searched again:
    a detector judges each text by itself, so it would find nothing again. All others are: what was masked, and
    whatever else may have been changed.
    """
    for before, after, found in _side_by_side(rows, brought, spans):
        searched = all_texts(before, dataset_type)
        # A span in JSON has the number of its value; the JSON was searched as a whole.
        whole = documents.columns_of(dataset_type)
        places = in_rows(found, before).with_columns(
            part=pl.when(pl.col("column").is_in(whole)).then(0).otherwise("part").cast(pl.UInt32)
        )
        nothing_in = searched.join(places, on=["row", "column", "part"], how="anti")
        ids = before.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("row"), "row_id")
        now = after.select(pl.int_range(pl.len(), dtype=pl.UInt32).alias("now"), "row_id")
        numbers = ids.join(now, on="row_id").select("row", "now")
        known = nothing_in.join(numbers, on="row").select(pl.col("now").alias("row"), "column", "part", "text")
        yield after, find_in_rows(after, dataset_type, how, known)


def _side_by_side(
    rows: Batches, brought: Batches, spans: pl.DataFrame
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]:
    """Batches of `brought`, the rows among them that are in `rows`, and the spans of the former.

    Rows that are not where they are looked for come last, beside no row.
    """
    waiting = regrouped(rows(None))
    held = next(waiting)
    empty = held.clear()
    for batch, found in with_spans(brought, spans):
        mine = []
        while held.height:
            inside = held["row_id"].is_in(batch["row_id"].implode())
            mine.append(held.filter(inside))
            if not inside.all():
                held = held.filter(~inside)
                break
            held = next(waiting, empty)
        if some := [part for part in mine if part.height]:
            yield batch, pl.concat(some), found
    for rest in (held, *waiting):
        if rest.height:
            yield batch.clear(), rest, found.clear()


def _suspicious(found: pl.DataFrame, how: Detector) -> pl.DataFrame:
    keys = "(?i:" + "|".join(f'"{key}"' for key in NAME_KEYS) + ")"
    text = pl.col("text")
    # A value stands in the JSON as it is, unless it is escaped: what could be found in it could be found here.
    here = may_hold("text", how.patterns) | text.str.contains(keys) | text.str.contains("\\", literal=True)
    if how.names is not None:
        here |= pl.col("column") != documents.EXTRA
    return found.filter(here & (text != "{}"))


def _in_documents(suspicious: pl.DataFrame, how: Detector) -> pl.DataFrame:
    leaves = [
        (row, column, part, key.lower() in NAME_KEYS and is_name(text), text)
        for row, column, document in suspicious.iter_rows()
        for part, (key, text) in enumerate(documents.leaves(msgspec.json.decode(document)))
    ]
    table = pl.DataFrame(
        leaves,
        schema={"row": pl.UInt32, "column": pl.String, "part": pl.UInt32, "named": pl.Boolean, "text": pl.String},
        orient="row",
    )
    named = table.filter("named").with_columns(
        start=pl.lit(0, pl.UInt32), end=pl.col("text").str.len_chars(), type=pl.lit("PERSON"), score=pl.lit(0.9)
    )
    columns = ["row", "column", "part", "start", "end", "type", "score", "text"]
    parts = [named.select(columns)]
    metadata = pl.col("column") == documents.EXTRA
    # Metadata is labels and ids, in which names are told by their keys; what is said to a tool is speech.
    for some, detector in ((metadata, replace(how, names=None)), (~metadata, how)):
        values = table.filter(some & ~pl.col("named")).with_row_index("number")
        spans = find(values["text"], detector).rename({"text": "number"})
        parts.append(spans.join(values, on="number").select(columns))
    return pl.concat(parts).sort("row", "column", "part", "start")


def _mask_documents(rows: pl.DataFrame, spans: pl.DataFrame, how: Detector, dataset_type: str) -> pl.DataFrame:
    touched = documents.documents(rows, dataset_type).join(spans, on=["row", "column"], how="semi")
    whole = {(row, column): text for row, column, text in touched.iter_rows()}
    for (column,), found in spans.group_by("column", maintain_order=True):
        changed: dict[int, dict[int, str]] = {}
        for (row,), mine in found.group_by("row", maintain_order=True):
            leaves = [text for _, text in documents.leaves(msgspec.json.decode(whole[row, column]))]
            for (part,), places in mine.group_by("part", maintain_order=True):
                kept = [masking.Span(*place) for place in places.select("start", "end", "type", "score").iter_rows()]
                masked = masking.replace(leaves[part], kept, how.placeholders, how.stand_in)
                changed.setdefault(row, {})[part] = masked
        rows = documents.with_leaves(rows, column, changed)
    return rows


def mask_rows(rows: pl.DataFrame, dataset_type: str, how: Detector, spans: pl.DataFrame | None = None) -> Masked:
    """The rows with all personal data of content and metadata replaced by its type's placeholder.

    `spans` are those that the same detector found in these rows before (`in_rows`); without, they are looked for.
    Masking is repeated on the texts that changed until nothing more is found, so that a second look finds nothing.
    """
    if spans is None:
        spans = find_in_rows(rows, dataset_type, how)
    by_row = [spans.select("row", "type")]
    in_json = pl.col("column").is_in(documents.columns_of(dataset_type))
    json, content = spans.filter(in_json), spans.filter(~in_json)
    masked = rows
    if content.height:
        flat = texts.flat_texts(rows, dataset_type).with_row_index("text_number")
        values = flat["text"]
        places = content.join(flat.drop("text"), on=["row", "column", "part"], maintain_order="left")
        places = places.select(pl.col("text_number").alias("text"), "start", "end", "type", "score")
        for number in range(ROUNDS):
            if not places.height:
                break
            if number:
                by_row.append(places.select(flat["row"].gather(places["text"]), "type"))
            values = replaced(values, places, how)
            pending = places["text"].unique(maintain_order=True)
            again = find(values.gather(pending), how)
            places = again.with_columns(text=pending.gather(again["text"]))
        masked = texts.with_texts(rows, dataset_type, flat.with_columns(values.alias("text")))
    if json.height:
        masked = _mask_documents(masked, json, how, dataset_type)
    changed = pl.concat(by_row)
    return Masked(
        frame=masked,
        counts=dict(changed.group_by("type").len().sort("type").iter_rows()),
        rows=changed["row"].unique().sort().to_list(),
        by_row=changed,
    )
