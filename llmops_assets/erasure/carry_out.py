"""Carries out an erasure: marks what learned the rows, stages what stays, deletes the rest, registers what follows."""

import hashlib
import io
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
from upath import UPath

from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.versions import checkout
from llmops_assets.documents.work import PASSAGES
from llmops_assets.erasure import documents, indexes
from llmops_assets.erasure.plan import Found, Plan, Platform, Training, evaluations, raw_files
from llmops_assets.erasure.search import Wanted, drop_lines, name_without, without
from llmops_assets.records.datasets import DatasetRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.specs.dataset import GenerationSpec
from llmops_assets.specs.names import split_versioned
from llmops_assets.traffic import days
from resources import dataset_gc
from resources.artifacts import write_bytes_atomically
from resources.catalog import erasures, pointers
from resources.encryption import Keyring, is_sealed

GONE = "The example was removed by an erasure."


def carry_out(
    platform: Platform, plan: Plan, wanted: Wanted, erasure: erasures.Erasure, *, actor: str, say: Callable[[str], None]
) -> dict[str, Any]:
    """Do what `plan` says, in an order that can be cut off anywhere and repeated; what was removed, in numbers.

    Models are marked first, so that none is promoted meanwhile. A version's other rows are staged before its bytes go,
    and registered as the next version afterwards.
    """
    successors = {**erasure.versions, **{k: v for k, v in plan.successors.items() if k not in erasure.versions}}
    names = {split_versioned(key)[0] for key in successors}
    tags = {name: pointers.tags(platform.catalog, name) for name in names}
    erasures.note(platform.catalog, erasure.id, versions=successors)
    mark(platform, plan, erasure.id, actor)
    figures: dict[str, Any] = dict(erasure.figures)
    row_ids = {row for found in plan.versions.values() for row in found.row_ids}
    say(f"{len(plan.trainings)} trainings are marked as affected")
    _add(figures, "answers", _clear_answers(platform, plan, row_ids, wanted))
    _add(figures, "training_rows", _clear_trainings(platform, plan))
    platform.ship_log()
    _add(figures, "daily_traffic", days.scrub(platform.artifacts, wanted.in_text, _nobody))
    for kind, count in erasures.scrub_traffic(platform.catalog, wanted.in_text, _nobody).items():
        _add(figures, kind, count)
    erasures.compact(platform.catalog)
    if platform.indexes is not None:
        # While the documents are there, which say what a masked passage held.
        _add(figures, "passages", indexes.clear(platform, platform.indexes, plan.versions, wanted, erasure, say))
    for key, found in plan.versions.items():
        left = _stage(platform, erasure.id, found, wanted)
        say(f"{key}: {len(found.row_ids)} rows and {found.raw_lines} raw lines go, {left} raw rows stay")
        _add(figures, "rows", len(found.row_ids))
        _add(figures, "raw_lines", found.raw_lines)
        erasures.note(platform.catalog, erasure.id, figures=figures)
    reason = f"erasure {erasure.id}, on a person's request"
    for key, new in list(successors.items()):
        freed = _delete_version(platform, key, reason)
        _add(figures, "manifests", freed.manifests)
        _add(figures, "chunks", freed.chunks)
        _add(figures, "shared_chunks", freed.kept)
        successors[key] = _follow(platform, erasure.id, key, new, actor)
        say(f"{key}: gone, {successors[key] or 'nothing'} follows")
    _point(platform, successors, tags, actor)
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
            _mark_card(platform, training, erasure)


