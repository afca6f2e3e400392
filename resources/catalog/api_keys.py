"""API keys of the gateway: whose each is, what it may do and until when; of the key itself only a hash is kept."""

import hashlib
import re
import secrets
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, now

PREFIX = "llmops-"
"""What every key begins with, so that people and scanners of code know one when they see it."""
_KEY = re.compile(r"llmops-(?P<id>[0-9a-f]{12})-[0-9a-f]{64}")
_ID = re.compile(r"(?:llmops-)?(?P<id>[0-9a-f]{12})(?:-.*)?")


@dataclass(frozen=True)
class ApiKey:
    """A key as the catalog knows it; what is None does not restrict."""

    id: str
    sha256: str
    owner: str
    team: str | None
    role: str
    endpoints: tuple[str, ...] | None
    requests_per_minute: int | None
    monthly_tokens: int | None
    note: str
    created_at: datetime
    created_by: str
    expires_at: datetime | None
    revoked_at: datetime | None
    revoked_by: str | None
    last_used_at: datetime | None
    revision: int

    @property
    def shown(self) -> str:
        """What may be shown of the key: enough to recognise it by."""
        return f"{PREFIX}{self.id}-…"

    def state(self, at: datetime) -> str:
        """`valid`, `expired` or `revoked` at a moment."""
        if self.revoked_at is not None:
            return "revoked"
        return "expired" if self.expires_at is not None and self.expires_at <= at else "valid"


def digest_of(key: str) -> str:
    """SHA-256 of a key, as it is stored.

    A slow, salted hash is for secrets that people choose, which can be guessed. A key has 256 random bits: no guessing
    gets near it at any speed, and a fast hash can be looked up by with every request.
    """
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def looks_like_key(text: str) -> bool:
    """Whether a text is formed as our keys are."""
    return _KEY.fullmatch(text) is not None


class ApiKeys:
    """`catalog.api_keys`: the keys of an installation."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def create(
        self,
        actor: str,
        *,
        owner: str,
        role: str,
        team: str | None = None,
        endpoints: tuple[str, ...] | None = None,
        requests_per_minute: int | None = None,
        monthly_tokens: int | None = None,
        expires_at: datetime | None = None,
        note: str = "",
    ) -> tuple[ApiKey, str]:
        """A new key, and the key itself: it is given out here and can never be read again."""
        id = secrets.token_hex(6)
        secret = f"{PREFIX}{id}-{secrets.token_hex(32)}"
        values: Row = {
            "id": id,
            "sha256": digest_of(secret),
            "owner": owner,
            "team": team,
            "role": role,
            # None is stored as SQL's null, and not as JSON's.
            "endpoints": sa.null() if endpoints is None else list(endpoints),
            "requests_per_minute": requests_per_minute,
            "monthly_tokens": monthly_tokens,
            "note": note,
            "created_at": now(),
            "created_by": actor,
            "expires_at": expires_at,
            "revision": 1,
        }
        with self.database.write(actor) as transaction:
            transaction.execute(t.api_keys.insert().values(values))
            transaction.audit(
                "key.create",
                id,
                owner=owner,
                team=team,
                role=role,
                endpoints=None if endpoints is None else list(endpoints),
                expires_at=None if expires_at is None else expires_at.isoformat(),
            )
        return self.get(id), secret

    def get(self, id: str) -> ApiKey:
        """A key by its id, or by as much of the key as it may be shown; NotFound."""
        found = _ID.fullmatch(id)
        return _api_key(self.database.one(t.api_keys, found["id"] if found else id, "API key"))

    def all(self) -> list[ApiKey]:
        """All keys, newest first, revoked and expired ones too."""
        statement = sa.select(t.api_keys).order_by(t.api_keys.c.created_at.desc(), t.api_keys.c.id)
        return [_api_key(row) for row in self.database.rows(statement)]

    def revoke(self, actor: str, id: str) -> bool:
        """End a key for good; False when it was revoked before. NotFound."""
        key, table = self.get(id), t.api_keys
        open_one = table.c.id == key.id, table.c.revoked_at.is_(None)
        values: Row = {"revoked_at": now(), "revoked_by": actor, "revision": table.c.revision + 1}
        with self.database.write(actor) as transaction:
            if not transaction.changed(table.update().where(*open_one).values(values)):
                return False
            transaction.audit("key.revoke", key.id, owner=key.owner)
            return True

    def version(self) -> tuple[int, int]:
        """What changes with every change of any key, whatever the clock says: their number, and of their changes."""
        table = t.api_keys
        statement = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(table.c.revision), 0)).select_from(table)
        with self.database.read() as connection:
            count, changes = connection.execute(statement).one()
        return int(count), int(changes)

    def usable(self) -> list[ApiKey]:
        """The keys that are not revoked, for who holds requests to them; expiry is for the moment of a request."""
        statement = sa.select(t.api_keys).where(t.api_keys.c.revoked_at.is_(None))
        return [_api_key(row) for row in self.database.rows(statement)]


def _api_key(row: Row) -> ApiKey:
    endpoints: list[str] | None = row["endpoints"]
    values: Row = {**row, "endpoints": None if endpoints is None else tuple(endpoints)}
    return ApiKey(**values)
