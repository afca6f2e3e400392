"""Where answers are kept: in the memory of one worker, or in the store that all workers share."""

import contextlib
import logging
import time
from collections import OrderedDict
from typing import Protocol

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from images.gateway.caching.kept import Kept, decoded, encoded
from llmops_assets.specs.cache import Cache
from resources.encryption import EncryptionError, Keyring

log = logging.getLogger("gateway.cache")

_MOST_BYTES = 64 * 1024 * 1024
_ANSWER_SECONDS = 0.25
_AWAY_SECONDS = 2.0


class Store(Protocol):
    """Keeps answers of endpoints by key."""

    async def get(self, endpoint: str, key: str) -> Kept | None:
        """The answer that is kept, or None."""
        ...

    async def put(self, endpoint: str, key: str, kept: Kept, cache: Cache) -> None:
        """Keep an answer for as long as the endpoint's spec says; the oldest go where there are too many."""
        ...

    async def close(self) -> None: ...


class Memory:
    """In this process: the answers used last, of each endpoint as many as it may have, of all together 64 MiB."""

    def __init__(self, *, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._kept: OrderedDict[tuple[str, str], tuple[float, Kept]] = OrderedDict()
        self._by_endpoint: dict[str, OrderedDict[str, None]] = {}
        self._bytes = 0

    async def get(self, endpoint: str, key: str) -> Kept | None:
        found = self._kept.get((endpoint, key))
        if found is None:
            return None
        until, kept = found
        if time.monotonic() >= until:
            self._drop(endpoint, key)
            return None
        self._kept.move_to_end((endpoint, key))
        self._by_endpoint[endpoint].move_to_end(key)
        return kept

    async def put(self, endpoint: str, key: str, kept: Kept, cache: Cache) -> None:
        self._drop(endpoint, key)
        self._kept[endpoint, key] = (time.monotonic() + cache.ttl_seconds, kept)
        keys = self._by_endpoint.setdefault(endpoint, OrderedDict())
        keys[key] = None
        self._bytes += kept.size
        while len(keys) > cache.max_entries:
            self._drop(endpoint, next(iter(keys)))
        while self._bytes > self._most_bytes and self._kept:
            self._drop(*next(iter(self._kept)))

    async def close(self) -> None:
        self._kept.clear()

    def _drop(self, endpoint: str, key: str) -> None:
        found = self._kept.pop((endpoint, key), None)
        if found is not None:
            self._bytes -= found[1].size
            del self._by_endpoint[endpoint][key]


class Shared:
    """In Valkey or Redis at `url`. While it is away nothing is found and nothing is kept, and requests go on.

    Answers are sealed where the installation has an encryption key.
    """

    def __init__(self, url: str, keys: Keyring, *, prefix: str = "llmops:cache") -> None:
        self._keys = keys
        self._prefix = prefix
        self._away_until = 0.0
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=_ANSWER_SECONDS,
            socket_connect_timeout=_ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            max_connections=8,
        )

    async def get(self, endpoint: str, key: str) -> Kept | None:
        if time.monotonic() < self._away_until:
            return None
        try:
            data = await self._client.get(self._name(endpoint, key))
        except (RedisError, OSError, TimeoutError) as error:
            self._note(error)
            return None
        if data is None:
            return None
        try:
            return decoded(self._keys.open(data, "a cached answer") if self._keys else data)
        except (ValueError, EncryptionError) as error:
            log.warning("a cached answer of endpoint %s cannot be read: %s", endpoint, type(error).__name__)
            return None

    async def put(self, endpoint: str, key: str, kept: Kept, cache: Cache) -> None:
        if time.monotonic() < self._away_until:
            return
        data, order = encoded(kept), f"{self._prefix}:{endpoint}:order"
        try:
            async with self._client.pipeline(transaction=True) as pipe:
                pipe.set(self._name(endpoint, key), self._keys.seal(data) if self._keys else data, ex=cache.ttl_seconds)
                pipe.zadd(order, {key: time.time()})
                pipe.expire(order, cache.ttl_seconds + 60)
                pipe.zremrangebyscore(order, 0, time.time() - cache.ttl_seconds)
                pipe.zcard(order)
                *_, count = await pipe.execute()
            if count > cache.max_entries:
                oldest = await self._client.zpopmin(order, count - cache.max_entries)
                await self._client.unlink(*(self._name(endpoint, old.decode()) for old, _ in oldest))
        except (RedisError, OSError, TimeoutError) as error:
            self._note(error)

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    def _name(self, endpoint: str, key: str) -> str:
        return f"{self._prefix}:{endpoint}:{key}"

    def _note(self, error: Exception) -> None:
        log.warning("the store of cached answers does not answer: %s", type(error).__name__)
        self._away_until = time.monotonic() + _AWAY_SECONDS