def _mark_card(platform: Platform, training: Training, erasure: int) -> None:
    """Say on a model's card, first of all, that it learned from rows which were erased since."""
    card = Path(platform.tracking.model(training.model_ref or "").card)
    notice = f"> **Affected by erasure {erasure}**: {training.why}. Nothing here unlearns: it gets no more users."
    if not card.is_file() or notice in (text := platform.keys.open(card.read_bytes(), card).decode()):
        return
    title = f"# {training.model_ref}\n"
    text = text.replace(title, f"{title}\n{notice}\n", 1) if title in text else f"{notice}\n\n{text}"
    _replace(card, text.encode(), platform.keys)


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
    for cell, training in evaluations(platform, set(plan.versions)):
        record = platform.records.load(EvaluationRecord, cell)
        answers = Path(record.answers)
        if answers.exists():
            data, count = drop_lines(platform.keys.open(answers.read_bytes(), answers), theirs)
            if count:
                # The record first: killed in between, the items are still there to be found again.
                update = {"answers_sha256": hashlib.sha256(data).hexdigest()}
                platform.records.save(cell, record.model_copy(update=update))
                _replace(answers, data, platform.keys)
            dropped += count
        # It shows the wrong answers; materialising the evaluation of the next version makes a new one.
        Path(record.report or answers.with_name("report.html")).unlink(missing_ok=True)
        card = Path(training.model_dir) / "evaluation" / training.recipe / "README.md"
        if card.exists():
            data, count = drop_lines(platform.keys.open(card.read_bytes(), card), wanted.in_text)
            if count:
                _replace(card, data, platform.keys)
        adapter = platform.records.find(AdapterRecord, cell)
        if adapter is not None and adapter.mlflow_run_id is not None:
            platform.tracking.delete_artifacts(adapter.mlflow_run_id, "evaluation")
    cache = platform.artifacts.upath("answers")
    for folder in sorted(cache.iterdir()) if cache.exists() else []:
        texts = [platform.keys.open(file.read_bytes(), file) for file in sorted(folder.glob("*.jsonl"))]
        lines = [line.decode("utf-8", "replace") for text in texts for line in text.splitlines()]
        if any(theirs(line) for line in lines):
            shutil.rmtree(folder)
            dropped += 1
    return dropped + _clear_passages(platform, plan, wanted)


def _clear_passages(platform: Platform, plan: Plan, wanted: Wanted) -> int:
    """Delete what a model was asked about passages of the person, so that it is not used again."""
    folder = platform.artifacts.upath(PASSAGES)
    hashes = {passage for found in plan.versions.values() for passage in found.passages}
    dropped = 0
    for path in sorted(folder.rglob("*.json")) if folder.exists() else []:
        text = platform.keys.open(path.read_bytes(), path).decode("utf-8", "replace")
        passage = hashlib.sha256(json.loads(text)["passage"].encode()).hexdigest()[:16]
        if passage in hashes or wanted.in_text(text):
            path.unlink()
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
        # An example of a finding is a row too.
        findings = [f.model_copy(update={"example": "", "row_ids": []}) for f in record.findings]
        platform.records.save(training.cell, record.model_copy(update={"example": GONE, "findings": findings}))
    return cleared


def _replace(path: Path, data: bytes, keys: Keyring) -> None:
    """Write a file again, sealed when it was."""
    sealed = is_sealed(path.read_bytes())
    write_bytes_atomically(UPath(path), keys.seal(data) if sealed else data)


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
    files = raw_files(platform, found.key)
    how = platform.catalog.dataset(found.key).generation
    if how is not None:
        streams = {name: _document_without(platform, name, path, found, wanted, how) for name, path in files}
    else:
        streams = {
            name_without(name): without(path, found.raw[name].lines, wanted, platform.limits, platform.keys)
            for name, path in files
        }
    if not files and (record := platform.records.find(DatasetRecord, found.key)) is not None:
        streams["rows.jsonl"] = _canonical_lines(platform.store.read(record.manifest), found)
    for name, lines in streams.items():
        source = _Lines(lines)
        (half / name).parent.mkdir(parents=True, exist_ok=True)
        with open(half / name, "wb") as writer:
            platform.keys.copy_sealed(source, writer)
        left += source.count
        if not source.count:
            (half / name).unlink()
    half.rename(target)
    return left


