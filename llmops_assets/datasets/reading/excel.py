"""Reads the rows of the one sheet of an Excel workbook (.xlsx), with what Excel changes of a text refused or said."""

import datetime
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from llmops_assets.datasets.reading.accounting import ROWS, Account
from llmops_assets.datasets.reading.raw import Limits, Raw, RowFault
from llmops_assets.datasets.reading.workbook import Facts, facts_of, letters

LONGEST = 32_767
"""Characters that a cell may hold; Excel cuts what is longer without a word."""

OLE = b"\xd0\xcf\x11\xe0"
"""The beginning of an old workbook, and of one that is encrypted by a password."""

_LOOKED_AT = 1_000
"""Rows that tell whether a column is one of texts."""


def read_excel(stream: BinaryIO, limits: Limits, account: Account) -> Iterator[Raw]:
    """Every row below the header of the only visible sheet that holds something, as texts by column.

    Its line is the number of its row in the sheet. Raises RowFault where it is not clear what is meant.
    """
    import python_calamine as calamine

    head = stream.read(len(OLE))
    stream.seek(0)
    if head == OLE:
        raise RowFault("", "a workbook with a password, or an old .xls: save a copy without a password as .xlsx")
    account.unit = ROWS
    # The facts first: what they refuse (a bomb, a sheet without an end) must not reach the library.
    sizes = facts_of(stream, 0, limits)
    stream.seek(0)
    try:
        with calamine.CalamineWorkbook.from_filelike(stream) as book:
            number, name = _only_sheet(book, stream, limits, account, sizes)
            facts = sizes if number == 0 else facts_of(stream, number, limits)
            yield from _rows(book.get_sheet_by_name(name), facts, account, limits)
    except BaseException as error:
        # The library gives up (PanicException, which is no Exception) on some workbooks that are damaged.
        if not isinstance(error, (calamine.CalamineError, ValueError)) and type(error).__name__ != "PanicException":
            raise
        account.total = account.blank + account.header
        raise RowFault("", f"not an Excel workbook, or a damaged one ({str(error)[:120]})") from None


def _only_sheet(book: Any, stream: BinaryIO, limits: Limits, account: Account, first: Facts) -> tuple[int, str]:
    """The number and name of the one visible sheet that holds something; the others are named in the account."""
    import python_calamine as calamine

    visible, hidden = [], []
    for number, sheet in enumerate(book.sheets_metadata):
        if sheet.typ != calamine.SheetTypeEnum.WorkSheet:
            continue
        facts = first if number == 0 else facts_of(stream, number, limits)
        if facts.last:
            (visible if sheet.visible == calamine.SheetVisibleEnum.Visible else hidden).append((number, sheet.name))
    if not visible:
        raise RowFault("", "the workbook has no visible sheet that holds anything")
    if len(visible) > 1:
        names = ", ".join(name for _, name in visible[:8])
        reason = f"the workbook has several sheets ({names}): save each as a workbook of its own, or delete the others"
        raise RowFault("", reason)
    if hidden:
        account.notes.append(f"hidden sheets are not read: {', '.join(name for _, name in hidden[:8])}")
    return visible[0]


def _rows(sheet: Any, facts: Facts, account: Account, limits: Limits) -> Iterator[Raw]:
    account.total = facts.last
    merged = _Merged(sheet.merged_cell_ranges or ())
    header: list[str] = []
    texts = _columns_of_texts(sheet)
    seen, dates = 0, Counter[str]()
    for row, cells in enumerate(_padded(sheet)):
        if row >= facts.last:
            break
        seen = row + 1
        if not any(cell not in ("", None) for cell in cells) and not any(
            (row, c) in facts.wrong for c in range(facts.width)
        ):
            account.blank += 1
        elif not header:
            try:
                header = _header(cells, row, merged)
            except RowFault:
                # Nothing below it is read.
                account.total = account.blank
                raise
            account.header += 1
            _notes(account, header, facts, merged, row)
        else:
            yield _row(cells, row, header, facts, merged, texts, dates, limits)
    # Behind the last row with a value, to the last with a formula that has none.
    account.blank += facts.last - seen
    for column, count in dates.items():
        account.notes.append(
            f"{count:,} dates or times in {column} are written as 2026-12-31 or 23:59:00, however shown"
        )


def _padded(sheet: Any) -> Iterator[list[Any]]:
    """Rows from the first of the sheet and cells from column A, as places in the sheet's XML are."""
    before = [""] * (sheet.start[1] if sheet.start else 0)
    for cells in sheet.iter_rows():
        yield [*before, *cells]


