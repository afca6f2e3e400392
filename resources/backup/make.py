"""Makes a backup while the platform runs: what refers to other things first, and then what it refers to."""

import os
import secrets
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from resources import files
from resources.backup import snapshot, sqlite, tables
from resources.backup.objects import COPYING, BackupDamaged, Objects
from resources.backup.snapshot import Dump, Entry, Link, Root, Snapshot
from resources.backup.walk import Found, is_key, walk


@dataclass(frozen=True)
class Source:
    """What an installation consists of. `databases` by name (catalog, mlflow, dagster): their SQLAlchemy URLs.

    `artifacts` is None where they are not on this machine.
    """

    home: Path
    artifacts: Path | None
    databases: dict[str, str]
    identity: str
    platform: str
    indexes: dict[str, str]
    sealed_with: list[str]
    outside: list[str]
    records_lock: Path


@dataclass
class Made:
    """A backup with what it took: files that had to be copied, and their bytes; those that went away meanwhile."""

    snapshot: Snapshot
    copied: int = 0
    copied_bytes: int = 0
    gone: list[str] = field(default_factory=list)


def make(root: Path, source: Source, say: Callable[[str], None] = lambda line: None) -> Made:
    """Back an installation up into `root`, beside the backups that are there; nothing is listed before all is there.

    Databases come first, each as it is at one moment: what they name is copied behind them, and is there by then.
    Of them the catalog is the last, so that nothing is asked for again that Dagster has a run of already. Records are
    copied while nobody writes one, with the catalog that says what each was written as.
    """
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _alone(root):
        Objects(root).remove_left()
        return _Making(root, source, say).run()