def _document_without(
    platform: Platform, name: str, path: UPath, found: Found, wanted: Wanted, how: GenerationSpec
) -> Iterator[bytes]:
    """A document without what is the person's: untouched when it has nothing of it, and left out when unreadable."""
    data, raw = platform.keys.open(path.read_bytes(), path), found.raw[name]
    if raw.unreadable:
        return iter(())
    if raw.lines:
        data = documents.without(name, data, wanted.in_text, found.passages, how.passage_chars)
    return iter([data] if data else [])


class _Lines(io.RawIOBase):
    """Lines as a stream to copy from; `count` of them were read that are not blank."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines, self._rest, self.count = lines, b"", 0

    def read(self, size: int = -1) -> bytes:
        pieces, length = [self._rest], len(self._rest)
        while size < 0 or length < size:
            line = next(self._lines, None)
            if line is None:
                break
            self.count += bool(line.strip())
            pieces.append(line)
            length += len(line)
        data = b"".join(pieces)
        cut = len(data) if size < 0 else size
        self._rest = data[cut:]
        return data[:cut]


def _canonical_lines(rows: pl.DataFrame, found: Found) -> Iterator[bytes]:
    """The canonical rows that stay, as JSON lines: for a version whose raw files are elsewhere."""
    kept = rows.filter(~rows["row_id"].is_in(list(found.row_ids)))
    return (msgspec.json.encode(record) + b"\n" for record in checkout.records(kept, found.type))


def _delete_version(platform: Platform, key: str, reason: str) -> dataset_gc.Freed:
    """Delete everything that a version consists of; its registration and its figures stay on record."""
    erasures.mark_erased(platform.catalog, key)
    theirs = [manifest.id for manifest in platform.store.manifests() if manifest.dataset == key]
    freed = dataset_gc.delete_versions(platform.store, theirs, reason)
    for folder in ("uploads", "reports", "generated"):
        path = platform.artifacts.upath(folder, key)
        if path.exists():
            shutil.rmtree(path)
    return freed


def _follow(platform: Platform, erasure: int, key: str, new: str | None, actor: str) -> str | None:
    """Register what stays of a version as the one after it; None when nothing stays."""
    staged = _stage_folder(platform, erasure, key)
    target = platform.artifacts.path("uploads", new) if new else staged
    if new and staged.exists() and list_files(UPath(staged)):
        staged.rename(target)
    elif staged.exists():
        shutil.rmtree(staged)
        return None
    if not new or not target.exists():
        return None
    old = platform.catalog.dataset(key)
    name, version = split_versioned(new)
    files = list_files(UPath(target))
    changes = {
        "name": name,
        "version": version,
        "files": [name for name, _ in files],
        "storage_uri": None,
        "derived_from": [key],
        "description": f"{old.description} (without what erasure {erasure} removed)",
    }
    platform.catalog.register_dataset(old.model_copy(update=changes), _digest(files, platform.keys), actor)
    return new


def _point(platform: Platform, successors: dict[str, str | None], tags: dict[str, dict[str, str]], actor: str) -> None:
    """Let each tag point to what follows an erased version; the others stay, though newer versions were registered."""
    for name, before in tags.items():
        for tag, version in before.items():
            key = f"{name}@{version}"
            wanted = successors.get(key, key)
            erased = platform.catalog.dataset_entry(wanted or key).status == "erased"
            if wanted is not None and not erased and pointers.resolve(platform.catalog, f"{name}@{tag}") != wanted:
                pointers.move(platform.catalog, name, tag, split_versioned(wanted)[1], actor, "erasure")


def _digest(files: list[tuple[str, UPath]], keys: Keyring) -> str:
    """The digest of a version's files as `register` computes it."""
    digest = hashlib.sha256()
    for name, path in files:
        with keys.reader(path.open("rb"), path) as plain:
            digest.update(f"{name}\0{hashlib.file_digest(plain, 'sha256').hexdigest()}\n".encode())
    return digest.hexdigest()
