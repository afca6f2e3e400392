"""Alerts: what is wrong at present or was, and which message went where: `catalog.alerts`."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction, now
from resources.catalog.errors import NotFound

Event = Literal["raised", "resolved"]
_PAUSES = tuple(timedelta(seconds=s) for s in (30, 120, 600, 1800, 7200, 21600))


@dataclass(frozen=True)
class Condition:
    """Something that people should know of. is_event: it happened, and is over; else it is so until it is not.

    kind and subject name it: of each there is one alert at a time, and of an event one ever. text: what is wrong, and
    what to do.
    """

    kind: str
    subject: str
    severity: str
    text: str
    is_event: bool = False

    @property
    def key(self) -> str:
        return f"{self.kind}:{self.subject}"


@dataclass(frozen=True)
class Alert:
    """An alert as it is kept; resolved_at is None while it is so, acked_at until somebody takes it on."""

    id: int
    key: str
    kind: str
    subject: str
    severity: str
    text: str
    times: int
    first_at: datetime
    last_at: datetime
    resolved_at: datetime | None
    acked_at: datetime | None
    acked_by: str | None


@dataclass(frozen=True)
class Message:
    """A message that is to be delivered, for the given time."""

    id: int
    alert: Alert
    event: Event
    channel: str
    attempt: int


@dataclass(frozen=True)
class Changed:
    """What a look came to: alerts that began and alerts that ended."""

    raised: list[Alert]
    resolved: list[Alert]


class Alerts:
    """The part of the catalog that is about alerts."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def beat(self, name: str, at: datetime | None = None) -> None:
        """Note that something lives."""
        table = t.heartbeats
        with self.database.write("alerts") as transaction:
            moment = at or now()
            if not transaction.insert_missing(table, {"name": name, "at": moment}):
                later = table.c.name == name, table.c.at < moment
                transaction.execute(table.update().where(*later).values(at=moment))

    def last_beat(self, name: str) -> datetime | None:
        """When something last lived; None when it never did."""
        rows = self.database.rows(sa.select(t.heartbeats.c.at).where(t.heartbeats.c.name == name))
        return rows[0]["at"] if rows else None

    def reconcile(
        self,
        found: Iterable[Condition],
        kinds: Collection[str],
        channels: Mapping[str, Collection[str]],
        *,
        quiet: timedelta,
        at: datetime | None = None,
    ) -> Changed:
        """Bring the alerts of `kinds` to what was found: raise what is new, resolve what is no longer so.

        channels: by "kind severity" the channels that are told. What was resolved less than `quiet` ago comes back as
        the same alert, without another message. Messages are written in the same transaction, and delivered after it.
        """
        moment = at or now()
        table = t.alerts
        changed = Changed([], [])
        with self.database.write("alerts") as transaction:
            transaction.serialize("alerts")
            current = {c.key: c for c in found}
            rows = transaction.execute(sa.select(table).where(table.c.resolved_at.is_(None), table.c.kind.in_(kinds)))
            open_alerts: dict[str, Row] = {row["key"]: _row(row) for row in rows.mappings()}
            for key, condition in current.items():
                if key in open_alerts:
                    values = {"last_at": moment, "text": condition.text, "severity": condition.severity}
                    transaction.execute(table.update().where(table.c.id == open_alerts[key]["id"]).values(values))
                elif alert := _raise(transaction, condition, moment, quiet, channels):
                    changed.raised.append(alert)
            for key, row in open_alerts.items():
                if key not in current:
                    changed.resolved.append(_resolve(transaction, row, moment, quiet, channels))
        return changed

    def alerts(self, *, is_open: bool | None = None, limit: int = 200) -> list[Alert]:
        """Alerts, those that are so first, the newest first; `is_open`: only those that are, or are not."""
        table = t.alerts
        statement = sa.select(table).order_by(table.c.resolved_at.is_(None).desc(), table.c.id.desc()).limit(limit)
        if is_open is not None:
            statement = statement.where(table.c.resolved_at.is_(None) == sa.literal(is_open))
        return [Alert(**row) for row in self.database.rows(statement)]

    def ack(self, id: int, actor: str) -> bool:
        """Note that somebody takes an alert on; False when somebody had. NotFound where there is none."""
        table = t.alerts
        with self.database.write(actor) as transaction:
            row = transaction.first(sa.select(table).where(table.c.id == id), lock=True)
            if row is None:
                raise NotFound(f"there is no alert {id}: `llmops alerts list` shows those that are")
            if row["acked_at"] is not None:
                return False
            transaction.execute(table.update().where(table.c.id == id).values(acked_at=now(), acked_by=actor))
            transaction.audit("alert.ack", row["key"], alert=id)
        return True

    def due(self, channels: Collection[str], at: datetime | None = None) -> list[Message]:
        """Messages to these channels that are to be tried now, in the order that they were written."""
        m, a = t.alert_messages, t.alerts
        columns = [m.c.id.label("message"), m.c.event, m.c.channel, m.c.attempts, *a.c]
        statement = (
            sa.select(*columns)
            .join(a, a.c.id == m.c.alert)
            .where(m.c.due_at <= (at or now()), m.c.channel.in_(channels))
            .order_by(m.c.id)
        )
        found: list[Message] = []
        for row in self.database.rows(statement):
            alert = Alert(**{column.name: row[column.name] for column in a.c})
            found.append(Message(row["message"], alert, row["event"], row["channel"], row["attempts"] + 1))
        return found

    def claim(self, message: Message, at: datetime | None = None) -> bool:
        """Take an attempt at a message; False when another process did. Killed after it, it is tried again later."""
        table = t.alert_messages
        pauses = _PAUSES[message.attempt - 1 :]
        values: Row = {"attempts": message.attempt, "due_at": (at or now()) + pauses[0] if pauses else None}
        with self.database.write("alerts") as transaction:
            mine = table.c.id == message.id, table.c.attempts == message.attempt - 1, table.c.delivered_at.is_(None)
            return transaction.changed(table.update().where(*mine).values(values)) == 1

    def delivered(self, message: Message, at: datetime | None = None) -> None:
        """Note that a message arrived."""
        self._note(message, delivered_at=at or now(), due_at=None, error=None)

    def failed(self, message: Message, error: str) -> None:
        """Note why a message did not arrive; after the last attempt it stays so."""
        self._note(message, error=error[:500])

    def undelivered(self) -> list[dict[str, Any]]:
        """Messages that were given up, newest first: channel, error and alert."""
        m = t.alert_messages
        given_up = m.c.due_at.is_(None), m.c.delivered_at.is_(None)
        columns = (m.c.alert, m.c.event, m.c.channel, m.c.error, m.c.attempts)
        return self.database.rows(sa.select(*columns).where(*given_up).order_by(m.c.id.desc()))

    def _note(self, message: Message, **values: Any) -> None:
        table = t.alert_messages
        with self.database.write("alerts") as transaction:
            transaction.execute(table.update().where(table.c.id == message.id).values(**values))


