"""Takes versions out of the dataset store for good: a tombstone for each manifest, and no byte of the rows."""

import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from upath import UPath

from resources import process
from resources.artifacts import write_bytes_atomically
from resources.dataset_lease import LEASES
from resources.dataset_store import DatasetStore, move

SUFFIX = ".erased.json"

GRACE = timedelta(hours=24)
"""How long a chunk that no manifest names is left alone when nothing tells whether its writer still runs."""


@dataclass(frozen=True)
class Freed:
    """What an erasure removed from the store; `kept` are chunks that a live version or a writer still refers to."""

    manifests: int
    chunks: int
    bytes: int
    kept: int


def tombstone(store: DatasetStore, manifest_id: str) -> dict[str, Any] | None:
    """Why and when a version was erased; None when it was not."""
    path = _tombstone_path(store, manifest_id)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def delete_versions(store: DatasetStore, ids: Iterable[str], reason: str, grace: timedelta = GRACE) -> Freed:
    """Erase versions: each manifest becomes a tombstone that says why, then every chunk goes that nothing refers to.

    Cut off at any point, the same call (or `collect`) completes it: the tombstone names the chunks until they are gone.
    """
    deleted = 0
    for manifest_id in ids:
        path = store.root / "manifests" / f"{manifest_id}.json"
        if not path.exists():
            continue
        manifest = store.manifest(manifest_id)
        stone = {
            "id": manifest.id,
            "dataset": manifest.dataset,
            "kind": manifest.kind,
            "reason": reason,
            "erased_at": datetime.now(UTC).isoformat(),
            "chunks": [chunk.sha256 for chunk in manifest.chunks],
        }
        _write(store, manifest_id, stone)
        path.unlink()
        deleted += 1
    freed = collect(store, grace)
    return Freed(deleted, freed.chunks, freed.bytes, freed.kept)


def collect(store: DatasetStore, grace: timedelta = GRACE) -> Freed:
    """Delete the chunks that no manifest names and no writer holds: those of tombstones, and what writers left behind.

    A writer leases a chunk before it looks whether it is there, and lets go once a manifest names it. So a chunk is
    first put aside; only then is looked once more for manifests and leases, and what one of them names is put back.
    Whoever leases it later does not find it and writes it anew. A chunk without a tombstone is a leftover of a writer
    that was cut off: it goes when that process is known to be gone, and otherwise when it is older than `grace`.
    """
    pending = {stone["id"]: stone for stone in _tombstones(store) if stone["chunks"]}
    erased = {sha256 for stone in pending.values() for sha256 in stone["chunks"]}
    live, found = _live(store), _leased(store, grace)
    aside = {path.stem for path in _files(store.root / "removed")}
    for path in _chunks(store):
        if path.stem in live or path.stem in found.held:
            continue
        try:
            if path.stem in erased or path.stem in found.abandoned or _older(path, grace):
                move(path, store.removed_path(path.stem))
                aside.add(path.stem)
        except FileNotFoundError:
            # Another collector was here first.
            continue
    # In this order: a writer names its chunks before it lets go of them.
    held = _leased(store, grace).held
    live = _live(store)
    removed = freed = 0
    for sha256 in sorted(aside):
        if sha256 in live or sha256 in held:
            store.put_back(sha256)
            continue
        path = store.removed_path(sha256)
        try:
            size = path.stat().st_size
            path.unlink()
        except FileNotFoundError:
            continue
        removed, freed = removed + 1, freed + size
    for manifest_id, stone in pending.items():
        # A chunk that is still shared has a living owner, who answers for it from here on; one that is held may
        # have none in the end, and is looked at again.
        left = [sha256 for sha256 in stone["chunks"] if sha256 in held and sha256 not in live]
        _write(store, manifest_id, stone | {"chunks": left})
    for folder in found.over:
        for lease in _leases_in(folder):
            lease.unlink(missing_ok=True)
        if isinstance(folder, Path) and folder.exists():
            folder.rmdir()
    return Freed(0, removed, freed, len(erased & (live | held)))


def _tombstones(store: DatasetStore) -> Iterator[dict[str, Any]]:
    for path in _files(store.root / "manifests"):
        if path.name.endswith(SUFFIX):
            yield json.loads(path.read_text(encoding="utf-8"))


def _live(store: DatasetStore) -> set[str]:
    """The chunks that manifests name."""
    return {chunk.sha256 for manifest in store.manifests() for chunk in manifest.chunks}


def _chunks(store: DatasetStore) -> Iterator[UPath]:
    for folder in _files(store.root / "chunks"):
        yield from (path for path in _files(folder) if path.suffix == ".parquet" and not path.name.startswith("."))


def _files(folder: UPath) -> list[UPath]:
    return sorted(folder.iterdir()) if folder.exists() else []


@dataclass(frozen=True)
class _Leases:
    """The chunks that writers hold, those that only writers held which are gone, and the folders of these."""

    held: set[str]
    abandoned: set[str]
    over: list[UPath]


def _leased(store: DatasetStore, grace: timedelta) -> _Leases:
    held: set[str] = set()
    abandoned: set[str] = set()
    over: list[UPath] = []
    for folder in _files(store.root / LEASES):
        # Asked first: a writer that ends in between has let go of its leases or is found gone next time.
        gone = _is_over(folder, grace)
        (abandoned if gone else held).update(lease.name for lease in _leases_in(folder))
        over += [folder] if gone else []
    return _Leases(held, abandoned - held, over)


def _leases_in(folder: UPath) -> list[UPath]:
    try:
        return list(folder.iterdir())
    except FileNotFoundError:
        # Its writer has just finished.
        return []


def _is_over(folder: UPath, grace: timedelta) -> bool:
    """Whether the writer of a folder of leases is gone, or was not heard of for so long that it must be."""
    gone = process.is_gone(folder.name.partition(".")[0])
    if gone is not None:
        return gone
    leases = _leases_in(folder)
    try:
        return bool(leases) and all(_older(lease, grace) for lease in leases)
    except FileNotFoundError:
        return False


def _older(path: UPath, grace: timedelta) -> bool:
    """Whether a file is older than that; not where its store does not tell."""
    written = path.stat().st_mtime
    return bool(written) and written < time.time() - grace.total_seconds()


def _write(store: DatasetStore, manifest_id: str, stone: dict[str, Any]) -> None:
    data = json.dumps(stone, indent=1, ensure_ascii=False).encode()
    write_bytes_atomically(_tombstone_path(store, manifest_id), data)


def _tombstone_path(store: DatasetStore, manifest_id: str) -> UPath:
    return store.root / "manifests" / f"{manifest_id}{SUFFIX}"
