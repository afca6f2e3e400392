"""Plans an erasure: where a person's rows are, which versions go on without them, and what learned from them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.erasure import documents
from llmops_assets.erasure.search import (
    RawFile,
    Wanted,
    contents,
    descendants,
    search_file,
    successor,
)
from llmops_assets.privacy.masker import Masker
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import MergedModelRecord, PlanRecord
from llmops_assets.specs.dataset import GenerationSpec
from llmops_assets.specs.names import split_versioned, training_key
from llmops_assets.specs.policy import Policy
from llmops_assets.traffic import days
from resources.artifacts import Artifacts
from resources.catalog import Catalog, Dataset, NotFound, erasures
from resources.dataset_manifest import Manifest
from resources.dataset_store import DatasetStore
from resources.encryption import Keyring
from resources.records import Records
from resources.retrieval.indexes import Indexes
from resources.tracking import Tracking
from resources.traffic.shipper import Shipper

LEARNED_FROM = ("train", "validation")
"""Splits that a model is made with: the test rows are asked, not learned."""


@dataclass(frozen=True)
class Platform:
    """What an erasure works on."""

    catalog: Catalog
    artifacts: Artifacts
    store: DatasetStore
    records: Records
    tracking: Tracking
    policy: Policy
    indexes: Indexes | None = None
    spool: Path | None = None
    """Where the gateways of this machine spool their log."""

    def ship_log(self) -> None:
        """See that what gateways logged until now is in the catalog; CannotShip where it does not come to it."""
        if self.spool is not None:
            Shipper(
                self.spool,
                self.catalog,
                Masker.of(self.policy),
                self.keys,
                slow_ms=self.policy.experiments.latency_threshold_ms,
            ).ship_what_is_there()

    @property
    def keys(self) -> Keyring:
        return self.artifacts.keys

    @property
    def limits(self) -> Limits:
        limits = self.policy.limits
        return Limits(line=limits.max_line_bytes, file=limits.max_decompressed_bytes)


@dataclass
class Found:
    """What one dataset version holds of the person."""

    key: str
    type: str
    row_ids: set[str] = field(default_factory=set)
    rows: int = 0
    raw: dict[str, RawFile] = field(default_factory=dict)
    tables: dict[str, int] = field(default_factory=dict)
    passages: set[str] = field(default_factory=set)
    """Passages of documents that a model wrote the rows about: the first 16 hex digits of their hashes."""

    @property
    def anything(self) -> bool:
        return bool(self.row_ids or self.tables or self.raw_lines)

    @property
    def raw_lines(self) -> int:
        return sum(len(file.lines) for file in self.raw.values())

    @property
    def learned(self) -> int:
        return sum(self.tables.get(name, 0) for name in LEARNED_FROM)

    def as_json(self) -> dict[str, Any]:
        """What was found, in numbers."""
        return {
            "dataset": self.key,
            "rows": len(self.row_ids),
            "of": self.rows,
            "raw_lines": self.raw_lines,
            "unreadable_lines": sum(len(file.unreadable) for file in self.raw.values()),
            "tables": dict(sorted(self.tables.items())),
        }


@dataclass(frozen=True)
class Training:
    """A training that saw the rows, itself or in its base."""

    cell: str
    why: str
    content_hash: str | None
    model_ref: str | None
    model_dir: str


@dataclass
class Plan:
    """What an erasure would do; nothing in it tells what was looked for."""

    name: str
    versions: dict[str, Found]
    successors: dict[str, str]
    trainings: list[Training]
    evaluated: list[str]
    endpoints: dict[str, list[str]]
    traffic: dict[str, int]
    elsewhere: dict[str, int]

    @property
    def anything(self) -> bool:
        return bool(self.versions or any(self.traffic.values()))

    def as_json(self) -> dict[str, Any]:
        """What would be done, for programs."""
        return {
            "name": self.name,
            "versions": [
                {**found.as_json(), "followed_by": self.successors[key]} for key, found in self.versions.items()
            ],
            "affected_trainings": [
                {"training": t.cell, "model": t.model_ref, "why": t.why} for t in sorted(self.trainings, key=_cell)
            ],
            "evaluations_cleared": self.evaluated,
            "endpoints": self.endpoints,
            "traffic": self.traffic,
            "elsewhere": self.elsewhere,
        }


def _cell(training: Training) -> str:
    return training.cell


def find(platform: Platform, name: str, wanted: Wanted, *, everywhere: bool = False) -> Plan:
    """Look through every version of a dataset and all that was made from it, what was learned, and the traffic.

    Other datasets are only counted (`elsewhere`), unless `everywhere`. Raises NotFound for an unknown name.
    """
    entries = {entry.key: entry for entry in platform.catalog.datasets()}
    if not any(entry.spec.name == name for entry in entries.values()):
        known = ", ".join(sorted({entry.spec.name for entry in entries.values()})) or "none yet"
        raise NotFound(f"there is no dataset {name!r}; known are: {known}. Give its name without a version")
    manifests: dict[str, list[Manifest]] = {}
    for manifest in platform.store.manifests():
        manifests.setdefault(manifest.dataset, []).append(manifest)
    scope = descendants(
        (key for key, entry in entries.items() if entry.spec.name == name), _sources(entries, manifests)
    )
    all_found = {
        key: _search(platform, entry, manifests.get(key, []), wanted)
        for key, entry in sorted(entries.items())
        if entry.status != "erased"
    }
    chosen = set(all_found) if everywhere else scope & set(all_found)
    _copies(platform, {key: all_found[key] for key in chosen}, manifests)
    versions = {key: found for key, found in all_found.items() if key in chosen and found.anything}
    taken: dict[str, set[str]] = {}
    for entry in entries.values():
        taken.setdefault(entry.spec.name, set()).add(entry.spec.version)
    successors = {}
    for key in versions:
        stem, version = split_versioned(key)
        new = successor(version, taken[stem])
        taken[stem].add(new)
        successors[key] = f"{stem}@{new}"
    trainings = _trainings(platform, {key: found.learned for key, found in versions.items()})
    refs = {training.model_ref for training in trainings}
    return Plan(
        name=name,
        versions=versions,
        successors=successors,
        trainings=trainings,
        evaluated=[str(plan_cell) for plan_cell, _ in evaluations(platform, set(versions))],
        endpoints={
            endpoint.name: theirs
            for endpoint in platform.catalog.endpoints()
            if (theirs := sorted({route["model_ref"] for route in endpoint.routes} & refs))
        },
        traffic=_traffic(platform, wanted),
        elsewhere={
            key: len(found.row_ids) or found.raw_lines
            for key, found in all_found.items()
            if key not in chosen and found.anything
        },
    )


def _traffic(platform: Platform, wanted: Wanted) -> dict[str, int]:
    """How many requests and ratings hold the person's words: what is spooled is in the catalog first."""
    platform.ship_log()
    found = erasures.count_traffic(platform.catalog, wanted.in_text)
    if kept := days.count(platform.artifacts, wanted.in_text):
        found["rows of daily traffic"] = kept
    return found


