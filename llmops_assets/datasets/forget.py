"""Carries out an erasure: where a person's rows are, the versions without them, and the models that learned them."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from llmops_assets.datasets import schema
from llmops_assets.datasets.erasure import (
    RawFile,
    Wanted,
    descendants,
    drop_lines,
    search_file,
    successor,
    whole_hashes,
    write_without,
)
from llmops_assets.datasets.readers import Limits, list_files
from llmops_assets.datasets.register import register
from llmops_assets.specs.names import split_versioned, training_key
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.records import (
    AdapterRecord,
    DatasetRecord,
    EvaluationRecord,
    MergedModelRecord,
    PlanRecord,
    RegisteredModelRecord,
)
from resources import dataset_gc, erasures
from resources.artifacts import Artifacts
from resources.catalog import Catalog, Dataset
from resources.dataset_store import DatasetStore
from resources.records import Records
from resources.tracking import Tracking

LEARNED_FROM = ("train", "validation")
"""Splits that a model is made with: the test rows are asked, not learned."""

GONE = "The example was removed by an erasure."


@dataclass(frozen=True)
class Platform:
    """What an erasure works on."""

    catalog: Catalog
    artifacts: Artifacts
    store: DatasetStore
    records: Records
    tracking: Tracking
    policy: Policy

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

    @property
    def anything(self) -> bool:
        return bool(self.row_ids or self.tables or self.raw_lines)

    @property
    def raw_lines(self) -> int:
        return sum(len(file.lines) for file in self.raw.values())

    @property
    def learned(self) -> int:
        return sum(self.tables.get(name, 0) for name in LEARNED_FROM)

    def told(self) -> dict[str, Any]:
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

    def told(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "versions": [{**found.told(), "followed_by": self.successors[key]} for key, found in self.versions.items()],
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

    Other datasets are only counted (`elsewhere`), unless `everywhere`. Raises LookupError for an unknown name.
    """
    entries = {entry.key: entry for entry in platform.catalog.datasets()}
    if not any(entry.spec.name == name for entry in entries.values()):
        known = ", ".join(sorted({entry.spec.name for entry in entries.values()})) or "none yet"
        raise LookupError(f"there is no dataset {name!r}; known are: {known}")
    manifests: dict[str, list[dataset_gc.Manifest]] = {}
    for manifest in dataset_gc.manifests(platform.store):
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
    taken: set[str] = {entry.spec.version for entry in entries.values()}
    successors = {}
    for key in versions:
        stem, version = split_versioned(key)
        mine = {e.spec.version for e in entries.values() if e.spec.name == stem} | taken
        new = successor(version, mine)
        taken.add(new)
        successors[key] = f"{stem}@{new}"
    trainings = _trainings(platform, {key: found.learned for key, found in versions.items()})
    refs = {training.model_ref for training in trainings}
    return Plan(
        name=name,
        versions=versions,
        successors=successors,
        trainings=trainings,
        evaluated=[str(plan_cell) for plan_cell, _ in _evaluations(platform, set(versions))],
        endpoints={
            endpoint.name: theirs
            for endpoint in platform.catalog.endpoints()
            if (theirs := sorted({route["model_ref"] for route in endpoint.routes} & refs))
        },
        traffic=erasures.count_traffic(platform.catalog, wanted.in_text),
        elsewhere={
            key: len(found.row_ids) or found.raw_lines
            for key, found in all_found.items()
            if key not in chosen and found.anything
        },
    )


def _sources(entries: dict[str, Dataset], manifests: dict[str, list[dataset_gc.Manifest]]) -> dict[str, list[str]]:
    """What each dataset version was made from: as it was registered, and as its manifests say."""
    owner = {manifest.id: key for key, theirs in manifests.items() for manifest in theirs}
    return {
        key: [
            *entry.spec.derived_from,
            *(owner[m.parent] for m in manifests.get(key, []) if m.parent in owner and owner[m.parent] != key),
        ]
        for key, entry in entries.items()
    }


def _search(platform: Platform, entry: Dataset, manifests: list[dataset_gc.Manifest], wanted: Wanted) -> Found:
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
            if "file" in hit.columns and "line" in hit.columns:
                for file, line in hit.select("file", "line").iter_rows():
                    where.setdefault(file, set()).add(line)
    for name, path in _raw_files(platform, entry.key):
        raw = search_file(name, path, wanted, platform.limits)
        raw.lines |= where.get(name, set())
        found.raw[name] = raw
    _spread(platform, found, manifests)
    return found


def _spread(platform: Platform, found: Found, manifests: list[dataset_gc.Manifest]) -> None:
    """Take in what belongs to the rows found: their lines, and their traces in the tables of later steps.

    A row whose number was masked is the person's all the same: it is followed by its id.
    """
    by_line = {name: file.lines for name, file in found.raw.items() if file.lines}
    tables = [m for m in manifests if "row_id" in m.columns]
    for manifest in sorted(tables, key=lambda m: m.step != "dataset"):
        kind = manifest.kind if manifest.kind != "rows" else manifest.step
        columns = [name for name in ("row_id", "file", "line") if name in manifest.columns]
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
        if hit.height:
            found.tables[kind] = max(found.tables.get(kind, 0), hit.height)


