"""The API keys that the gateway takes: a copy of the catalog's, renewed with the routes."""

import logging
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from images.gateway.access.last_keys import LastKeys
from images.gateway.access.refused import unknown_caller
from images.gateway.call import Identity
from images.gateway.errors import ApiError
from resources.catalog import ApiKey, Catalog
from resources.catalog.api_keys import PREFIX, digest_of, looks_like_key

log = logging.getLogger("gateway.access")

_KEPT_SECONDS = 3600.0


class KeyTable:
    """Keys by their hash. What was read last stays while the catalog is away: a revocation cannot be known then.

    `made` is how many keys the catalog has on record, None until it was read.
    """

    def __init__(self) -> None:
        self._keys: dict[str, tuple[ApiKey, Identity]] = {}
        self._version: tuple[int, int] | None = None
        self._last: LastKeys | None = None
        self._kept_at = 0.0

    @property
    def made(self) -> int | None:
        return None if self._version is None else self._version[0]

    def restore(self, last: LastKeys) -> None:
        """Take the keys of before until the catalog is read, and keep those that it then has."""
        self._last = last
        self._put(last.restore())

    @property
    def has_budgets(self) -> bool:
        """Whether some key may use so many tokens a month and no more."""
        return any(key.monthly_tokens is not None for key, _ in self._keys.values())

    def refresh(self, catalog: Catalog) -> None:
        """Read what changed; raises what the catalog's driver raises, and stays as it was."""
        # Asked first: what changes between the two is read by the next refresh.
        version = catalog.api_keys.version()
        if version != self._version:
            self._put(catalog.api_keys.usable())
            self._version = version
            self._kept_at = 0.0
            log.info("%d API keys are taken", len(self._keys))
        now = time.monotonic()
        if self._last is not None and (not self._kept_at or now - self._kept_at > _KEPT_SECONDS):
            self._last.keep([key for key, _ in self._keys.values()])
            self._kept_at = now

    def _put(self, keys: Sequence[ApiKey]) -> None:
        self._keys = {key.sha256: (key, _identity(key)) for key in keys}

    def identity(self, secret: str) -> Identity:
        """Whose key it is; ApiError 401, or 503 while no keys were read yet."""
        if self._version is None and not self._keys:
            raise ApiError(503, "the API keys cannot be read yet", code="keys_unavailable", retry_after=1)
        found = self._keys.get(digest_of(secret)) if looks_like_key(secret) else None
        if found is None:
            raise unknown_caller(f"the API key is not known, or was revoked: ours begin with {PREFIX}")
        key, identity = found
        if key.expires_at is not None and key.expires_at <= datetime.now(UTC):
            raise unknown_caller(f"the API key expired at {key.expires_at:%Y-%m-%d %H:%M} UTC", code="key_expired")
        return identity


def _identity(key: ApiKey) -> Identity:
    return Identity(
        key=key.id,
        owner=key.owner,
        team=key.team,
        roles=frozenset((key.role,)),
        endpoints=None if key.endpoints is None else frozenset(key.endpoints),
        requests_per_minute=key.requests_per_minute,
        monthly_tokens=key.monthly_tokens,
    )
