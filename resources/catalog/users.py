"""Users of an installation: with a password of ours, or bound to who they are at a provider."""

from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction, now
from resources.catalog.errors import Conflict

FREE_FAILURES = 5
"""Wrong passwords after which the next try has to wait, each time twice as long."""
LONGEST_WAIT = timedelta(minutes=15)


@dataclass(frozen=True)
class User:
    """A user as the catalog knows it; `roles` are those that were given here."""

    name: str
    password_hash: str | None
    roles: tuple[str, ...]
    issuer: str | None
    subject: str | None
    created_at: datetime
    created_by: str
    disabled_at: datetime | None
    failures: int
    failed_at: datetime | None
    revision: int

    @property
    def waits_until(self) -> datetime | None:
        """Until when no password is looked at, after many wrong ones; None where none is waited for."""
        if self.failed_at is None or self.failures < FREE_FAILURES:
            return None
        wait = timedelta(seconds=2 ** min(self.failures - FREE_FAILURES, 20))
        return self.failed_at + min(wait, LONGEST_WAIT)


class Users:
    """`catalog.users`: who may log in, and as what."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def any(self) -> bool:
        """Whether there is a user at all."""
        return bool(self.database.rows(sa.select(t.users.c.name).limit(1)))

    def find(self, name: str) -> User | None:
        """The user of a name; None where there is none."""
        found = self.database.rows(sa.select(t.users).where(t.users.c.name == name))
        return _user(found[0]) if found else None

    def get(self, name: str) -> User:
        """The user of a name; NotFound."""
        return _user(self.database.one(t.users, name, "user"))

    def all(self) -> list[User]:
        """All users by name, disabled ones too."""
        return [_user(row) for row in self.database.rows(sa.select(t.users).order_by(t.users.c.name))]

    def create(self, actor: str, name: str, roles: tuple[str, ...], password_hash: str | None) -> User:
        """A new user; Conflict where the name is taken."""
        with self.database.write(actor) as transaction:
            _insert(transaction, name, roles, password_hash=password_hash)
            transaction.audit("user.create", name, roles=list(roles))
        return self.get(name)

    def set_roles(self, actor: str, name: str, roles: tuple[str, ...]) -> bool:
        """Give a user these roles and no others, from the next request on; False where they are the same. NotFound."""
        before = self.get(name).roles
        with self.database.write(actor) as transaction:
            values: Row = {"roles": list(roles)}
            if before == roles or not transaction.changed(_of(name).values(values)):
                return False
            transaction.audit("user.role", name, roles=list(roles), before=list(before))
            return True

    def set_password(self, actor: str, name: str, password_hash: str) -> None:
        """Give a user another password; all their sessions end. NotFound."""
        self.get(name)
        with self.database.write(actor) as transaction:
            values: Row = {"password_hash": password_hash, "failures": 0, "failed_at": None}
            if transaction.changed(_of(name).values(**values, revision=t.users.c.revision + 1)):
                transaction.audit("user.password", name)

    def keep_hash(self, name: str, known: str, password_hash: str) -> None:
        """Keep the same password by a stronger hash; nothing where it was changed meanwhile."""
        with self.database.write(name) as transaction:
            transaction.execute(_of(name).where(t.users.c.password_hash == known).values(password_hash=password_hash))

    def set_disabled(self, actor: str, name: str, disabled: bool) -> bool:
        """Let a user in no more, or again; False where that is so. Who is disabled loses sessions and API keys."""
        self.get(name)
        column = t.users.c.disabled_at
        other = column.is_(None) if disabled else column.is_not(None)
        values: Row = {"disabled_at": now() if disabled else None, "revision": t.users.c.revision + 1, "failures": 0}
        with self.database.write(actor) as transaction:
            if not transaction.changed(_of(name).where(other).values(values)):
                return False
            revoked = 0
            if disabled:
                transaction.execute(t.sessions.delete().where(t.sessions.c.user == name))
                keys = t.api_keys
                gone: Row = {"revoked_at": now(), "revoked_by": actor, "revision": keys.c.revision + 1}
                mine = keys.c.owner == name, keys.c.revoked_at.is_(None)
                revoked = transaction.changed(keys.update().where(*mine).values(gone))
            transaction.audit("user.disable" if disabled else "user.enable", name, keys_revoked=revoked)
            return True

    def failed(self, name: str) -> None:
        """Count a wrong password."""
        with self.database.write(name) as transaction:
            values: Row = {"failures": t.users.c.failures + 1, "failed_at": now()}
            if transaction.changed(_of(name).values(values)):
                transaction.audit("user.refuse", name, why="wrong password")

    def bind(self, name: str, issuer: str, subject: str) -> User:
        """The user that somebody is at a provider, made at the first login; Conflict where the name is another's."""
        table = t.users
        mine = table.c.issuer == issuer, table.c.subject == subject
        with self.database.write(name) as transaction:
            found = transaction.first(sa.select(table).where(*mine))
            if found is None:
                _insert(transaction, name, (), issuer=issuer, subject=subject)
                transaction.audit("user.create", name, roles=[], issuer=issuer, subject=subject)
                found = transaction.only(sa.select(table).where(*mine))
        return _user(found)


def _of(name: str) -> sa.Update:
    return t.users.update().where(t.users.c.name == name)


def _insert(transaction: Transaction, name: str, roles: tuple[str, ...], **values: str | None) -> None:
    row: Row = {"name": name, "roles": list(roles), "created_at": now(), "created_by": transaction.actor}
    row |= {"failures": 0, "revision": 1, **values}
    if not transaction.insert_missing(t.users, row):
        raise Conflict(f"there is a user {name!r} already: the name belongs to somebody else, or was made before")


def _user(row: Row) -> User:
    values: Row = {**row, "roles": tuple(row["roles"])}
    return User(**values)
