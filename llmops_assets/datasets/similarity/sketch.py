"""MinHash sketches and exact Jaccard similarity of texts, compiled: a document's shingles never leave the cache."""

import importlib
from functools import cache

import numba
import numpy as np
import polars as pl
from numba.np import linalg


def _without_blas() -> None:
    """Let numba leave linear algebra out, which nothing here is compiled with.

    To offer it, numba loads scipy.linalg before the first function is called, which takes as long as all else that a
    scan of a small file loads.
    """
    whole = linalg.ensure_blas

    def none() -> None:
        raise ImportError

    linalg.ensure_blas = none
    try:
        importlib.import_module("numba.np.arraymath")
    finally:
        linalg.ensure_blas = whole


_without_blas()

# nogil: batches are sketched on all cores at once. cache: compiled once per machine, not once per process.
compiled = numba.njit(nogil=True, cache=True, error_model="numpy")

_MIX = np.uint64(0x9E3779B97F4A7C15)
_SPREAD = np.uint32(0x9E3779B1)
_NONE = np.uint32(0xFFFFFFFF)

Buffers = tuple[np.ndarray, np.ndarray]
"""Texts one after another and where each begins (`buffers`)."""

ANY, OTHER, SAME = 0, 1, 2
"""Which pairs `candidates` wants: all, those of different groups, those of one group."""


def buffers(texts: pl.Series) -> tuple[np.ndarray, np.ndarray]:
    """UTF-8 bytes of all texts one after another (uint8) and where each begins (int64, one more than texts).

    A null is an empty text.
    """
    import pyarrow as pa

    array = texts.fill_null("").to_arrow().cast(pa.large_string())
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    _, offsets, values = array.buffers()
    starts = np.frombuffer(offsets, dtype=np.int64)[array.offset : array.offset + len(array) + 1]
    data = np.frombuffer(values or b"", dtype=np.uint8)
    return data, starts


@cache
def permutations(count: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Multipliers and summands of datasketch's scheme ``affine32``, uint32 of shape (count,) each."""
    # The package itself takes a second to import, with much of scipy; a test holds the two together.
    random = np.random.RandomState(seed)
    a = random.randint(0, 1 << 31, count, dtype=np.uint32) * np.uint32(2) + np.uint32(1)
    return a, random.randint(0, 1 << 32, count, dtype=np.uint32)


@compiled
def _decode(values, begin, end, points):
    """Code points of the UTF-8 text at `values[begin:end]` into `points`; how many there are."""
    count = 0
    at = begin
    while at < end:
        lead = np.uint32(values[at])
        if lead < 0x80:
            points[count] = lead
            at += 1
        elif lead < 0xE0:
            points[count] = ((lead & np.uint32(0x1F)) << np.uint32(6)) | np.uint32(values[at + 1] & 0x3F)
            at += 2
        elif lead < 0xF0:
            points[count] = (
                ((lead & np.uint32(0x0F)) << np.uint32(12))
                | (np.uint32(values[at + 1] & 0x3F) << np.uint32(6))
                | np.uint32(values[at + 2] & 0x3F)
            )
            at += 3
        else:
            points[count] = (
                ((lead & np.uint32(0x07)) << np.uint32(18))
                | (np.uint32(values[at + 1] & 0x3F) << np.uint32(12))
                | (np.uint32(values[at + 2] & 0x3F) << np.uint32(6))
                | np.uint32(values[at + 3] & 0x3F)
            )
            at += 4
        count += 1
    return count


@compiled
def _shingles(values, begin, end, size, points, hashes):
    """Hashes of the character `size`-grams of one text into `hashes`; how many (one for a text shorter than that)."""
    count = _decode(values, begin, end, points)
    while count < size:
        points[count] = np.uint32(0)
        count += 1
    windows = count - size + 1
    for start in range(windows):
        value = np.uint64(0)
        for step in range(size):
            value = (value ^ np.uint64(points[start + step])) * _MIX
            value ^= value >> np.uint64(29)
        hashes[start] = np.uint32(value >> np.uint64(32))
    return windows


@compiled
def _finalize(value):
    """MurmurHash3's finalizer of a 32-bit value."""
    value = np.uint32(value ^ (value >> np.uint32(16)))
    value = np.uint32(value * np.uint32(0x85EBCA6B))
    value = np.uint32(value ^ (value >> np.uint32(13)))
    value = np.uint32(value * np.uint32(0xC2B2AE35))
    return np.uint32(value ^ (value >> np.uint32(16)))


@compiled
def _longest(starts):
    longest = 0
    for number in range(len(starts) - 1):
        longest = max(longest, starts[number + 1] - starts[number])
    return longest


@compiled
def _signature(hashes, count, a, b, smallest):
    smallest[:] = _NONE
    for number in range(count):
        value = _finalize(hashes[number])
        for index in range(len(a)):
            smallest[index] = min(smallest[index], np.uint32(np.uint32(value * a[index]) + b[index]))


@compiled
def _signatures(values, starts, size, a, b, result):
    room = _longest(starts) + size
    points, hashes = np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint32)
    for number in range(len(starts) - 1):
        count = _shingles(values, starts[number], starts[number + 1], size, points, hashes)
        _signature(hashes, count, a, b, result[number])


