"""Exact and near duplicates: MinHash by datasketch's permutations, sorted bands, and exact verification."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, texts
from llmops_assets.datasets.similarity import differences, shared_text, sketch
from llmops_assets.datasets.similarity.keys import (
    Gathered,
    Keys,
    Near,
    columns,
    gathered,
    keys,
    normalised,
    prompts,
    some_keys,
    spoken,
)
from llmops_assets.datasets.similarity.normal import normalise
from llmops_assets.datasets.similarity.sketch import components

__all__ = [
    "Duplicates", "Gathered", "Keys", "Near", "clusters", "components", "find", "gathered", "keys", "near_pairs",
    "normalise", "normalised", "prompts", "restricted", "some_keys",
]  # fmt: skip

SIMILAR_PROMPT = 0.7
"""What the prompts of rows with one and the same answer must have in common (Jaccard) for the rows to be compared."""

LARGEST_BUCKET = 64
"""How many rows of one bucket each row is compared with."""

COMPARED_AT_ONCE = 200_000
"""Pairs whose differences are held at a time."""


@dataclass(frozen=True)
class Duplicates:
    """`clusters`: row_id, cluster (row_id of its kept row), kept, exact; only rows of clusters with two or more.

    `apart` counts the pairs that are as alike as duplicates are and say something else, by what differs; `counts` is
    what many rows share.
    """

    clusters: pl.DataFrame
    exact: int
    near: int
    apart: dict[str, int] = field(default_factory=dict)
    counts: shared_text.Counts | None = None

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return int(self.clusters["kept"].sum())


CLUSTERS = {"row_id": pl.String, "cluster": pl.String, "kept": pl.Boolean, "exact": pl.Boolean}


def restricted(clusters: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """The clusters among some of the rows, given in their order: without the others, and of two rows at least."""
    left = ids.to_frame("row_id").join(clusters, on="row_id", maintain_order="left")
    left = left.filter(pl.len().over("cluster") > 1)
    first = pl.col("row_id").first().over("cluster")
    return left.select("row_id", first.alias("cluster"), (pl.col("row_id") == first).alias("kept"), "exact")


def near_pairs(documents: pl.Series, how: Near) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of documents with a Jaccard similarity of at least `how.jaccard`, and that similarity.

    Broder's MinHash with locality-sensitive banding (Leskovec et al., Mining of Massive Datasets, chapter 3), eight
    bits a value to judge candidates by (Li and König, b-bit minwise hashing, 2010); who is left is verified on the
    real sets, so precision is 1 and only recall depends on the bands: 0.9985 of pairs at a similarity of 0.8.
    """
    parts = [documents[start : start + batches.ROWS] for start in range(0, max(len(documents), 1), batches.ROWS)]
    found = list(batches.mapped(lambda p: sketch.sketches(p, how.shingle, how.bands, how.rows, how.seed), parts))
    bands = np.concatenate([bands for bands, _ in found], axis=1)
    low = np.concatenate([low for _, low in found])
    del found
    pairs = sketch.candidates(bands, low, how.jaccard, np.full(how.bands, LARGEST_BUCKET))
    similarity = sketch.jaccard(sketch.buffers(documents), pairs, how.shingle)
    keep = similarity >= how.jaccard
    return pairs[keep], similarity[keep]


def find(rows: pl.DataFrame | batches.Batches, dataset_type: str, how: Near | None = None) -> Duplicates:
    """Clusters of equal and nearly equal rows; of each the first row, in the order given, is the one to keep.

    Exact: equal after normalisation, by a 128-bit hash. Near: equal but for spaces and punctuation, or a whole text
    that is as alike as `near_pairs` says, where what differs are slips and no facts (`differences`): rows that share a
    system prompt, a passage, an instruction or a licence differ in what is to be learned from them. The rows are gone
    through for their keys, for what they are beside text that many share (where any is), and for candidates' texts.
    """
    how = how or Near()
    again = batches.of(rows)
    found = batches.mapped(
        lambda batch: keys(batch, dataset_type, how), batches.regrouped(again(columns(dataset_type)))
    )
    return clusters(gathered(found), again, dataset_type, how)


