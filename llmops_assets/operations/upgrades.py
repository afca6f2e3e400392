"""Bringing an installation that an earlier version wrote up to this one: rehearsed on a copy, backed up, then done."""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path

import sqlalchemy as sa

from llmops_assets.operations.access import authorise
from llmops_assets.operations.backups import back_up
from llmops_assets.operations.errors import Failed, Refused
from llmops_assets.operations.readable import unreadable
from llmops_assets.operations.verification import Fault, verify
from llmops_assets.wiring import Wiring
from resources import mlflow_schema
from resources.backup import dagster_database
from resources.backup.make import revision_of
from resources.backup.scratch import row_counts, scratch_copy
from resources.backup.walk import MARKER
from resources.catalog import HEAD, Database
from resources.catalog.revisions import revisions_after

Say = Callable[[str], None]


@dataclass(frozen=True)
class Change:
    """What becomes of a part: its revision before and after (None: there is none yet), and each step in words."""

    part: str
    before: str | None
    after: str | None
    steps: list[str] = field(default_factory=list)

    @property
    def is_due(self) -> bool:
        """Whether anything changes."""
        return self.before is not None and self.before != self.after


@dataclass(frozen=True)
class Rehearsal:
    """What an upgrade changes, what this version then read, what it could not, and what begins at the next start."""

    changes: list[Change]
    rows: dict[str, int]
    looked_at: dict[str, int]
    faults: list[Fault]
    begins: list[str]

    @property
    def is_due(self) -> bool:
        """Whether there is anything to upgrade."""
        return any(change.is_due for change in self.changes)


@dataclass(frozen=True)
class Upgraded:
    """What was upgraded, and the id of the backup that leads back; None where none was made."""

    rehearsal: Rehearsal
    backup: str | None


def rehearse(wiring: Wiring, actor: str, *, quick: bool = False, say: Say = lambda line: None) -> Rehearsal:
    """Upgrade copies of every database, read all that is there with this version, and throw the copies away.

    The installation stays as it is, and may run meanwhile. `quick` looks for weights and rows and reads none. A fault
    is something that this version cannot read, a row that is lost on the way, or a file that is not what was written.
    Raises Refused for a home that is being restored, or that a later version wrote.
    """
    authorise(wiring, actor, "upgrade.rehearse")
    settings = wiring.settings
    if (settings.root / MARKER).exists():
        raise Refused(f"{settings.root} was being restored, and that was cut off: run `llmops restore` again")
    changes, faults, rows = list[Change](), list[Fault](), dict[str, int]()
    with tempfile.TemporaryDirectory(prefix="llmops-upgrade-") as place, ExitStack() as stack:
        folder = Path(place)
        catalog, is_new = settings.catalog, _is_missing(settings.catalog)
        changes.append(_catalog_change(settings.catalog))
        if not is_new:
            say("copying the catalog, and upgrading the copy")
            before = revision_of(settings.catalog)
            make = partial(_migrated, revision=before or "head")
            copied = _within(folder, "catalog")
            catalog = stack.enter_context(scratch_copy(settings.catalog, copied, make))
            counted = row_counts(catalog)
            _migrated(catalog, "head")
            rows = row_counts(catalog)
            faults += _lost("catalog", counted, rows)
        mlflow = settings.mlflow
        changes.append(_mlflow_change(mlflow))
        if changes[-1].before is not None:
            say("copying MLflow's database, and upgrading the copy")
            mlflow = stack.enter_context(scratch_copy(mlflow, _within(folder, "mlflow")))
            counted = row_counts(mlflow)
            if changes[-1].is_due:
                mlflow_schema.upgrade(mlflow)
            faults += _lost("MLflow", counted, row_counts(mlflow))
        if (settings.dagster_home / "dagster.yaml").exists():
            say("copying Dagster's storage, and upgrading the copy")
            home = stack.enter_context(dagster_database.scratch_home(settings.dagster_home, folder))
            change, lost = _dagster(home)
            changes.append(change)
            faults += lost
        say("reading all of it with this version")
        copy = Wiring(settings.model_copy(update={"catalog_url": catalog, "mlflow_tracking_uri": mlflow}))
        begins: list[str] = []
        looked_at: dict[str, int] = {}
        if not is_new:
            found, count = unreadable(copy)
            verified = verify(copy, actor, quick=quick, say=say)
            faults += [*found, *verified.faults]
            looked_at = count | verified.looked_at
            begins = [f"{one.name}, which {one.requested_by} wanted" for one in copy.catalog.intents.open()]
            copy.catalog.database.close()
    return Rehearsal(changes, rows, looked_at, faults, begins)


