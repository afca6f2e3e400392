"""Intents: what somebody wants carried out, from the operation that wrote it to the run that acknowledges it."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, TypeVar

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction, now

T = TypeVar("T")
IntentKind = Literal["ingest", "train", "trial", "deploy", "compare_suites", "index"]
Outcome = Literal["done", "failed", "withdrawn", "superseded"]


@dataclass(frozen=True)
class Intent:
    """A wish that the graph carries out.

    kind, key: what is to be done with which partition; revision: 1, 2, … of one (kind, key); detail: what the run must
    know; closed_at and outcome are None while it is open. reason: why it was closed so, or why it failed so far.
    """

    kind: str
    key: str
    revision: int
    requested_by: str
    requested_at: datetime
    detail: dict[str, Any]
    closed_at: datetime | None
    outcome: Outcome | None
    reason: str | None

    @property
    def name(self) -> str:
        """What runs are tagged with: ``kind:key:revision``."""
        return f"{self.kind}:{self.key}:{self.revision}"

    @property
    def is_open(self) -> bool:
        return self.closed_at is None


class Intents:
    """The intents of a catalog: `catalog.intents`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def open(self, kind: str | None = None) -> list[Intent]:
        """What is wanted and not done yet, oldest first."""
        statement = sa.select(t.intents).where(t.intents.c.closed_at.is_(None)).order_by(t.intents.c.id)
        if kind is not None:
            statement = statement.where(t.intents.c.kind == kind)
        return [_intent(row) for row in self.database.rows(statement)]

    def newest(self, kind: str, key: str) -> Intent | None:
        """The last revision of a wish, open or closed; None when nobody ever wanted it."""
        rows = self.database.rows(_of(sa.select(t.intents), kind, key).order_by(t.intents.c.revision.desc()).limit(1))
        return _intent(rows[0]) if rows else None

    def revision(self, kind: str, key: str, revision: int) -> Intent | None:
        """One revision of a wish; None when there is none of that number."""
        rows = self.database.rows(_of(sa.select(t.intents), kind, key).where(t.intents.c.revision == revision))
        return _intent(rows[0]) if rows else None

    def want(self, kind: str, key: str, actor: str, detail: Mapping[str, Any] | None = None) -> int:
        """Want something that has no desired state of its own beside it; the new revision."""
        with self.database.write(actor) as transaction:
            revision = want(transaction, kind, key, actor, detail)
            transaction.audit(f"{kind}.want", key, revision=revision)
            return revision

    def acknowledge(
        self,
        kind: str,
        key: str,
        revision: int,
        *,
        outcome: Outcome = "done",
        reason: str | None = None,
        actor: str,
    ) -> bool:
        """Close the open intent of (kind, key) up to `revision`; False when it was closed, or a newer one is wanted."""
        with self.database.write(actor) as transaction:
            return acknowledge(transaction, kind, key, revision, outcome=outcome, reason=reason)

    def note_failure(self, kind: str, key: str, reason: str, actor: str) -> bool:
        """Note on the open intent of (kind, key) why what was tried last failed; False when none is open.

        The intent stays open: it is tried again, or held until somebody wants it anew, which forgets the reason.
        """
        with self.database.write(actor) as transaction:
            statement = _of(t.intents.update(), kind, key).where(t.intents.c.closed_at.is_(None))
            return transaction.changed(statement.values(reason=reason)) == 1

    def acknowledge_after(self, result: T, wanted: Iterable[Intent | None], *, actor: str) -> Iterator[T]:
        """Yield what a run came to, and acknowledge what was `wanted` once whoever asked for it has it on record.

        Killed in between, the intent stays open, another run is asked for, and finds the work done.
        """
        yield result
        for intent in wanted:
            if intent is not None:
                self.acknowledge(intent.kind, intent.key, intent.revision, actor=actor)

    def withdraw(self, kind: str, key: str, actor: str, reason: str | None = None) -> bool:
        """Close the open intent of (kind, key), whichever revision it has, as no longer wanted."""
        with self.database.write(actor) as transaction:
            return withdraw(transaction, kind, key, reason=reason)


def want(transaction: Transaction, kind: str, key: str, actor: str, detail: Mapping[str, Any] | None = None) -> int:
    """Want something, in the transaction that writes what is desired; the new revision of (kind, key).

    An open intent of the same (kind, key) is superseded. Two that want the same at once take turns, and each gets a
    revision of its own. The caller writes the audit line, which tells of what is desired.
    """
    transaction.serialize(f"intent {kind} {key}")
    table = t.intents
    last = transaction.execute(_of(sa.select(sa.func.max(table.c.revision)), kind, key)).scalar() or 0
    _close(transaction, kind, key, outcome="superseded", reason=f"wanted anew by {actor}")
    transaction.execute(
        table.insert().values(
            kind=kind,
            key=key,
            revision=last + 1,
            requested_by=actor,
            requested_at=now(),
            detail=dict(detail or {}),
        )
    )
    return last + 1


def acknowledge(
    transaction: Transaction,
    kind: str,
    key: str,
    revision: int,
    *,
    outcome: Outcome = "done",
    reason: str | None = None,
) -> bool:
    """As `Intents.acknowledge`, in the transaction that writes what was observed."""
    condition = t.intents.c.revision <= revision
    if not _close(transaction, kind, key, condition, outcome=outcome, reason=reason):
        return False
    why = {} if reason is None else {"reason": reason}
    transaction.audit(f"{kind}.{outcome}", key, revision=revision, **why)
    return True


def withdraw(transaction: Transaction, kind: str, key: str, *, reason: str | None = None) -> bool:
    """As `Intents.withdraw`, in a transaction that does more."""
    if not _close(transaction, kind, key, outcome="withdrawn", reason=reason or f"withdrawn by {transaction.actor}"):
        return False
    why = {} if reason is None else {"reason": reason}
    transaction.audit(f"{kind}.withdrawn", key, **why)
    return True


def _close(
    transaction: Transaction,
    kind: str,
    key: str,
    *conditions: sa.ColumnElement[bool],
    outcome: Outcome,
    reason: str | None,
) -> bool:
    statement = _of(t.intents.update(), kind, key).where(t.intents.c.closed_at.is_(None), *conditions)
    return transaction.changed(statement.values(closed_at=now(), outcome=outcome, reason=reason)) == 1


def _of(statement: Any, kind: str, key: str) -> Any:
    return statement.where(t.intents.c.kind == kind, t.intents.c.key == key)


def _intent(row: Row) -> Intent:
    return Intent(**{name: value for name, value in row.items() if name != "id"})
