"""Where two texts differ, word by word, compiled: Myers' shortest edit script, and how far apart two words are."""

import numpy as np
import polars as pl
import pyarrow as pa

from llmops_assets.datasets.similarity.sketch import Buffers, _decode, _longest, compiled

FARTHEST = 192
"""Words that may differ before two texts are taken to differ in everything between their ends (Myers, An O(ND)
difference algorithm, 1986: the cost grows with the square of it)."""

_LONGEST_COMPARED = 256
"""Letters of a stretch that is compared letter by letter; a longer one that differs is another stretch."""

REGIONS = {
    "pair": pl.Int64,
    "at": pl.Int64,
    "one": pl.String,
    "other": pl.String,
    "next": pl.String,
}


@compiled
def _tokens(values, begin, end, hashes, places):
    """Hashes of the words of one text, and the byte where each begins; how many.

    A word ends at a space and after a sign of ASCII (calls, code and numbers have no spaces); a Chinese character or a
    kana is one by itself.
    """
    count = 0
    inside = ended = False
    value = np.uint64(0)
    at = begin
    while at < end:
        byte = values[at]
        ideograph = 0xE3 <= byte <= 0xE9
        letter = byte >= 128 or 48 <= byte <= 57 or 97 <= byte <= 122 or 65 <= byte <= 90
        if inside and (byte == 32 or ideograph or (ended and letter)):
            hashes[count] = value
            count += 1
            inside = False
        if byte == 32:
            at += 1
            continue
        if not inside:
            inside, ended, value = True, False, np.uint64(0xCBF29CE484222325)
            places[count] = at
        for _ in range(3 if ideograph else 1):
            value = (value ^ np.uint64(values[at])) * np.uint64(0x100000001B3)
            value ^= value >> np.uint64(29)
            at += 1
        ended = ideograph or not letter
    if inside:
        hashes[count] = value
        count += 1
    return count


@compiled
def _script(a, b, trace, furthest, keep_a, keep_b):
    """Mark in `keep_a` and `keep_b` the words that both have in order; False when more than `FARTHEST` differ."""
    n, m = len(a), len(b)
    middle = FARTHEST + 1
    furthest[:] = 0
    found = -1
    for d in range(FARTHEST + 1):
        for k in range(-d, d + 1, 2):
            if k == -d or (k != d and furthest[middle + k - 1] < furthest[middle + k + 1]):
                x = furthest[middle + k + 1]
            else:
                x = furthest[middle + k - 1] + 1
            y = x - k
            while x < n and y < m and a[x] == b[y]:
                x += 1
                y += 1
            furthest[middle + k] = x
            if x >= n and y >= m:
                found = d
                break
        for k in range(-d - 1, d + 2):
            trace[d, middle + k] = furthest[middle + k]
        if found >= 0:
            break
    if found < 0:
        return False
    x, y = n, m
    for d in range(found, 0, -1):
        k = x - y
        before = trace[d - 1]
        down = k == -d or (k != d and before[middle + k - 1] < before[middle + k + 1])
        last = k + 1 if down else k - 1
        from_x = before[middle + last]
        from_y = from_x - last
        while x > from_x and y > from_y and x > 0 and y > 0 and a[x - 1] == b[y - 1]:
            x -= 1
            y -= 1
            keep_a[x] = True
            keep_b[y] = True
        x, y = from_x, from_y
    while x > 0 and y > 0:
        x -= 1
        y -= 1
        keep_a[x] = True
        keep_b[y] = True
    return True


@compiled
def _grown(found):
    larger = np.empty((2 * len(found), found.shape[1]), dtype=np.int64)
    larger[: len(found)] = found
    return larger