def upgrade(
    wiring: Wiring, actor: str, *, backup: Path | None, keys: Path | None = None, say: Say = lambda line: None
) -> Upgraded:
    """Rehearse, back up into `backup` (None: make none), and bring every database up to this version.

    Cut off, the same call goes on: each step is a transaction of its own, and what is done is not done again. Raises
    Failed, with nothing changed, where the rehearsal found a fault; Refused while somebody else has the catalog open.
    """
    authorise(wiring, actor, "upgrade.run")
    # Not those of our own.
    wiring.catalog.database.close()
    if others := _sessions(wiring.settings.catalog):
        raise Refused(
            f"{others} other connections to the catalog are open: stop the server first (make server-down, but for its "
            "database), or what runs there meets a schema that it does not know"
        )
    found = rehearse(wiring, actor, quick=True, say=say)
    if found.faults:
        raise Failed(
            f"nothing was changed: the rehearsal found {len(found.faults)} faults, the first {found.faults[0].where}: "
            f"{found.faults[0].what}. `llmops upgrade --rehearse` lists them all with what to do"
        )
    if not found.is_due:
        return Upgraded(found, None)
    made = back_up(wiring, actor, backup, keys=keys, say=say).made.snapshot.id if backup is not None else None
    settings = wiring.settings
    for change in (one for one in found.changes if one.is_due):
        say(f"upgrading {change.part}: {change.before} to {change.after}")
        if change.part == "catalog":
            wiring.catalog.open()
        elif change.part == "MLflow":
            mlflow_schema.upgrade(settings.mlflow)
        else:
            dagster_database.upgrade(settings.dagster_home)
    steps = {change.part: [change.before, change.after] for change in found.changes if change.is_due}
    wiring.catalog.log(actor, "upgrade.run", version("llmops"), changes=steps, backup=made)
    return Upgraded(found, made)


def _within(folder: Path, name: str) -> Path:
    """A folder of its own for each copy: two databases may be files of one name."""
    (folder / name).mkdir()
    return folder / name


def _migrated(url: str, revision: str) -> None:
    database = Database(url)
    database.migrate(revision)
    database.close()


def _catalog_change(url: str) -> Change:
    if _is_missing(url):
        return Change("catalog", None, HEAD, ["there is none yet: the first start makes it"])
    before = revision_of(url)
    steps = [f"{one.name}: {one.about}" for one in revisions_after(before)]
    if before is not None and before > HEAD:
        raise Refused(
            f"the catalog has the schema {before}, which is later than {HEAD}, the last that this version knows: run "
            "the version that wrote it, or restore a backup"
        )
    return Change("catalog", before, HEAD, steps if before != HEAD else [])


def _mlflow_change(url: str) -> Change:
    if url.startswith(("http://", "https://")):
        return Change("MLflow", None, None, [f"{url} is a server of its own: upgrade it where it runs"])
    if _is_missing(url):
        return Change("MLflow", None, None, ["there is none yet: the first start makes it"])
    before, after = revision_of(url), mlflow_schema.newest()
    return Change("MLflow", before, after, ["its own migrations"] if before != after else [])


def _dagster(home: Path) -> tuple[Change, list[Fault]]:
    """Upgrade a copy of Dagster's storage: what changed, and what was lost."""
    revisions = dagster_database.revisions(home)
    known = dagster_database.runs_and_assets(home)
    before = ", ".join(f"{name} {old}" for name, (old, _) in revisions.items())
    after = ", ".join(f"{name} {new}" for name, (_, new) in revisions.items())
    change = Change("Dagster", before, after, ["its own migrations"] if before != after else [])
    if change.is_due:
        dagster_database.upgrade(home)
    left = dagster_database.runs_and_assets(home)
    if left == known:
        return change, []
    what = f"{known[0]} runs and {known[1]} assets before, {left[0]} and {left[1]} behind it"
    return change, [Fault("Dagster", what, "stay at the version that wrote it, and report this")]


def _lost(part: str, before: dict[str, int], after: dict[str, int]) -> Iterator[Fault]:
    """Tables that had more rows before than behind the upgrade, or that are gone with rows in them."""
    for table, count in before.items():
        left = after.get(table, 0)
        if left < count and table != "alembic_version":
            what = f"{count - left:,} of {count:,} rows of {table} are gone behind the upgrade"
            yield Fault(part, what, "stay at the version that wrote it, and report this")


def _sessions(url: str) -> int:
    """Other connections to a database on a server; 0 for a file."""
    if url.startswith("sqlite"):
        return 0
    engine = sa.create_engine(url)
    others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    try:
        with engine.connect() as connection:
            return int(connection.execute(sa.text(f"{others} AND backend_type = 'client backend'")).scalar() or 0)
    finally:
        engine.dispose()


def _is_missing(url: str) -> bool:
    """Whether a database has nothing in it: to open an SQLite file would make it."""
    file = sa.make_url(url).database if url.startswith("sqlite") else None
    return (file is not None and not Path(file).exists()) or revision_of(url) is None
