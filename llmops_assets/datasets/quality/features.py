"""What can be counted in a text, all of it in one compiled pass over its bytes."""

import numpy as np
import polars as pl

from llmops_assets.datasets.similarity.sketch import _decode, _longest, buffers, compiled

NAMES = (
    "chars",
    "hangul",
    "latin",
    "words",
    "distinct_words",
    "distinct_pairs",
    "distinct_chars",
    "runs",
    "broken",
    "jamo",
    "unbalanced",
    "longest_unspaced",
    "doubled_words",
    "unfinished",
    "letters",
    "spaces",
)
CHARS_WANTED = 12
"""Distinct characters are counted up to this many: fewer are few for any sentence."""

_SPACE, _OTHER, _WORD = 0, 1, 2


@compiled
def _kind(point):
    if point == 32 or 9 <= point <= 13 or point in (0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000):
        return _SPACE
    if 0x2000 <= point <= 0x200A:
        return _SPACE
    if 48 <= point <= 57 or 65 <= point <= 90 or 97 <= point <= 122 or 0xAC00 <= point <= 0xD7A3:
        return _WORD
    # Letters of other alphabets make words; ideographs and kana, written without spaces, stand for one each.
    if 0xC0 <= point < 0x2000 and point != 0xD7 and point != 0xF7:
        return _WORD
    return _OTHER


@compiled
def _insert(table, stamps, stamp, key):
    """1 when `key` was not in the table of this stamp yet, and puts it there."""
    mask = np.uint32(len(table) - 1)
    at = np.uint32(key * np.uint32(0x9E3779B1)) & mask
    while stamps[at] == stamp:
        if table[at] == key:
            return 0
        at = (at + np.uint32(1)) & mask
    table[at], stamps[at] = key, stamp
    return 1


@compiled
def _loud(point):
    """Characters that are drawn out in writing: laughter, tears, exclamation."""
    return point in (0x314B, 0x314E, 0x3160, 0x315C, 33, 63, 126)


@compiled
def _count(points, length, table, stamps, stamp, known, out):
    hangul = latin = words = distinct = pairs = runs = broken = jamo = 0
    unspaced = longest = doubled = letters = spaces = 0
    round_ = square = curly = quotes = 0
    few = 0
    word = np.uint32(0)
    previous = np.uint32(0)
    inside = False
    word_length = previous_length = 0
    run = 0
    last = np.uint32(32)
    only_space = False
    for index in range(length + 1):
        point = points[index] if index < length else np.uint32(32)
        kind = _kind(point)
        lowered = point + np.uint32(32) if 65 <= point <= 90 else point
        if (inside and kind != _WORD) or kind == _OTHER or (index == length and inside):
            # A word ends here, or a sign is one by itself.
            for turn in range(2):
                if turn == 0 and not inside:
                    continue
                if turn == 1 and kind != _OTHER:
                    continue
                if turn == 1:
                    word, word_length = np.uint32(point * np.uint32(0x85EBCA6B) + np.uint32(7)), 1
                words += 1
                distinct += _insert(table, stamps, stamp, word | np.uint32(1))
                if words > 1:
                    both = np.uint32(np.uint32(previous * np.uint32(31)) + word) * np.uint32(0xC2B2AE35)
                    pairs += _insert(table, stamps, stamp, np.uint32(both & np.uint32(0xFFFFFFFE)))
                    if word == previous and word_length > 1 and previous_length > 1 and only_space:
                        doubled += 1
                previous, previous_length = word, word_length
                only_space = True
                if turn == 1:
                    only_space = False
                inside = False
        if kind == _WORD:
            if not inside:
                inside, word, word_length = True, np.uint32(0x811C9DC5), 0
            word = np.uint32(np.uint32(word ^ lowered) * np.uint32(0x01000193))
            word_length += 1
            letters += 1
        if index == length:
            break
        spaces += kind == _SPACE
        if 0xAC00 <= point <= 0xD7A3:
            hangul += 1
            unspaced += 1
            longest = max(longest, unspaced)
        else:
            unspaced = 0
            if 65 <= point <= 90 or 97 <= point <= 122:
                latin += 1
            elif 0x3131 <= point <= 0x3163:
                jamo += 1
                letters += 1
            elif 0x3040 <= point <= 0x9FFF or 0x20000 <= point < 0x30000:
                letters += 1
            elif point == 0xFFFD or point == 127 or (point < 32 and not 9 <= point <= 10 and point != 13):
                broken += 1
        if point == 40:
            round_ += 1
        elif point == 41:
            # "1)" begins a list and ":)" smiles: neither closes a bracket.
            if round_ > 0 or not (48 <= last <= 57 or last in (58, 59, 61, 94)):
                round_ -= 1
        elif point == 91:
            square += 1
        elif point == 93:
            square -= 1
        elif point == 123:
            curly += 1
        elif point == 125:
            curly -= 1
        elif point == 0x201C:
            quotes += 1
        elif point == 0x201D:
            quotes -= 1
        run = run + 1 if point == last else 1
        if (run == 4 and _loud(point)) or (run == 6 and (point == 46 or (kind == _WORD and not 48 <= point <= 57))):
            runs += 1
        last = point
        if index < 200 and few < len(known):
            new = True
            for other in range(few):
                if known[other] == point:
                    new = False
                    break
            if new:
                known[few] = point
                few += 1
    end = length - 1
    while end >= 0 and _kind(points[end]) == _SPACE:
        end -= 1
    unfinished = end >= 0 and (points[end] in (44, 40, 91, 123, 0x3001, 0xFF0C, 0x201C))
    out[0], out[1], out[2], out[3], out[4], out[5], out[6] = length, hangul, latin, words, distinct, pairs, few
    out[7], out[8], out[9] = runs, broken, jamo
    out[10] = (round_ != 0) + (square != 0) + (curly != 0) + (quotes != 0)
    out[11], out[12], out[13], out[14], out[15] = longest, doubled, unfinished, letters, spaces


