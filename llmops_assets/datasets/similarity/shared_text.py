"""Finds text that many rows share (instructions, passages, licences) by how many rows hold each run of words."""

from dataclasses import dataclass, field

import numpy as np
import polars as pl

from llmops_assets.datasets.similarity.sketch import _longest, buffers, compiled

WINDOW = 5
"""Words of a run that is counted: long enough to be nobody's turn of phrase, short enough for an instruction."""

SHARED = 32
"""Rows from which a run of words tells rows apart no more: what candidates are found by leaves it out."""

KNOWN, RARER = 3, 20
"""Times from which a word may be one of the dataset's own, and how many times rarer it may be than the word that it
stands for: what is rarer is a slip of that."""

_SLOTS = 24
_MIX = np.uint64(0x9E3779B97F4A7C15)


@compiled
def _words(values, begin, end, hashes, places):
    """Hashes of the space-separated words of one text, and the byte where each begins; how many."""
    count = 0
    inside = False
    value = np.uint64(0)
    for at in range(begin, end):
        if values[at] == 32:
            if inside:
                hashes[count] = value
                count += 1
            inside = False
            continue
        if not inside:
            inside, value = True, np.uint64(0xCBF29CE484222325)
            places[count] = at
        value = (value ^ np.uint64(values[at])) * np.uint64(0x100000001B3)
        value ^= value >> np.uint64(29)
    if inside:
        hashes[count] = value
        count += 1
    return count


@compiled
def _slot(value):
    return np.uint32((value * _MIX) >> np.uint64(64 - _SLOTS))


@compiled
def _run(hashes, start):
    value = np.uint64(0)
    for step in range(WINDOW):
        value = (value ^ hashes[start + step]) * _MIX
        value ^= value >> np.uint64(32)
    return _slot(value)


@compiled
def _slots_of(values, starts, runs, words, run_counts, word_counts):
    room = _longest(starts) + 1
    hashes, places = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int64)
    many_runs = many_words = 0
    for number in range(len(starts) - 1):
        count = _words(values, starts[number], starts[number + 1], hashes, places)
        word_counts[number], run_counts[number] = count, max(0, count - WINDOW + 1)
        for index in range(count):
            words[many_words] = _slot(hashes[index])
            many_words += 1
        for start in range(count - WINDOW + 1):
            runs[many_runs] = _run(hashes, start)
            many_runs += 1
    return many_runs, many_words


@compiled
def _count(table, slots):
    """Count each slot, up to the largest number that the table holds; the largest count there is now of these."""
    most, largest = np.iinfo(table.dtype).max, 0
    for slot in slots:
        if table[slot] < most:
            table[slot] += 1
        largest = max(largest, table[slot])
    return largest


@compiled
def _known(values, starts, table, result):
    room = _longest(starts) + 1
    hashes, places = np.empty(room, dtype=np.uint64), np.empty(room + 1, dtype=np.int64)
    for number in range(len(starts) - 1):
        count = _words(values, starts[number], starts[number + 1], hashes, places)
        if count == 1:
            result[number] = table[_slot(hashes[0])]


@compiled
def _minima(values, starts, runs, words, least, result):
    """Of each text that holds a shared run, `result[:, text]`: the smallest hashes of the words that are its own."""
    room = _longest(starts) + 1
    hashes, places = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.int64)
    covered = np.empty(room, dtype=np.bool_)
    for number in range(len(starts) - 1):
        count = _words(values, starts[number], starts[number + 1], hashes, places)
        covered[:count] = False
        until, free, rare = 0, count, 0
        for index in range(count):
            if index + WINDOW <= count and runs[_run(hashes, index)] >= least:
                until = index + WINDOW
            covered[index] = index < until
            free -= covered[index]
            rare += not covered[index] and words[_slot(hashes[index])] < least
        if free == count:
            continue
        for row in range(len(result)):
            # A slip in shared text leaves words around it that are anybody's: half the values are of rare words.
            only_rare = rare > 0 and row % 2 == 1
            smallest = np.uint32(0xFFFFFFFF)
            for index in range(count):
                if free > 0 and (covered[index] or (only_rare and words[_slot(hashes[index])] >= least)):
                    continue
                value = (hashes[index] ^ np.uint64(row + 1)) * _MIX
                value = (value ^ (value >> np.uint64(31))) * _MIX
                smallest = min(smallest, np.uint32(value >> np.uint64(32)))
            result[row, number] = smallest


