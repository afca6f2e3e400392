"""Reads CSV and TSV record by record with the line of each; a quotation mark gone astray costs its own row."""

import re
from collections import deque
from collections.abc import Iterator
from typing import BinaryIO

from llmops_assets.datasets.reading.accounting import Account
from llmops_assets.datasets.reading.dialect import (
    QUOTE,
    SEPARATOR_LINE,
    Dialect,
    Malformed,
    bare,
    read_record,
    sniff,
    width_alone,
)
from llmops_assets.datasets.reading.fault import encoding_reason
from llmops_assets.datasets.reading.raw import Limits, Raw, RowFault, clean_sample

SAMPLE_LINES, SAMPLE_CHARS = 300, 2**20
"""How much of a file tells its dialect."""

OWN_ROWS = 0.8
"""Share of the lines behind a quotation mark that are whole rows, from which on the mark is taken for a stray one."""

CERTAIN_ROWS = 20
"""Lines that all are whole rows, from which on a quoted cell over them is no cell."""

_LOOKED_AT = 200
_SURROGATES = re.compile(r"[\udc80-\udcff]")


class _Lines:
    """The lines of a stream (ended by LF, CR or both) with as many behind the present one as were asked for."""

    def __init__(self, stream: BinaryIO, limits: Limits) -> None:
        self._source = self._split(stream, limits.line)
        self._ready: deque[str | None] = deque()
        self.number = 1
        "Of the present line, 1-based."

    @staticmethod
    def _split(stream: BinaryIO, most: int) -> Iterator[str | None]:
        """Lines as text, with bytes that are no UTF-8 as surrogates; None for one of more than `most` bytes."""
        rest, skipping = b"", False
        while True:
            data = stream.read1(1 << 18)
            pieces = (rest + data).splitlines(keepends=True)
            rest = b""
            # What the next bytes may go on with waits: an unfinished line, or a CR that a LF may follow.
            if data and pieces and not pieces[-1].endswith(b"\n"):
                rest = pieces.pop()
            for piece in pieces:
                yield (
                    None if skipping or len(piece.rstrip(b"\r\n")) > most else piece.decode("utf-8", "surrogateescape")
                )
                skipping = False
            if len(rest) > most + 2:
                rest, skipping = b"x", True
            if not data:
                return

    def has(self, ahead: int) -> bool:
        """Whether there is a line `ahead` of the present one (0 is that)."""
        while len(self._ready) <= ahead:
            try:
                self._ready.append(next(self._source))
            except StopIteration:
                return False
        return True

    def get(self, ahead: int) -> str | None:
        """The line `ahead`; None behind the last one, and for one over the limit."""
        return self._ready[ahead] if self.has(ahead) else None

    def drop(self, count: int) -> None:
        """Go on by some lines, all of which were looked at."""
        for _ in range(count):
            self._ready.popleft()
        self.number += count

    def sample(self) -> list[str]:
        """The first lines from the present one, for `sniff`; a line over the limit ends them."""
        found, size = [], 0
        while len(found) < SAMPLE_LINES and size < SAMPLE_CHARS and (line := self.get(len(found))) is not None:
            found.append(line)
            size += len(line)
        return found


