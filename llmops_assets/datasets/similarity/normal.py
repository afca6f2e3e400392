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


@compiled
def _write_plain(values, at, end, out, written):
    """One text in lower case with single spaces behind `out[:written]`; the new end, or -1 for a text that is not
    plain."""
    begin, space = written, False
    while at < end:
        byte = values[at]
        if byte == 32 or 9 <= byte <= 13:
            space = True
            at += 1
            continue
        if space and written > begin:
            out[written] = 32
            written += 1
        space = False
        if byte < 0x80:
            out[written] = byte + 32 if 65 <= byte <= 90 else byte
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
def _write_all(values, starts, out, ends, odd):
    written = 0
    for number in range(len(starts) - 1):
        end = _write_plain(values, starts[number], starts[number + 1], out, written)
        odd[number] = end < 0
        written = written if end < 0 else end
        ends[number + 1] = written
    return written


def normalise(values: pl.Series) -> pl.Series:
    """Compatibility forms unified (NFKC), lower case, white space collapsed; a null stays one.

    Texts of ASCII, Hangul syllables and the commonest quotation marks, of which NFKC changes nothing, are written in
    one compiled pass; only the others go through the general functions.
    """
    data, starts = buffers(values)
    out = np.empty(int(starts[-1] - starts[0]), dtype=np.uint8)
    ends, odd = np.zeros(len(values) + 1, dtype=np.int64), np.zeros(len(values), dtype=np.bool_)
    written = _write_all(data, starts, out, ends, odd)
    array = pa.LargeStringArray.from_buffers(len(values), pa.py_buffer(ends), pa.py_buffer(out[:written]))
    normal = pl.Series(values.name, array, dtype=pl.String)
    if number := np.flatnonzero(odd).tolist():
        normal = normal.scatter(number, normalise_any(values.gather(number)))
    if values.null_count():
        normal = pl.select(pl.when(values.is_not_null()).then(normal).alias(values.name)).to_series()
    return normal


def normalise_any(values: pl.Series) -> pl.Series:
    """The same, of any texts."""
    values = _where(values, _INERT, lambda some: some.str.normalize("NFKC")).str.to_lowercase()
    return _where(values, _SPACES, lambda some: some.str.replace_all(r"\s+", " ").str.strip_chars())


def _where(values: pl.Series, expression: str, change: Callable[[pl.Series], pl.Series]) -> pl.Series:
    """`values` with those changed that the regular expression is found in."""
    number = values.str.contains(expression).fill_null(False).arg_true()
    if not len(number):
        return values
    changed = change(values.gather(number))
    return changed if len(number) == len(values) else values.scatter(number, changed)