def _sources(entries: dict[str, Dataset], manifests: dict[str, list[Manifest]]) -> dict[str, list[str]]:
    """What each dataset version was made from: as it was registered, and as its manifests say."""
    owner = {manifest.id: key for key, theirs in manifests.items() for manifest in theirs}
    return {
        key: [
            *entry.spec.derived_from,
            *(owner[m.parent] for m in manifests.get(key, []) if m.parent in owner and owner[m.parent] != key),
        ]
        for key, entry in entries.items()
    }


def _search(platform: Platform, entry: Dataset, manifests: list[Manifest], wanted: Wanted) -> Found:
    """Look through the raw files and every table of a version."""
    found = Found(entry.key, entry.spec.type)
    where: dict[str, set[int]] = {}
    for manifest in manifests:
        for batch in platform.store.batches(manifest.id):
            if manifest.kind == "rows" and manifest.step == "dataset":
                found.rows += batch.height
            hit = batch.filter(wanted.in_frame(batch))
            if not hit.height:
                continue
            kind = manifest.kind if manifest.kind != "rows" else manifest.step
            found.tables[kind] = found.tables.get(kind, 0) + hit.height
            if "row_id" in hit.columns:
                found.row_ids |= set(hit["row_id"])
            if "passage_sha256" in hit.columns:
                found.passages |= set(hit["passage_sha256"])
            if "file" in hit.columns and "line" in hit.columns:
                for file, line in hit.select("file", "line").iter_rows():
                    where.setdefault(file, set()).add(line)
    if entry.spec.generation is not None:
        _spread(platform, found, manifests)
        _search_documents(platform, entry.spec.generation, found, wanted)
        return found
    for name, path in raw_files(platform, entry.key):
        raw = search_file(name, path, wanted, platform.limits, platform.keys)
        raw.lines |= where.get(name, set())
        found.raw[name] = raw
    _spread(platform, found, manifests)
    return found


def _search_documents(platform: Platform, how: GenerationSpec, found: Found, wanted: Wanted) -> None:
    """Look through the documents that rows were written about."""
    for name, path in raw_files(platform, found.key):
        data = platform.keys.open(path.read_bytes(), path)
        where = documents.theirs(name, data, wanted.in_text, found.passages, how.passage_chars)
        found.raw[name] = RawFile(name, 1, where or set(), {1} if where is None else set())


