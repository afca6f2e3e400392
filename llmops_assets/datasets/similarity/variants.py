"""Rows that ask the same in more words: a word or a sentence is added, and what was there is still there.

They are two rows, and both are learned from (`differences`); but a test of one is no test for a model that learned the
other, so the splits keep them together.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from llmops_assets.datasets import batches, texts
from llmops_assets.datasets.similarity import differences, sketch
from llmops_assets.datasets.similarity.keys import normalised, prompts, spoken
from llmops_assets.datasets.similarity.shared_text import _MIX, _words
from llmops_assets.datasets.similarity.sketch import _longest, buffers, compiled

LEAST_COMMON = 0.4
"""Share of the longer text, in letters and without words of politeness, that the shorter one must be."""

SHORT, LEAST_COMMON_SHORT = 7, 0.6
"""A text of fewer letters than this stands in many questions by chance: it must be more of the longer one."""

BOTH_ADD, LEAST_COMMON_BOTH = 12, 0.75
"""Words up to which two texts may both have words that the other has not, and what they must have in common then. In
longer ones most is an instruction, and such words are what is asked."""

WORDS, RUN = 32, 3
"""Texts up to this many words are found by the words that they have, in any order; texts of more than half as many by
runs of three, because long texts have many words in common."""

WORD_BANDS, WORD_ROWS = 32, 2
"""Of a question of few words one that is added changes much: at a Jaccard similarity of 0.33 of the sets of words a
pair is found with a probability of 0.98, at 0.4 with 0.996."""

RUN_BANDS, RUN_ROWS = 20, 3
"""At 0.4 a pair is found with a probability of 0.73, at 0.5 with 0.93, at 0.7 with 0.9998."""

REACH = 16
"""Rows of a bucket, the nearest by their next band first, that each is compared with."""

SEED = 11
CLUSTERS = {"row_id": pl.String, "variants": pl.String}
_PARTICLES = ["은", "는", "이", "가", "을", "를", "의", "에", "도", "요", "로", "와", "과"]


@dataclass(frozen=True)
class Sketches:
    """What texts are found by: keys of bands and eight bits of each value, by words and by runs of words. A text that
    is too long for the one or too short for the other has none there. `words` counts those that say something,
    `text` is a hash of all of it."""

    by_words: tuple[np.ndarray, np.ndarray]
    by_runs: tuple[np.ndarray, np.ndarray]
    has_words: np.ndarray
    has_runs: np.ndarray
    words: np.ndarray
    text: np.ndarray


@compiled
def _hash_of_words(values, starts, result):
    room = _longest(starts) + 1
    hashes, places = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int64)
    for number in range(len(starts) - 1):
        count = _words(values, starts[number], starts[number + 1], hashes, places)
        result[number] = hashes[0] if count else np.uint64(0)


def _polite() -> np.ndarray:
    """Hashes of words that add nothing."""
    values, starts = buffers(pl.Series([word for word in differences.FILLERS if word]))
    result = np.empty(len(starts) - 1, dtype=np.uint64)
    _hash_of_words(values, starts, result)
    return np.sort(result)


@compiled
def _band_keys(smallest, keys, low, number):
    rows = len(smallest) // len(keys)
    for band in range(len(keys)):
        key = np.uint64(band + 1)
        for row in range(rows):
            key = (key ^ np.uint64(smallest[band * rows + row])) * _MIX
            key ^= key >> np.uint64(32)
        keys[band, number] = np.uint32(key & np.uint64(0xFFFFFFFF))
    for index in range(len(smallest)):
        low[number, index] = np.uint8((np.uint64(smallest[index]) * _MIX) >> np.uint64(56))


@compiled
def _sketch(values, starts, polite, longest, run, a, b, word_keys, word_low, run_keys, run_low, has, words):
    room = _longest(starts) + 1
    hashes, places = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int64)
    grams = np.empty(room, dtype=np.uint32)
    of_words = np.empty(word_low.shape[1], dtype=np.uint32)
    of_runs = np.empty(run_low.shape[1], dtype=np.uint32)
    for number in range(len(starts) - 1):
        every = _words(values, starts[number], starts[number + 1], hashes, places)
        count = 0
        for index in range(every):
            at = np.searchsorted(polite, hashes[index])
            if at == len(polite) or polite[at] != hashes[index]:
                hashes[count] = hashes[index]
                count += 1
        words[number] = count
        if 0 < count <= longest:
            has[0, number] = True
            for index in range(count):
                grams[index] = np.uint32((hashes[index] * _MIX) >> np.uint64(32))
            sketch._signature(grams, count, a[: len(of_words)], b[: len(of_words)], of_words)
            _band_keys(of_words, word_keys, word_low, number)
        if count > longest // 2:
            has[1, number] = True
            for start in range(count - run + 1):
                value = np.uint64(0)
                for step in range(run):
                    value = (value ^ hashes[start + step]) * _MIX
                    value ^= value >> np.uint64(32)
                grams[start] = np.uint32(value >> np.uint64(32))
            sketch._signature(grams, count - run + 1, a[: len(of_runs)], b[: len(of_runs)], of_runs)
            _band_keys(of_runs, run_keys, run_low, number)


def compared(rows: pl.DataFrame, dataset_type: str) -> pl.Series:
    """The normalised text that rows are variants by: what is asked, without the signs at the ends of words; of a plain
    document all of it."""
    if not texts.has_prompt(dataset_type):
        return normalised(rows, dataset_type)["whole"]
    asked = prompts(spoken(rows, dataset_type), dataset_type)
    return asked.str.replace_all(r"[^\p{L}\p{N}\s+=<>%$€£₩|\\#*/^.:-]|[.:](?:\s|$)", " ")


def sketches(text: pl.Series) -> Sketches:
    """What the texts of one batch (`compared`) are found by."""
    count = len(text)
    shapes = ((WORD_BANDS, WORD_ROWS), (RUN_BANDS, RUN_ROWS))
    keys = [np.zeros((bands, count), dtype=np.uint32) for bands, _ in shapes]
    low = [np.zeros((count, bands * rows), dtype=np.uint8) for bands, rows in shapes]
    has, words = np.zeros((2, count), dtype=np.bool_), np.zeros(count, dtype=np.int32)
    most = max(bands * rows for bands, rows in shapes)
    _sketch(
        *buffers(text),
        _polite(),
        WORDS,
        RUN,
        *sketch.permutations(most, SEED),
        keys[0],
        low[0],
        keys[1],
        low[1],
        has,
        words,
    )
    (w, r) = has
    return Sketches((keys[0][:, w], low[0][w]), (keys[1][:, r], low[1][r]), w, r, words, text.hash(7).to_numpy())


@compiled
def _slips(words):
    """Words of a text that need not stand in the longer one: slips of the pen, and particles."""
    return min(2, words // 4)


@compiled
def _alike(order, keys, low, sizes, reach, pairs, count):
    """Append to `pairs` those of one band: (smaller, larger), of one bucket, near each other in it, and as alike as two
    texts of these lengths are of which one holds the other."""
    width = low.shape[1]
    for i in range(len(order)):
        x = order[i]
        for j in range(i + 1, min(i + reach, len(order))):
            y = order[j]
            if keys[x] != keys[y]:
                break
            fewer, more = min(sizes[x], sizes[y]), max(sizes[x], sizes[y])
            if fewer * 3 < more:
                continue
            slips = _slips(fewer)
            share = max(fewer - slips, 1) / (more + slips)
            # Two and a half standard errors of the estimate.
            least = width * share - 2.5 * np.sqrt(width * share * (1 - share))
            agree = np.int32(0)
            one, other = low[x], low[y]
            for index in range(width):
                agree += np.int32(one[index] == other[index])
            if agree < least:
                continue
            if count == len(pairs):
                pairs = sketch._grown(pairs)
            pairs[count, 0], pairs[count, 1] = min(x, y), max(x, y)
            count += 1
    return pairs, count


def _candidates(keys: np.ndarray, low: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Pairs of texts that agree in a band and may be one in the other by how much they have in common, int64 of shape
    (pairs, 2); `sizes` are their words."""
    found = []
    for band in range(len(keys)):
        # Neighbours in a bucket are those that agree in the next band too: a full bucket parts no pair that is alike.
        after = keys[(band + 1) % len(keys)].astype(np.uint64)
        order = np.argsort(keys[band].astype(np.uint64) << np.uint64(32) | after).astype(np.int32)
        pairs, count = _alike(order, keys[band], low, sizes, REACH, np.empty((1024, 2), dtype=np.int32), 0)
        found.append(pairs[:count].astype(np.int64))
    return _distinct(np.concatenate(found))


