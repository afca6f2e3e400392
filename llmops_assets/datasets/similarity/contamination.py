"""Finds evaluation items whose text stands in training rows: n-gram coverage, over whole tables in compiled passes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, schema, texts
from llmops_assets.datasets.quality.features import _WORD, _kind
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.datasets.similarity.sketch import _decode, _longest, buffers, compiled

N = 8
"""Words of an n-gram, and `COVERED` the share of an item's words that stand in n-grams of the training rows: an item
is contaminated when 70 % of its 8-grams are found (Chowdhery et al., PaLM, 2022, section 8). Thirteen words, as in
Brown et al. (GPT-3, 2020), would see nothing of most Korean questions, which are shorter than that."""

SHORTEST = 4
"""Words of the shortest item that is looked for inside of longer texts. One with fewer than `N` must stand in a row as
a whole, and one with fewer than this must be all that is asked there: three words stand in many texts by chance."""

COVERED = 0.7

FOUND = {
    "suite": pl.String,
    "item": pl.String,
    "coverage": pl.Float64,
    "row_id": pl.String,
    "file": pl.String,
    "line": pl.Int64,
}

_MIX = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Suite:
    """What an evaluation suite asks: ids and texts of its items."""

    name: str
    ids: list[str]
    texts: pl.Series


@dataclass(frozen=True)
class Overlap:
    """`found`: contaminated items with the training row that holds most of each; by suite how many were judged, and how
    many could not be, having neither letters nor signs."""

    found: pl.DataFrame
    judged: dict[str, int]
    too_short: dict[str, int]

    def share(self, suite: str) -> float:
        """The share of the judged items of a suite that are contaminated."""
        return self.found.filter(suite=suite).height / max(self.judged[suite], 1)


@compiled
def _hashed_words(values, begin, end, points, words):
    """Hashes of the words (letters and digits of any alphabet) of one text into `words`; how many."""
    length = _decode(values, begin, end, points)
    count = 0
    inside = False
    word = np.uint64(0)
    for index in range(length):
        point = points[index]
        ideograph = 0x3040 <= point <= 0x9FFF
        if inside and (ideograph or _kind(point) != _WORD):
            words[count] = word
            count += 1
            inside = False
        if ideograph:
            words[count] = np.uint64(point) * _MIX
            count += 1
        elif _kind(point) == _WORD:
            if not inside:
                inside, word = True, np.uint64(0xCBF29CE484222325)
            word = (word ^ np.uint64(point)) * np.uint64(0x100000001B3)
    if inside:
        words[count] = word
        count += 1
    return count


@compiled
def _gram(words, start, size):
    value = np.uint64(size)
    for step in range(size):
        value = (value ^ words[start + step]) * _MIX
        value ^= value >> np.uint64(32)
    return value


@compiled
def _grams_of(values, starts, n, shortest, grams, places, counts):
    """The n-grams of every item: hash, and (item, first word); an item shorter than `n` is one gram of its length."""
    room = _longest(starts) + 1
    points, words = np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint64)
    total = 0
    for item in range(len(starts) - 1):
        count = _hashed_words(values, starts[item], starts[item + 1], points, words)
        counts[item] = count
        if count < shortest:
            continue
        size = min(n, count)
        for start in range(count - size + 1):
            grams[total], places[total, 0], places[total, 1] = _gram(words, start, size), item, start
            total += 1
    return total


@compiled
def _slot(table, value):
    mask = np.uint64(len(table) - 1)
    at = (value >> np.uint64(20)) & mask
    while table[at] != 0 and table[at] != value:
        at = (at + np.uint64(1)) & mask
    return at


@compiled
def _fill(table, grams):
    for number in range(len(grams)):
        table[_slot(table, grams[number])] = grams[number]


@compiled
def _search(values, starts, sizes, table, found_slots, found_rows):
    """Slots of the table whose gram stands in a text, with that text's number; how many."""
    room = _longest(starts) + 1
    points, words = np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint64)
    total = 0
    for row in range(len(starts) - 1):
        count = _hashed_words(values, starts[row], starts[row + 1], points, words)
        for size in sizes:
            for start in range(count - size + 1):
                value = _gram(words, start, size)
                slot = _slot(table, value)
                if table[slot] == value:
                    if total == len(found_slots):
                        return total
                    found_slots[total], found_rows[total] = slot, row
                    total += 1
    return total