@compiled
def _stretches(values, starts, runs, least, found, most):
    """Up to `most` stretches of shared runs: text, first and last byte, and the fewest rows that hold a part of it."""
    room = _longest(starts) + 1
    hashes, places = np.empty(room, dtype=np.uint64), np.empty(room + 1, dtype=np.int64)
    total = 0
    for number in range(len(starts) - 1):
        count = _words(values, starts[number], starts[number + 1], hashes, places)
        places[count] = starts[number + 1]
        index = 0
        while index + WINDOW <= count:
            rows = runs[_run(hashes, index)]
            if rows < least:
                index += 1
                continue
            first, fewest = index, rows
            while index + WINDOW <= count and runs[_run(hashes, index)] >= max(least, fewest // 2):
                fewest = min(fewest, runs[_run(hashes, index)])
                index += 1
            last = index + WINDOW - 1
            if total == most:
                return total
            found[total, 0], found[total, 1] = number, places[first]
            found[total, 2], found[total, 3] = places[last], fewest
            total += 1
            index = max(index, last)
    return total


@dataclass(frozen=True)
class Slots:
    """Where the runs of words and the words of one batch are counted (`Counts`), and how many each text has."""

    runs: np.ndarray
    words: np.ndarray
    run_counts: np.ndarray
    word_counts: np.ndarray

    def of_rows(self, mask: np.ndarray) -> "Slots":
        """Those of the texts that `mask` says."""
        return Slots(
            self.runs[np.repeat(mask, self.run_counts)],
            self.words[np.repeat(mask, self.word_counts)],
            self.run_counts[mask],
            self.word_counts[mask],
        )


def slots(texts: pl.Series) -> Slots:
    """The slots of the runs and of the words of normalised texts."""
    values, starts = buffers(texts)
    most = (len(values) + 1) // 2 + len(texts)
    runs, words = np.empty(most, dtype=np.uint32), np.empty(most, dtype=np.uint32)
    run_counts, word_counts = np.empty(len(texts), dtype=np.int32), np.empty(len(texts), dtype=np.int32)
    many_runs, many_words = _slots_of(values, starts, runs, words, run_counts, word_counts)
    return Slots(runs[:many_runs].copy(), words[:many_words].copy(), run_counts, word_counts)


@dataclass
class Counts:
    """How many rows hold each run of words, and how often each word occurs; a little more where two fall on one slot.

    64 MB, however many rows: a run of a million rows shares its slot with a few others, which is far below `SHARED`.
    """

    runs: np.ndarray = field(default_factory=lambda: np.zeros(1 << _SLOTS, dtype=np.uint16))
    words: np.ndarray = field(default_factory=lambda: np.zeros(1 << _SLOTS, dtype=np.uint16))
    rows: int = 0
    most_shared: int = 0

    def add(self, found: Slots, rows: int) -> None:
        """Count one batch more."""
        self.most_shared = max(self.most_shared, int(_count(self.runs, found.runs)))
        _count(self.words, found.words)
        self.rows += rows

    @property
    def any_shared(self) -> bool:
        """Whether any run of words is in so many rows that candidates are to be found without it."""
        return self.most_shared >= SHARED

    def both_known(self, one: pl.Series, other: pl.Series) -> np.ndarray:
        """Of each pair of texts whether both are words of the dataset, and none a slip of the other."""
        first, second = self._times(one), self._times(other)
        fewer, more = np.minimum(first, second), np.maximum(first, second)
        return (fewer >= KNOWN) & (fewer * RARER >= more)

    def _times(self, texts: pl.Series) -> np.ndarray:
        """How often each text occurs as a word; 0 of one that is not a single word."""
        values, starts = buffers(texts)
        result = np.zeros(len(texts), dtype=np.int64)
        _known(values, starts, self.words, result)
        return result

    def own_words(self, texts: pl.Series, count: int) -> np.ndarray:
        """MinHash values of what normalised texts are beside what `SHARED` rows hold: uint32 of shape (count, texts), 0
        of a text that holds nothing shared."""
        values, starts = buffers(texts)
        result = np.zeros((count, len(texts)), dtype=np.uint32)
        _minima(values, starts, self.runs, self.words, SHARED, result)
        return result

    def stretches(self, texts: pl.Series, least: int, most: int = 4096) -> pl.DataFrame:
        """Shared stretches of normalised texts: `text` (number), `shared` (the words) and `rows`, by how many rows it
        is held."""
        values, starts = buffers(texts)
        found = np.empty((most, 4), dtype=np.int64)
        total = _stretches(values, starts, self.runs, least, found, most)
        held = values.tobytes()
        return pl.DataFrame(
            {
                "text": found[:total, 0],
                "shared": [held[begin:end].decode().strip() for begin, end in found[:total, 1:3].tolist()],
                "rows": found[:total, 3],
            },
            schema={"text": pl.Int64, "shared": pl.String, "rows": pl.Int64},
        )
