"""Seals answers that are kept: under a key of the cache's own, with all that they depend on and the items they answer.

A hash beside a file shows what a disk did to it, and nothing that somebody meant to do: who exchanges the answers of
two models can write the hashes anew.
"""

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resources import files
from resources.encryption import Keyring

_KEY = ".seal.key"
_KEY_BYTES = 32


def seal(cache: Path, keys: Keyring, depends_on: Mapping[str, Any], output: bytes, result: Mapping[str, Any]) -> str:
    """HMAC-SHA256 of the answers `output` with what they depend on and what the worker reported with them."""
    described = json.dumps([depends_on, result], sort_keys=True, ensure_ascii=False).encode()
    parts = hashlib.sha256(described).digest() + hashlib.sha256(output).digest()
    return hmac.new(_key(cache, keys), parts, hashlib.sha256).hexdigest()


def holds(
    given: object, cache: Path, keys: Keyring, depends_on: Mapping[str, Any], output: bytes, result: Mapping[str, Any]
) -> bool:
    """Whether `given` is the seal of these answers; answers of earlier releases have none, and are asked again."""
    return isinstance(given, str) and hmac.compare_digest(given, seal(cache, keys, depends_on, output, result))


def _key(cache: Path, keys: Keyring) -> bytes:
    """The key of a cache, made where there is none or it is no key; encrypted where the installation has a key."""
    path = cache / _KEY
    with files.locked(cache / ".seal.lock"):
        found = keys.open(path.read_bytes(), path) if path.exists() else b""
        if len(found) != _KEY_BYTES:
            found = secrets.token_bytes(_KEY_BYTES)
            files.write_bytes(path, keys.seal(found), mode=0o600)
    return found