def _distinct(pairs: np.ndarray) -> np.ndarray:
    """Each pair once, in order."""
    # Sorted: numpy's own `unique` is fifty times slower on pairs.
    whole = np.sort(pairs[:, 0] << 32 | pairs[:, 1])
    whole = whole[np.flatnonzero(np.diff(whole, prepend=-1))]
    return np.stack([whole >> 32, whole & 0xFFFFFFFF], axis=1)


@compiled
def _in_order(one, n, other, m, row):
    """How many words two texts have in common in the same order (longest common subsequence)."""
    row[: m + 1] = 0
    for i in range(n):
        corner = 0
        for j in range(m):
            above = row[j + 1]
            row[j + 1] = corner + 1 if one[i] == other[j] else max(above, row[j])
            corner = above
    return row[m]


@compiled
def _in_any_order(one, n, other, m):
    first, second = np.sort(one[:n]), np.sort(other[:m])
    both = at = 0
    for index in range(n):
        while at < m and second[at] < first[index]:
            at += 1
        if at < m and second[at] == first[index]:
            at += 1
            both += 1
    return both


@compiled
def _hold_most(values, starts, pairs, longest, result):
    """Of each pair whether the words of the shorter text, but a few slips, stand in the longer one; in order, too, of
    texts of no more than `longest` words."""
    room = _longest(starts) + 1
    one, other = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    places, row = np.empty(room, dtype=np.int64), np.empty(longest + 1, dtype=np.int64)
    for number in range(len(pairs)):
        x, y = pairs[number, 0], pairs[number, 1]
        n = _words(values, starts[x], starts[x + 1], one, places)
        m = _words(values, starts[y], starts[y + 1], other, places)
        if n > m:
            one, other, n, m = other, one, m, n
        both = _in_order(one, n, other, m, row) if m <= longest else _in_any_order(one, n, other, m)
        result[number] = n - both <= _slips(n)