@compiled
def _sketches(values, starts, size, a, b, keys, low):
    bands = keys.shape[0]
    rows = len(a) // bands
    room = _longest(starts) + size
    points, hashes = np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint32)
    smallest = np.empty(len(a), dtype=np.uint32)
    for number in range(len(starts) - 1):
        count = _shingles(values, starts[number], starts[number + 1], size, points, hashes)
        _signature(hashes, count, a, b, smallest)
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(rows):
                key = (key ^ np.uint64(smallest[band * rows + row])) * _MIX
                key ^= key >> np.uint64(32)
            keys[band, number] = np.uint32(key & np.uint64(0xFFFFFFFF))
        for index in range(len(a)):
            low[number, index] = np.uint8(np.uint32(smallest[index] * _SPREAD) >> np.uint32(24))


def signatures(texts: pl.Series, size: int, count: int, seed: int = 1) -> np.ndarray:
    """MinHash signatures over character `size`-grams, uint32 of shape (texts, count), equal to datasketch's."""
    result = np.empty((len(texts), count), dtype=np.uint32)
    _signatures(*buffers(texts), size, *permutations(count, seed), result)
    return result


def sketches(texts: pl.Series, size: int, bands: int, rows: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """What candidates are found by, a quarter of the signatures' size.

    Returns the hash of each band (uint32 of shape (bands, texts)) and eight bits of every signature value (uint8 of
    shape (texts, bands × rows)), by which the similarity of two texts is estimated.
    """
    keys = np.empty((bands, len(texts)), dtype=np.uint32)
    low = np.empty((len(texts), bands * rows), dtype=np.uint8)
    _sketches(*buffers(texts), size, *permutations(bands * rows, seed), keys, low)
    return keys, low


@compiled
def _grown(pairs):
    larger = np.empty((2 * len(pairs), 2), dtype=np.int32)
    larger[: len(pairs)] = pairs
    return larger


@compiled
def _candidates(order, keys, band, low, least, reach, group, wanted, pairs, count):
    """Append to `pairs` those of one band: (smaller, larger) document, both of one bucket and alike by estimate."""
    for i in range(len(order)):
        x = order[i]
        for j in range(i + 1, min(i + reach[band], len(order))):
            y = order[j]
            if keys[band, x] != keys[band, y]:
                break
            if wanted != ANY and (group[x] == group[y]) != (wanted == SAME):
                continue
            known = False
            for earlier in range(band):
                # Where an earlier band looked as far as this one: in one that did not, the two may not have met.
                if keys[earlier, x] == keys[earlier, y] and reach[earlier] >= reach[band]:
                    known = True
                    break
            if known:
                continue
            agree = 0
            for index in range(low.shape[1]):
                agree += low[x, index] == low[y, index]
            if agree < least:
                continue
            if count == len(pairs):
                pairs = _grown(pairs)
            pairs[count, 0], pairs[count, 1] = x, y
            count += 1
    return pairs, count


def candidates(
    keys: np.ndarray,
    low: np.ndarray,
    similarity: float,
    reach: np.ndarray,
    *,
    group: np.ndarray | None = None,
    wanted: int = ANY,
) -> np.ndarray:
    """Pairs (smaller, larger) of documents that agree in a band and are, by estimate, not clearly less alike.

    The estimate is the share of equal signature values; a pair is let go when that is more than four and a half
    standard errors below `similarity`: about one true pair at the very edge in 300,000. In a bucket each document is
    compared with as many that follow it as `reach` has for the band. int32 of shape (pairs, 2), each pair once.
    """
    width = low.shape[1]
    least = int(np.floor(width * similarity - 4.5 * np.sqrt(width * similarity * (1 - similarity))))
    pairs, count = np.empty((1024, 2), dtype=np.int32), 0
    group = np.empty(0, dtype=np.uint64) if group is None else group
    for band in range(len(keys)):
        order = np.argsort(keys[band], kind="stable").astype(np.int32)
        pairs, count = _candidates(order, keys, band, low, least, reach, group, wanted, pairs, count)
    return pairs[:count]


@compiled
def _similarity(values, starts, x, y, size, points, hashes, table, stamps, stamp):
    """Jaccard similarity of the shingle sets of texts x and y, by a table of shingle hashes stamped per pair."""
    mask = np.uint32(len(table) - 1)
    first = 0
    count = _shingles(values, starts[x], starts[x + 1], size, points, hashes)
    for number in range(count):
        at = _finalize(hashes[number]) & mask
        while stamps[at] >= stamp and table[at] != hashes[number]:
            at = (at + np.uint32(1)) & mask
        if stamps[at] < stamp:
            table[at], stamps[at] = hashes[number], stamp
            first += 1
    both = second = 0
    count = _shingles(values, starts[y], starts[y + 1], size, points, hashes)
    for number in range(count):
        at = _finalize(hashes[number]) & mask
        while stamps[at] >= stamp and table[at] != hashes[number]:
            at = (at + np.uint32(1)) & mask
        # `stamp`: of x alone; `stamp + 1`: of both; `stamp + 2`: of y alone.
        if stamps[at] < stamp:
            table[at], stamps[at] = hashes[number], stamp + 2
            second += 1
        elif stamps[at] == stamp:
            stamps[at] = stamp + 1
            both += 1
            second += 1
    return both / (first + second - both)


@compiled
def _similarities(values, starts, pairs, size, result):
    room = _longest(starts) + size
    points, hashes = np.empty(room, dtype=np.uint32), np.empty(room, dtype=np.uint32)
    slots = 64
    while slots < 3 * room:
        slots *= 2
    table, stamps = np.zeros(slots, dtype=np.uint32), np.zeros(slots, dtype=np.int32)
    for number in range(len(pairs)):
        result[number] = _similarity(
            values, starts, pairs[number, 0], pairs[number, 1], size, points, hashes, table, stamps, 3 * number + 1
        )


def jaccard(texts: tuple[np.ndarray, np.ndarray], pairs: np.ndarray, size: int) -> np.ndarray:
    """Exact Jaccard similarity of the character `size`-gram sets of each pair of `texts` (see `buffers`), float64."""
    result = np.empty(len(pairs))
    if len(pairs):
        _similarities(*texts, pairs, size, result)
    return result


@compiled
def _root(parent, item):
    while parent[item] != item:
        parent[item] = parent[parent[item]]
        item = parent[item]
    return item


@compiled
def _components(parent, pairs):
    for number in range(len(pairs)):
        one, other = _root(parent, pairs[number, 0]), _root(parent, pairs[number, 1])
        parent[max(one, other)] = min(one, other)
    for item in range(len(parent)):
        parent[item] = _root(parent, item)


def components(size: int, pairs: np.ndarray) -> np.ndarray:
    """For each of `size` items the smallest item that it is connected with through `pairs`: int64 of shape (size,)."""
    parent = np.arange(size, dtype=np.int64)
    _components(parent, np.ascontiguousarray(pairs, dtype=np.int64).reshape(-1, 2))
    return parent