def read_table(stream: BinaryIO, suffix: str, limits: Limits, account: Account) -> Iterator[Raw]:
    """Every record of a CSV or TSV file as an object by column.

    The delimiter is what an Excel line ``sep=;`` says, or under which most records are as wide as the header. Lines
    that begin with # before the header are comments, below it they are rows. Columns without a name are called
    ``unnamed_1`` by their place, as the index that pandas writes.
    """
    account.universal = True
    lines = _Lines(stream, limits)
    named = SEPARATOR_LINE.match(lines.get(0) or "")
    if named:
        account.comments += 1
        lines.drop(1)
    while lines.has(0) and (line := lines.get(0)) is not None and (not line.strip() or _is_comment(line)):
        if line.strip():
            account.comments += 1
        else:
            account.blank += 1
        lines.drop(1)
    if not lines.has(0):
        if account.comments or account.blank:
            yield Raw(1, None, RowFault("", "the file has no header row"))
            account.without_line += 1
        return
    dialect = sniff(lines.sample(), suffix == ".tsv", limits.line)
    if named:
        separator = "\t" if named[1].lower() == "\\t" else named[1]
        dialect = Dialect(separator, dialect.backslash, separator == "\t" and dialect.literal)
    first = lines.get(0)
    header, used, fault = _header(lines, dialect, limits)
    if fault is not None:
        line, count = lines.number, 0
        while lines.has(0):
            lines.drop(1)
            count += 1
        account.continued += count - 1
        yield Raw(line, clean_sample(bare(first or "")), RowFault("", fault))
        return
    account.header += 1
    account.continued += used - 1
    lines.drop(used)
    yield from _records(lines, header, dialect, limits, account)


def _is_comment(line: str) -> bool:
    """A line before the header that begins with #, unless it is the header itself (``#question<TAB>answer``)."""
    if not line.lstrip().startswith("#"):
        return False
    names = [cell.strip().strip(QUOTE).lower() for cell in re.split(r"[,;\t|]", line.lstrip().lstrip("#"))]
    return len(names) < 2 or not any(name in _COLUMNS for name in names)


_COLUMNS = {
    "question", "answer", "prompt", "completion", "response", "instruction", "input", "output", "text", "content",
    "query", "messages", "chosen", "rejected", "label", "sentence1", "sentence2", "premise", "hypothesis",
    "질문", "답변",
}  # fmt: skip


_TEXT_OF_EXCEL = re.compile(r'\A="([^"]*)"\Z')
"""A text that Excel is to leave alone (``="00123"``): leading zeros, long numbers, dates."""


def cell_value(cell: str) -> str:
    """What a cell says: nothing where a database writes null, and the text alone where Excel is told that it is one."""
    if cell == "\\N":
        return ""
    text = _TEXT_OF_EXCEL.match(cell) if cell[:2] == '="' else None
    return cell if text is None else text[1]


_UNSEEN = " \t\r\n\u00a0\ufeff\u200b\u200c\u200d\u2060"
"""Spaces, byte order marks and characters without a width, which no name of a column begins or ends with."""


def _header(lines: _Lines, dialect: Dialect, limits: Limits) -> tuple[list[str], int, str | None]:
    """Names of the columns, how many lines they take, and what is wrong with them."""
    first = lines.get(0)
    if first is None:
        return [], 1, f"the header is longer than {limits.line:,} bytes"
    try:
        cells, used = read_record(lines.get, dialect, limits.line)
    except Malformed as error:
        return [], 1, f"the header cannot be read: {error.reason}"
    if _SURROGATES.search("".join(cells)):
        return [], used, f"the header is {encoding_reason(first.encode('utf-8', 'surrogateescape'))}"
    names = [name.strip(_UNSEEN) for name in cells]
    if len(names) > 1:
        names[0] = names[0].lstrip("#").strip()
    if not any(names):
        return [], used, "the header names no column"
    names = [name or f"unnamed_{index}" for index, name in enumerate(names, start=1)]
    if len(set(names)) < len(names):
        return [], used, f"the header names a column twice: {names}"
    return names, used, None


