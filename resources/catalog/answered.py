"""Requests that were answered under a key of the client's, so that one that is sent again is not carried out again."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, now
from resources.catalog.errors import Conflict

KEPT = timedelta(days=1)
"""How long an answer is kept for a request that is sent again."""
LONGEST = timedelta(minutes=10)
"""How long a request may be carried out: after that, whoever carried it out is taken to have been killed."""


@dataclass(frozen=True)
class Answered:
    """The answer that a request got when it was carried out."""

    status: int
    body: Any


class AnsweredRequests:
    """The answered requests of a catalog: `catalog.answered`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def begin(self, actor: str, key: str, digest: str) -> Answered | None:
        """Begin a request of `actor` under `key`; the answer where it was carried out before.

        `digest` is that of method, path and body. Raises Conflict where the key stands for another request, or where
        the first is still being carried out.
        """
        table = t.answered_requests
        with self.database.write(actor) as transaction:
            transaction.execute(table.delete().where(table.c.at < now() - KEPT))
            transaction.execute(table.delete().where(table.c.status.is_(None), table.c.at < now() - LONGEST))
            fresh = {"actor": actor, "key": key, "digest": digest, "at": now()}
            if transaction.insert_missing(table, fresh):
                return None
            mine = sa.select(table).where(table.c.actor == actor, table.c.key == key)
            known = transaction.only(mine, lock=True)
        if known["digest"] != digest:
            raise Conflict(f"Idempotency-Key {key!r} was sent with another request before: choose a new one")
        if known["status"] is None:
            raise Conflict(
                f"the request with Idempotency-Key {key!r} is still being carried out: ask again in a moment"
            )
        return Answered(known["status"], known["body"])

    def finish(self, actor: str, key: str, status: int, body: Any) -> None:
        """Keep the answer for when the request is sent again."""
        table = t.answered_requests
        with self.database.write(actor) as transaction:
            mine = table.c.actor == actor, table.c.key == key
            transaction.execute(table.update().where(*mine).values(status=status, body=body))

    def abandon(self, actor: str, key: str) -> None:
        """Forget a request that came to nothing, so that it can be sent again."""
        table = t.answered_requests
        with self.database.write(actor) as transaction:
            mine = table.c.actor == actor, table.c.key == key, table.c.status.is_(None)
            transaction.execute(table.delete().where(*mine))