def _copies(platform: Platform, versions: dict[str, Found], manifests: dict[str, list[dataset_gc.Manifest]]) -> None:
    """Find copies of the rows in the other versions: a version made of masked rows no longer holds what was masked."""
    contents: set[str] = set()
    for key, found in versions.items():
        for frame in _contents(platform, manifests.get(key, [])):
            theirs = frame.filter(frame["row_id"].is_in(list(found.row_ids)))
            contents |= set(whole_hashes(theirs, found.type)) if theirs.height else set()
    if not contents:
        return
    for key, found in versions.items():
        before = len(found.row_ids)
        for frame in _contents(platform, manifests.get(key, [])):
            copies = frame.filter(whole_hashes(frame, found.type).is_in(list(contents)))
            found.row_ids |= set(copies["row_id"])
        if len(found.row_ids) > before:
            _spread(platform, found, manifests.get(key, []))


def _contents(platform: Platform, manifests: list[dataset_gc.Manifest]) -> Iterator[pl.DataFrame]:
    for manifest in manifests:
        if manifest.kind == "rows":
            yield from platform.store.batches(manifest.id)


def _raw_files(platform: Platform, key: str) -> list[tuple[str, Any]]:
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


def _evaluations(platform: Platform, keys: set[str]) -> list[tuple[str, PlanRecord]]:
    """Evaluations that asked rows of these versions: as the test split, or as a suite."""
    found = []
    for plan in platform.records.all(PlanRecord):
        suites = set(plan.spec.get("evaluation", {}).get("suites", []))
        cell = training_key(plan.dataset, plan.recipe)
        if (plan.dataset in keys or suites & keys) and platform.records.find(EvaluationRecord, cell):
            found.append((cell, plan))
    return sorted(found, key=lambda pair: pair[0])