def clusters(given: Gathered, again: batches.Batches, dataset_type: str, how: Near) -> Duplicates:
    """The clusters among rows whose keys were gathered; `again` gives their content once more."""
    brought, counts = given.joined_table(), given.counts
    table = brought.with_row_index("row").with_columns(pl.col("row").min().over("whole", "whole2").alias("first"))
    exact = table["first"].to_numpy()
    first = (
        table.select(pl.col("first").min().over("bare")).to_series().to_numpy() if "bare" in table.columns else exact
    )
    # What repeats another is compared with nothing.
    once = first == np.arange(len(first))
    unique = np.flatnonzero(once)
    found = given.joined(brought.filter(pl.Series(once)), once)
    del brought
    if counts.any_shared:
        _part_by_own_words(found, counts, again, dataset_type, once)
    pairs = _candidates(found, dataset_type, how, counts.any_shared)
    del found
    root, apart = np.arange(len(first)), dict[str, int]()
    if len(pairs):
        wanted = np.unique(pairs)
        held = _texts_of(unique[wanted], again, dataset_type)
        small, apart = _same(np.searchsorted(wanted, pairs), held, counts, dataset_type, how)
        root[unique[wanted]] = unique[wanted[small]]
    root = root[first]
    members = np.flatnonzero(np.bincount(root, minlength=len(root))[root] > 1)
    ids = table["row_id"]
    frame = pl.DataFrame(
        {
            "row_id": ids.gather(members),
            "cluster": ids.gather(root[members]),
            "kept": pl.Series(root[members] == members, dtype=pl.Boolean),
            "exact": pl.Series(exact[members] != members, dtype=pl.Boolean),
        },
        schema=CLUSTERS,
    )
    dropped = frame.filter(~pl.col("kept"))
    repeated = dropped.filter("exact").height
    return Duplicates(frame, repeated, dropped.height - repeated, apart, counts)


PLAIN, NEXT = 4, 3
"""Of how many bands one is left as it is when rows are parted by their own words, and how many rows of its buckets each
is compared with: a large family of copies, which share all, is found by its neighbours."""


def _part_by_own_words(
    found: Keys, counts: shared_text.Counts, again: batches.Batches, dataset_type: str, once: np.ndarray
) -> None:
    """Give rows that hold text which many rows share buckets by what they are beside it, in place: else a bucket would
    be full of rows that are alike in nothing but that text, and the two that are the same would not meet.

    `found` has the rows that `once` says of all.
    """

    def look(batch: pl.DataFrame) -> np.ndarray:
        whole = normalised(spoken(batch, dataset_type), dataset_type, cased=True)["whole"]
        return counts.own_words(whole, max(len(found.bands), len(found.asked)))

    begin = row = 0
    for own_of_all in batches.mapped(look, batches.regrouped(again(texts.content_columns(dataset_type)))):
        own = own_of_all[:, once[row : row + own_of_all.shape[1]]]
        row += own_of_all.shape[1]
        end = begin + own.shape[1]
        for bands in (found.bands, found.asked):
            parted = np.arange(len(bands)) % PLAIN != 0
            bands[parted, begin:end] ^= own[: len(bands)][parted]
        begin = end


def _reach(bands: int, parted: bool) -> np.ndarray:
    """How many rows of a bucket each is compared with, band by band."""
    return np.where(parted & (np.arange(bands) % PLAIN == 0), NEXT, LARGEST_BUCKET)


def _candidates(found: Keys, dataset_type: str, how: Near, parted: bool) -> np.ndarray:
    """Pairs of rows, none of which repeats another, that may be near duplicates, each once: int64, (pairs, 2)."""
    table, low = found.table, found.low
    # Rows with other numbers are two rows: they meet in no bucket.
    numbers = table["numbers"].to_numpy() if how.heeds_facts(dataset_type) else np.zeros(table.height, np.uint32)
    group = table["answer"].fill_null(0).to_numpy()
    with_prompt = texts.has_prompt(dataset_type)
    wanted = sketch.OTHER if with_prompt else sketch.ANY
    bands = found.bands ^ numbers
    reach = _reach(len(bands), parted)
    pairs = [sketch.candidates(bands, low, how.jaccard, reach, group=group, wanted=wanted)]
    if not with_prompt and how.heeds_facts(dataset_type):
        # One copy of a document may count a page or an attachment more: its neighbours are looked at all the same.
        plain = np.ascontiguousarray(found.bands[::PLAIN])
        pairs.append(sketch.candidates(plain, low, how.jaccard, np.full(len(plain), NEXT)))
    if with_prompt:
        # Rows with an answer that no other row has need no second look at their prompts.
        _, inverse, sizes = np.unique(group, return_inverse=True, return_counts=True)
        if len(alike := np.flatnonzero(sizes[inverse] > 1)):
            mine = numbers[alike] ^ (group[alike] >> np.uint64(32)).astype(np.uint32)
            asked = sketch.candidates(
                found.asked[:, alike] ^ mine, found.asked_low[alike], SIMILAR_PROMPT,
                _reach(len(found.asked), parted), group=group[alike], wanted=sketch.SAME,
            )  # fmt: skip
            pairs.append(alike[asked])
    return np.unique(np.concatenate(pairs).astype(np.int64), axis=0)


