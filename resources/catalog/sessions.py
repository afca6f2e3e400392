"""Sessions of browsers, and logins at a provider that are on their way; of every secret only a hash is kept."""

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, now
from resources.catalog.users import User

LOGIN_MINUTES = 10
"""How long somebody may take at the provider."""
_SEEN_EVERY = timedelta(seconds=60)
_MOST_LOGINS = 10_000


@dataclass(frozen=True)
class Session:
    """Who holds a session: their name, and their roles at this moment."""

    user: str
    roles: frozenset[str]
    expires_at: datetime


@dataclass(frozen=True)
class Begun:
    """A login that was begun, as its end needs it."""

    nonce: str
    verifier: str
    target: str


def digest_of(secret: str) -> str:
    """SHA-256 of a secret, as it is stored. It has 256 random bits: nobody guesses it at any speed."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


class Sessions:
    """`catalog.sessions`: who is logged in."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def start(self, user: User, roles: frozenset[str], hours: float, *, instead_of: str | None, how: str) -> str:
        """A session of `user`, who has `roles` beside their own; the secret for the browser, a new one at each login.

        The one that the browser had before, `instead_of`, ends.
        """
        secret, at, table = secrets.token_urlsafe(32), now(), t.sessions
        row: Row = {"sha256": digest_of(secret), "user": user.name, "roles": sorted(roles)}
        row |= {"user_revision": user.revision, "created_at": at, "seen_at": at}
        with self.database.write(user.name) as transaction:
            over = table.c.expires_at < at
            if instead_of is not None:
                over = sa.or_(over, table.c.sha256 == digest_of(instead_of))
            transaction.execute(table.delete().where(over))
            transaction.execute(table.insert().values(**row, expires_at=at + timedelta(hours=hours)))
            right: Row = {"failures": 0, "failed_at": None}
            transaction.execute(t.users.update().where(t.users.c.name == user.name).values(right))
            transaction.audit("user.login", user.name, how=how)
        return secret

    def find(self, secret: str, idle: timedelta) -> Session | None:
        """The session of a secret; None when it ended, was idle for longer, or its user changed or was disabled."""
        at, table, users = now(), t.sessions, t.users
        statement = (
            sa.select(table, users.c.roles.label("own"))
            .join(users, users.c.name == table.c.user)
            .where(
                table.c.sha256 == digest_of(secret),
                table.c.expires_at > at,
                table.c.seen_at > at - idle,
                users.c.disabled_at.is_(None),
                users.c.revision == table.c.user_revision,
            )
        )
        found = self.database.rows(statement)
        if not found:
            return None
        row = found[0]
        if at - row["seen_at"] > _SEEN_EVERY:
            with self.database.write(row["user"]) as transaction:
                transaction.execute(table.update().where(table.c.sha256 == row["sha256"]).values(seen_at=at))
        return Session(row["user"], frozenset(row["roles"]) | frozenset(row["own"]), row["expires_at"])

    def end(self, secret: str) -> bool:
        """End a session; False where there is none."""
        table = t.sessions
        with self.database.write("") as transaction:
            row = transaction.first(sa.select(table).where(table.c.sha256 == digest_of(secret)))
            if row is None or not transaction.changed(table.delete().where(table.c.sha256 == row["sha256"])):
                return False
            transaction.actor = row["user"]
            transaction.audit("user.logout", row["user"])
            return True

    def begin(self, state: str, browser: str, begun: Begun) -> None:
        """Remember a login that goes to the provider with `state`, from the browser that holds `browser`."""
        at, table = now(), t.logins
        row: Row = {"sha256": digest_of(state), "browser": digest_of(browser), "created_at": at}
        row |= {"nonce": begun.nonce, "verifier": begun.verifier, "target": begun.target}
        with self.database.write("") as transaction:
            transaction.execute(table.delete().where(table.c.created_at < at - timedelta(minutes=LOGIN_MINUTES)))
            # Whoever asks for logins without end pushes out the oldest, and fills no disk.
            newest = sa.select(table.c.sha256).order_by(table.c.created_at.desc()).limit(_MOST_LOGINS)
            transaction.execute(table.delete().where(table.c.sha256.not_in(newest)))
            transaction.execute(table.insert().values(row))

    def finish(self, state: str, browser: str) -> Begun | None:
        """What was remembered of a login, once; None for one that this browser did not begin, or that took too long."""
        table = t.logins
        mine = table.c.sha256 == digest_of(state), table.c.browser == digest_of(browser)
        fresh = table.c.created_at > now() - timedelta(minutes=LOGIN_MINUTES)
        with self.database.write("") as transaction:
            row = transaction.first(sa.select(table).where(*mine, fresh), lock=True)
            if row is None or not transaction.changed(table.delete().where(*mine)):
                return None
        return Begun(row["nonce"], row["verifier"], row["target"])