def _records(lines: _Lines, header: list[str], dialect: Dialect, limits: Limits, account: Account) -> Iterator[Raw]:
    """The records behind the header."""
    width = len(header)
    while lines.has(0):
        number, first = lines.number, lines.get(0)
        if first is None:
            yield Raw(number, None, RowFault("", f"the line is longer than {limits.line:,} bytes"))
            lines.drop(1)
            continue
        if not first.strip(" \r\n"):
            account.blank += 1
            lines.drop(1)
            continue
        cells, used, reason = _record(lines, width, dialect, limits)
        account.continued += used - 1
        lines.drop(used)
        if reason is None and len(cells) > width and not any(cell.strip() for cell in cells[width:]):
            cells = cells[:width]
        if reason is None and len(cells) != width:
            reason = f"{len(cells)} cells where the header has {width}"
        bad = not first.isascii() or used > 1
        if reason is None and bad and _SURROGATES.search(joined := "".join(cells)):
            reason = encoding_reason(joined.encode("utf-8", "surrogateescape"))
        if reason is None and [cell.strip(_UNSEEN) for cell in cells] == header:
            reason = "the header stands here again, as where files were put together: it is no row"
        if reason is not None:
            if "\0" in first:
                reason = f"{reason}; the line has NUL characters"
            yield Raw(number, clean_sample(bare(first)), RowFault("", reason))
        else:
            yield Raw(number, dict(zip(header, map(cell_value, cells), strict=True)))


def _record(lines: _Lines, width: int, dialect: Dialect, limits: Limits) -> tuple[list[str], int, str | None]:
    """The record at the present line, how many lines it takes, and why it is none."""
    first = lines.get(0) or ""
    try:
        cells, used = read_record(lines.get, dialect, limits.line)
    except Malformed as error:
        other = _otherwise(lines, width, dialect, limits, first)
        return other or _broken(lines, width, dialect, error)
    if used == 1 and len(cells) == width:
        return cells, 1, None
    if len(cells) != width and (other := _otherwise(lines, width, dialect, limits, first)):
        return other
    if used == 1:
        return cells, 1, None
    within = [width_alone(lines.get(index) or "", dialect) == width for index in range(1, min(used, _LOOKED_AT))]
    rows_of_their_own = all(within) and width > 1
    if len(cells) != width:
        if rows_of_their_own:
            return [], 1, f"a quotation mark opens a cell that none closes before other rows ({used - 1} lines below)"
        return cells, used, None
    if not rows_of_their_own or width_alone(bare(first).replace(QUOTE, "'"), dialect) != width:
        return cells, used, None
    if dialect.literal:
        return bare(first).split(dialect.delimiter), 1, None
    if len(within) >= CERTAIN_ROWS:
        return [], 1, f"a quotation mark opens a cell that none closes before other rows ({used - 1} lines below)"
    if len(within) < 3:
        return cells, used, None
    return (
        [],
        used,
        f"a quotation mark opens a cell that closes {used - 1} lines below, and each of those lines is a row by "
        "itself: close the mark on its line, or double it",
    )


def _otherwise(
    lines: _Lines, width: int, dialect: Dialect, limits: Limits, first: str
) -> tuple[list[str], int, None] | None:
    """The record by the other way of writing a mark inside a quoted cell, where that makes it whole."""
    if '\\"' not in first and not dialect.backslash:
        return None
    try:
        other = Dialect(dialect.delimiter, not dialect.backslash, dialect.literal)
        cells, used = read_record(lines.get, other, limits.line)
    except Malformed:
        return None
    return (cells, used, None) if len(cells) == width else None


def _broken(lines: _Lines, width: int, dialect: Dialect, error: Malformed) -> tuple[list[str], int, str | None]:
    """What to give up of a record whose marks don't match: its first line, or all lines of its cell."""
    first = bare(lines.get(0) or "")
    if dialect.literal and len(plain := first.split(dialect.delimiter)) == width:
        return plain, 1, None
    between = [lines.get(index) or "" for index in range(1, min(error.line, _LOOKED_AT))]
    filled = [line for line in between if line.strip()]
    whole = sum(width_alone(line, dialect) == width for line in filled)
    if not filled or whole >= OWN_ROWS * len(filled):
        # The lines behind it are rows: the mark is a stray one.
        return [], 1, f"not CSV: {error.reason}"
    return [], error.line, f"not CSV: {error.reason} ({error.line} lines below)"