def same(text: pl.Series, pairs: np.ndarray) -> np.ndarray:
    """Of each pair of texts (`compared`) whether one is the other with words added, on either side: booleans.

    Words are added where the other text has none; a word with a slip (a letter of four or more) or another particle
    counts as the same. How much both must hold, beside words of politeness, say the constants of this module.
    """
    held = buffers(text)
    hold = np.zeros(len(pairs), dtype=np.bool_)
    _hold_most(*held, pairs, 2 * WORDS, hold)
    some = np.flatnonzero(hold)
    table = differences.regions(held, pairs[some])
    a, b, n = pl.col("a"), pl.col("b"), pl.col("letters")
    other_end = a.str.head(-1) == b.str.head(-1)
    for side in (a, b):
        other_end = other_end & side.str.tail(1).is_in(_PARTICLES) & (side.str.len_chars() > 2)
    slip = (n >= 5) & (pl.col("distance") <= n // 5) & (pl.col("sort") == "slip")
    sign = pl.col("sort") == differences.SIGN
    added = ((a == "") | (b == "")) & ~(sign & (a == "") & (b == ""))
    table = table.with_columns(
        replaced=~(added | slip | other_end | pl.col("sort").is_null()),
        one_more=_letters_added("one", "b"), other_more=_letters_added("other", "a"),
    )  # fmt: skip
    per = table.group_by("pair").agg(pl.col("replaced").any(), pl.col("one_more", "other_more").sum())
    per = pl.DataFrame({"pair": np.arange(len(some))}).join(per, on="pair", how="left", maintain_order="left")
    letters = text.str.count_matches(r"[\p{L}\p{N}]").cast(pl.Int64).to_numpy()[pairs[some]]
    more = per.select(pl.col("one_more", "other_more").fill_null(0)).to_numpy()
    # Of the letters of each text those that are in the other one, too, beside words of politeness on either side.
    polite = text.str.extract_all(_POLITE).list.join("").str.count_matches(r"[\p{L}\p{N}]").cast(pl.Int64).to_numpy()
    own_letters = letters - polite[pairs[some]]
    common = np.maximum((own_letters - more).min(axis=1), 0)
    share = common / np.maximum(own_letters.max(axis=1), 1)
    words = text.str.count_matches(r"\S+").cast(pl.Int64).to_numpy()[pairs[some]].max(axis=1)
    both = more.min(axis=1) > 0
    enough = np.where(common < SHORT, LEAST_COMMON_SHORT, LEAST_COMMON)
    enough = np.where(both, np.where(words <= BOTH_ADD, LEAST_COMMON_BOTH, 1.0), enough)
    result = np.zeros(len(pairs), dtype=np.bool_)
    result[some] = ~per["replaced"].fill_null(False).to_numpy() & (share >= enough) & (common > 0)
    return result


_POLITE = r"(?:^|\s)(?:" + "|".join(differences.FILLERS[1:]) + r")\b"


def _letters_added(side: str, beside: str) -> pl.Expr:
    """Letters of what stands on one side alone, without words of politeness."""
    own_letters = pl.col(side).str.replace_all(_POLITE, " ").str.count_matches(r"[\p{L}\p{N}]").cast(pl.Int64)
    return pl.when(pl.col(beside) == "").then(own_letters).otherwise(0)


def clusters(found: Iterable[Sketches], again: batches.Batches, dataset_type: str) -> pl.DataFrame:
    """Rows that are variants of one another, directly or through others: row_id, `variants` (the row_id of the first);
    only where there are two or more. `again` gives the content of the rows once more, for those that may be."""
    parts = list(found)
    whole = np.concatenate([part.text for part in parts])
    words = np.concatenate([part.words for part in parts])
    # Of rows with one text the first stands for all: a question that a thousand rows ask is compared once.
    _, at, inverse = np.unique(whole, return_index=True, return_inverse=True)
    first = at[inverse]
    stands = first == np.arange(len(whole))
    pairs = []
    for kind, has in (("by_words", "has_words"), ("by_runs", "has_runs")):
        rows = np.flatnonzero(np.concatenate([getattr(part, has) for part in parts]))
        mine = stands[rows]
        if mine.sum() < 2:
            continue
        keys = np.concatenate([getattr(part, kind)[0] for part in parts], axis=1)[:, mine]
        low = np.concatenate([getattr(part, kind)[1] for part in parts])[mine]
        pairs.append(rows[mine][_candidates(keys, low, words[rows[mine]])])
    del parts
    every = _distinct(np.concatenate([np.empty((0, 2), np.int64), *pairs]))
    root = np.arange(len(whole))
    if len(every):
        wanted = np.unique(every)
        root[wanted] = wanted[_joined(np.searchsorted(wanted, every), _texts_of(wanted, again, dataset_type))]
    root = root[first]
    members = np.flatnonzero(np.bincount(root, minlength=len(root))[root] > 1)
    ids = pl.concat([batch["row_id"] for batch in again(["row_id"])])
    return pl.DataFrame({"row_id": ids.gather(members), "variants": ids.gather(root[members])}, schema=CLUSTERS)


def _joined(pairs: np.ndarray, text: pl.Series) -> np.ndarray:
    """For each text the first that it is a variant of, directly or through others."""
    root, joined = np.arange(len(text)), [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(pairs), _AT_ONCE):
        left = pairs[start : start + _AT_ONCE]
        left = left[root[left[:, 0]] != root[left[:, 1]]]
        joined.append(left[same(text, left)])
        root = sketch.components(len(text), np.concatenate(joined))
    return root


_AT_ONCE = 200_000
"""Pairs whose differences are held at a time."""


def find(rows: pl.DataFrame | batches.Batches, dataset_type: str) -> pl.DataFrame:
    """The same as `clusters`, of rows that are gone through for what they are found by."""
    again = batches.of(rows)
    columns = texts.content_columns(dataset_type)
    return clusters(
        batches.mapped(lambda batch: sketches(compared(batch, dataset_type)), batches.regrouped(again(columns))),
        again,
        dataset_type,
    )


def _texts_of(rows: np.ndarray, again: batches.Batches, dataset_type: str) -> pl.Series:
    """The compared texts of some rows (numbers, ascending)."""
    found = []
    begin = done = 0
    for batch in batches.regrouped(again(texts.content_columns(dataset_type))):
        end = begin + batch.height
        mine = rows[done : np.searchsorted(rows, end)] - begin
        if len(mine):
            found.append(compared(batch[mine.tolist()], dataset_type))
        done, begin = done + len(mine), end
    return pl.concat(found)