def _row(row: Mapping[Any, Any]) -> Row:
    return {str(name): value for name, value in row.items()}


def _raise(
    transaction: Transaction,
    condition: Condition,
    at: datetime,
    quiet: timedelta,
    channels: Mapping[str, Collection[str]],
) -> Alert | None:
    """A new alert, or None for an event that is known and for one that came back."""
    table = t.alerts
    last = transaction.first(sa.select(table).where(table.c.key == condition.key).order_by(table.c.id.desc()).limit(1))
    if last is not None and condition.is_event:
        return None
    if last is not None and last["resolved_at"] is not None and at - last["resolved_at"] < quiet:
        again = {"resolved_at": None, "last_at": at, "times": last["times"] + 1, "text": condition.text}
        transaction.execute(table.update().where(table.c.id == last["id"]).values(again))
        # Nobody was told yet that it is over.
        m = t.alert_messages
        transaction.execute(m.delete().where(m.c.alert == last["id"], m.c.event == "resolved"))
        return None
    values: Row = {
        "key": condition.key,
        "kind": condition.kind,
        "subject": condition.subject,
        "severity": condition.severity,
        "text": condition.text,
        "times": 1,
        "first_at": at,
        "last_at": at,
        "resolved_at": at if condition.is_event else None,
    }
    row = _row(transaction.execute(table.insert().values(values).returning(*table.c)).mappings().one())
    _write(transaction, row, "raised", at, channels)
    return Alert(**row)


def _resolve(
    transaction: Transaction, row: Row, at: datetime, quiet: timedelta, channels: Mapping[str, Collection[str]]
) -> Alert:
    table = t.alerts
    transaction.execute(table.update().where(table.c.id == row["id"]).values(resolved_at=at))
    # Told once it has stayed so: what comes back before that was never over.
    _write(transaction, row, "resolved", at + quiet, channels)
    return replace(Alert(**row), resolved_at=at)


def _write(
    transaction: Transaction, row: Row, event: Event, at: datetime, channels: Mapping[str, Collection[str]]
) -> None:
    for channel in channels.get(f"{row['kind']} {row['severity']}", ()):
        values = {"alert": row["id"], "event": event, "channel": channel, "attempts": 0, "due_at": at}
        transaction.insert_missing(t.alert_messages, values)
