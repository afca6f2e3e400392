"""What belongs to a backup of one moment: files by their hashes, databases, names of indexes, and what is not in it."""

import hashlib
import json
import os
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from resources import files
from resources.backup.objects import BackupDamaged

FORMAT = 1

Root = Literal["home", "artifacts"]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Entry(_Part):
    """A file, by the root that it lies under. Times in nanoseconds; `changed_ns` is that of its inode."""

    root: Root
    path: str
    name_bytes: str | None = Field(default=None, description="The path in hex, where it is no UTF-8.")
    sha256: str
    size: int
    mode: int
    mtime_ns: int
    changed_ns: int = 0
    is_database: bool = False

    @property
    def where(self) -> str:
        """The path as this machine's file system has it."""
        return self.path if self.name_bytes is None else os.fsdecode(bytes.fromhex(self.name_bytes))


class Link(_Part):
    """A symbolic link with where it leads, relative to where it is."""

    root: Root
    path: str
    target: str


class Dump(_Part):
    """A database: a copy of its file (`sqlite`), or its rows by tables (`tables`), with the revision of its schema."""

    kind: Literal["sqlite", "tables"]
    sha256: str
    size: int
    revision: str | None = None


class Snapshot(_Part):
    """A backup of one moment."""

    format: int = FORMAT
    id: str
    at: datetime
    platform: str = Field(description="Version that made it.")
    identity: str = Field(description="What the catalog is called for ever; empty of one of an earlier version.")
    databases: dict[str, Dump] = Field(description="catalog, mlflow, and dagster where it is no file of the home.")
    files: list[Entry]
    links: list[Link] = Field(default_factory=list)
    indexes: dict[str, str] = Field(default_factory=dict, description="Version by name, of a Qdrant server.")
    keys: list[str] = Field(default_factory=list, description="Files of the home that hold keys, and are kept apart.")
    sealed_with: list[str] = Field(default_factory=list, description="Ids of the keys that it takes to read it.")
    key_prints: dict[str, str] = Field(default_factory=dict, description="By which files with keys are known again.")
    outside: list[str] = Field(default_factory=list, description="What it does not hold, and why.")
    digest: str = Field(default="", description="SHA-256 of this list without it; empty of one of an earlier version.")

    @property
    def bytes(self) -> int:
        """Bytes of everything that belongs to it."""
        return sum(entry.size for entry in self.files) + sum(dump.size for dump in self.databases.values())

    @property
    def hashes(self) -> set[str]:
        """The hashes of everything that belongs to it."""
        return {entry.sha256 for entry in self.files} | {dump.sha256 for dump in self.databases.values()}


def write(root: Path, snapshot: Snapshot) -> Path:
    """Write the list of a backup, which is there from this moment on."""
    target = root / "snapshots" / f"{snapshot.id}.json"
    values = snapshot.model_dump(mode="json")
    files.write_text(target, json.dumps(values | {"digest": _digest(values)}, indent=1), mode=0o400)
    return target


def names(root: Path) -> list[str]:
    """The ids of the backups in a folder, oldest first."""
    folder = root / "snapshots"
    return sorted(path.stem for path in folder.glob("[!.]*.json")) if folder.is_dir() else []


def read(root: Path, id: str | None = None) -> Snapshot:
    """A backup by its id, or the newest. FileNotFoundError names those that there are; BackupDamaged for rubbish."""
    known = names(root)
    if not known:
        raise FileNotFoundError(f"{root} holds no backup: there is no file in {root / 'snapshots'}")
    chosen = known[-1] if id is None else id
    if chosen not in known:
        raise FileNotFoundError(f"{root} holds no backup {chosen!r}; it has {', '.join(known[-10:])}")
    path = root / "snapshots" / f"{chosen}.json"
    try:
        data = path.read_bytes()
        found = Snapshot.model_validate_json(data)
    except ValidationError as error:
        words = "; ".join(str(one["msg"]) for one in error.errors()[:3])
        raise BackupDamaged(f"{path} is no list of a backup that this version knows: {words}") from error
    except OSError as error:
        raise BackupDamaged(f"{path} cannot be read: {error.strerror or error}") from error
    if found.format > FORMAT:
        raise BackupDamaged(f"{path} is of a later version of the platform ({found.platform}): restore with that one")
    if found.id != chosen or (found.digest and found.digest != _digest(json.loads(data))):
        raise BackupDamaged(f"{path} was changed since it was written: take an earlier backup (--list shows them)")
    return found


def _digest(values: dict[str, Any]) -> str:
    """Of what stands in a list, whichever version of the platform knows what it means."""
    rest = {name: value for name, value in values.items() if name != "digest"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def print_of(id: str, data: bytes) -> str:
    """What a file with a key is known by in a backup: slow to try guesses against, as a key may be a short one."""
    return hashlib.scrypt(data, salt=id.encode(), n=2**14, r=8, p=1, dklen=16).hex()


def prune(root: Path, keep: int) -> int:
    """Remove all but the newest `keep` backups, and the files that none of those needs; how many files that were.

    Raises BackupDamaged, with nothing removed, where one that is kept cannot be read: nobody knows what it needs.
    """
    wanted = set[str]().union(*(read(root, id).hashes for id in names(root)[-keep:]))
    for id in names(root)[:-keep]:
        (root / "snapshots" / f"{id}.json").unlink()
    removed = 0
    for path in (root / "objects").glob("??/*"):
        if path.name not in wanted:
            path.unlink()
            removed += 1
    return removed
