"""Requests that were refused before a variant was assigned: each, or of many alike how many there were in a minute."""

from collections.abc import Collection, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction
from resources.catalog.inserts import insert_missing
from resources.catalog.minutes import add_to_minute
from resources.catalog.usage import Used, add_usage

GROUPS = ("endpoint", "key", "reason", "status")
"""What refusals can be counted by."""


def add_refusals(transaction: Transaction, rows: Sequence[Row]) -> int:
    """Append refusals and count them in the ledger; how many of the rows were new.

    A row has the columns of the table, and beside them `team` and `is_sum`: of a sum what was counted in one second is
    added to the minute's row. What a spool ships twice changes nothing: its numbers only grow.
    """
    columns = set(t.refusals.c.keys())
    plain = [{name: value for name, value in row.items() if name in columns} for row in rows if not row["is_sum"]]
    new = set(insert_missing(transaction, t.refusals, plain, t.refusals.c.id))
    found = []
    for row in rows:
        if row["is_sum"]:
            is_new = add_to_minute(
                transaction, t.refusals, {name: value for name, value in row.items() if name in columns}, ("requests",)
            )
        else:
            is_new = row["id"] in new
            # An id that comes twice in one batch is one row.
            new.discard(row["id"])
        if is_new:
            found.append(row)
    add_usage(transaction, (_used(row) for row in found))
    return len(found)


def _used(row: Row) -> Used:
    day = row["at"].astimezone(UTC).date().isoformat()
    return Used(day, row["key"], row["team"], row["endpoint"], "", refused=row["requests"])


class Refusals:
    """`catalog.refusals`: reads what was refused."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def all(self, *, endpoint: str | None = None) -> list[Row]:
        """Every row, the oldest first."""
        statement = sa.select(t.refusals).order_by(t.refusals.c.at, t.refusals.c.id)
        return self.database.rows(statement if endpoint is None else statement.where(t.refusals.c.endpoint == endpoint))

    def by(
        self,
        groups: Collection[str],
        *,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> list[Row]:
        """How many `requests` were refused by some of GROUPS, most first; of one endpoint (empty: those that named
        none), from a moment to another (not included)."""
        table = t.refusals
        columns = [table.c[name] for name in GROUPS if name in groups]
        statement = sa.select(*columns, sa.func.sum(table.c.requests).label("requests")).group_by(*columns)
        for condition in _within(table, endpoint, since, until):
            statement = statement.where(condition)
        rows: list[Row] = [{**row, "requests": int(row["requests"])} for row in self.database.rows(statement)]
        return sorted(rows, key=lambda row: (-row["requests"], *(str(row[c.name]) for c in columns)))


def _within(
    table: sa.Table, endpoint: str | None, since: datetime | None, until: datetime | None
) -> Iterable[sa.ColumnElement[Any]]:
    if endpoint is not None:
        yield table.c.endpoint == endpoint
    if since is not None:
        yield table.c.at >= since
    if until is not None:
        yield table.c.at < until
