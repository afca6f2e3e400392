"""Backing an installation up while it runs, and restoring it elsewhere."""

import sqlite3
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Failed, Refused, Unavailable
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources import at_rest
from resources.backup import dagster_database, snapshot
from resources.backup.make import BackupBusy, Made, Source, make, prune, revision_of
from resources.backup.objects import BackupDamaged, Objects
from resources.backup.restore import NotRestorable, Target, keep_keys
from resources.backup.restore import restore as write_back
from resources.backup.snapshot import Snapshot
from resources.catalog import HEAD

Say = Callable[[str], None]


def _silent(line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True)
class BackedUp:
    """A backup, the files with keys that are not in it, and where they were copied to (None: nowhere)."""

    made: Made
    keys: Path | None
    pruned: int


@dataclass(frozen=True)
class Restored:
    """What was restored, and the names of indexes that were brought back into a Qdrant server."""

    snapshot: Snapshot
    indexes: list[str]


def back_up(
    wiring: Wiring, actor: str, folder: Path, *, keys: Path | None = None, keep: int | None = None, say: Say = _silent
) -> BackedUp:
    """Back everything up into `folder`, beside earlier backups: only what changed since is copied.

    A catalog of an earlier version is copied as it is and not brought up to date: the backup is the way back from an
    upgrade. There is no line in its audit log then.

    Files of the home that hold keys go to `keys` alone, if it is named. With `keep`, older backups go, and what only
    they needed. Raises Refused where `keys` lies in `folder`: whoever has the backup would have the keys to it.
    """
    authorise(wiring, actor, "backup.make")
    folder, keys = folder.absolute(), keys.absolute() if keys else None
    if keys is not None and (keys.is_relative_to(folder) or folder.is_relative_to(keys)):
        raise Refused(f"--keys {keys} and the backup {folder} lie in each other: keep keys apart from what they open")
    if folder.is_relative_to(Path(wiring.settings.artifacts)):
        raise Refused(f"{folder} lies in the artifact root: name a folder elsewhere, on another disk at best")
    try:
        made = make(folder, _source(wiring), say)
    except BackupBusy as error:
        raise Unavailable(str(error)) from error
    except (OSError, sqlite3.Error) as error:
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        words = getattr(error, "strerror", None) or str(error)
        raise Failed(
            f"no backup was made: {words}{where}. Those that were there are whole; mend that, and run the same command "
            "again"
        ) from error
    if keys is not None:
        keep_keys(wiring.settings.root, made.snapshot.keys, keys)
    try:
        pruned = prune(folder, keep) if keep is not None else 0
    except (BackupDamaged, BackupBusy) as error:
        raise Failed(f"backup {made.snapshot.id} was made, and no older one was removed: {error}") from error
    figures = {"files": len(made.snapshot.files), "copied": made.copied, "bytes": made.snapshot.bytes}
    if _is_current(wiring):
        wiring.catalog.log(actor, "backup.make", made.snapshot.id, **figures)
    return BackedUp(made, keys, pruned)


def list_backups(folder: Path) -> tuple[list[Snapshot], list[str]]:
    """The backups in a folder, newest first, and what is wrong with those that cannot be read."""
    found: list[Snapshot] = []
    faults: list[str] = []
    for id in reversed(snapshot.names(folder)):
        try:
            found.append(snapshot.read(folder, id))
        except BackupDamaged as error:
            faults.append(str(error))
    return found, faults


def restore(
    wiring: Wiring,
    actor: str,
    folder: Path,
    *,
    id: str | None = None,
    keys: Path | None = None,
    without_keys: bool = False,
    say: Say = _silent,
) -> Restored:
    """Restore a backup (the newest, or by its id) into the empty place that the settings name; cut off, it goes on.

    Raises Refused where something is there already, where keys that belong to it are not given, unless
    `without_keys`, or where a file of it is missing or was changed.
    """
    authorise(wiring, actor, "backup.restore")
    settings = wiring.settings
    try:
        found = snapshot.read(folder.absolute(), id)
        _refuse_keyless(wiring, found, keys, without_keys)
        artifacts = None if "://" in settings.artifacts else Path(settings.artifacts)
        databases = databases_of(settings)
        if "dagster" in found.databases:
            databases["dagster"] = _dagster_address(folder, found)
        target = Target(settings.root, artifacts, databases, lambda name, revision: _make(wiring, name, revision))
        write_back(folder.absolute(), found, target, keys, say)
    except (NotRestorable, BackupDamaged, FileNotFoundError) as error:
        raise Refused(str(error)) from error
    except OSError as error:
        raise Failed(
            f"the restore broke off: {error.strerror or error} ({error.filename or settings.root}). Mend that, and run "
            "the same command again: it goes on"
        ) from error
    if found.identity and wiring.catalog.identity != found.identity:
        raise Refused(f"the catalog that was restored is {wiring.catalog.identity}, not {found.identity}")
    indexes = [name for name, version in sorted(found.indexes.items()) if _bring_back(wiring, name, version, say)]
    wiring.catalog.log(actor, "backup.restore", found.id, at=found.at.isoformat(), keys=keys is not None)
    return Restored(found, indexes)


