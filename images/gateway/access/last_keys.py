"""The last good API keys on this machine's disk: whom a gateway knows that starts while the database is away."""

import logging
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from images.atomic_write import write_atomically
from resources.catalog import ApiKey
from resources.encryption import EncryptionError, Keyring
from resources.traffic.spool import spool_keys

log = logging.getLogger("gateway.access")

_NAME = "api-keys.json"
MOST_SECONDS = 24 * 3600
"""How old they may be: a key that was revoked since cannot be known."""


class _Kept(msgspec.Struct):
    at: float
    keys: list[ApiKey]


class LastKeys:
    """Keeps the keys in `folder`, hashes and all, sealed as the spool beside them."""

    def __init__(self, folder: Path, keys: Keyring) -> None:
        self._folder = folder
        self._keys = keys

    def keep(self, keys: Sequence[ApiKey]) -> None:
        """Write the keys that are taken now, and when that is."""
        data = msgspec.json.encode(_Kept(time.time(), list(keys)))
        try:
            write_atomically(self._folder / _NAME, spool_keys(self._folder, self._keys).seal(data))
        except (OSError, EncryptionError) as error:
            log.warning("the API keys cannot be kept for a start without the catalog: %s", error)

    def restore(self) -> list[ApiKey]:
        """The keys that were kept; none where they are older than a day, or cannot be read."""
        path = self._folder / _NAME
        try:
            data = spool_keys(self._folder, self._keys).open(path.read_bytes(), path)
            kept = msgspec.json.decode(data, type=_Kept)
        except FileNotFoundError:
            return []
        except (OSError, ValueError, EncryptionError) as error:
            log.error("the API keys of before in %s cannot be read: %s", path, error)
            return []
        # A clock that was set back makes them no younger.
        if abs(time.time() - kept.at) > MOST_SECONDS:
            log.warning("the API keys of before are older than a day, and are not taken")
            return []
        return kept.keys
