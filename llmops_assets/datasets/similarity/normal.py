"""What makes no other text: compatibility forms, upper case and white space are unified before texts are compared."""

from collections.abc import Callable

import numpy as np
import polars as pl
import pyarrow as pa

from llmops_assets.datasets.similarity.sketch import buffers, compiled

_INERT = r"[^\x00-\x7f가-힣·“”‘’]"
"""A character that NFKC may change; what it is found in goes the slow way."""
_SPACES = r"\s\s|[^\S ]|^\s|\s$"


@compiled
def _length_if_plain(values, at, end):
    """Bytes of the character at `values[at]` when it is none that ASCII has and NFKC changes nothing of it; else 0."""
    lead = values[at]
    if 0xEA <= lead <= 0xED and at + 2 < end:
        point = (lead & 0x0F) << 12 | (values[at + 1] & 0x3F) << 6 | (values[at + 2] & 0x3F)
        return 3 if 0xAC00 <= point <= 0xD7A3 else 0
    if lead == 0xC2:
        return 2 if values[at + 1] == 0xB7 else 0
    if lead == 0xE2 and values[at + 1] == 0x80:
        return 3 if values[at + 2] in (0x98, 0x99, 0x9C, 0x9D) else 0
    return 0


FEWEST_SIGNS, SIGN_SHARE = 4, 25
"""Signs that a text of code has at least, and of how many of its bytes one is such a sign."""


@compiled
def _is_code(values, at, end):
    """Whether a text is source code, by the share of brackets, semicolons and the like; prose has parentheses alone."""
    signs = others = 0
    for place in range(at, end):
        byte = values[place]
        if byte in (40, 41):  # ( )
            signs += 1
        elif byte in (59, 60, 61, 62, 91, 93, 95, 123, 125):  # ; < = > [ ] _ { }
            signs += 1
            others += 1
    return others > 0 and signs >= FEWEST_SIGNS and signs * SIGN_SHARE >= end - at


@compiled
def _is_letter(byte):
    return 65 <= byte <= 90 or 97 <= byte <= 122 or 48 <= byte <= 57 or byte == 95


@compiled
def _is_identifier(values, at, end):
    """Whether the word at `at` is a name of code by its case: `userId`, `MAX_SIZE`; JavaScript and iPhone are none."""
    small = 0
    any_large = any_line = inner = False
    while at < end and _is_letter(values[at]):
        byte = values[at]
        if 65 <= byte <= 90:
            any_large = True
            if small >= 2 and at + 1 < end and 97 <= values[at + 1] <= 122:
                inner = True
            small = -(1 << 30)
        elif byte == 95:
            any_line = True
        else:
            small += 1
        at += 1
    return inner or (any_large and any_line)


@compiled
def _write_plain(values, at, end, out, written, cased):
    """One text in lower case with single spaces behind `out[:written]`; the new end, or -1 for a text that is not
    plain. Where case tells names apart (`cased`) that of code stays."""
    begin, space = written, False
    code = cased and _is_code(values, at, end)
    quoted = named = inside = False
    while at < end:
        byte = values[at]
        if cased and not code:
            if byte == 96:  # `
                quoted = not quoted
            if not _is_letter(byte):
                inside = named = False
            elif not inside:
                inside, named = True, _is_identifier(values, at, end)
        if byte == 32 or 9 <= byte <= 13:
            space = True
            at += 1
            continue
        if space and written > begin:
            out[written] = 32
            written += 1
        space = False
        if byte < 0x80:
            out[written] = byte + 32 if 65 <= byte <= 90 and not (code or quoted or named) else byte
            written += 1
            at += 1
            continue
        length = _length_if_plain(values, at, end)
        if length == 0:
            return -1
        for step in range(length):
            out[written + step] = values[at + step]
        written += length
        at += length
    return written


@compiled
def _write_all(values, starts, out, ends, odd, cased):
    written = 0
    for number in range(len(starts) - 1):
        end = _write_plain(values, starts[number], starts[number + 1], out, written, cased)
        odd[number] = end < 0
        written = written if end < 0 else end
        ends[number + 1] = written
    return written


def normalise(values: pl.Series, cased: bool = False) -> pl.Series:
    """Compatibility forms unified (NFKC), lower case, white space collapsed; a null stays one.

    With `cased` what is source code keeps its case, since `userId` and `userid` are two names there: texts full of its
    signs, what stands in backticks, and words that nobody but a programmer writes.

    Texts of ASCII, Hangul syllables and the commonest quotation marks, of which NFKC changes nothing, are written in
    one compiled pass; only the others go through the general functions.
    """
    data, starts = buffers(values)
    out = np.empty(int(starts[-1] - starts[0]), dtype=np.uint8)
    ends, odd = np.zeros(len(values) + 1, dtype=np.int64), np.zeros(len(values), dtype=np.bool_)
    written = _write_all(data, starts, out, ends, odd, cased)
    array = pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(out[:written]))
    normal = pl.Series(values.name, array, dtype=pl.String)
    if number := np.flatnonzero(odd).tolist():
        normal = normal.scatter(number, normalise_any(values.gather(number), cased))
    if values.null_count():
        normal = pl.select(pl.when(values.is_not_null()).then(normal).alias(values.name)).to_series()
    return normal


@compiled
def _keep_case(values, starts, out):
    """Give the ASCII letters of `out`, which are small, the case that they have in `values` where that is code's."""
    for number in range(len(starts) - 1):
        at, end = starts[number], starts[number + 1]
        code = _is_code(values, at, end)
        quoted = named = inside = False
        while at < end:
            byte = values[at]
            if byte == 96:
                quoted = not quoted
            if not _is_letter(byte):
                inside = named = False
            elif not inside:
                inside, named = True, _is_identifier(values, at, end)
            if 65 <= byte <= 90 and (code or quoted or named):
                out[at] = byte
            at += 1


def _small(values: pl.Series, cased: bool) -> pl.Series:
    """Texts in lower case, but for code's."""
    small = values.str.to_lowercase()
    if not cased:
        return small
    # A letter beyond ASCII may have another length when it is small: such a text is small throughout.
    number = (values.str.len_bytes() == small.str.len_bytes()).fill_null(False).arg_true()
    if not len(number):
        return small
    (data, starts), (lowered, begins) = buffers(values.gather(number)), buffers(small.gather(number))
    out = lowered[begins[0] : begins[-1]].copy()
    ends = np.ascontiguousarray(starts - starts[0])
    _keep_case(data[starts[0] :], ends, out)
    array = pa.LargeStringArray.from_buffers(len(number), pa.py_buffer(ends), pa.py_buffer(out))
    return small.scatter(number, pl.Series(array, dtype=pl.String))


def normalise_any(values: pl.Series, cased: bool = False) -> pl.Series:
    """The same, of any texts."""
    values = _small(_where(values, _INERT, lambda some: some.str.normalize("NFKC")), cased)
    return _where(values, _SPACES, lambda some: some.str.replace_all(r"\s+", " ").str.strip_chars())


def _where(values: pl.Series, expression: str, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`values` with those changed that the regular expression is found in."""
    number = values.str.contains(expression).fill_null(False).arg_true()
    if not len(number):
        return values
    changed = change(values.gather(number))
    return changed if len(number) == len(values) else values.scatter(number, changed)