def faults_of_backup(folder: Path, id: str | None = None, say: Say = _silent) -> tuple[Snapshot, list[str]]:
    """Read every byte of a backup; what is missing or was changed. Raises Refused where there is none."""
    try:
        found = snapshot.read(folder.absolute(), id)
    except (BackupDamaged, FileNotFoundError) as error:
        raise Refused(str(error)) from error
    objects = Objects(folder.absolute())
    faults: list[str] = []
    for number, sha256 in enumerate(sorted(found.hashes), 1):
        if (fault := objects.fault(sha256)) is not None:
            names = [e.path for e in found.files if e.sha256 == sha256]
            names += [f"the database of {name}" for name, dump in found.databases.items() if dump.sha256 == sha256]
            faults.append(f"{fault} ({', '.join(names[:3])})")
        if number % 1000 == 0:
            say(f"{number:,} of {len(found.hashes):,} files")
    return found, faults


def _source(wiring: Wiring) -> Source:
    settings = wiring.settings
    outside: list[str] = []
    artifacts = None if "://" in settings.artifacts else Path(settings.artifacts).absolute()
    if artifacts is None:
        outside.append(f"the artifacts, which are on {settings.artifacts}: back that store up by its own versions")
    databases = databases_of(settings)
    if "mlflow" not in databases:
        outside.append(f"MLflow, which is a server of its own ({settings.mlflow}): back its database up where it runs")
    roots = [settings.root, *([artifacts] if artifacts else [])]
    is_current = _is_current(wiring)
    for base in wiring.catalog.base_models() if is_current else ():
        path = Path(base.path)
        if path.is_absolute() and not any(path.is_relative_to(root) for root in roots):
            outside.append(f"base model {base.ref}, which lies in {path}")
    if not is_current:
        outside.append("base models that lie outside of the home: the catalog is of an earlier version, and not asked")
    return Source(
        home=settings.root,
        artifacts=artifacts,
        databases=databases,
        identity=wiring.catalog.identity if is_current else "",
        platform=version("llmops"),
        indexes=wiring.indexes.aliases() if settings.qdrant_url else {},
        # What is written from now on has the first key; an older one counts where something is sealed with it still.
        sealed_with=sorted({*wiring.keys.ids[:1], *at_rest.status(wiring.artifacts, wiring.records)} - {"plain"}),
        outside=outside,
        records_lock=wiring.records.root.with_name(f".{wiring.records.root.name}.lock"),
    )


def _is_current(wiring: Wiring) -> bool:
    """Whether the catalog has the schema of this version, or none yet: to open another one would change it."""
    url = wiring.settings.catalog
    file = sa.make_url(url).database if url.startswith("sqlite") else None
    if file is not None and not Path(file).exists():
        return True
    return revision_of(url) in (HEAD, None)


def databases_of(settings: Settings) -> dict[str, str]:
    """The databases of an installation by name, but for those that lie in its home as files of Dagster's."""
    found = {"catalog": settings.catalog}
    if not settings.mlflow.startswith(("http://", "https://")):
        found["mlflow"] = settings.mlflow
    if (dagster := dagster_database.address(settings.dagster_home)) is not None:
        found["dagster"] = dagster
    return found


def _dagster_address(folder: Path, found: Snapshot) -> str:
    """Where Dagster's storage goes: as its configuration in the backup says, with the variables of here."""
    name = "dagster/dagster.yaml"
    entry = next((entry for entry in found.files if (entry.root, entry.path) == ("home", name)), None)
    with tempfile.TemporaryDirectory() as place:
        if entry is not None:
            Objects(folder.absolute()).restore(entry.sha256, Path(place, "dagster.yaml"), 0o600, 0)
        address = dagster_database.address(Path(place))
    if address is None:
        raise Refused(f"the backup holds rows of Dagster's storage, and no {name} that names a server for them")
    return address


def _refuse_keyless(wiring: Wiring, found: Snapshot, keys: Path | None, without_keys: bool) -> None:
    missing = [key for key in found.sealed_with if key not in wiring.keys.ids]
    if missing:
        raise Refused(
            f"what was backed up is sealed with key {', '.join(missing)}, which is not here: set LLMOPS_ENCRYPTION_KEY "
            "or LLMOPS_ENCRYPTION_KEY_FILE to it"
        )
    absent = [name for name in found.keys if keys is None or not (keys / name).is_file()]
    if absent and not without_keys:
        raise Refused(
            f"{', '.join(absent)} belong to this backup and are kept apart from it: name the folder that `llmops "
            "backup --keys` wrote with --keys. With --without-keys new ones are made: what the gateway had not shipped "
            "cannot be read then, and what was forgotten cannot be told from what comes in anew"
        )


def _make(wiring: Wiring, name: str, revision: str | None) -> None:
    """Make the tables of a database on a server, of the revision that was backed up."""
    if name == "catalog":
        wiring.catalog.database.migrate(revision or "head")
    elif name == "mlflow":
        wiring.tracking.prepare()
    else:
        dagster_database.make_tables(wiring.settings.dagster_home)


def _bring_back(wiring: Wiring, name: str, version: str, say: Say) -> bool:
    """Write a version of an index into the Qdrant server that is configured, and let its name stand for it."""
    from resources.retrieval.engine import EngineUnavailable

    if not wiring.settings.qdrant_url:
        # Embedded, the names lie in files, of which a server's installation has none.
        wiring.indexes.point(name, version)
        return False
    say(f"writing index {name} into {wiring.settings.qdrant_url}")
    try:
        wiring.indexes.stage(wiring.indexes.read(version))
        wiring.indexes.point(name, version)
    except EngineUnavailable as error:
        raise Unavailable(f"everything is restored but the indexes of the server: {error}") from error
    return True
