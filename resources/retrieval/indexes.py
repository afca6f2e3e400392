"""The indexes of an installation: their versions, which of them each name stands for, and what must not be found.

A version is a folder of its own that is never changed. A name is an alias: a small file that is replaced in one step,
or with a Qdrant server an alias of that server, so whoever searches sees the old version or the new one, whole.
"""

import hashlib
import hmac
import json
import logging
import secrets
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from llmops_assets.records.retrieval import IndexFacts
from llmops_assets.specs.names import check_key
from llmops_assets.specs.settings import Settings
from resources import files
from resources.artifacts import Artifacts
from resources.encryption import NO_KEYS, Keyring
from resources.retrieval import files as index_files
from resources.retrieval.engine import DENSE, SPARSE, Embedded, Engine, EngineUnavailable, Server, unavailable
from resources.retrieval.files import IndexCorrupt, PassageIndex
from resources.stored_paths import StoredPaths

log = logging.getLogger("retrieval.indexes")

FOLDER = "indexes"
"""Folder of all indexes below the artifact root."""
GRACE_SECONDS = 24 * 3600.0
"""How long a version that no name stands for is kept: whoever reads it has loaded the next one by then."""
_PREFIX = "llmops-"
_BATCH = 128
_TIMEOUT_SECONDS = 10


class UnknownIndex(LookupError):
    """No version stands behind a name; the message says which names there are."""


@dataclass(frozen=True)
class QdrantServer:
    """Where a Qdrant server listens, and its key."""

    url: str
    api_key: str | None = None