def carry_out(
    platform: Platform, plan: Plan, wanted: Wanted, erasure: erasures.Erasure, *, actor: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Do what `plan` says, in an order that can be cut off anywhere and repeated; what was removed, in numbers.

    Models are marked first, so that none is promoted meanwhile. A version's other rows are staged before its bytes go,
    and registered as the next version afterwards.
    """
    successors = {**erasure.versions, **{k: v for k, v in plan.successors.items() if k not in erasure.versions}}
    erasures.note(platform.catalog, erasure.id, versions=successors)
    mark(platform, plan, erasure.id, actor)
    figures: dict[str, Any] = dict(erasure.figures)
    row_ids = {row for found in plan.versions.values() for row in found.row_ids}
    say(f"{len(plan.trainings)} trainings are marked as affected")
    _add(figures, "answers", _clear_answers(platform, plan, row_ids, wanted))
    _add(figures, "training_rows", _clear_trainings(platform, plan))
    for kind, count in erasures.scrub_traffic(platform.catalog, wanted.in_text, _nobody).items():
        _add(figures, kind, count)
    erasures.compact(platform.catalog)
    for key, found in plan.versions.items():
        left = _stage(platform, erasure.id, found, wanted)
        say(f"{key}: {len(found.row_ids)} rows and {found.raw_lines} raw lines go, {left} raw rows stay")
        _add(figures, "rows", len(found.row_ids))
        _add(figures, "raw_lines", found.raw_lines)
        erasures.note(platform.catalog, erasure.id, figures=figures)
    reason = f"erasure {erasure.id}, on a person's request"
    for key, new in list(successors.items()):
        freed = _bury(platform, key, reason)
        _add(figures, "manifests", freed.manifests)
        _add(figures, "chunks", freed.chunks)
        _add(figures, "shared_chunks", freed.kept)
        successors[key] = _follow(platform, erasure.id, key, new, actor)
        say(f"{key}: gone, {successors[key] or 'nothing'} follows")
    erasures.note(platform.catalog, erasure.id, versions=successors, figures=figures)
    return figures


def _add(figures: dict[str, Any], name: str, count: int) -> None:
    figures[name] = figures.get(name, 0) + count


def mark(platform: Platform, plan: Plan, erasure: int, actor: str) -> None:
    """Mark the trainings and their models, in the catalog and in the registry."""
    now = datetime.now(UTC)
    found = [erasures.Affected(erasure, t.cell, t.content_hash, t.model_ref, t.why, now) for t in plan.trainings]
    erasures.mark_affected(platform.catalog, found, actor)
    for training in plan.trainings:
        if training.model_ref is not None:
            version = platform.tracking.version(training.model_ref)
            known = {part for part in version.tags.get(erasures.TAG, "").split(",") if part}
            numbers = ",".join(sorted(known | {str(erasure)}, key=int))
            platform.tracking.tag(version.name, version.version, erasures.TAG, numbers)


def _clear_answers(platform: Platform, plan: Plan, row_ids: set[str], wanted: Wanted) -> int:
    """Take the person's items out of evaluation answers, reports and the cache of answers; how many there were."""

    def theirs(line: str) -> bool:
        if wanted.in_text(line):
            return True
        try:
            identity = str(json.loads(line).get("id", ""))
        except (ValueError, AttributeError):
            return False
        return identity.rsplit("/", 1)[-1] in row_ids

    dropped = 0
    for cell, training in _evaluations(platform, set(plan.versions)):
        record = platform.records.load(EvaluationRecord, cell)
        answers = Path(record.answers)
        if answers.exists():
            data, count = drop_lines(answers.read_bytes(), theirs)
            if count:
                _replace(answers, data)
            dropped += count
        # It shows the wrong answers; materialising the evaluation of the next version makes a new one.
        Path(record.report or answers.with_name("report.html")).unlink(missing_ok=True)
        card = Path(training.model_dir) / "evaluation" / training.recipe / "README.md"
        if card.exists():
            data, count = drop_lines(card.read_bytes(), wanted.in_text)
            if count:
                _replace(card, data)
        adapter = platform.records.find(AdapterRecord, cell)
        if adapter is not None and adapter.mlflow_run_id is not None:
            platform.tracking.delete_artifacts(adapter.mlflow_run_id, "evaluation")
    cache = platform.artifacts.upath("answers")
    for folder in sorted(cache.iterdir()) if cache.exists() else []:
        lines = [line for file in sorted(folder.glob("*.jsonl")) for line in file.read_text("utf-8").splitlines()]
        if any(theirs(line) for line in lines):
            shutil.rmtree(folder)
            dropped += 1
    return dropped


def _clear_trainings(platform: Platform, plan: Plan) -> int:
    """Remove the rows as they were trained: rendered, tokenised, in logs and in the example of the plan."""
    cleared = 0
    for training in plan.trainings:
        if not training.why.startswith("trained on"):
            continue
        for name in ("plan", "work"):
            folder = Path(training.model_dir) / name
            if folder.exists():
                shutil.rmtree(folder)
                cleared += name == "plan"
        record = platform.records.load(PlanRecord, training.cell)
        platform.records.save(training.cell, record.model_copy(update={"example": GONE}))
    return cleared


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def _nobody(_name: str) -> str:
    """Whoever it was; a name made from the old one could be guessed back."""
    return "erased"


def _stage_folder(platform: Platform, erasure: int, key: str) -> Path:
    return platform.artifacts.path("erasures", str(erasure), key)


def _stage(platform: Platform, erasure: int, found: Found, wanted: Wanted) -> int:
    """Write what stays of a version's raw files beside the uploads; the rows that are left."""
    target = _stage_folder(platform, erasure, found.key)
    shutil.rmtree(target, ignore_errors=True)
    half = target.with_name(f".{target.name}")
    shutil.rmtree(half, ignore_errors=True)
    half.mkdir(parents=True)
    left = 0
    files = _raw_files(platform, found.key)
    for name, path in files:
        _, rows = write_without(name, path, found.raw[name].lines, half, wanted, platform.limits)
        left += rows
    if not files and (record := platform.records.find(DatasetRecord, found.key)) is not None:
        left = _write_rows(platform.store.read(record.manifest), found, half / "rows.jsonl")
    half.rename(target)
    return left


def _write_rows(rows: pl.DataFrame, found: Found, target: Path) -> int:
    """The canonical rows that stay, as JSON lines: for a version whose raw files are elsewhere."""
    kept = rows.filter(~rows["row_id"].is_in(list(found.row_ids)))
    content = list(schema.CONTENT[found.type])
    with open(target, "wb") as writer:
        for row in kept.iter_rows(named=True):
            labels = {name: row[name] for name in ("source", "category", "quality_score") if row[name] is not None}
            metadata = {**msgspec.json.decode(row["extra"] or "{}"), **labels}
            writer.write(msgspec.json.encode({**{name: row[name] for name in content}, "metadata": metadata}) + b"\n")
    return kept.height


def _bury(platform: Platform, key: str, reason: str) -> dataset_gc.Freed:
    """Delete everything that a version consists of; its registration and its figures stay on record."""
    erasures.mark_erased(platform.catalog, key)
    theirs = [manifest.id for manifest in dataset_gc.manifests(platform.store) if manifest.dataset == key]
    freed = dataset_gc.bury(platform.store, theirs, reason)
    for folder in ("uploads", "reports", "generated"):
        path = platform.artifacts.upath(folder, key)
        if path.exists():
            shutil.rmtree(path)
    return freed


def _follow(platform: Platform, erasure: int, key: str, new: str | None, actor: str) -> str | None:
    """Register what stays of a version as the one after it; None when nothing stays."""
    staged = _stage_folder(platform, erasure, key)
    if not staged.exists():
        return new
    files = [path for path in sorted(staged.iterdir()) if path.stat().st_size]
    if files and new is not None:
        old = platform.catalog.dataset(key)
        name, version = split_versioned(new)
        spec = old.model_copy(
            update={
                "name": name,
                "version": version,
                "files": [path.name for path in files],
                "storage_uri": None,
                "derived_from": [key],
                "description": f"{old.description} (without what erasure {erasure} removed)",
            }
        )
        register(
            spec, files, artifacts=platform.artifacts, catalog=platform.catalog, policy=platform.policy, actor=actor
        )
    shutil.rmtree(staged)
    return new if files else None