def _spread(platform: Platform, found: Found, manifests: list[Manifest]) -> None:
    """Take in what belongs to the rows found: their lines, and their traces in the tables of later steps.

    A row whose number was masked is the person's all the same: it is followed by its id.
    """
    by_line = {name: file.lines for name, file in found.raw.items() if file.lines}
    tables = [m for m in manifests if "row_id" in m.columns]
    for manifest in sorted(tables, key=lambda m: m.step != "dataset"):
        kind = manifest.kind if manifest.kind != "rows" else manifest.step
        columns = [name for name in ("row_id", "file", "line", "extra") if name in manifest.columns]
        frame = platform.store.read(manifest.id, columns)
        theirs = frame["row_id"].is_in(list(found.row_ids))
        if kind == "dataset":
            for name, lines in by_line.items():
                theirs = theirs | ((frame["file"] == name) & frame["line"].is_in(list(lines)))
            for name, line in frame.filter(theirs).select("file", "line").iter_rows():
                if name in found.raw:
                    found.raw[name].lines.add(line)
        hit = frame.filter(theirs)
        found.row_ids |= set(hit["row_id"])
        if "extra" in hit.columns and hit.height:
            found.passages |= set(hit["extra"].str.json_path_match("$.provenance.passage_sha256").drop_nulls())
        if hit.height:
            found.tables[kind] = max(found.tables.get(kind, 0), hit.height)


def _copies(platform: Platform, versions: dict[str, Found], manifests: dict[str, list[Manifest]]) -> None:
    """Find copies of the rows in the other versions: a version made of masked rows no longer holds what was masked."""
    theirs: set[str] = set()
    for key, found in versions.items():
        for frame in _contents(platform, manifests.get(key, [])):
            hit = frame.filter(frame["row_id"].is_in(list(found.row_ids)))
            theirs |= set(contents(hit, found.type)) if hit.height else set()
    if not theirs:
        return
    for key, found in versions.items():
        before = len(found.row_ids)
        for frame in _contents(platform, manifests.get(key, [])):
            copies = frame.filter(contents(frame, found.type).is_in(list(theirs)))
            found.row_ids |= set(copies["row_id"])
        if len(found.row_ids) > before:
            _spread(platform, found, manifests.get(key, []))


def _contents(platform: Platform, manifests: list[Manifest]) -> Iterator[pl.DataFrame]:
    for manifest in manifests:
        if manifest.kind == "rows":
            yield from platform.store.batches(manifest.id)


def raw_files(platform: Platform, key: str) -> list[tuple[str, Any]]:
    """(name, path) of the files of a version as they were uploaded; none where they were not kept."""
    folder = platform.artifacts.upath("uploads", key)
    return list_files(folder) if folder.exists() else []


def _trainings(platform: Platform, learned: dict[str, int]) -> list[Training]:
    """Trainings on versions whose train or validation rows are the person's, and all that started from their models."""
    plans = {training_key(plan.dataset, plan.recipe): plan for plan in platform.records.all(PlanRecord)}
    merged = {cell: platform.records.find(MergedModelRecord, cell) for cell in plans}
    registered = {cell: platform.records.find(RegisteredModelRecord, cell) for cell in plans}
    why = {
        cell: f"trained on {learned[plan.dataset]} of the erased rows in {plan.dataset}"
        for cell, plan in plans.items()
        if learned.get(plan.dataset)
    }
    sources = {}
    for cell, plan in plans.items():
        base = plan.base.content_hash if plan.base else None
        sources[cell] = [other for other, model in merged.items() if model and base and model.content_hash == base]
    for cell in descendants(list(why), sources) - set(why):
        why[cell] = f"started from {', '.join(sources[cell])}"
    return [
        Training(
            cell,
            why[cell],
            merged[cell].content_hash if merged[cell] else None,
            registered[cell].ref if registered[cell] else None,
            plans[cell].model_dir,
        )
        for cell in sorted(why)
    ]


def evaluations(platform: Platform, keys: set[str]) -> list[tuple[str, PlanRecord]]:
    """Evaluations that asked rows of these versions: as the test split, or as a suite."""
    found = []
    for plan in platform.records.all(PlanRecord):
        suites = set(plan.spec.get("evaluation", {}).get("suites", []))
        cell = training_key(plan.dataset, plan.recipe)
        if (plan.dataset in keys or suites & keys) and platform.records.find(EvaluationRecord, cell):
            found.append((cell, plan))
    return sorted(found, key=lambda pair: pair[0])
