"""What belongs to a backup of one moment: files by their hashes, databases, names of indexes, and what is not in it."""

from datetime import datetime
from pathlib import Path
from typing import Literal

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
    sha256: str
    size: int
    mode: int
    mtime_ns: int
    changed_ns: int = 0
    is_database: bool = False


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
    outside: list[str] = Field(default_factory=list, description="What it does not hold, and why.")

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
    files.write_text(target, snapshot.model_dump_json(indent=1), mode=0o400)
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
        found = Snapshot.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise BackupDamaged(f"{path} is no list of a backup that this version knows: {error}") from error
    if found.format > FORMAT:
        raise BackupDamaged(f"{path} is of a later version of the platform ({found.platform}): restore with that one")
    return found


def prune(root: Path, keep: int) -> int:
    """Remove all but the newest `keep` backups, and the files that none of those needs; how many files that were."""
    for id in names(root)[:-keep]:
        (root / "snapshots" / f"{id}.json").unlink()
    wanted = set[str]().union(*(read(root, id).hashes for id in names(root)))
    removed = 0
    for path in (root / "objects").glob("??/*"):
        if path.name not in wanted:
            path.unlink()
            removed += 1
    return removed