@dataclass(frozen=True)
class _Held:
    """The normalised texts of some rows: whole, with the byte where the answer begins and its letters."""

    whole: sketch.Buffers
    answers: np.ndarray
    letters: np.ndarray


def _same(
    pairs: np.ndarray, held: _Held, counts: shared_text.Counts, dataset_type: str, how: Near
) -> tuple[np.ndarray, dict[str, int]]:
    """For each text the first one that it says the same as, directly or through others; and how many pairs are alike
    and say something else, by what differs.

    Of each text one pair is compared first: a family of a thousand copies costs some thousand comparisons, not half a
    million, because what is connected already is not compared.
    """
    size = len(held.answers)
    root = np.arange(size)
    joined, apart = [np.empty((0, 2), dtype=np.int64)], dict[str, int]()
    left = pairs
    _, begins = np.unique(pairs[:, 0], return_index=True)
    rounds = [begins, np.setdiff1d(np.arange(len(pairs)), begins, assume_unique=True)]
    for chosen in rounds:
        for start in range(0, len(chosen), COMPARED_AT_ONCE):
            left = pairs[chosen[start : start + COMPARED_AT_ONCE]]
            left = left[root[left[:, 0]] != root[left[:, 1]]]
            similarity = sketch.jaccard(held.whole, left, how.shingle)
            left = left[similarity >= how.jaccard]
            if not len(left):
                continue
            judged = differences.compare(
                held.whole, left, counts,
                answers=held.answers if texts.has_prompt(dataset_type) else None,
                letters=held.letters, facts=how.heeds_facts(dataset_type),
            )  # fmt: skip
            for reason, many in judged.filter(~pl.col("same")).group_by("why").len().iter_rows():
                apart[reason] = apart.get(reason, 0) + many
            joined.append(left[judged["same"].to_numpy()])
            root = components(size, np.concatenate(joined))
    return root, dict(sorted(apart.items()))


def _texts_of(rows: np.ndarray, again: batches.Batches, dataset_type: str) -> _Held:
    """The normalised texts of some rows (numbers, ascending)."""
    parts: list[np.ndarray] = []
    sizes: list[np.ndarray] = [np.zeros(1, dtype=np.int64)]
    answers, letters = [np.empty(0, np.int64)], [np.empty(0, np.int64)]

    def chosen(part: tuple[int, pl.DataFrame, np.ndarray]) -> pl.DataFrame:
        _, batch, mine = part
        return normalised(batch[mine.tolist()], dataset_type, cased=True)

    for text in batches.mapped(chosen, _parts_with(rows, again(texts.content_columns(dataset_type)))):
        data, starts = sketch.buffers(text["whole"])
        parts.append(data[starts[0] : starts[-1]].copy())
        sizes.append(np.diff(starts))
        answers.append(text["prompt"].str.len_bytes().fill_null(0).cast(pl.Int64).to_numpy())
        letters.append(text["answer"].str.count_matches(r"[\p{L}\p{N}]").cast(pl.Int64).to_numpy())
    whole = np.concatenate(parts), np.cumsum(np.concatenate(sizes))
    return _Held(whole, np.concatenate(answers), np.concatenate(letters))


def _parts_with(rows: np.ndarray, frames: Iterable[pl.DataFrame]) -> Iterable[tuple[int, pl.DataFrame, np.ndarray]]:
    """Batches that hold some of `rows`: how many of those came before, the batch, and their numbers in it."""
    begin = done = 0
    for batch in batches.regrouped(frames):
        end = begin + batch.height
        mine = rows[done : np.searchsorted(rows, end)] - begin
        if len(mine):
            yield done, batch, mine
        done, begin = done + len(mine), end
