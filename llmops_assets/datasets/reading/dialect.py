"""The dialect of a CSV or TSV file: what separates its cells, how they are quoted, and one record read by it."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

QUOTE = '"'
DELIMITERS = (",", "\t", ";", "|")
SEPARATOR_LINE = re.compile(r'^\s*"?sep=(\\t|.)"?\s*$', re.IGNORECASE)
"""What Excel reads on a first line: which character separates the cells."""

NextLine = Callable[[int], str | None]
"""Gives the n-th line from here (0 is the present one) with its end, or None behind the last."""


@dataclass(frozen=True)
class Dialect:
    """`delimiter` separates cells; `backslash`: a quotation mark in a quoted cell is written ``\\"`` and not ``""``;
    `literal`: a mark that quotes nothing is text, as in tab-separated corpora, which mostly quote nothing."""

    delimiter: str
    backslash: bool = False
    literal: bool = False


class Malformed(Exception):
    """Why a record cannot be read, and the line of it (0 is its first) where that shows."""

    def __init__(self, reason: str, line: int) -> None:
        super().__init__(reason)
        self.reason, self.line = reason, line


def bare(line: str) -> str:
    """A line without its end."""
    return line.rstrip("\r\n")


def read_record(lines: NextLine, dialect: Dialect, most: int) -> tuple[list[str], int]:
    """The cells of the record that begins at the present line, and how many lines it takes, at most `most` characters.

    RFC 4180, and besides it: blanks around a quoted cell, and marks inside a cell that is not quoted are text.
    Raises Malformed for a quoted cell that is not closed, or goes on behind its closing mark.
    """
    text, used = lines(0) or "", 1
    if QUOTE not in text:
        return bare(text).split(dialect.delimiter), 1
    cells: list[str] = []
    position, step = 0, len(dialect.delimiter)
    while True:
        start = position
        while text[start : start + 1] == " ":
            start += 1
        if text[start : start + 1] != QUOTE:
            end = text.find(dialect.delimiter, position)
            cells.append(bare(text[position:]) if end < 0 else text[position:end])
            if end < 0:
                return cells, used
            position = end + step
            continue
        cell, text, position, further = _quoted(lines, text, start + 1, dialect, most, used)
        used += further
        rest = position
        while text[rest : rest + 1] == " ":
            rest += 1
        cells.append(cell)
        if rest >= len(text) or text[rest] in "\r\n":
            return cells, used
        if not text.startswith(dialect.delimiter, rest):
            raise Malformed("text stands behind the closing quotation mark of a cell", used - 1)
        position = rest + step


def _quoted(
    lines: NextLine, text: str, position: int, dialect: Dialect, most: int, used: int
) -> tuple[str, str, int, int]:
    """A quoted cell from behind its opening mark: the cell, the line it ends on, where, and how many lines further."""
    parts: list[str] = []
    further = size = 0
    needed = False
    while True:
        mark = text.find(QUOTE, position)
        if mark < 0:
            parts.append(text[position:])
            size += len(text) - position
            following = lines(used + further) if size <= most else None
            if following is None:
                raise Malformed("a quotation mark opens a cell and none closes it", used + further - 1)
            needed = True
            text, position, further = following, 0, further + 1
            continue
        if dialect.backslash and _escaped(text, position, mark):
            parts.append(text[position : mark + 1])
            position = mark + 1
            continue
        if text[mark + 1 : mark + 2] == QUOTE and not dialect.backslash:
            parts.append(text[position : mark + 1])
            position, needed = mark + 2, True
            continue
        parts.append(text[position:mark])
        cell = "".join(parts)
        if dialect.backslash:
            cell = re.sub(r"\\(.)", lambda found: found[1] if found[1] in '\\"' else found[0], cell)
        elif dialect.literal and not needed and dialect.delimiter not in cell:
            cell = f"{QUOTE}{cell}{QUOTE}"
        return cell, text, mark + 1, further


def _escaped(text: str, start: int, mark: int) -> bool:
    """Whether an odd number of backslashes stands before a mark."""
    count = 0
    while mark - count - 1 >= start and text[mark - count - 1] == "\\":
        count += 1
    return count % 2 == 1


def width_alone(line: str, dialect: Dialect) -> int:
    """How many cells a line has by itself, a mark that it cannot close being text."""
    try:
        return len(read_record(lambda index: line if index == 0 else None, dialect, len(line))[0])
    except Malformed:
        return len(bare(line).split(dialect.delimiter))


def sniff(sample: Sequence[str], tabs_first: bool, most: int) -> Dialect:
    """The dialect under which most records of a sample (lines with their ends, the header first) are as wide as it.

    One column where no character separates anything.
    """
    order = sorted(DELIMITERS, key=lambda char: char != "\t") if tabs_first else DELIMITERS
    best, best_rank = Dialect(order[0], literal=tabs_first), (0.0, 0)
    for delimiter in order:
        dialect = Dialect(delimiter, literal=delimiter == "\t")
        for tried in (dialect, replace(dialect, backslash=True)):
            if tried.backslash and not any('\\"' in line for line in sample):
                continue
            width, fitting = _fit(sample, tried, most)
            if width > 1 and (fitting, width) > best_rank:
                # Of two that fit equally the one whose name comes first stands, unless the header is wider.
                best, best_rank = tried, (fitting, width)
    header = sample[0] if sample else ""
    quoted = [cell.strip() for cell in bare(header).split(best.delimiter)]
    if best.literal and len(quoted) > 1 and all(len(c) > 1 and c[0] == c[-1] == QUOTE for c in quoted):
        # A writer that quotes its header quotes everything.
        return replace(best, literal=False)
    return best


def _fit(sample: Sequence[str], dialect: Dialect, most: int) -> tuple[int, float]:
    """Cells of the header, and the share of the records behind it that have as many."""
    width = fitting = records = 0
    at = 0
    while at < len(sample):
        start = at
        try:
            cells, used = read_record(lambda n, at=at: sample[at + n] if at + n < len(sample) else None, dialect, most)
            count = len(cells)
        except Malformed:
            count, used = len(bare(sample[start]).split(dialect.delimiter)), 1
            count = -count if start else count
        at += used
        if not bare(sample[start]).strip():
            continue
        if not width:
            width = count
            continue
        records += 1
        fitting += count == width
    return width, round(fitting / records, 2) if records else 1.0