@compiled
def _features(values, starts, result):
    room = _longest(starts)
    slots = 64
    while slots < 3 * room:
        slots *= 2
    points = np.empty(room + 1, dtype=np.uint32)
    table, stamps = np.zeros(slots, dtype=np.uint32), np.zeros(slots, dtype=np.int32)
    known = np.empty(CHARS_WANTED, dtype=np.uint32)
    for number in range(len(starts) - 1):
        length = _decode(values, starts[number], starts[number + 1], points)
        _count(points, length, table, stamps, number + 1, known, result[number])


def features(texts: pl.Series) -> pl.DataFrame:
    """Counts of each text (a null is an empty one), a column each, Int32.

    chars: characters; hangul, latin: syllables and letters of those; letters: all letters and digits; spaces.
    words: runs of letters and digits, other signs by themselves; distinct_words; distinct_pairs: of neighbouring words;
    distinct_chars: of the first 200 characters, up to `CHARS_WANTED`; runs: drawn-out characters (ㅋㅋㅋㅋ, !!!!,
    aaaaaa); broken: replacement and control characters; jamo: letters that form no syllable; unbalanced: kinds of
    brackets and quotation marks that do not close; longest_unspaced: Hangul syllables without a space;
    doubled_words: a word right after itself; unfinished: 1 when the text ends with a comma or an opening bracket.
    """
    result = np.zeros((len(texts), len(NAMES)), dtype=np.int32)
    _features(*buffers(texts), result)
    return pl.DataFrame({name: result[:, index] for index, name in enumerate(NAMES)})


def estimated_tokens(counted: pl.DataFrame) -> pl.Series:
    """Tokens of texts by their `features`, where no tokenizer is at hand: an estimate to size things by.

    0.7 a Hangul syllable, 0.25 a Latin letter, 0.6 any other character, nothing for spaces: about what byte-level
    vocabularies of 100,000 entries and more make of Korean and English text.
    """
    other = pl.col("chars") - pl.col("hangul") - pl.col("latin") - pl.col("spaces")
    tokens = 0.7 * pl.col("hangul") + 0.25 * pl.col("latin") + 0.6 * other
    return counted.select(tokens.ceil().cast(pl.Int32).alias("tokens")).to_series()
