"""Whether an installation is what was written: every file that something stored names is there, with its content."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from llmops_assets.operations.access import authorise
from llmops_assets.operations.audit import verify_log
from llmops_assets.operations.backups import databases_of
from llmops_assets.records.training import AdapterRecord, MergedModelRecord
from llmops_assets.wiring import Wiring
from resources import at_rest, content
from resources.backup import sqlite, tables
from resources.backup.walk import MARKER, walk
from resources.dataset_store import DatasetStoreError
from resources.encryption import EncryptionError
from resources.retrieval.files import IndexCorrupt
from resources.retrieval.indexes import UnknownIndex

Say = Callable[[str], None]


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written: where, what is wrong with it, and what to do."""

    where: str
    what: str
    advice: str


@dataclass(frozen=True)
class Verified:
    """What was looked at, by kind, and what is wrong."""

    looked_at: dict[str, int]
    faults: list[Fault]


def verify(wiring: Wiring, actor: str, *, quick: bool = False, say: Say = lambda line: None) -> Verified:
    """Look through a whole installation; with `quick`, weights and rows are looked for and not read.

    Nothing is changed, and one fault hides no other.
    """
    authorise(wiring, actor, "backup.verify")
    root = wiring.settings.root
    if (root / MARKER).exists():
        # To look further would make databases that are not there yet.
        return Verified(
            {}, [Fault(str(root), "it was being restored, and that was cut off", "run `llmops restore` again")]
        )
    looked_at: dict[str, int] = {}
    faults: list[Fault] = []
    for name, look in _LOOKS.items():
        say(f"looking at {name}")
        count = 0
        for fault in look(wiring, quick):
            if fault is None:
                count += 1
            else:
                faults.append(fault)
        looked_at[name] = count
    return Verified(looked_at, faults)


Found = Iterator[Fault | None]
"""A fault, or None for a thing that was looked at."""


def _databases(wiring: Wiring, quick: bool) -> Found:
    root = wiring.settings.root
    for found in walk("home", root, (Path(wiring.settings.artifacts),)):
        if found.target is None and found.path.suffix == ".db":
            yield None
            if (reason := sqlite.fault(found.path)) is not None:
                yield Fault(found.name, reason, "restore a backup: llmops restore DIR")
    for name, url in databases_of(wiring.settings).items():
        if not url.startswith("sqlite"):
            yield None
            yield from (Fault(f"database {name}", *fault) for fault in tables.faults(url, quick=quick))


def _audit(wiring: Wiring, quick: bool) -> Found:
    proof = verify_log(wiring, "verify")
    yield None
    for broken in proof.broken:
        yield Fault("audit log", str(broken), "llmops audit verify says which lines; compare with an exported log")


def _records(wiring: Wiring, quick: bool) -> Found:
    records = wiring.records
    for path in sorted(records.root.rglob("[!.]*.json")) if records.root.exists() else ():
        yield None
        name = path.relative_to(records.root).with_suffix("").as_posix()
        try:
            data = records.keys.open(path.read_bytes(), path)
        except (OSError, EncryptionError) as error:
            yield Fault(f"record {name}", str(error), "give the key, or restore the file from a backup")
            continue
        known = wiring.catalog.record_digests.of(name)
        if known and hashlib.sha256(data).hexdigest() not in known:
            asset = name.partition("/")[0]
            yield Fault(f"record {name}", "it is not what was written", f"materialise {asset} of it again")


def _datasets(wiring: Wiring, quick: bool) -> Found:
    store = wiring.store
    folder = store.root / "manifests"
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        if path.suffix != ".json" or not path.stem.isalnum():
            continue
        yield None
        try:
            store.check(path.stem, by_content=not quick)
        except (DatasetStoreError, EncryptionError, OSError) as error:
            yield Fault(f"manifest {path.stem}", str(error), "restore the file from a backup: llmops restore DIR")


def _models(wiring: Wiring, quick: bool) -> Found:
    for kind in (AdapterRecord, MergedModelRecord):
        try:
            records = wiring.records.all(kind)
        except ValueError as error:
            yield Fault(f"records of {kind.asset}", str(error), "restore them from a backup")
            continue
        for record in records:
            yield None
            where = f"{kind.asset} of {record.dataset}|{record.recipe}"
            folder = Path(record.path)
            if not folder.is_dir():
                yield Fault(where, f"{folder} is missing", "restore it, or materialise it again")
            elif not quick and (reason := _difference(record, folder)) is not None:
                yield Fault(where, reason, f"look into {folder}; restore it from a backup")


def _difference(record: AdapterRecord | MergedModelRecord, folder: Path) -> str | None:
    """How a folder is not what its record says; of adapters by their listing, which old records do not have."""
    if isinstance(record, AdapterRecord):
        changed = content.changed_files(content.listing(folder), record.files) if record.files else {}
        return f"{content.in_words(changed)} what was trained" if changed else None
    reason = content.difference(folder, record.content_hash)
    return f"{reason} what was merged" if reason is not None else None


def _registry(wiring: Wiring, quick: bool) -> Found:
    for model in wiring.tracking.models():
        yield None
        folder = Path(model.path)
        if not folder.is_dir():
            yield Fault(f"model {model.ref}", f"{folder} is missing", "restore it, or archive the version")


def _indexes(wiring: Wiring, quick: bool) -> Found:
    if not wiring.artifacts.is_local:
        return
    for name, version in wiring.indexes.aliases().items():
        yield None
        try:
            wiring.indexes.facts(version) if quick else wiring.indexes.read(version)
        except (IndexCorrupt, UnknownIndex, EncryptionError, OSError) as error:
            yield Fault(f"index {name}", str(error), "restore it, or build it again: llmops index build")


def _sealed(wiring: Wiring, quick: bool) -> Found:
    for key, count in at_rest.status(wiring.artifacts, wiring.records).items():
        yield None
        if key != "plain" and key not in wiring.keys.ids:
            what = f"{count:,} files are sealed with key {key}, which is not here"
            yield Fault("keys", what, "set LLMOPS_ENCRYPTION_KEY or LLMOPS_ENCRYPTION_KEY_FILE to it")


_LOOKS: dict[str, Callable[[Wiring, bool], Found]] = {
    "databases": _databases,
    "audit log": _audit,
    "records": _records,
    "dataset manifests": _datasets,
    "adapters and models": _models,
    "registered models": _registry,
    "indexes": _indexes,
    "keys of sealed files": _sealed,
}
