"""The last good route table on this machine's disk: what a gateway serves that starts while the database is away."""

import logging
from pathlib import Path
from typing import Any

import msgspec
from pydantic import BaseModel

from images.atomic_write import write_atomically
from images.gateway.routes import Endpoint, RouteTable
from resources.encryption import EncryptionError, Keyring
from resources.traffic.spool import spool_keys

log = logging.getLogger("gateway.routes")

_NAME = "routes.json"


class LastRoutes:
    """Keeps the endpoints of a route table in `folder`, sealed as the spool beside them: salts are no one's business.

    A file that cannot be read, or an endpoint in it, is left out: it is as if it had never been there.
    """

    def __init__(self, folder: Path, keys: Keyring) -> None:
        self._folder = folder
        self._keys = keys
        self._kept: bytes | None = None

    def keep(self, table: RouteTable) -> None:
        """Write the endpoints where they are others than those that were written last."""
        data = msgspec.json.encode(table.endpoints, enc_hook=_plain, order="deterministic")
        if data == self._kept:
            return
        try:
            sealed = spool_keys(self._folder, self._keys).seal(data)
            write_atomically(self._folder / _NAME, sealed)
        except (OSError, EncryptionError) as error:
            log.warning("the routes cannot be kept for a start without the catalog: %s", error)
            return
        self._kept = data

    def restore(self, table: RouteTable) -> int:
        """Serve the endpoints that were kept; how many that are. `loaded_at` stays None: they are not the catalog's."""
        path = self._folder / _NAME
        try:
            found = msgspec.json.decode(spool_keys(self._folder, self._keys).open(path.read_bytes(), path))
        except FileNotFoundError:
            return 0
        except (OSError, ValueError, EncryptionError) as error:
            log.error("the routes of before in %s cannot be read: %s", path, error)
            return 0
        for name, values in (found if isinstance(found, dict) else {}).items():
            try:
                table.endpoints[name] = msgspec.convert(values, Endpoint, dec_hook=_model)
            except (ValueError, TypeError) as error:
                log.error("the routes of before of endpoint %s cannot be read: %s", name, error)
        return len(table.endpoints)


def _plain(value: Any) -> Any:
    """What is configured per endpoint, as JSON has it."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise NotImplementedError(f"{type(value).__name__} is no part of a route table")


def _model(kind: type, value: Any) -> Any:
    if issubclass(kind, BaseModel):
        return kind.model_validate(value)
    raise NotImplementedError(f"{kind.__name__} is no part of a route table")