def _columns_of_texts(sheet: Any) -> set[int]:
    """Columns most of whose cells below the header are texts."""
    texts, others = Counter[int](), Counter[int]()
    header = sheet.start[0] if sheet.start else 0
    for number, cells in enumerate(_padded(sheet)):
        if number > header + _LOOKED_AT:
            break
        for column, cell in enumerate(cells):
            if cell not in ("", None) and number > header:
                (texts if isinstance(cell, str) else others)[column] += 1
    return {column for column, count in texts.items() if count > others[column]}


class _Merged:
    """Cells that others cover: the value of what is merged stands in its first cell alone."""

    def __init__(self, ranges: Sequence[tuple[tuple[int, int], tuple[int, int]]]) -> None:
        self.first: dict[tuple[int, int], tuple[int, int]] = {}
        self.wide: set[int] = set()
        self._values: dict[tuple[int, int], Any] = {}
        for (top, left), (bottom, right) in ranges:
            if right > left:
                self.wide.update(range(top, min(bottom, top + 1_048_576) + 1))
            else:
                self.first |= {(row, left): (top, left) for row in range(top, bottom + 1)}

    def filled(self, row: int, cells: list[Any]) -> list[Any]:
        """The cells of a row, with what is merged downwards in each of the rows that it goes over."""
        for column, cell in enumerate(cells):
            if first := self.first.get((row, column)):
                if first == (row, column):
                    self._values[first] = cell
                cells[column] = self._values.get(first, cell)
        return cells


def _header(cells: list[Any], row: int, merged: _Merged) -> list[str]:
    names = [str(cell).strip() if cell is not None else "" for cell in cells]
    filled = [name for name in names if name]
    if row in merged.wide or (len(filled) == 1 and len(names) > 1):
        reason = f"row {row + 1} is a title and no header: delete the rows above the names of the columns"
        raise RowFault("", reason)
    if len(set(filled)) < len(filled):
        raise RowFault("", f"the header names a column twice: {filled}")
    return names


def _notes(account: Account, header: list[str], facts: Facts, merged: _Merged, row: int) -> None:
    def named(columns: Sequence[int]) -> str:
        return ", ".join(header[column] for column in sorted(columns) if column < len(header) and header[column])

    if hidden := named([*facts.hidden_columns]):
        account.notes.append(f"hidden columns are read like others: {hidden}")
    for column, count in sorted(facts.otherwise.items()):
        if name := named([column]):
            account.notes.append(
                f"{count:,} numbers in {name} are shown in another form than their value, which is read"
            )
    if filled := sum(place[0] > row and place != first for place, first in merged.first.items()):
        account.notes.append(f"{filled:,} merged cells were filled with the value of their first cell")


def _row(
    cells: list[Any], row: int, header: list[str], facts: Facts, merged: _Merged, texts: set[int],
    dates: Counter[str], limits: Limits,
) -> Raw:  # fmt: skip
    cells = merged.filled(row, cells)
    value: dict[str, str] = {}
    try:
        if row in facts.hidden_rows:
            raise RowFault("", "the row is hidden (by a filter?): show it, or delete it")
        if row in merged.wide:
            raise RowFault("", "cells of several columns are merged in this row: part them")
        for column in range(max(len(cells), facts.width)):
            cell = cells[column] if column < len(cells) else ""
            name = header[column] if column < len(header) else ""
            at = f"{letters(column)}{row + 1}"
            if why := facts.wrong.get((row, column)):
                raise RowFault(name, f"the cell {at} {why}")
            if not name:
                if cell not in ("", None):
                    raise RowFault("", f"the cell {at} stands below no name of a column")
                continue
            value[name] = facts.shown.get((row, column)) or _text(cell, at, name, column in texts, dates)
        if sum(map(len, value.values())) > limits.line:
            raise RowFault("", f"the row is longer than {limits.line:,} characters")
    except RowFault as fault:
        return Raw(row + 1, {name: str(cell) for name, cell in zip(header, cells, strict=False) if name}, fault)
    return Raw(row + 1, value)


def _text(cell: Any, at: str, name: str, of_texts: bool, dates: Counter[str]) -> str:
    """What a cell says, as text: as CSV would have it."""
    if isinstance(cell, str):
        if len(cell.encode("utf-16-le")) // 2 >= LONGEST:
            raise RowFault(name, f"the cell {at} is full ({LONGEST:,} characters): Excel cut what was longer")
        return cell
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, (datetime.date, datetime.time, datetime.timedelta)):
        if of_texts:
            reason = f"the cell {at} is a date or a time among texts: Excel makes one of 3-4 and 1/2; format it as text"
            raise RowFault(name, reason)
        dates[name] += 1
        return cell.isoformat(" ") if isinstance(cell, datetime.datetime) else str(cell)
    return str(int(cell)) if float(cell).is_integer() else repr(cell)