class BackupBusy(RuntimeError):
    """Another process makes a backup in the same folder, or removes old ones."""


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Keep others from making and removing backups there: what is not listed yet would be taken for left over."""
    try:
        with files.locked(root / ".lock", timeout=0.0):
            yield
    except files.Locked as error:
        raise BackupBusy(f"another process is making a backup in {root}: wait until it has ended") from error


def prune(root: Path, keep: int) -> int:
    """As `snapshot.prune`, while nobody makes a backup there."""
    with _alone(root):
        return snapshot.prune(root, keep)


class _Making:
    def __init__(self, root: Path, source: Source, say: Callable[[str], None]) -> None:
        self.root, self.source, self.say = root, source, say
        self.objects = Objects(root)
        self.entries: dict[tuple[Root, str], Entry] = {}
        self.links: list[Link] = []
        self.keys: list[str] = []
        self.outside = list(source.outside)
        self.databases: dict[str, Dump] = {}
        before = self._newest()
        self.before = {(entry.root, entry.where): entry for entry in before}
        self.copied = self.copied_bytes = 0
        self.gone: list[str] = []
        self.own = {name: path for name, url in source.databases.items() if (path := _file_of(url)) is not None}

    def _newest(self) -> list[Entry]:
        """The files of the newest backup; without one that can be read all of them are read anew."""
        known = snapshot.names(self.root)
        try:
            return snapshot.read(self.root, known[-1]).files if known else []
        except BackupDamaged as error:
            self.say(f"{error}. All files are read anew")
            return []

    def run(self) -> Made:
        at = datetime.now(UTC)
        for found in self._files("home"):
            if found.target is None and found.path.suffix == ".db" and found.path not in self.own.values():
                self._keep(found)
        for name in sorted(self.source.databases, key=("dagster", "mlflow", "catalog").index):
            path = self.own.get(name)
            if name != "catalog" and (path is None or path.exists()):
                self.databases[name] = self._database(name)
        with files.locked(self.source.records_lock):
            self.databases["catalog"] = self._database("catalog")
            for found in self._files("home"):
                if found.name.startswith("records/"):
                    self._keep(found)
        for root in ("home", "artifacts"):
            for found in self._files(root):
                if (found.root, found.name) not in self.entries:
                    self._keep(found)
        id, keys = f"{at:%Y%m%dT%H%M%S.%f}-{secrets.token_hex(2)}", sorted(set(self.keys))
        made = Snapshot(
            id=id,
            at=at,
            platform=self.source.platform,
            identity=self.source.identity,
            databases=self.databases,
            files=sorted(self.entries.values(), key=lambda entry: (entry.root, entry.path)),
            links=self.links,
            indexes=self.source.indexes,
            keys=keys,
            key_prints={name: snapshot.print_of(id, (self.source.home / name).read_bytes()) for name in keys},
            sealed_with=self.source.sealed_with,
            outside=self.outside,
        )
        snapshot.write(self.root, made)
        return Made(made, self.copied, self.copied_bytes, self.gone)

    def _files(self, root: Root) -> list[Found]:
        folder = self.source.home if root == "home" else self.source.artifacts
        if folder is None or not folder.exists():
            return []
        # A backup below the home does not hold itself.
        without = (self.root, *self.own.values())
        if root == "home" and self.source.artifacts is not None:
            without += (self.source.artifacts,)
        return list(walk(root, folder, tuple(path.absolute() for path in without)))

    def _keep(self, found: Found) -> None:
        if found.root == "home" and is_key(found.name):
            self.keys.append(found.name)
            return
        if found.target is not None:
            self._keep_link(found, found.target)
            return
        try:
            self.entries[found.root, found.name] = self._entry(found)
        except FileNotFoundError:
            # Deleted since it was listed: a collector, or an erasure.
            self.gone.append(found.name)

    def _keep_link(self, found: Found, target: str) -> None:
        folder = self.source.home if found.root == "home" else self.source.artifacts
        leads = Path(os.path.normpath(found.path.parent / target))
        if folder is None or not leads.is_relative_to(folder):
            self.outside.append(f"{found.name} is a link that leads out, to {leads}")
            return
        relative = os.path.relpath(leads, found.path.parent)
        if (link := Link(root=found.root, path=found.name, target=relative)) not in self.links:
            self.links.append(link)

    def _entry(self, found: Found) -> Entry:
        about = found.path.stat()
        known = self.before.get((found.root, found.name))
        same = known is not None and (known.size, known.mtime_ns, known.changed_ns) == (
            about.st_size, about.st_mtime_ns, about.st_ctime_ns
        )  # fmt: skip
        is_same = known is not None and same and (not known.is_database or sqlite.is_quiet(found.path))
        if known is not None and is_same and self._is_kept(known):
            return known
        is_database = sqlite.is_sqlite(found.path)
        if is_database:
            sha256, size = self._copy_of(found.path)
        else:
            with found.path.open("rb") as stream:
                sha256, size = self._add(stream)
        return Entry(
            root=found.root,
            **_named(found.name),
            sha256=sha256,
            # Of a database its own size is compared: the copy has another one where pages are free.
            size=about.st_size if is_database else size,
            mode=stat.S_IMODE(about.st_mode),
            mtime_ns=about.st_mtime_ns,
            changed_ns=about.st_ctime_ns,
            is_database=is_database,
        )

    def _is_kept(self, known: Entry) -> bool:
        """Whether what is kept of a file looks whole; `verify` reads it."""
        path = self.objects.path(known.sha256)
        return path.exists() and (known.is_database or path.stat().st_size == known.size)

    def _database(self, name: str) -> Dump:
        url = self.source.databases[name]
        self.say(f"copying the database of {name}")
        if (path := self.own.get(name)) is not None:
            sha256, size = self._copy_of(path)
            return Dump(kind="sqlite", sha256=sha256, size=size)
        sha256, size = self._add(tables.dump(url))
        return Dump(kind="tables", sha256=sha256, size=size, revision=revision_of(url))

    def _copy_of(self, path: Path) -> tuple[str, int]:
        self.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryDirectory(prefix=COPYING, dir=self.root) as folder:
            copy = Path(folder, "copy.db")
            sqlite.copy(path, copy)
            with copy.open("rb") as stream:
                return self._add(stream)

    def _add(self, stream: Any) -> tuple[str, int]:
        sha256, size = self.objects.add(stream)
        self.copied += 1
        self.copied_bytes += size
        if self.copied % 1000 == 0:
            self.say(f"{self.copied:,} files, {self.copied_bytes:,} bytes")
        return sha256, size


def _named(name: str) -> dict[str, str]:
    """A path as a list keeps it: text, and its bytes where they are no UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raw = os.fsencode(name)
        return {"path": raw.decode(errors="backslashreplace"), "name_bytes": raw.hex()}
    return {"path": name}


def revision_of(url: str) -> str | None:
    """The revision of the schema of a database that Alembic made; None where there is none."""
    # Who asks is not kept for minutes by an address that nobody answers at.
    engine = sa.create_engine(url, connect_args={} if url.startswith("sqlite") else {"connect_timeout": 10})
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            found = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all()
            return ",".join(sorted(found)) or None
    finally:
        engine.dispose()


def _file_of(url: str) -> Path | None:
    """The file of an SQLite URL; None of a server."""
    if not url.startswith("sqlite"):
        return None
    file = sa.make_url(url).database
    return Path(file).absolute() if file else None