MOST_HITS = 1 << 20
"""Found n-grams of one batch that are kept; a batch with more of them is contaminated through and through."""


def overlap(
    rows: batches.Batches, dataset_type: str, suites: Sequence[Suite], n: int = N, covered: float = COVERED
) -> Overlap:
    """Items of the suites of which `covered` or more of the words stand in n-grams of the rows.

    Words are compared after normalisation (compatibility forms, case), without signs and spaces between them; an item
    that is all that a row asks is found however its words are spaced.
    """
    names = [suite.name for suite in suites for _ in suite.ids]
    ids = [item for suite in suites for item in suite.ids]
    items = pl.concat([suite.texts.cast(pl.String) for suite in suites]) if suites else pl.Series([], dtype=pl.String)
    values, starts = buffers(duplicates.normalise(items))
    grams = np.empty(max(len(values), 1), dtype=np.uint64)
    places = np.empty((len(grams), 2), dtype=np.int64)
    counts = np.zeros(len(ids), dtype=np.int64)
    total = _grams_of(values, starts, n, SHORTEST, grams, places, counts)
    keyed = pl.DataFrame({"suite": names, "item": ids, "key": _key(items)}).filter(pl.col("key") != "")
    judged, too_short = _counted(suites, names, items)
    equal = _equal(rows, dataset_type, keyed) if keyed.height else pl.DataFrame(schema=FOUND)
    if not total:
        return Overlap(equal, judged, too_short)
    grams, places = grams[:total], places[:total]
    slots = 64
    while slots < 3 * total:
        slots *= 2
    table = np.zeros(slots, dtype=np.uint64)
    _fill(table, grams)
    sizes = np.unique(np.minimum(counts[counts >= SHORTEST], n))
    hits = _hits(rows, dataset_type, table, sizes)
    if not hits.height:
        return Overlap(equal, judged, too_short)
    coverage = _coverage(table, grams, places, counts, n, hits["slot"].unique().to_numpy())
    where = np.array([_slot(table, gram) for gram in grams], dtype=np.int64)
    of_item = pl.DataFrame({"item": places[:, 0], "slot": where}).join(hits, on="slot")
    best = (
        of_item.group_by("item", "row_id", "file", "line", maintain_order=True)
        .len()
        .sort("len", descending=True, maintain_order=True)
        .unique("item", keep="first", maintain_order=True)
    )
    found = best.filter(pl.Series(coverage[best["item"].to_numpy()] >= covered)).sort("item")
    number = found["item"].to_list()
    table_of_items = pl.DataFrame(
        {
            "suite": [names[i] for i in number],
            "item": [ids[i] for i in number],
            "coverage": coverage[number].round(4) if number else [],
            "row_id": found["row_id"],
            "file": found["file"],
            "line": found["line"],
        },
        schema=FOUND,
    )
    order = pl.DataFrame({"suite": names, "item": ids}).with_row_index("place")
    together = (
        pl.concat([table_of_items, equal])
        .unique(["suite", "item"], keep="first", maintain_order=True)
        .join(order, on=["suite", "item"])
        .sort("place")
        .drop("place")
    )
    return Overlap(together, judged, too_short)


def _key(values: pl.Series) -> pl.Series:
    """Texts as they are compared whole: letters and digits in one form and case, of a text of signs alone those.

    Spaces go too: in Korean many may be written or left out. So do letters that nobody sees.
    """
    plain = pl.DataFrame({"text": duplicates.normalise(values.fill_null(""))})
    words = pl.col("text").str.replace_all(r"[^\p{L}\p{N}]+", "")
    return plain.select(pl.when(words != "").then(words).otherwise(pl.col("text").str.strip_chars()))["text"]