@compiled
def _regions(values, starts, pairs):
    """Of each pair the stretches that differ: pair, bytes of the first text, bytes of the other, end of the word that
    follows in each."""
    room = _longest(starts) + 1
    one, other = np.empty(room, dtype=np.uint64), np.empty(room, dtype=np.uint64)
    at_one, at_other = np.empty(room + 1, dtype=np.int64), np.empty(room + 1, dtype=np.int64)
    keep_one, keep_other = np.zeros(room, dtype=np.bool_), np.zeros(room, dtype=np.bool_)
    trace = np.zeros((FARTHEST + 2, 2 * FARTHEST + 4), dtype=np.int32)
    furthest = np.zeros(2 * FARTHEST + 4, dtype=np.int32)
    found, total = np.empty((1024, 7), dtype=np.int64), 0
    for number in range(len(pairs)):
        x, y = pairs[number, 0], pairs[number, 1]
        n = _tokens(values, starts[x], starts[x + 1], one, at_one)
        m = _tokens(values, starts[y], starts[y + 1], other, at_other)
        at_one[n], at_other[m] = starts[x + 1], starts[y + 1]
        head = 0
        while head < n and head < m and one[head] == other[head]:
            head += 1
        tail = 0
        while tail < n - head and tail < m - head and one[n - 1 - tail] == other[m - 1 - tail]:
            tail += 1
        keep_one[:n] = True
        keep_other[:m] = True
        keep_one[head : n - tail] = False
        keep_other[head : m - tail] = False
        _script(
            one[head : n - tail],
            other[head : m - tail],
            trace,
            furthest,
            keep_one[head : n - tail],
            keep_other[head : m - tail],
        )
        i = j = 0
        while i < n or j < m:
            if i < n and j < m and keep_one[i] and keep_other[j]:
                i += 1
                j += 1
                continue
            from_i, from_j = i, j
            while i < n and not keep_one[i]:
                i += 1
            while j < m and not keep_other[j]:
                j += 1
            if total == len(found):
                found = _grown(found)
            found[total, 0] = number
            found[total, 1], found[total, 2] = at_one[from_i], at_one[i]
            found[total, 3], found[total, 4] = at_other[from_j], at_other[j]
            found[total, 5] = at_one[min(i + 1, n)]
            found[total, 6] = at_one[from_i] - starts[x]
            total += 1
    return found[:total]


@compiled
def _cut(values, spans, out, ends):
    written = 0
    for number in range(len(spans)):
        for at in range(spans[number, 0], spans[number, 1]):
            out[written] = values[at]
            written += 1
        ends[number + 1] = written


def _strings(values: np.ndarray, spans: np.ndarray) -> pl.Series:
    out = np.empty(int((spans[:, 1] - spans[:, 0]).sum()), dtype=np.uint8)
    ends = np.zeros(len(spans) + 1, dtype=np.int64)
    _cut(values, spans, out, ends)
    array = pa.LargeStringArray.from_buffers(len(spans), pa.py_buffer(ends), pa.py_buffer(out))
    return pl.Series(array, dtype=pl.String)


def regions(texts: Buffers, pairs: np.ndarray) -> pl.DataFrame:
    """The stretches in which the texts of each pair differ (`REGIONS`): the pair's number, the byte of the first text
    where it begins, what stands in one and in the other, and the word that follows."""
    values, starts = texts
    found = _regions(values, starts, pairs)
    return pl.DataFrame(
        {
            "pair": found[:, 0],
            "at": found[:, 6],
            "one": _strings(values, found[:, 1:3]),
            "other": _strings(values, found[:, 3:5]),
            "next": _strings(values, np.ascontiguousarray(found[:, [2, 5]])),
        },
        schema=REGIONS,
    )


