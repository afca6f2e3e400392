"""Finds rows that hold an item whole, its question and its answer, each of them alone and not put together of many."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, texts
from llmops_assets.datasets.similarity import contamination, duplicates
from llmops_assets.datasets.similarity.contamination import COVERED, MOST_HITS, SHORTEST, N
from llmops_assets.datasets.similarity.sketch import buffers

HELD = {"item": pl.String, "coverage": pl.Float64, "row_id": pl.String, "file": pl.String, "line": pl.Int64}


@dataclass(frozen=True)
class Asked:
    """Items of one suite: what each asks, and what it wants to hear."""

    ids: list[str]
    questions: pl.Series
    answers: pl.Series


def held(rows: batches.Batches, dataset_type: str, asked: Asked, n: int = N, covered: float = COVERED) -> pl.DataFrame:
    """Items of which one row has both `covered` or more of the question's words and as much of the answer's, in runs of
    `n` words (or all of a shorter text): HELD, the row that has most of each.

    Prose of a domain has the phrases of its questions here and there, and an answer that many items share stands
    wherever the matter comes up; together, and whole, they stand where somebody wrote the item down. A question of
    fewer than SHORTEST words is no evidence in prose and is not looked for.
    """
    count = len(asked.ids)
    values, starts = buffers(duplicates.normalise(pl.concat([asked.questions, asked.answers]).fill_null("")))
    grams = np.empty(max(len(values), 1), dtype=np.uint64)
    places = np.empty((len(grams), 2), dtype=np.int64)
    counts = np.zeros(2 * count, dtype=np.int64)
    total = contamination._grams_of(values, starts, n, 1, grams, places, counts)
    if not total:
        return pl.DataFrame(schema=HELD)
    table = np.zeros(1 << max(6, int(3 * total).bit_length()), dtype=np.uint64)
    contamination._fill(table, grams[:total])
    where = np.array([contamination._slot(table, gram) for gram in grams[:total]], dtype=np.int64)
    entries = pl.DataFrame({"entry": places[:total, 0], "start": places[:total, 1], "slot": where})
    lengths = pl.DataFrame({"entry": np.arange(2 * count), "words": counts, "size": np.minimum(counts, n)})
    sizes = np.unique(lengths["size"].to_numpy())

    def look(batch: pl.DataFrame) -> pl.DataFrame:
        whole = duplicates.normalised(batch, dataset_type)["whole"]
        near = pl.concat([_covered(part, entries, lengths, table, sizes[sizes > 0]) for part in _parts(whole)])
        near = near.filter(pl.col("coverage") >= covered)
        both = near.filter(pl.col("entry") < count, pl.col("words") >= SHORTEST).join(
            near.select(pl.col("entry") - count, "row"), on=["entry", "row"]
        )
        best = both.sort("coverage", descending=True).unique("entry", keep="first", maintain_order=True)
        places = batch.select("row_id", "file", "line")[best["row"].to_list()]
        return pl.concat([best.select("entry", "coverage"), places], how="horizontal")

    columns = ["row_id", "file", "line", *texts.content_columns(dataset_type)]
    found = pl.concat(list(batches.mapped(look, batches.regrouped(rows(columns)))))
    found = found.sort("coverage", descending=True, maintain_order=True).unique("entry", keep="first").sort("entry")
    names = pl.Series("item", [asked.ids[i] for i in found["entry"].to_list()], dtype=pl.String)
    return found.with_columns(names).select(HELD.keys()).cast(HELD)


def _parts(whole: pl.Series) -> Iterator[tuple[int, pl.Series]]:
    """The texts of a batch in parts of which no one has more grams than are kept, each with its first row's number."""
    size = max(1, min(len(whole), MOST_HITS // max(1, int(whole.str.len_chars().mean() or 1))))
    for start in range(0, len(whole), size):
        yield start, whole[start : start + size]


def _covered(
    part: tuple[int, pl.Series], entries: pl.DataFrame, lengths: pl.DataFrame, table: np.ndarray, sizes: Sequence[int]
) -> pl.DataFrame:
    """entry, row, words of the entry, coverage: the share of the entry's words that stand in runs in that row."""
    first, whole = part
    slots, numbers = np.empty(MOST_HITS, dtype=np.int64), np.empty(MOST_HITS, dtype=np.int64)
    hits = contamination._search(*buffers(whole), np.asarray(sizes), table, slots, numbers)
    pairs = pl.DataFrame({"slot": slots[:hits], "row": numbers[:hits] + first}).unique()
    # Runs overlap: each counts for the words up to where the next one begins.
    until_next = pl.col("start").shift(-1).over("entry", "row") - pl.col("start")
    runs = pairs.join(entries, on="slot").join(lengths, on="entry").sort("entry", "row", "start")
    runs = runs.with_columns(new=pl.min_horizontal(until_next.fill_null(pl.col("size")), pl.col("size")))
    summed = runs.group_by("entry", "row", maintain_order=True).agg(pl.col("new").sum(), pl.col("words").first())
    return summed.select("entry", "row", "words", coverage=pl.col("new") / pl.col("words"))