def _asked(dataset_type: str) -> pl.Expr:
    """Everything that a row asks, each by itself; of a document its lines."""
    content = schema.CONTENT[dataset_type]
    for name in ("messages", "prompt"):
        if name in content:
            turn = pl.element()
            users = turn.filter(turn.struct.field("role") == "user").struct.field("content")
            return pl.col(name).list.eval(users)
    name = next(name for name in ("question", "anchor", "text") if name in content)
    return pl.col(name).str.split("\n")


def _equal(rows: batches.Batches, dataset_type: str, items: pl.DataFrame) -> pl.DataFrame:
    """Items that are, word for word, all that a row asks; each with the first such row."""
    found = []
    for batch in rows(["row_id", "file", "line", *texts.content_columns(dataset_type)]):
        asked = (
            batch.select("row_id", "file", "line", _asked(dataset_type).alias("asked"))
            .explode("asked")
            .drop_nulls("asked")
        )
        if asked.height:
            asked = asked.with_columns(_key(asked["asked"]).alias("key"))
            found.append(items.join(asked.unique("key", keep="first", maintain_order=True), on="key"))
    if not found:
        return pl.DataFrame(schema=FOUND)
    first = pl.concat(found).unique(["suite", "item"], keep="first", maintain_order=True)
    return first.select("suite", "item", pl.lit(1.0).alias("coverage"), "row_id", "file", "line").cast(FOUND)


def _hits(rows: batches.Batches, dataset_type: str, table: np.ndarray, sizes: np.ndarray) -> pl.DataFrame:
    """Each gram of the table found in the rows, with up to three rows that hold it."""

    def look(batch: pl.DataFrame) -> pl.DataFrame:
        slots, numbers = np.empty(MOST_HITS, dtype=np.int64), np.empty(MOST_HITS, dtype=np.int64)
        whole = duplicates.normalised(batch, dataset_type)["whole"]
        count = _search(*buffers(whole), sizes, table, slots, numbers)
        few = (
            pl.DataFrame({"slot": slots[:count], "number": numbers[:count]})
            .unique(maintain_order=True)
            .group_by("slot", maintain_order=True)
            .head(3)
        )
        where = batch.select("row_id", "file", "line")[few["number"].to_list()]
        return pl.concat([few.select("slot"), where], how="horizontal")

    columns = ["row_id", "file", "line", *texts.content_columns(dataset_type)]
    found = list(batches.mapped(look, batches.regrouped(rows(columns))))
    return pl.concat(found).group_by("slot", maintain_order=True).head(3)


def _coverage(
    table: np.ndarray, grams: np.ndarray, places: np.ndarray, counts: np.ndarray, n: int, found: np.ndarray
) -> np.ndarray:
    """For each item the share of its words that stand in a found gram."""
    hit = np.isin(grams, table[found])
    offsets = np.concatenate(([0], np.cumsum(counts)))
    marks = np.zeros(offsets[-1] + 1, dtype=np.int64)
    item, start = places[hit, 0], places[hit, 1]
    begin = offsets[item] + start
    np.add.at(marks, begin, 1)
    np.add.at(marks, begin + np.minimum(n, counts[item]), -1)
    inside = np.concatenate(([0], np.cumsum(np.cumsum(marks)[:-1] > 0)))
    return (inside[offsets[1:]] - inside[offsets[:-1]]) / np.maximum(counts, 1)


def _counted(suites: Sequence[Suite], names: list[str], items: pl.Series) -> tuple[dict[str, int], dict[str, int]]:
    table = pl.DataFrame({"suite": pl.Series(names, dtype=pl.String), "long": _key(items) != ""})
    by_suite = {
        suite: (long, size - long)
        for suite, long, size in table.group_by("suite").agg(pl.col("long").sum(), pl.len().alias("size")).iter_rows()
    }
    judged = {suite.name: by_suite.get(suite.name, (0, 0))[0] for suite in suites}
    return judged, {suite.name: by_suite.get(suite.name, (0, 0))[1] for suite in suites}
