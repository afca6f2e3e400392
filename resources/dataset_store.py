"""Immutable versions of tables: a JSON manifest over content-addressed Parquet chunks that neighbours share."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl
from pydantic import ValidationError
from upath import UPath

from llmops_assets.specs.canonical import canonical_json, digest
from resources.artifacts import write_bytes_atomically
from resources.dataset_chunks import cuts, from_parquet, place_of, row_hashes, to_parquet
from resources.dataset_lease import Lease
from resources.dataset_manifest import Chunk, Identity, Manifest, identity_of
from resources.encryption import NO_KEYS, Keyring
from resources.row_upgrade import upgraded


class DatasetStoreError(RuntimeError):
    """A version is missing, or its bytes are not what its manifest says."""


def config_hash(value: object) -> str:
    """16 hex digits of the canonical JSON of `value`: what identifies the configuration of a step."""
    return digest(value)


class DatasetStore:
    """Versions under one root (a folder or an fsspec URL). Nothing in it is ever changed, only added.

    With `keys` the chunks are sealed at rest. Manifests are not: they hold no row, only counts and hashes.
    """

    def __init__(self, root: str | os.PathLike[str], keys: Keyring = NO_KEYS) -> None:
        self.root = UPath(root)
        self.keys = keys

    def write(self, frame: pl.DataFrame | Iterable[pl.DataFrame], **identity: Unpack[Identity]) -> str:
        """Store a table, whole or in batches of one schema, and return the id of its manifest (see `Writer`)."""
        writer = self.writer(**identity)
        for batch in [frame] if isinstance(frame, pl.DataFrame) else frame:
            writer.add(batch)
        return writer.finish()

    def writer(self, **identity: Unpack[Identity]) -> "Writer":
        """What a table is stored with batch by batch, for several that come out of one pass."""
        return Writer(self, identity)

    def manifest(self, manifest_id: str) -> Manifest:
        """The manifest of that id; DatasetStoreError when there is none or it was altered."""
        target = self._manifest_path(manifest_id)
        if not target.exists():
            self._refuse_erased(manifest_id)
            raise DatasetStoreError(f"no dataset version {manifest_id} in {self.root}: was another store written to?")
        try:
            manifest = Manifest.model_validate_json(target.read_bytes())
        except ValidationError as error:
            # Without its cause: what shows the first cause of a failed step would show a parser's words alone.
            faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
            raise DatasetStoreError(f"{target} is not a manifest ({faults}): restore it from a backup") from None
        body = manifest.model_dump(exclude={"id", "created_at", "chunks"})
        if (
            identity_of({**body, "chunks": [c.model_dump(exclude_defaults=True) for c in manifest.chunks]})
            != target.stem
        ):
            raise DatasetStoreError(f"{target} was changed after it was written: restore it from a backup")
        return manifest

    def manifests(self) -> list[Manifest]:
        """Every manifest there is, oldest first."""
        folder = self.root / "manifests"
        paths = (
            [path for path in folder.iterdir() if path.suffix == ".json" and path.stem.isalnum()]
            if folder.exists()
            else []
        )
        return sorted((self.manifest(path.stem) for path in paths), key=lambda m: (m.created_at, m.id))

    def batches(self, manifest_id: str, columns: list[str] | None = None) -> Iterator[pl.DataFrame]:
        """The chunks of a version in order, each verified against its hash."""
        for chunk in self.manifest(manifest_id).chunks:
            yield self.chunk(chunk, columns)

    def chunk(self, chunk: Chunk, columns: list[str] | None = None) -> pl.DataFrame:
        """The rows of one chunk, verified; DatasetStoreError when it is missing or damaged."""
        path = self._chunk_path(chunk.sha256)
        data = self.keys.open(self._chunk_bytes(chunk.sha256), f"chunk {path}")
        if hashlib.sha256(data).hexdigest() != chunk.sha256:
            raise DatasetStoreError(f"chunk {path} is damaged: restore it from a backup")
        frame = upgraded(from_parquet(data, columns), columns)
        if chunk.first_line and "line" in frame.columns:
            frame = frame.with_columns(pl.col("line") + chunk.first_line)
        if chunk.file is not None and "file" in frame.columns:
            frame = frame.with_columns(file=pl.lit(chunk.file, pl.String))
        return frame

    def check(self, manifest_id: str, *, by_content: bool = True) -> None:
        """Raise DatasetStoreError where a chunk of a version is missing or, `by_content`, was changed."""
        for chunk in self.manifest(manifest_id).chunks:
            path = self._chunk_path(chunk.sha256)
            if not by_content and path.exists():
                continue
            data = self.keys.open(self._chunk_bytes(chunk.sha256), f"chunk {path}")
            if hashlib.sha256(data).hexdigest() != chunk.sha256:
                raise DatasetStoreError(f"chunk {path} is damaged: restore it from a backup")

    def _chunk_bytes(self, sha256: str) -> bytes:
        # A collector may hold it for a moment, until it sees that it is wanted (see `dataset_gc.collect`).
        path = self._chunk_path(sha256)
        for place in (path, self.removed_path(sha256), path):
            try:
                return place.read_bytes()
            except FileNotFoundError:
                continue
        raise DatasetStoreError(f"chunk {path} is missing: restore it from a backup")

    def keep_config(self, config: object) -> str:
        """Keep what a step was configured with, for the history to show; its `config_hash`."""
        name = config_hash(config)
        path = self.root / "configs" / f"{name}.json"
        if not path.exists():
            write_bytes_atomically(path, canonical_json(config, allow_nan=True).encode())
        return name

    def config(self, name: str) -> object | None:
        """What `keep_config` kept under a hash, or None when that was made elsewhere."""
        path = self.root / "configs" / f"{name}.json"
        return json.loads(path.read_text(encoding="utf-8")) if name.isalnum() and path.exists() else None

    def read(self, manifest_id: str, columns: list[str] | None = None) -> pl.DataFrame:
        """All rows of a version, or only some of its columns, in the order they were written."""
        return pl.concat(self.batches(manifest_id, columns), rechunk=True)

    def some_rows(self, manifest_id: str, count: int) -> pl.DataFrame:
        """About `count` rows of a version, spread over it, to look at: no more than as many chunks are read."""
        chunks = self.manifest(manifest_id).chunks
        if len(chunks) < count:
            return self.read(manifest_id).gather_every(max(1, sum(c.rows for c in chunks) // count)).head(count)
        return pl.concat([self.chunk(chunks[place * len(chunks) // count]).head(1) for place in range(count)])

    def _write_chunk(self, frame: pl.DataFrame, lease: "Lease") -> Chunk:
        first_line, file = place_of(frame)
        if first_line:
            frame = frame.with_columns(pl.col("line") - first_line)
        if file is not None:
            frame = frame.with_columns(file=pl.lit("", pl.String))
        data = to_parquet(frame)
        sha256 = hashlib.sha256(data).hexdigest()
        path = self._chunk_path(sha256)
        # Leased before it is looked for: from here on no collector takes it away for good.
        lease.hold(sha256)
        if not path.exists():
            write_bytes_atomically(path, self.keys.seal(data))
        return Chunk(sha256=sha256, rows=frame.height, bytes=len(data), first_line=first_line, file=file)

    def _chunk_path(self, sha256: str) -> UPath:
        return self.root / "chunks" / sha256[:2] / f"{sha256}.parquet"

    def removed_path(self, sha256: str) -> UPath:
        """Where a collector puts a chunk before it deletes it for good."""
        return self.root / "removed" / f"{sha256}.parquet"

    def put_back(self, sha256: str) -> bool:
        """Undo the removal of a chunk that is wanted after all; whether it is in its place now."""
        path = self._chunk_path(sha256)
        if not path.exists():
            try:
                move(self.removed_path(sha256), path)
            except FileNotFoundError:
                # Whoever took it away has put it back meanwhile, or it is gone for good.
                return path.exists()
        return True

    def _refuse_erased(self, manifest_id: str) -> None:
        """Say what happened to a version that was erased (see `dataset_gc`)."""
        tombstone_file = self.root / "manifests" / f"{manifest_id}.erased.json"
        if tombstone_file.exists():
            stone = json.loads(tombstone_file.read_text(encoding="utf-8"))
            erased = f"version {manifest_id} of {stone['dataset']} was erased on {stone['erased_at'][:10]}"
            raise DatasetStoreError(f"{erased}: {stone['reason']}")

    def _manifest_path(self, manifest_id: str) -> UPath:
        if not manifest_id.isalnum():
            raise DatasetStoreError(f"{manifest_id!r} is not the id of a dataset version")
        return self.root / "manifests" / f"{manifest_id}.json"


class Writer:
    """Stores one table that comes in batches of one schema.

    Writing the same content from the same step again changes nothing and gives the same id. Batches are cut as the
    whole table would be, so the id does not depend on how the rows were batched.
    """

    def __init__(self, store: DatasetStore, identity: Identity) -> None:
        self._store, self._identity = store, identity
        self._lease = Lease(store.root)
        self._chunks: list[Chunk] = []
        self._schema: dict[str, str] = {}
        self._rest: pl.DataFrame | None = None
        self._hashes = np.empty(0, dtype=np.uint32)

    def add(self, batch: pl.DataFrame) -> None:
        """Store what can be cut off already; the rest waits for the rows that follow."""
        if self._rest is None:
            self._schema = {name: str(dtype) for name, dtype in batch.schema.items()}
        rest = batch if self._rest is None else pl.concat([self._rest, batch])
        # The last row's successor is needed to know whether a cut falls behind it.
        hashes = np.concatenate((self._hashes, row_hashes(batch)))
        start = 0
        for end in cuts(hashes):
            self._chunks.append(self._store._write_chunk(rest[start:end], self._lease))
            start = end
        self._rest, self._hashes = rest[start:], hashes[start:]

    def finish(self) -> str:
        """Store the rest and the manifest; its id."""
        identity, chunks = self._identity, self._chunks
        if self._rest is None:
            raise ValueError(f"{identity['dataset']}: nothing to write for {identity['kind']}: give at least one table")
        if self._rest.height or not chunks:
            chunks.append(self._store._write_chunk(self._rest, self._lease))
        content = [self._schema, [chunk.sha256 for chunk in chunks]]
        body: dict[str, Any] = {
            "parent": None,
            **identity,
            "columns": self._schema,
            "rows": sum(chunk.rows for chunk in chunks),
            "content_hash": digest(content, 64),
            "chunks": [chunk.model_dump(exclude_defaults=True) for chunk in chunks],
        }
        manifest = Manifest(id=identity_of(body), created_at=datetime.now(UTC), **body)
        target = self._store._manifest_path(manifest.id)
        if not target.exists():
            write_bytes_atomically(target, manifest.model_dump_json(indent=1).encode())
        # Named now, so no collector that looks from here on takes the chunks; one that looked before puts them back.
        missing = [sha256 for sha256 in {chunk.sha256 for chunk in chunks} if not self._store.put_back(sha256)]
        if missing:
            raise DatasetStoreError(
                f"{len(missing)} chunks of {identity['dataset']} ({identity['kind']}) were deleted while it was "
                f"written, the first {missing[0][:16]}: materialise {identity['step']} again"
            )
        self._lease.release()
        return manifest.id


def move(source: UPath, target: UPath) -> None:
    """Rename a file of the store, by copying where an object store cannot; FileNotFoundError when it is not there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(source, Path) and isinstance(target, Path):
        os.replace(source, target)
        return
    target.write_bytes(source.read_bytes())
    source.unlink(missing_ok=True)
