"""Takes versions out of the dataset store for good: a tombstone for each manifest, and no byte of the rows."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from upath import UPath

from resources.artifacts import write_bytes_atomically
from resources.dataset_store import DatasetStore

SUFFIX = ".erased.json"


@dataclass(frozen=True)
class Freed:
    """What an erasure removed from the store; `kept` are chunks that a live version still refers to."""

    manifests: int
    chunks: int
    bytes: int
    kept: int


def tombstone(store: DatasetStore, manifest_id: str) -> dict[str, Any] | None:
    """Why and when a version was erased; None when it was not."""
    path = _tombstone_path(store, manifest_id)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def delete_versions(store: DatasetStore, ids: Iterable[str], reason: str) -> Freed:
    """Erase versions: each manifest becomes a tombstone that says why, then every chunk goes that nothing refers to.

    Cut off at any point, the same call (or `collect`) completes it: the tombstone names the chunks until they are gone.
    """
    deleted = 0
    for manifest_id in ids:
        path = store.root / "manifests" / f"{manifest_id}.json"
        if not path.exists():
            continue
        manifest = store.manifest(manifest_id)
        told = {
            "id": manifest.id,
            "dataset": manifest.dataset,
            "kind": manifest.kind,
            "reason": reason,
            "erased_at": datetime.now(UTC).isoformat(),
            "chunks": [chunk.sha256 for chunk in manifest.chunks],
        }
        _write(store, manifest_id, told)
        path.unlink()
        deleted += 1
    freed = collect(store)
    return Freed(deleted, freed.chunks, freed.bytes, freed.kept)


def collect(store: DatasetStore) -> Freed:
    """Delete the chunks that tombstones name and no live manifest refers to."""
    pending: dict[str, dict[str, Any]] = {}
    folder = store.root / "manifests"
    for path in sorted(folder.iterdir()) if folder.exists() else []:
        if path.name.endswith(SUFFIX):
            told = json.loads(path.read_text(encoding="utf-8"))
            if told["chunks"]:
                pending[told["id"]] = told
    if not pending:
        return Freed(0, 0, 0, 0)
    live = {chunk.sha256 for manifest in store.manifests() for chunk in manifest.chunks}
    named = {sha256 for told in pending.values() for sha256 in told["chunks"]}
    removed = freed = 0
    for sha256 in sorted(named - live):
        path = store.root / "chunks" / sha256[:2] / f"{sha256}.parquet"
        if path.exists():
            freed += path.stat().st_size
            path.unlink()
            removed += 1
    for manifest_id, told in pending.items():
        # A chunk that is still shared has a living owner, who answers for it from here on.
        _write(store, manifest_id, told | {"chunks": []})
    return Freed(0, removed, freed, len(named & live))


def _write(store: DatasetStore, manifest_id: str, told: dict[str, Any]) -> None:
    write_bytes_atomically(_tombstone_path(store, manifest_id), json.dumps(told, indent=1, ensure_ascii=False).encode())


def _tombstone_path(store: DatasetStore, manifest_id: str) -> UPath:
    return store.root / "manifests" / f"{manifest_id}{SUFFIX}"
