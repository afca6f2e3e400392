"""The public keys of whoever issues tokens: read from a URL or a file, and again when a token names an unknown one."""

import asyncio
import json
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from jwt import PyJWK
from jwt.exceptions import PyJWTError

log = logging.getLogger("gateway.access")

MOST_BYTES = 256 * 1024
FETCH_SECONDS = 3.0
_ALGORITHMS = {"RSA": "RS256", "EC": "ES256"}
_PRIVATE = ("d", "p", "q", "k")


class KeysUnusable(ValueError):
    """A key set that cannot be read, or in which no key is of use; the message says why."""


@dataclass(frozen=True, slots=True)
class VerifyKey:
    """A public key and the one algorithm that it verifies: what a token's header says of it decides nothing."""

    algorithm: str
    key: Any


def parse_keys(data: bytes) -> tuple[dict[str, VerifyKey], list[str]]:
    """The usable keys of a JSON Web Key Set (RFC 7517) by id, and why others are left out.

    RS256 with 2,048 bits or more, and ES256. A shared or private key is never used: it would let whoever reads the set
    make tokens. Raises KeysUnusable where nothing is left.
    """
    try:
        found = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise KeysUnusable(f"it is no JSON: {error}") from error
    entries = found.get("keys") if isinstance(found, dict) else None
    if not isinstance(entries, list):
        raise KeysUnusable("it should be an object with a list of keys")
    keys: dict[str, VerifyKey] = {}
    faults = []
    for index, entry in enumerate(entries):
        kid = entry.get("kid", "") if isinstance(entry, dict) else ""
        try:
            if not isinstance(kid, str) or kid in keys:
                raise KeysUnusable("its kid is no text, or that of another key")
            keys[kid] = _verify_key(entry)
        except (KeysUnusable, PyJWTError, ValueError, TypeError) as error:
            faults.append(f"key {index} ({kid or 'without kid'}): {error}")
    if not keys:
        raise KeysUnusable("; ".join(faults) or "it holds no key")
    return keys, faults


def _verify_key(entry: Any) -> VerifyKey:
    if not isinstance(entry, dict):
        raise KeysUnusable("it is no object")
    if any(name in entry for name in _PRIVATE):
        raise KeysUnusable("it is a private or shared key, which has no place in a public set")
    algorithm = _ALGORITHMS.get(str(entry.get("kty")))
    if algorithm is None or entry.get("alg", algorithm) != algorithm:
        raise KeysUnusable(f"{entry.get('kty')} with {entry.get('alg', 'no alg')}: RS256 and ES256 are taken")
    if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ["verify"]):
        raise KeysUnusable("it is not for signatures")
    if algorithm == "ES256" and entry.get("crv") != "P-256":
        raise KeysUnusable(f"its curve is {entry.get('crv')}, and that of ES256 is P-256")
    key = PyJWK(entry, algorithm=algorithm).key
    if algorithm == "RS256" and key.key_size < 2048:
        raise KeysUnusable(f"it has {key.key_size} bits; 2,048 is the least")
    return VerifyKey(algorithm, key)


def check_source(source: str) -> None:
    """Raise KeysUnusable for an address that keys should not be read from: another could answer in its name."""
    parts = urlsplit(source)
    if parts.scheme in ("http", "https"):
        if not parts.hostname:
            raise KeysUnusable(f"{source!r} names no host")
        if parts.scheme == "http" and not _is_loopback(parts.hostname):
            raise KeysUnusable(f"{source!r} should be https: whoever is in between could put in keys of their own")
    elif "://" in source:
        raise KeysUnusable(f"{source!r} should be a URL with https, or a file")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@dataclass
class Jwks:
    """The keys at `source`, a URL or a path.

    They are read at the start and every `max_age` seconds, and when a token names a key that is not among them: for
    all such tokens together once in `cool_down` seconds, however many come. What was read last stays while the source
    is away; `fault` then says why. `generation` counts how often the keys changed.
    """

    source: str
    max_age: float = 300.0
    cool_down: float = 10.0
    clock: Callable[[], float] = time.monotonic
    keys: dict[str, VerifyKey] = field(default_factory=dict)
    fault: str | None = None
    generation: int = 0
    _data: bytes = b""
    _looked_at: float | None = None
    _reading: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def key(self, kid: str | None) -> VerifyKey | None:
        """The key that a token names, read anew where it is not known; None when there is none of that name."""
        found = self._known(kid)
        if found is None and (self._reading.locked() or self._may_look()):
            await self.refresh()
            found = self._known(kid)
        return found

    def _may_look(self) -> bool:
        """Whether a key that is not known is looked for now; only what tokens made us look for counts."""
        now = self.clock()
        if self._looked_at is not None and now - self._looked_at < self.cool_down:
            return False
        self._looked_at = now
        return True

    def _known(self, kid: str | None) -> VerifyKey | None:
        if kid is not None:
            return self.keys.get(kid)
        # Without a name there is nothing to choose by.
        return next(iter(self.keys.values())) if len(self.keys) == 1 else None

    async def refresh(self) -> None:
        """Read the keys. Never raises: what is wrong stands in `fault`.

        Who comes while they are being read waits for that, and takes what it finds.
        """
        is_being_read = self._reading.locked()
        async with self._reading:
            if is_being_read:
                return
            try:
                data = await _read(self.source)
                if data != self._data:
                    keys, faults = parse_keys(data)
                    for fault in faults:
                        log.warning("of the keys at %s one is left out: %s", self.source, fault)
                    self.keys, self._data = keys, data
                    self.generation += 1
                    log.info("%d keys of tokens read from %s", len(keys), self.source)
                self.fault = None
            except (KeysUnusable, OSError, aiohttp.ClientError, TimeoutError) as error:
                reason = f"the keys of tokens at {self.source} cannot be read: {error or type(error).__name__}"
                if self.fault != reason:
                    log.error("%s", reason)
                self.fault = reason

    async def renew(self) -> None:
        """Read the keys again and again, until cancelled; sooner while they cannot be read."""
        while True:
            await asyncio.sleep(self.cool_down if self.fault else self.max_age)
            await self.refresh()


async def _read(source: str) -> bytes:
    if "://" not in source:
        return await asyncio.to_thread(_read_file, Path(source))
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    # A redirect could lead anywhere, also to where nothing is encrypted.
    async with (
        aiohttp.ClientSession(timeout=timeout) as session,
        session.get(source, allow_redirects=False) as response,
    ):
        if response.status != 200:
            raise KeysUnusable(f"it answers {response.status}")
        parts, size = [], 0
        async for part in response.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                raise KeysUnusable(f"it has more than {MOST_BYTES} bytes")
        return b"".join(parts)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise KeysUnusable(f"it has more than {MOST_BYTES} bytes")
    return data
