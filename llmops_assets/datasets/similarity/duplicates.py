"""Exact and near duplicates: MinHash by datasketch's permutations, sorted bands, and exact verification."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, texts
from llmops_assets.datasets.similarity import sketch
from llmops_assets.datasets.similarity.normal import normalise

SAME_QUESTION = 0.7
"""Rows with one and the same answer are duplicates only when their prompts are this similar (Jaccard): one answer to
many questions is how a help desk works."""

PROMPT_BANDS, PROMPT_ROWS = 20, 4
"""Bands that find prompts as similar as that: of pairs at the very edge, 0.4 % are missed."""

LARGEST_BUCKET = 64
"""How many rows of one bucket each row is compared with."""


@dataclass(frozen=True)
class Near:
    """Which rows are near duplicates: `bands` × `rows` hash values, character `shingle`-grams, Jaccard ≥ `jaccard`."""

    bands: int = 20
    rows: int = 6
    shingle: int = 5
    jaccard: float = 0.8
    seed: int = 1


@dataclass(frozen=True)
class Duplicates:
    """`clusters`: row_id, cluster (row_id of its kept row), kept, exact; only rows of clusters with two or more."""

    clusters: pl.DataFrame
    exact: int
    near: int

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return int(self.clusters["kept"].sum())


CLUSTERS = {"row_id": pl.String, "cluster": pl.String, "kept": pl.Boolean, "exact": pl.Boolean}


def normalised(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """The normalised `prompt`, `answer` and `whole` text of each row; `prompt` is null where the type has none."""
    parts = [normalise(part) for part in rows.select(texts.parts_of(dataset_type))]
    whole = parts[0] if len(parts) == 1 else pl.select(pl.concat_str(parts, separator=" ")).to_series()
    prompt = parts[0] if texts.has_prompt(dataset_type) else pl.Series([None] * rows.height, dtype=pl.String)
    answer = parts[1] if texts.has_prompt(dataset_type) else parts[0]
    return pl.DataFrame({"prompt": prompt, "answer": answer, "whole": whole})


_TURNS = {"sft_pair": "messages", "eval_suite": "messages", "rlhf_pair": "prompt"}
"""Where a system turn may be."""


def spoken(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """The rows without their system turns, which say nothing of how alike two rows are: all of a dataset may share
    one that is longer than question and answer."""
    name = _TURNS.get(dataset_type)
    if name is None or not rows[name].list.eval(pl.element().struct.field("role") == "system").list.any().any():
        return rows
    return rows.with_columns(texts.without_system(pl.col(name)))


def learned(rows: pl.DataFrame, dataset_type: str) -> pl.DataFrame:
    """The normalised `question` and `core` (question and answer) of each row: what is to be learned from it, without
    system turns and passages."""
    parts = spoken(rows, dataset_type).select(texts.parts_of(dataset_type))
    if not texts.has_prompt(dataset_type):
        whole = normalise(parts.to_series())
        return pl.DataFrame({"question": whole, "core": whole})
    question = normalise(parts.select(texts.question_of(dataset_type)).to_series())
    answer = normalise(parts["answer"])
    rest = [normalise(parts["rest"])] if dataset_type == "rlhf_pair" else []
    return pl.DataFrame(
        {"question": question, "core": pl.select(pl.concat_str([question, answer, *rest], separator=" ")).to_series()}
    )


def prompts(rows: pl.DataFrame, dataset_type: str) -> pl.Series:
    """The normalised prompt of each row, null where the type has none."""
    # Beside the other columns: a literal null alone would be one row, however many there are.
    return normalise(rows.with_columns(texts.prompt_of(dataset_type).alias("prompt"))["prompt"])


@dataclass(frozen=True)
class Keys:
    """What rows are compared by, without their texts.

    `table`: row_id, two hashes of the whole text, one of prompt and answer each (null where there is none). `bands` and
    `low` are `sketch.sketches` of the whole texts without system turns, `asked` and `asked_low` those of the prompts.
    """

    table: pl.DataFrame
    bands: np.ndarray
    low: np.ndarray
    asked: np.ndarray
    asked_low: np.ndarray


def keys(rows: pl.DataFrame, dataset_type: str, how: Near | None) -> Keys:
    """The keys of one batch (row_id and content columns); without `how` only the table of hashes."""
    text = normalised(rows, dataset_type)
    # Rows that offer other tools are no repeats, however alike they read.
    offered = rows["tools"] if "tools" in rows.columns else pl.Series([None] * rows.height, dtype=pl.String)
    identity = pl.concat_str("whole", offered, separator="\x1f", ignore_nulls=True)
    table = text.select(
        rows["row_id"],
        identity.hash(1).alias("whole"),
        identity.hash(2).alias("whole2"),
        pl.when(pl.col("prompt").is_not_null()).then(pl.col("prompt").hash(3)).alias("prompt"),
        pl.when(pl.col("answer").is_not_null()).then(pl.col("answer").hash(4)).alias("answer"),
    )
    nothing = np.empty((0, rows.height), np.uint32), np.empty((rows.height, 0), np.uint8)
    if how is None:
        return Keys(table, *nothing, *nothing)
    without_system = spoken(rows, dataset_type)
    compared = text if without_system is rows else normalised(without_system, dataset_type)
    bands, low = sketch.sketches(compared["whole"], how.shingle, how.bands, how.rows, how.seed)
    if texts.has_prompt(dataset_type):
        asked, asked_low = sketch.sketches(compared["prompt"], how.shingle, PROMPT_BANDS, PROMPT_ROWS, how.seed)
    else:
        asked, asked_low = nothing
    return Keys(table, bands, low, asked, asked_low)


def some_keys(found: Keys, wanted: pl.Series) -> Keys:
    """The keys of the rows that `wanted` (booleans) says."""
    mask = wanted.to_numpy()
    return Keys(
        table=found.table.filter(wanted),
        bands=found.bands[:, mask],
        low=found.low[mask],
        asked=found.asked[:, mask],
        asked_low=found.asked_low[mask],
    )


def restricted(clusters: pl.DataFrame, ids: pl.Series) -> pl.DataFrame:
    """The clusters among some of the rows, given in their order: without the others, and of two rows at least."""
    left = ids.to_frame("row_id").join(clusters, on="row_id", maintain_order="left")
    left = left.filter(pl.len().over("cluster") > 1)
    first = pl.col("row_id").first().over("cluster")
    return left.select("row_id", first.alias("cluster"), (pl.col("row_id") == first).alias("kept"), "exact")


def joined(parts: Iterable[Keys]) -> Keys:
    """The keys of all batches, in order."""
    tables: list[pl.DataFrame] = []
    arrays: dict[str, list[np.ndarray]] = {"bands": [], "low": [], "asked": [], "asked_low": []}
    for part in parts:
        tables.append(part.table)
        for name, found in arrays.items():
            found.append(getattr(part, name))
    whole = {}
    for name, axis in (("bands", 1), ("low", 0), ("asked", 1), ("asked_low", 0)):
        # One after another, each dropped once it is joined: all at once would be held twice.
        whole[name] = np.concatenate(arrays.pop(name), axis=axis)
    return Keys(table=pl.concat(tables, rechunk=True), **whole)


def components(size: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `size` items the smallest item that it is connected with through `pairs`."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(size, size))
    _, label = connected_components(graph, directed=False)
    smallest = np.full(label.max(initial=-1) + 1, size, dtype=np.int64)
    np.minimum.at(smallest, label, np.arange(size))
    return smallest[label]


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
    pairs = sketch.candidates(bands, low, how.jaccard, LARGEST_BUCKET)
    similarity = sketch.jaccard(sketch.buffers(documents), pairs, how.shingle)
    keep = similarity >= how.jaccard
    return pairs[keep], similarity[keep]


def find(rows: pl.DataFrame | batches.Batches, dataset_type: str, how: Near | None = None) -> Duplicates:
    """Clusters of equal and nearly equal rows; of each the first row, in the order given, is the one to keep.

    Exact: equal after normalisation, by a 128-bit hash. Near: see `near_pairs`, over the whole text of a row, and over
    what is to be learned from it alone (`learned`): a system prompt or a passage that rows share makes no duplicates of
    them. Rows of a chat with the same answer must ask nearly the same (`SAME_QUESTION`). The rows are gone through
    twice: for their keys, and for the texts of candidates.
    """
    how = how or Near()
    again = batches.of(rows)
    columns = ["row_id", *texts.content_columns(dataset_type)]
    found = batches.mapped(lambda batch: keys(batch, dataset_type, how), batches.regrouped(again(columns)))
    return clusters(joined(found), again, dataset_type, how)


def clusters(found: Keys, again: batches.Batches, dataset_type: str, how: Near) -> Duplicates:
    """The clusters among rows whose keys were taken; `again` gives their content once more."""
    table = found.table.with_row_index("row").with_columns(pl.col("row").min().over("whole", "whole2").alias("first"))
    first = table["first"].to_numpy()
    unique = np.flatnonzero(first == np.arange(len(first)))
    every = len(unique) == len(first)
    group = table["answer"].fill_null(0).to_numpy()[unique]
    with_prompt = texts.has_prompt(dataset_type)
    pairs = sketch.candidates(
        found.bands if every else found.bands[:, unique],
        found.low if every else found.low[unique],
        how.jaccard,
        LARGEST_BUCKET,
        group,
        sketch.OTHER if with_prompt else sketch.ANY,
    )
    asked = np.empty((0, 2), dtype=np.int32)
    if with_prompt:
        # Rows with an answer that no other row has need no second look at their prompts.
        _, inverse, counts = np.unique(group, return_inverse=True, return_counts=True)
        shared = np.flatnonzero(counts[inverse] > 1)
        if len(shared):
            rows = unique[shared]
            own = (group[shared] >> np.uint64(32)).astype(np.uint32)
            asked = shared[
                sketch.candidates(
                    found.asked[:, rows] ^ own, found.asked_low[rows], SAME_QUESTION, LARGEST_BUCKET,
                    group[shared], sketch.SAME,
                )
            ]  # fmt: skip
    root = np.arange(len(first))
    if len(pairs) or len(asked):
        wanted = np.unique(np.concatenate((pairs.ravel(), asked.ravel())))
        held = _texts_of(unique[wanted], table, again, dataset_type)
        parent = np.arange(len(wanted))
        pairs, asked = np.searchsorted(wanted, pairs), np.searchsorted(wanted, asked)
        whole, core = (held["whole"], how.jaccard), (held["core"], how.jaccard)
        sketch.join(parent, pairs, how.shingle, [whole, core])
        # Of one and the same answer the question alone decides.
        question = (held["question"], SAME_QUESTION)
        sketch.join(parent, asked, how.shingle, [(held["prompt"], SAME_QUESTION), question, whole])
        while (parent[parent] != parent).any():
            parent = parent[parent]
        root[unique[wanted]] = unique[wanted[parent]]
    root = root[first]
    members = np.flatnonzero(np.bincount(root, minlength=len(root))[root] > 1)
    ids = table["row_id"]
    frame = pl.DataFrame(
        {
            "row_id": ids.gather(members),
            "cluster": ids.gather(root[members]),
            "kept": pl.Series(root[members] == members, dtype=pl.Boolean),
            "exact": pl.Series(first[members] != members, dtype=pl.Boolean),
        },
        schema=CLUSTERS,
    )
    dropped = frame.filter(~pl.col("kept"))
    exact = dropped.filter("exact").height
    return Duplicates(clusters=frame, exact=exact, near=dropped.height - exact)


def _texts_of(
    rows: np.ndarray, table: pl.DataFrame, again: batches.Batches, dataset_type: str
) -> dict[str, sketch.Buffers]:
    """The normalised texts of some rows (numbers, ascending), as `sketch.buffers` has them: whole, prompt, question and
    core; prompt and question are empty where the type has none."""
    with_prompt = texts.has_prompt(dataset_type)
    kinds = ["whole", "prompt", "question", "core"] if with_prompt else ["whole"]
    parts: dict[str, list[np.ndarray]] = {kind: [] for kind in kinds}
    sizes: dict[str, list[np.ndarray]] = {kind: [np.zeros(1, dtype=np.int64)] for kind in kinds}

    def chosen(part: tuple[int, pl.DataFrame, np.ndarray]) -> pl.DataFrame:
        _, batch, mine = part
        some = batch[mine.tolist()]
        text = normalised(some, dataset_type)
        return text.hstack(learned(some, dataset_type)) if with_prompt else text

    for text in batches.mapped(chosen, _parts_with(rows, again(texts.content_columns(dataset_type)))):
        for kind in kinds:
            data, starts = sketch.buffers(text[kind])
            parts[kind].append(data[starts[0] : starts[-1]].copy())
            sizes[kind].append(np.diff(starts))
    held = {kind: (np.concatenate(parts.pop(kind)), np.cumsum(np.concatenate(sizes[kind]))) for kind in kinds}
    # A document has nothing around what is learned from it.
    return held if with_prompt else dict.fromkeys(("whole", "prompt", "question", "core"), held["whole"])


def _parts_with(rows: np.ndarray, frames: Iterable[pl.DataFrame]) -> Iterable[tuple[int, pl.DataFrame, np.ndarray]]:
    """Batches that hold some of `rows`: how many of those came before, the batch, and their numbers in it."""
    begin = done = 0
    for batch in batches.regrouped(frames):
        end = begin + batch.height
        mine = rows[done : np.searchsorted(rows, end)] - begin
        if len(mine):
            yield done, batch, mine
        done, begin = done + len(mine), end
