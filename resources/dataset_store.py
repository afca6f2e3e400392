"""Immutable versions of tables: a JSON manifest over content-addressed Parquet chunks that neighbours share."""

import hashlib
import io
import json
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NotRequired, TypedDict, Unpack

import numpy as np
import polars as pl
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from upath import UPath

from llmops_assets.specs.canonical import canonical_json, digest
from resources import process
from resources.artifacts import write_bytes_atomically
from resources.encryption import NO_KEYS, Keyring
from resources.row_upgrade import ADDED, upgraded

REACH = 256
"""A chunk ends after a row whose hash is the largest of this many rows on either side: 512 rows on average.

Whether a row is one depends on its neighbours alone, so cuts fall into place again right behind an edit; and chunks are
of like size, so an edit rarely hits a large one. `python -m benchmarks.versions` shows the price of other sizes.
"""

LARGEST_CHUNK = 1 << 15
"""Rows after which a chunk ends in any case."""


class Chunk(BaseModel):
    """Some neighbouring rows. `sha256` is of the plain Parquet bytes, whether or not they are sealed on the disk.

    So equal rows are stored once, under any key and after a change of keys. What it reveals to one who sees the names
    of sealed files: that two versions share rows, and whether a guess of all rows of a chunk is right to the byte.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    sha256: str
    rows: int
    bytes: int
    first_line: int = Field(
        default=0,
        description="Added to the column `line` on reading: a row put in at the top of a file moves the lines of all "
        "rows below it, and must not make other chunks of them.",
    )
    file: str | None = Field(
        default=None,
        description="The column `file` on reading, where it is the same in all rows: another name of the same file "
        "makes no other chunks.",
    )


class Manifest(BaseModel):
    """What a version consists of. `id` is the hash of everything below it except `created_at`."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    id: str
    kind: str = Field(description="What the rows are: rows, quarantine, findings, clusters, scores, dropped, …")
    dataset: str
    step: str = Field(description="The asset that wrote it.")
    config_hash: str = Field(description="Hash of what the step was configured with.")
    parent: str | None = Field(description="Manifest that this one was made from.")
    columns: dict[str, str] = Field(description="Polars type by column name, in order.")
    rows: int
    content_hash: str = Field(description="Hash of columns and rows alone: equal content, equal hash.")
    chunks: list[Chunk]
    created_at: datetime


class DatasetStoreError(RuntimeError):
    """A version is missing, or its bytes are not what its manifest says."""


def config_hash(value: object) -> str:
    """16 hex digits of the canonical JSON of `value`: what identifies the configuration of a step."""
    return digest(value)


def _row_hashes(frame: pl.DataFrame) -> np.ndarray:
    """A hash of each row's identity, uint32 of shape (rows,).

    CRC-32 and not polars' own hash, because that one may change between polars versions and the cuts would with it.
    """
    if "row_id" in frame.columns:
        keys = frame["row_id"].cast(pl.String)
    else:
        flat = [name for name, dtype in frame.schema.items() if not dtype.is_nested()]
        keys = frame.select(
            pl.concat_str(pl.col(flat).cast(pl.String), separator="\x1f", ignore_nulls=True)
        ).to_series()
    return np.fromiter(map(zlib.crc32, keys.fill_null("").cast(pl.Binary).to_list()), dtype=np.uint32, count=len(keys))


def _cuts(hashes: np.ndarray) -> list[int]:
    """Row numbers after which a chunk ends (exclusive ends), of a table that begins where a chunk does.

    Only cuts that no further row could change: the last `REACH` rows have none.
    """
    values = pl.Series(hashes)
    before = values.rolling_max(REACH).shift(1)
    behind = values.reverse().rolling_max(REACH).reverse().shift(-1)
    # Of equal neighbours (many findings of one row) the last one may end a chunk, so that they stay together.
    natural = ((values >= before) & (values > behind)).fill_null(False).arg_true().to_numpy() + 1
    ends: list[int] = []
    start = 0
    for end in [*natural.tolist(), len(hashes)]:
        while end - start > LARGEST_CHUNK + REACH or (end < len(hashes) and end - start > LARGEST_CHUNK):
            start += LARGEST_CHUNK
            ends.append(start)
        if end < len(hashes) and end - start > REACH:
            ends.append(end)
            start = end
    return ends


LEASES = "leases"
"""Folder of what writers hold that no manifest names yet."""

ZSTD_LEVEL = 2
"""Level 3 takes half as long again and saves up to 5 %."""


def _from_parquet(data: bytes, columns: list[str] | None) -> pl.DataFrame:
    if columns is not None and not ADDED.keys().isdisjoint(columns):
        stored = pl.read_parquet_schema(io.BytesIO(data))
        columns = [name for name in columns if name not in ADDED or name in stored]
    return pl.read_parquet(io.BytesIO(data), columns=columns)


def _to_parquet(frame: pl.DataFrame) -> bytes:
    buffer = io.BytesIO()
    frame.rechunk().write_parquet(buffer, compression="zstd", compression_level=ZSTD_LEVEL, statistics=False)
    return buffer.getvalue()


class Lease:
    """What one writer relies on that no manifest names yet: an empty file a chunk, so that no collector deletes it.

    It says which process holds it. One whose process is gone, or which was not added to for the collector's grace
    period where that cannot be told (another machine's), counts no more.
    """

    def __init__(self, root: UPath) -> None:
        self._folder = root / LEASES / f"{process.identity()}.{secrets.token_hex(8)}"
        self._held: set[str] = set()

    def hold(self, sha256: str) -> None:
        """Keep a chunk from being deleted until `release`."""
        if sha256 in self._held:
            return
        if not self._held:
            self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / sha256).write_bytes(b"")
        self._held.add(sha256)

    def release(self) -> None:
        """Give up all, once a manifest names them."""
        for sha256 in self._held:
            (self._folder / sha256).unlink(missing_ok=True)
        if self._held and isinstance(self._folder, Path):
            self._folder.rmdir()
        self._held = set()


class Identity(TypedDict):
    """What a table is, beside its content: fields of its `Manifest`."""

    kind: str
    dataset: str
    step: str
    config_hash: str
    parent: NotRequired[str | None]


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
            _manifest_id({**body, "chunks": [c.model_dump(exclude_defaults=True) for c in manifest.chunks]})
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
        frame = upgraded(_from_parquet(data, columns), columns)
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
        first_line, file = _place(frame)
        if first_line:
            frame = frame.with_columns(pl.col("line") - first_line)
        if file is not None:
            frame = frame.with_columns(file=pl.lit("", pl.String))
        data = _to_parquet(frame)
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
        hashes = np.concatenate((self._hashes, _row_hashes(batch)))
        start = 0
        for end in _cuts(hashes):
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
        manifest = Manifest(id=_manifest_id(body), created_at=datetime.now(UTC), **body)
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


def _place(frame: pl.DataFrame) -> tuple[int, str | None]:
    """Where the rows of a chunk begin: the line of the first, and the file that all of them are from."""
    if not frame.height or frame.schema.get("line") != pl.Int64:
        return 0, None
    one_file = (
        frame.schema.get("file") == pl.String and frame["file"].null_count() == 0 and frame["file"].n_unique() == 1
    )
    return int(frame["line"][0] or 0), frame["file"][0] if one_file else None


def _manifest_id(body: dict[str, object]) -> str:
    return digest(body, 32)
