"""Operations that act once: what was done under the id that a caller gave it, however often it asks."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Transaction, now
from resources.catalog.errors import Conflict


@dataclass(frozen=True)
class Operation:
    """What was done under an id: `result` is what the caller was answered."""

    id: str
    kind: str
    target: str
    actor: str
    result: dict[str, Any]
    at: datetime


class Operations:
    """The operations of a catalog: `catalog.operations`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def done(self, id: str | None, kind: str, target: str) -> Operation | None:
        """What was done under an id, or None. Raises Conflict where it was something else than `kind` of `target`."""
        if id is None:
            return None
        rows = self.database.rows(sa.select(t.operations).where(t.operations.c.id == id))
        return _same(Operation(**rows[0]), kind, target) if rows else None


def begin(transaction: Transaction, id: str | None, kind: str, target: str) -> Operation | None:
    """What was done under an id, in the transaction that would act; None where nothing was, and nobody else acts."""
    if id is None:
        return None
    transaction.serialize(f"operation {id}")
    row = transaction.first(sa.select(t.operations).where(t.operations.c.id == id))
    return _same(Operation(**row), kind, target) if row is not None else None


def remember(transaction: Transaction, id: str | None, kind: str, target: str, result: Mapping[str, Any]) -> None:
    """Note in the transaction that acts what it did under an id."""
    if id is not None:
        values = {"id": id, "kind": kind, "target": target, "result": dict(result), "at": now()}
        transaction.execute(t.operations.insert().values(actor=transaction.actor, **values))


def _same(known: Operation, kind: str, target: str) -> Operation:
    if (known.kind, known.target) != (kind, target):
        raise Conflict(f"the operation {known.id!r} was to {known.kind} {known.target!r}: take another id for {kind}")
    return known
