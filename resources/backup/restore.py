"""Writes a backup into an empty place: its files, links and databases, each checked against its hash on the way."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from resources import files
from resources.backup import tables
from resources.backup.objects import BackupDamaged, Objects
from resources.backup.snapshot import Dump, Root, Snapshot, print_of
from resources.backup.sqlite import BESIDE
from resources.backup.walk import DERIVED, MARKER


class NotRestorable(RuntimeError):
    """The place is not empty, or not one for this backup; the message says what to do."""


@dataclass(frozen=True)
class Target:
    """Where a backup goes. `databases` by name: their SQLAlchemy URLs.

    `make_schema` makes the tables of a database on a server, by its name and the revision that they are to have.
    """

    home: Path
    artifacts: Path | None
    databases: dict[str, str]
    make_schema: Callable[[str, str | None], None]


def restore(
    root: Path, found: Snapshot, target: Target, keys: Path | None, say: Callable[[str], None] = lambda line: None
) -> None:
    """Write a backup into an empty place; cut off, the same call goes on.

    `keys` is the folder that `keep_keys` wrote. Raises NotRestorable, before anything is written, where something is
    there already or a database is of another kind; BackupDamaged where a file is not what was backed up.
    """
    marker = target.home / MARKER
    _refuse(found, target, marker)
    _refuse_other_keys(found, keys)
    target.home.mkdir(parents=True, exist_ok=True)
    target.home.chmod(0o700)
    files.write_text(marker, json.dumps({"snapshot": found.id, "from": str(root)}), mode=0o600)
    objects = Objects(root)
    places: dict[Root, Path | None] = {"home": target.home, "artifacts": target.artifacts}
    for number, entry in enumerate(found.files, 1):
        place = places[entry.root]
        assert place is not None
        path = _inside(place, entry.where)
        if not (path.exists() and path.stat().st_mtime_ns == entry.mtime_ns and path.stat().st_size == entry.size):
            if entry.is_database:
                _without_rest(path)
            objects.restore(entry.sha256, path, entry.mode, entry.mtime_ns)
        if number % 1000 == 0:
            say(f"{number:,} of {len(found.files):,} files")
    for link in found.links:
        place = places[link.root]
        assert place is not None
        path = _inside(place, link.path)
        _inside(place, str(Path(link.path).parent / link.target))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(link.target)
    if keys is not None:
        for name in found.keys:
            files.write_bytes(_inside(target.home, name), (keys / name).read_bytes(), mode=0o600)
    for name, dump in found.databases.items():
        say(f"writing the database of {name}")
        _write_database(objects, name, dump, target)
    marker.unlink()


def keep_keys(home: Path, names: list[str], folder: Path) -> None:
    """Copy the files of the home that hold keys into a folder of their own, readable by its owner alone."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in names:
        files.write_bytes(folder / name, (home / name).read_bytes(), mode=0o600)


def _refuse(found: Snapshot, target: Target, marker: Path) -> None:
    goes_on = marker.exists() and json.loads(marker.read_text()).get("snapshot") == found.id
    if target.artifacts is None and any(entry.root == "artifacts" for entry in found.files):
        raise NotRestorable("the backup holds artifacts, and LLMOPS_ARTIFACT_ROOT is not on this machine")
    if not goes_on:
        for place in filter(None, (target.home, target.artifacts)):
            if place.exists() and _holds_something(place):
                raise NotRestorable(
                    f"{place} is not empty: restore into a folder that is not there yet (LLMOPS_HOME, "
                    "LLMOPS_ARTIFACT_ROOT); nothing is overwritten"
                )
        _refuse_short_of_room(found, target)
    for name, dump in found.databases.items():
        url = target.databases.get(name)
        if url is None:
            raise NotRestorable(
                f"the backup holds the database of {name}, and this installation has none of its own for it: configure "
                "it as the one that was backed up"
            )
        if url.startswith("sqlite") != (dump.kind == "sqlite"):
            kind = "an SQLite file" if dump.kind == "sqlite" else "a database on a server"
            shown = sa.make_url(url).render_as_string(hide_password=True)
            raise NotRestorable(f"{name} was {kind} when it was backed up, and is {shown} here: make it the same kind")
        file = sa.make_url(url).database if dump.kind == "sqlite" else None
        if file and Path(file).exists() and not goes_on:
            raise NotRestorable(f"{file} is there already: nothing is overwritten")
        if dump.kind == "tables" and not goes_on:
            try:
                tables.refuse_filled(url)
            except tables.NotEmpty as error:
                raise NotRestorable(str(error)) from error


def _holds_something(place: Path) -> bool:
    """Whether anything could be overwritten there: folders alone are what a server's folder begins with."""
    return any(
        not (found.is_dir() and not found.is_symlink())
        for found in place.rglob("*")
        if found.relative_to(place).parts[0] not in ("lost+found", *DERIVED)
    )


def _refuse_other_keys(found: Snapshot, keys: Path | None) -> None:
    for name, known in found.key_prints.items() if keys is not None else ():
        if keys is not None and (keys / name).is_file() and print_of(found.id, (keys / name).read_bytes()) != known:
            raise NotRestorable(
                f"{keys / name} is another than the one that belongs to this backup: give the folder that `llmops "
                "backup --keys` wrote with it"
            )


def _refuse_short_of_room(found: Snapshot, target: Target) -> None:
    """Raise NotRestorable where the disks have less room than the files take."""
    needed: dict[int, tuple[Path, int]] = {}
    for root, place in (("home", target.home), ("artifacts", target.artifacts)):
        if place is None:
            continue
        there = next(path for path in (place, *place.parents) if path.exists())
        size = sum(entry.size for entry in found.files if entry.root == root)
        size += sum(dump.size for dump in found.databases.values() if dump.kind == "sqlite") if root == "home" else 0
        device = there.stat().st_dev
        needed[device] = (there, needed.get(device, (there, 0))[1] + size)
    for there, size in needed.values():
        if (free := shutil.disk_usage(there).free) < size:
            raise NotRestorable(
                f"{size:,} bytes are to be written below {there}, and {free:,} are free: make room first"
            )


def _write_database(objects: Objects, name: str, dump: Dump, target: Target) -> None:
    url = target.databases[name]
    if dump.kind == "sqlite":
        file = Path(sa.make_url(url).database or "")
        _without_rest(file)
        objects.restore(dump.sha256, file, 0o600, 0)
        return
    target.make_schema(name, dump.revision)
    if (fault := objects.fault(dump.sha256)) is not None:
        raise BackupDamaged(f"{fault}: it holds the database of {name}")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows")
        shutil.copyfile(objects.path(dump.sha256), file)
        try:
            tables.load(url, file)
        except tables.OtherSchema as error:
            raise NotRestorable(f"{name}: {error}") from error


def _without_rest(file: Path) -> None:
    """Remove what SQLite kept beside a database that was opened while it was being restored: it is of another one."""
    for suffix in BESIDE:
        file.with_name(f"{file.name}{suffix}").unlink(missing_ok=True)


def _inside(place: Path, name: str) -> Path:
    """A path below a root; BackupDamaged for a name that leads out of it."""
    path = Path(place, name)
    if Path(name).is_absolute() or not Path(os.path.normpath(path)).is_relative_to(place):
        raise BackupDamaged(f"{name!r} leads out of {place}: this list was not written by a backup")
    return path