@compiled
def _distances(one, one_starts, other, other_starts, lengths, result):
    points, others = np.empty(_longest(one_starts) + 1, np.uint32), np.empty(_longest(other_starts) + 1, np.uint32)
    row = np.empty(_LONGEST_COMPARED + 1, dtype=np.int32)
    for number in range(len(one_starts) - 1):
        n = _decode(one, one_starts[number], one_starts[number + 1], points)
        m = _decode(other, other_starts[number], other_starts[number + 1], others)
        lengths[number] = max(n, m)
        if n > _LONGEST_COMPARED or m > _LONGEST_COMPARED:
            result[number] = max(n, m)
            continue
        for j in range(m + 1):
            row[j] = j
        for i in range(n):
            corner = row[0]
            row[0] = i + 1
            for j in range(m):
                above = row[j + 1]
                cost = corner if points[i] == others[j] else corner + 1
                row[j + 1] = min(cost, min(above, row[j]) + 1)
                corner = above
        result[number] = row[m]


def distances(one: Buffers, other: Buffers) -> tuple[np.ndarray, np.ndarray]:
    """Levenshtein distance, in characters, of each text of `one` to that of `other`, and the longer one's length; a
    text over 256 characters is as far from any other as it is long."""
    count = len(one[1]) - 1
    result, lengths = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.int32)
    _distances(*one, *other, lengths, result)
    return result, lengths


@compiled
def _digits(values, starts, result):
    for number in range(len(starts) - 1):
        value = np.uint32(2166136261)
        for at in range(starts[number], starts[number + 1]):
            byte = values[at]
            if 48 <= byte <= 57:
                value = np.uint32((value ^ np.uint32(byte)) * np.uint32(16777619))
        result[number] = value


def digits(texts: Buffers) -> np.ndarray:
    """A hash of all the digits of each text in order, uint32: rows with other numbers have another one."""
    result = np.empty(len(texts[1]) - 1, dtype=np.uint32)
    _digits(*texts, result)
    return result


_SPACE, _PLAIN, _QUIET = 0, 1, 2


@compiled
def _kind_of(point):
    """Space and invisible characters, what carries meaning, or a sign of punctuation that carries none at a word's
    edge."""
    if point == 32 or 0x200B <= point <= 0x200F or point == 0xFEFF or point == 0xAD or point == 0x2060:
        return _SPACE
    if point < 128:
        if point in (33, 34, 39, 40, 41, 44, 46, 58, 59, 63, 96, 126):  # ! " ' ( ) , . : ; ? ` ~
            return _QUIET
        return _PLAIN
    if 0x2018 <= point <= 0x201F or point in (0x2026, 0xB7, 0x3001, 0x3002, 0x300C, 0x300D, 0x300E, 0x300F, 0xAB, 0xBB):
        return _QUIET
    return _PLAIN


@compiled
def _bare(values, starts, result):
    points = np.empty(_longest(starts) + 1, dtype=np.uint32)
    for number in range(len(starts) - 1):
        count = _decode(values, starts[number], starts[number + 1], points)
        value = np.uint64(0xCBF29CE484222325)
        last, spaced = np.uint32(32), True
        for index in range(count):
            point = points[index]
            kind = _kind_of(point)
            if kind == _SPACE:
                spaced = True
                continue
            if kind == _QUIET:
                # At an edge of a word only: `3.5` and `f(x)` keep theirs, and a sign before a digit is part of it.
                following = points[index + 1] if index + 1 < count else np.uint32(32)
                closes = _kind_of(following) != _PLAIN
                opens = spaced and not 48 <= following <= 57 and point not in (33, 46, 58)
                if closes or opens:
                    continue
            if spaced and 48 <= point <= 57 and 48 <= last <= 57:
                value = (value ^ np.uint64(32)) * np.uint64(0x9E3779B97F4A7C15)
            value = (value ^ np.uint64(point)) * np.uint64(0x9E3779B97F4A7C15)
            value ^= value >> np.uint64(29)
            last, spaced = point, False
        result[number] = value


def bare(texts: Buffers) -> np.ndarray:
    """A hash of each normalised text without spaces and without the punctuation at the edges of words, uint64."""
    result = np.empty(len(texts[1]) - 1, dtype=np.uint64)
    _bare(*texts, result)
    return result
