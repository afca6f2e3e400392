"""The ledger of what was used: requests and tokens by key, team, endpoint, model and day, added up as they come."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction
from resources.catalog.inserts import insert_into

GROUPS = ("day", "key", "team", "endpoint", "model_ref")
"""What usage is kept by."""
_SUMS = ("requests", "failed", "refused", "prompt_tokens", "completion_tokens", "estimated_tokens")


@dataclass(frozen=True)
class Used:
    """What was used in one day (UTC, `YYYY-MM-DD`) by one key or subject, of one model behind one endpoint.

    `failed` are those of `requests` with a status of 400 or above; `refused` others, which reached no model: their
    `model_ref` is empty, and so is `endpoint` where none was known; `estimated_tokens` those of the tokens that no
    model server counted, because a stream broke off before it did.
    """

    day: str
    key: str
    team: str
    endpoint: str
    model_ref: str
    requests: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    estimated_tokens: int = 0
    refused: int = 0

    @property
    def group(self) -> tuple[str, ...]:
        return tuple(str(getattr(self, name)) for name in GROUPS)

    def __add__(self, other: "Used") -> "Used":
        """Both together, under this one's names."""
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in _SUMS})


def added_up(rows: Iterable[Used]) -> list[Used]:
    """One row for each day, key, team, endpoint and model, in the order of these."""
    found: dict[tuple[str, ...], Used] = {}
    for row in rows:
        found[row.group] = found[row.group] + row if row.group in found else row
    return [found[group] for group in sorted(found)]


def add_usage(transaction: Transaction, rows: Iterable[Used], last_used: Mapping[str, datetime] | None = None) -> None:
    """Add to the ledger within the transaction that writes the requests themselves: both are kept, or neither.

    `last_used` is when each key was used last; what names no key of the catalog (the subject of a token) is left out.
    """
    table = t.usage
    # In one order everywhere, so that two writers never wait for each other in a circle.
    for row in added_up(rows):
        values: Row = {field.name: getattr(row, field.name) for field in fields(row)}
        statement = insert_into(transaction, table).values(values)
        sums = {name: table.c[name] + statement.excluded[name] for name in _SUMS}
        transaction.execute(statement.on_conflict_do_update(index_elements=GROUPS, set_=sums))
    keys = t.api_keys
    for key, at in sorted((last_used or {}).items()):
        earlier = sa.or_(keys.c.last_used_at.is_(None), keys.c.last_used_at < at)
        transaction.execute(keys.update().where(keys.c.id == key, earlier).values(last_used_at=at))


class Usage:
    """`catalog.usage`: reads the ledger."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, rows: Collection[Used], last_used: Mapping[str, datetime] | None = None) -> None:
        """Add to the ledger in a transaction of its own."""
        if rows:
            with self.database.write("gateway") as transaction:
                add_usage(transaction, rows, last_used)

    def by(self, groups: Collection[str], *, since: str | None = None, until: str | None = None) -> list[Row]:
        """Sums by some of GROUPS, from one day to another (both included), most tokens first; all in one for none.

        ValueError for what usage is not kept by.
        """
        if unknown := set(groups) - set(GROUPS):
            raise ValueError(f"usage is not kept by {', '.join(sorted(unknown))}, but by {', '.join(GROUPS)}")
        table = t.usage
        columns = [table.c[name] for name in GROUPS if name in groups]
        sums: list[Any] = [sa.func.coalesce(sa.func.sum(table.c[name]), 0).label(name) for name in _SUMS]
        statement = sa.select(*columns, *sums).group_by(*columns) if columns else sa.select(*sums)
        if since is not None:
            statement = statement.where(table.c.day >= since)
        if until is not None:
            statement = statement.where(table.c.day <= until)
        # PostgreSQL gives sums of integers as decimals.
        rows = [{k: int(v) if k in _SUMS else v for k, v in row.items()} for row in self.database.rows(statement)]
        return sorted(rows, key=lambda r: (-r["prompt_tokens"] - r["completion_tokens"], *(r[c.name] for c in columns)))

    def tokens_of_month(self, month: str) -> dict[str, int]:
        """Tokens by key or subject in a month (UTC, `YYYY-MM`)."""
        table = t.usage
        total = sa.func.sum(table.c.prompt_tokens + table.c.completion_tokens).label("tokens")
        mine = table.c.day >= f"{month}-01", table.c.day <= f"{month}-31"
        statement = sa.select(table.c.key, total).where(*mine).group_by(table.c.key)
        return {row["key"]: int(row["tokens"]) for row in self.database.rows(statement)}
