"""Tables of any size as batches that can be gone through as often as needed, so that memory does not grow with rows."""

import io
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import polars as pl

from resources.files import Spool

Batches = Callable[[list[str] | None], Iterator[pl.DataFrame]]
"""Gives the batches of a table from the beginning, each time it is called: all columns (None) or those named."""

ROWS = 8_192
"""Rows of a batch: enough to spread what a pass costs by itself, few enough to hold several at a time."""

A, B = TypeVar("A"), TypeVar("B")


def of(rows: pl.DataFrame | Batches) -> Batches:
    """The batches of a table in memory; what gives batches already is returned as it is."""
    if not isinstance(rows, pl.DataFrame):
        return rows

    def batches(columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        table = rows if columns is None else rows.select(columns)
        # A table without rows is one batch all the same: it carries the columns.
        return (table[start : start + ROWS] for start in range(0, max(rows.height, 1), ROWS))

    return batches


def regrouped(frames: Iterable[pl.DataFrame], rows: int | None = None) -> Iterator[pl.DataFrame]:
    """The same rows in batches of about `rows` (by default `ROWS`), where they come in many small ones."""
    rows = rows or ROWS
    waiting: list[pl.DataFrame] = []
    height, any_batch = 0, False
    for frame in frames:
        waiting.append(frame)
        height += frame.height
        if height >= rows:
            yield pl.concat(waiting, rechunk=True)
            waiting, height, any_batch = [], 0, True
    if waiting and (height or not any_batch):
        yield pl.concat(waiting, rechunk=True)


def mapped(function: Callable[[A], B], items: Iterable[A], workers: int | None = None) -> Iterator[B]:
    """`function` of each item, in order, on all cores; no more items are taken than can be worked on.

    For functions that spend their time in code that releases the interpreter's lock (polars, numpy, compiled passes).
    """
    workers = workers or min(4, os.cpu_count() or 1)
    if workers == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        running: deque[Future[B]] = deque()
        for item in items:
            running.append(pool.submit(function, item))
            if len(running) >= workers:
                yield running.popleft().result()
        while running:
            yield running.popleft().result()


UNEXAMINED = {"row_id": pl.String, "reason": pl.String}
_MOST_FAILING, _LARGEST_SHARE = 16, 0.01
"""A function that fails on more rows of a batch than this is broken itself."""


def isolated(function: Callable[[pl.DataFrame], A], batch: pl.DataFrame) -> tuple[A, pl.DataFrame]:
    """`function` of the rows of a batch that it does not fail on, and the others with the reason (`UNEXAMINED`).

    So one text that nobody thought of costs its own row. Where many rows fail, or all of them, the fault is not in a
    text, and the error is raised. A batch without a failing row costs nothing; one with a few is gone through again
    about once for each.
    """
    try:
        return function(batch), pl.DataFrame(schema=UNEXAMINED)
    except _FAILURES as error:
        if batch.height == 0 or isinstance(error, _NO_FAULT_OF_A_TEXT):
            raise
        allowed = max(_MOST_FAILING, int(_LARGEST_SHARE * batch.height))
        failing = _failing(function, batch, error, allowed)
        if len(failing) == batch.height > 1:
            raise
    frame = pl.DataFrame(failing, schema=UNEXAMINED, orient="row")
    return function(batch.join(frame, on="row_id", how="anti", maintain_order="left")), frame


_FAILURES = (Exception, pl.exceptions.PanicException)
_NO_FAULT_OF_A_TEXT = (MemoryError, OSError)


def _failing(
    function: Callable[[pl.DataFrame], object], rows: pl.DataFrame, error: BaseException, allowed: int
) -> list[tuple[str, str]]:
    """The rows that `function` fails on, by halves; the error itself when there are more than `allowed`."""
    if rows.height == 1:
        return [(rows["row_id"][0], f"{type(error).__name__}: {str(error)[:200]}")]
    failing: list[tuple[str, str]] = []
    middle = rows.height // 2
    for half in (rows[:middle], rows[middle:]):
        try:
            function(half)
        except _FAILURES as found:
            failing += _failing(function, half, found, allowed)
            if len(failing) > allowed:
                raise error from found
    return failing


def without(rows: Batches, ids: pl.Series) -> Batches:
    """The batches of a table without the rows of those ids."""
    if not len(ids):
        return rows

    def batches(columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        named = columns if columns is None or "row_id" in columns else [*columns, "row_id"]
        for batch in rows(named):
            left = batch.filter(~pl.col("row_id").is_in(ids.implode()))
            yield left if columns is None else left.select(columns)

    return batches


class Spill:
    """A table kept in a file without a name while it is worked on, for tables without a store behind them.

    The rows are whoever's they are: nothing of them is left on the disk by a process that is killed.
    """

    def __init__(self) -> None:
        self._spool = Spool()
        self.rows = 0

    def add(self, frame: pl.DataFrame) -> None:
        buffer = io.BytesIO()
        frame.write_parquet(buffer, compression="lz4", statistics=False)
        self._spool.add(buffer.getbuffer())
        self.rows += frame.height

    def __call__(self, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        for number in range(len(self._spool)):
            yield pl.read_parquet(self._spool.read(number), columns=columns)

    def close(self) -> None:
        self._spool.close()
