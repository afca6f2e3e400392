"""The API keys that the gateway takes: a copy of the catalog's, renewed with the routes."""

import logging
from datetime import UTC, datetime

from images.gateway.access.refused import unknown_caller
from images.gateway.call import Identity
from images.gateway.errors import ApiError
from resources.catalog import ApiKey, Catalog
from resources.catalog.api_keys import PREFIX, digest_of, looks_like_key

log = logging.getLogger("gateway.access")


class KeyTable:
    """Keys by their hash. What was read last stays while the catalog is away: a revocation cannot be known then."""

    def __init__(self) -> None:
        self._keys: dict[str, tuple[ApiKey, Identity]] = {}
        self._version: tuple[int, int] | None = None

    @property
    def is_loaded(self) -> bool:
        return self._version is not None

    @property
    def has_budgets(self) -> bool:
        """Whether some key may use so many tokens a month and no more."""
        return any(key.monthly_tokens is not None for key, _ in self._keys.values())

    def refresh(self, catalog: Catalog) -> None:
        """Read what changed; raises what the catalog's driver raises, and stays as it was."""
        # Asked first: what changes between the two is read by the next refresh.
        version = catalog.api_keys.version()
        if version == self._version:
            return
        self._keys = {key.sha256: (key, _identity(key)) for key in catalog.api_keys.usable()}
        self._version = version
        log.info("%d API keys are taken", len(self._keys))

    def identity(self, secret: str) -> Identity:
        """Whose key it is; ApiError 401, or 503 while no keys were read yet."""
        if not self.is_loaded:
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