class Indexes:
    """Versions and names below `root`; with a `server` what is searched lies in it, and the names are its aliases."""

    def __init__(
        self, root: Path, keys: Keyring = NO_KEYS, paths: StoredPaths | None = None, server: QdrantServer | None = None
    ) -> None:
        self.root = Path(root)
        self.keys = keys
        self.paths = paths or StoredPaths(self.root.parent.parent, str(self.root.parent))
        self.server = server

    @cached_property
    def _client(self) -> Any:
        from qdrant_client import QdrantClient

        if self.server is None:
            raise RuntimeError("there is no Qdrant server: indexes are embedded")
        return QdrantClient(
            url=self.server.url,
            api_key=self.server.api_key,
            timeout=_TIMEOUT_SECONDS,
            # One more request to an address that may be away, and a warning, for nothing that is used here.
            check_compatibility=False,
        )

    @property
    def address(self) -> str:
        """What searches: `embedded`, or the server's address."""
        return self.server.url if self.server else "embedded"

    def folder(self, version: str) -> Path:
        """Where the files of a version lie."""
        return self.root / "versions" / check_key(version)

    # versions

    def read(self, version: str) -> PassageIndex:
        """A version with all of it; IndexCorrupt where its files are not what was written."""
        return index_files.read(self.folder(version), self.keys, self.paths)

    def facts(self, version: str) -> IndexFacts:
        """What a version is, without its passages."""
        return index_files.read_facts(self.folder(version), self.keys, self.paths)

    def is_whole(self, version: str) -> bool:
        """Whether a version is there and can be read."""
        try:
            self.read(version)
        except IndexCorrupt:
            return False
        return True

    def versions(self) -> list[str]:
        """Every version that is there, whole or not."""
        folder = self.root / "versions"
        return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []

    def engine(self, index: PassageIndex) -> Engine:
        """What searches a version: filled into this process, or as it lies in the server (`stage` brings it there)."""
        if self.server is None:
            return Embedded(index)
        return Server(self._client, self._collection(index.facts.version), self.server.url)

    def stage(self, index: PassageIndex) -> int:
        """Have a version ready to be searched under its own name, and give the passages that are there.

        Into a server it is written anew, unless it holds as many points as it should: one that was cut off goes on.
        """
        if self.server is None:
            return index.passages.height
        from qdrant_client import models

        name, client = self._collection(index.facts.version), self._client
        with unavailable(self.server.url, f"writing {name}"):
            if not client.collection_exists(name):
                client.create_collection(
                    name,
                    vectors_config={
                        DENSE: models.VectorParams(size=index.facts.dimensions, distance=models.Distance.COSINE)
                    },
                    sparse_vectors_config={SPARSE: models.SparseVectorParams(modifier=models.Modifier.IDF)},
                )
            if client.count(name, exact=True).count != index.passages.height:
                ids = index.passages["id"].to_list()
                for start in range(0, len(ids), _BATCH):
                    rows = range(start, min(start + _BATCH, len(ids)))
                    client.upsert(name, [self._point(index, row, ids[row]) for row in rows], wait=True)
            count: int = client.count(name, exact=True).count
        return count

    @staticmethod
    def _point(index: PassageIndex, row: int, id: str) -> Any:
        from qdrant_client import models

        terms, weights = index.sparse.row(row)
        return models.PointStruct(
            id=row,
            vector={DENSE: index.vectors[row].tolist(), SPARSE: models.SparseVector(indices=terms, values=weights)},
            payload={"passage": id},
        )

    def _collection(self, version: str) -> str:
        return f"{_PREFIX}{version}"

    # names

    def aliases(self) -> dict[str, str]:
        """The version by name."""
        if self.server is not None:
            with unavailable(self.server.url, "listing its aliases"):
                found = self._client.get_aliases().aliases
            return {
                alias.alias_name.removeprefix(_PREFIX): alias.collection_name.removeprefix(_PREFIX)
                for alias in found
                if alias.alias_name.startswith(_PREFIX) and alias.collection_name.startswith(_PREFIX)
            }
        folder = self.root / "aliases"
        found = (
            {path.stem: self._alias_in(path) for path in sorted(folder.glob("[!.]*.json"))} if folder.exists() else {}
        )
        return {name: version for name, version in found.items() if version}

    def version(self, name: str) -> str:
        """The version that a name stands for; UnknownIndex when none does."""
        if self.server is None:
            version = self._alias_in(self.root / "aliases" / f"{check_key(name)}.json")
        else:
            version = self.aliases().get(name)
        if version is None:
            known = ", ".join(sorted(self.aliases())) or "none yet"
            raise UnknownIndex(f"there is no index {name!r}; known are: {known}. Build one: llmops index build")
        return version

    def _alias_in(self, path: Path) -> str | None:
        try:
            value = json.loads(path.read_text(encoding="utf-8"))["version"]
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IndexCorrupt(f"{path} cannot be read ({error}): build the index again") from error
        return check_key(str(value))

    def point(self, name: str, version: str) -> str | None:
        """Let a name stand for a version from here on, in one step; the version before, None for a new name."""
        before = self._current(name)
        if before == version:
            return before
        if self.server is None:
            text = json.dumps({"version": check_key(version)})
            files.write_text(self.root / "aliases" / f"{check_key(name)}.json", text)
            return before
        from qdrant_client import models

        alias = f"{_PREFIX}{check_key(name)}"
        created = models.CreateAlias(collection_name=self._collection(version), alias_name=alias)
        steps: list[Any] = [models.CreateAliasOperation(create_alias=created)]
        if before is not None:
            steps.insert(0, models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=alias)))
        with unavailable(self.server.url, f"moving the alias {alias}"):
            self._client.update_collection_aliases(change_aliases_operations=steps)
        return before

    def _current(self, name: str) -> str | None:
        if self.server is not None:
            return self.aliases().get(name)
        with suppress(IndexCorrupt):
            return self._alias_in(self.root / "aliases" / f"{check_key(name)}.json")
        return None

    def remove_name(self, name: str) -> None:
        """Let a name stand for nothing."""
        if self.server is None:
            (self.root / "aliases" / f"{check_key(name)}.json").unlink(missing_ok=True)
            return
        from qdrant_client import models

        alias = models.DeleteAlias(alias_name=f"{_PREFIX}{check_key(name)}")
        if name in self.aliases():
            with unavailable(self.server.url, f"removing the alias {alias.alias_name}"):
                steps = [models.DeleteAliasOperation(delete_alias=alias)]
                self._client.update_collection_aliases(change_aliases_operations=steps)

    def drop(self, version: str) -> None:
        """Delete a version: its collection first, so that nothing is left of it without files that say so."""
        if self.server is not None:
            with unavailable(self.server.url, f"deleting {self._collection(version)}"):
                self._client.delete_collection(self._collection(version))
        shutil.rmtree(self.folder(version), ignore_errors=True)

    def collect(self, grace_seconds: float = GRACE_SECONDS) -> list[str]:
        """Delete versions that no name stands for and that are older than the grace period; which."""
        named, now = set(self.aliases().values()), time.time()
        old = [
            version
            for version in self.versions()
            if version not in named and now - self.folder(version).stat().st_mtime >= grace_seconds
        ]
        for version in old:
            self.drop(version)
        return old

    # what must not be found

    def tombstones(self) -> frozenset[str]:
        """What was erased, as keyed hashes of passage ids."""
        path = self.root / "tombstones.json"
        try:
            return frozenset(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return frozenset()
        except (OSError, ValueError) as error:
            raise IndexCorrupt(f"{path} cannot be read ({error}): restore it; nothing is served without it") from error

    def bury(self, ids: Iterable[str], erasure: int) -> None:
        """Have passages found by nobody from here on, in no version that there is or will be."""
        self.root.mkdir(parents=True, exist_ok=True)
        added = {self.tombstone(id): erasure for id in ids}
        with files.locked(self.root / ".tombstones.lock"):
            path = self.root / "tombstones.json"
            known: dict[str, int] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
            files.write_text(path, json.dumps({**added, **known}, sort_keys=True))

    def tombstone(self, id: str) -> str:
        """The name of a passage among the tombstones: without the key, nobody can try texts against it."""
        return hmac.new(self._tombstone_key, id.encode(), hashlib.sha256).hexdigest()[:24]

    @cached_property
    def _tombstone_key(self) -> bytes:
        path = self.root / "tombstones.key"
        self.root.mkdir(parents=True, exist_ok=True)
        with files.locked(self.root / ".tombstones.lock"):
            if not path.exists():
                files.write_bytes(path, secrets.token_bytes(32), mode=0o600)
        return path.read_bytes()

    def buried_in(self, ids: Iterable[str]) -> list[str]:
        """Those of the passages that were erased."""
        dead = self.tombstones()
        return [id for id in ids if self.tombstone(id) in dead] if dead else []

    def changes(self) -> Mapping[str, float]:
        """When the tombstones were last changed, for whoever keeps a copy of them."""
        try:
            return {"tombstones": (self.root / "tombstones.json").stat().st_mtime_ns}
        except FileNotFoundError:
            return {"tombstones": 0}


def open_indexes(settings: Settings) -> Indexes:
    """The indexes of an installation, by its settings."""
    secret, url = settings.encryption_key, settings.qdrant_url
    keys = Keyring.load(secret.get_secret_value() if secret else None, settings.encryption_key_file)
    server = QdrantServer(url, settings.qdrant_secret) if url else None
    root = Artifacts(settings.artifacts).path(FOLDER)
    return Indexes(root, keys, StoredPaths(settings.root, settings.artifacts), server)


__all__ = ["EngineUnavailable", "IndexCorrupt", "Indexes", "QdrantServer", "UnknownIndex", "open_indexes"]
