"""What made each version of a dataset: steps with their configuration, time, rows and the bytes that were new."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from llmops_assets.records.datasets import CleanRecord, DatasetRecord, QualityRecord, SplitsRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import MergedModelRecord
from resources.catalog import Catalog
from resources.dataset_manifest import Manifest
from resources.dataset_store import DatasetStore
from resources.records import Records

STEPS = ("dataset", "clean", "train", "validation", "test")
"""The tables of a version that hold rows."""

_MADE_BY = {"dataset": "dataset", "clean": "clean_dataset", "train": "splits", "validation": "splits", "test": "splits"}


@dataclass(frozen=True)
class Entry:
    """One table that a step wrote. `changes` is what its configuration differs in from that of the same table of the
    version before, `new_bytes` what it added to the store, `current` whether it is what the version consists of now."""

    version: str
    step: str
    table: str
    manifest: str
    parent: str | None
    at: datetime
    rows: int
    new_bytes: int
    bytes: int
    config_hash: str
    config: Any
    changes: dict[str, tuple[Any, Any]]
    current: bool


def manifest_of(store: DatasetStore, records: Records, key: str, step: str) -> Manifest:
    """The manifest of a version's table; FileNotFoundError names the asset that did not run yet."""
    if step == "dataset":
        return store.manifest(records.load(DatasetRecord, key).manifest)
    if step == "clean":
        return store.manifest(records.load(CleanRecord, key).manifest)
    if step in STEPS:
        return store.manifest(records.load(SplitsRecord, key).manifests[step])
    raise ValueError(f"{step!r} is no table of rows: use one of {', '.join(STEPS)}")


def history(store: DatasetStore, keys: Sequence[str], records: Records, *, everything: bool = False) -> list[Entry]:
    """Every table of rows that was written for the versions `keys`, oldest first; `everything` for reports too."""
    live = {manifest for key in keys for manifest in _live(records, key)}
    earlier_chunks: set[str] = set()
    configs: dict[tuple[str, str], Any] = {}
    entries = []
    for manifest in store.manifests():
        if manifest.dataset not in keys:
            continue
        table = _table(manifest)
        if table not in STEPS and not everything:
            continue
        chunks = {chunk.sha256: chunk.bytes for chunk in manifest.chunks}
        config = store.config(manifest.config_hash)
        before = configs.get((manifest.step, table))
        configs[manifest.step, table] = config
        entries.append(
            Entry(
                version=manifest.dataset,
                step=manifest.step,
                table=table,
                manifest=manifest.id,
                parent=manifest.parent,
                at=manifest.created_at,
                rows=manifest.rows,
                new_bytes=sum(size for sha256, size in chunks.items() if sha256 not in earlier_chunks),
                bytes=sum(chunks.values()),
                config_hash=manifest.config_hash,
                config=config,
                changes=_changes(before, config) if before is not None and config is not None else {},
                current=manifest.id in live,
            )
        )
        earlier_chunks |= chunks.keys()
    return entries


def _table(manifest: Manifest) -> str:
    if manifest.kind == "rows":
        return "clean" if manifest.step == _MADE_BY["clean"] else manifest.step
    return manifest.kind


def _live(records: Records, key: str) -> Iterator[str]:
    if record := records.find(DatasetRecord, key):
        yield from filter(None, (record.manifest, record.quarantine))
    if record := records.find(QualityRecord, key):
        yield from (record.findings, record.clusters, record.scores)
    if record := records.find(CleanRecord, key):
        yield from (record.manifest, record.dropped)
    if record := records.find(SplitsRecord, key):
        yield from record.manifests.values()


def _changes(before: Any, after: Any) -> dict[str, tuple[Any, Any]]:
    """Paths at which two configurations differ, with both values."""
    left, right = dict(_leaves("", before)), dict(_leaves("", after))
    return {
        path: (left.get(path), right.get(path))
        for path in sorted(left.keys() | right.keys())
        if left.get(path) != right.get(path)
    }


def _leaves(path: str, value: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for name, item in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), item)
    else:
        yield path, value


@dataclass(frozen=True)
class Uses:
    """Who learned from a version: cells that were asked for or trained, models in the registry, endpoints that serve
    one of them now."""

    trainings: list[str]
    models: list[str]
    endpoints: list[str]


def uses(catalog: Catalog, records: Records, key: str) -> Uses:
    """What a version is used by now."""
    asked = {f"{r.dataset}|{r.recipe}" for r in catalog.training_requests() if r.dataset == key}
    trained = {f"{r.dataset}|{r.recipe}" for r in records.all(MergedModelRecord) if r.dataset == key}
    models = sorted({r.ref for r in records.all(RegisteredModelRecord) if r.dataset == key})
    serving = sorted(e.name for e in catalog.endpoints() if any(r["model_ref"] in models for r in e.routes))
    return Uses(sorted(asked | trained), models, serving)
