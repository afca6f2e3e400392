"""Takes partitions out of what the orchestrator remembers: their runs, logs, previews and check results."""

import os
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import dagster as dg

LOCK_SECONDS = 30
_PARTITION_TAGS = ("dagster/partition", "dagster/partition/dataset")


class Busy(RuntimeError):
    """Someone works on the partitions, or on the files that hold their events."""


@dataclass(frozen=True)
class Report:
    """A check result to be shown for a partition without a run of its own."""

    asset: str
    check: str
    partition: str
    passed: bool
    text: str


@dataclass(frozen=True)
class Page:
    """What the page of a partition shows when nothing of its runs is left; nothing is materialised."""

    asset: str
    partition: str
    metadata: dict[str, str | int]


class EventLog:
    """The event log of the Dagster instance in a home folder; without one there is nothing to remember."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def _instance(self) -> "dg.DagsterInstance | None":
        if not (self.home / "dagster.yaml").exists():
            return None
        os.environ["DAGSTER_HOME"] = str(self.home)
        import dagster as dg

        return dg.DagsterInstance.get()

    def refuse_busy(self, partitions: Iterable[str]) -> None:
        """Raise Busy when a run works on one of the partitions, or waits to."""
        instance = self._instance()
        if instance is None:
            return
        busy = sorted(
            f"{run.run_id[:8]} on {run.tags.get('dagster/partition')}"
            for run in _runs(instance, partitions)
            if not run.is_finished
        )
        if busy:
            raise Busy(f"runs work on what is to be erased: {', '.join(busy)}. Wait for them or stop them, then repeat")

    def forget(self, partitions: Iterable[str], dynamic: dict[str, Iterable[str]]) -> int:
        """Delete everything about `partitions`; the runs that were deleted.

        `dynamic` are partition keys that cease to exist, by the name of their definition. Asset pages show the newest
        materialisation that is left. Safe to repeat.
        """
        instance = self._instance()
        if instance is None:
            return 0
        from dagster._core.storage.event_log import SqlEventLogStorage

        keys = sorted(partitions)
        runs = _runs(instance, keys)
        storage = instance.event_log_storage
        for run in runs:
            instance.compute_log_manager.delete_logs(prefix=[run.run_id])
            instance.delete_run(run.run_id)
        if isinstance(storage, SqlEventLogStorage):
            _forget_index(storage, [run.run_id for run in runs], keys)
        for name, gone in dynamic.items():
            for key in gone:
                if instance.has_dynamic_partition(name, key):
                    instance.delete_dynamic_partition(name, key)
        instance.dispose()
        self._compact([run.run_id for run in runs])
        return len(runs)

    def report(self, reports: Iterable[Report]) -> None:
        """Show check results on the pages of their assets."""
        instance = self._instance()
        if instance is None:
            return
        import dagster as dg

        for one in reports:
            instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(one.asset),
                    check_name=one.check,
                    passed=one.passed,
                    metadata={},
                    description=one.text,
                    severity=dg.AssetCheckSeverity.ERROR,
                    partition=one.partition,
                    blocking=False,
                )
            )
        instance.dispose()

    def show(self, pages: Iterable[Page]) -> None:
        """Put what is known of partitions on their pages, where nothing of their runs is left."""
        instance = self._instance()
        if instance is None:
            return
        import dagster as dg

        for page in pages:
            instance.report_runless_asset_event(
                dg.AssetMaterialization(page.asset, partition=page.partition, metadata=dict(page.metadata))
            )
        instance.dispose()

    def _compact(self, run_ids: list[str]) -> None:
        """Leave no page of a deleted event in an SQLite file; a run has a file of its own."""
        for run_id in run_ids:
            for path in self.home.rglob(f"{run_id}.db*"):
                path.unlink(missing_ok=True)
        for name in ("index.db", "runs.db"):
            for path in self.home.rglob(name):
                connection = sqlite3.connect(path, timeout=LOCK_SECONDS, isolation_level=None)
                try:
                    connection.execute("VACUUM")
                    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
                except sqlite3.OperationalError as error:
                    raise Busy(f"{path} is in use ({error}): repeat the command in a moment, it goes on") from error
                finally:
                    connection.close()


def _runs(instance: "dg.DagsterInstance", partitions: Iterable[str]) -> "list[dg.DagsterRun]":
    import dagster as dg

    found = {}
    for key in partitions:
        for tag in _PARTITION_TAGS:
            for run in instance.get_runs(dg.RunsFilter(tags={tag: key})):
                found[run.run_id] = run
    return list(found.values())


def _forget_index(storage: Any, run_ids: list[str], partitions: list[str]) -> None:
    """Delete the index's copies of the events, and let every asset show the newest one that is left."""
    import sqlalchemy as sa
    from dagster._core.events import DagsterEventType
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        AssetEventTagsTable,
        AssetKeyTable,
        SqlEventLogStorageTable,
    )

    events, assets, checks = SqlEventLogStorageTable.c, AssetKeyTable.c, AssetCheckExecutionsTable.c
    kinds = (DagsterEventType.ASSET_MATERIALIZATION.value, DagsterEventType.ASSET_OBSERVATION.value)
    with storage.index_connection() as connection:
        gone = sa.or_(events.run_id.in_(run_ids), events.partition.in_(partitions))
        ids = sa.select(events.id).where(gone)
        connection.execute(AssetEventTagsTable.delete().where(AssetEventTagsTable.c.event_id.in_(ids)))
        connection.execute(SqlEventLogStorageTable.delete().where(gone))
        theirs = sa.or_(checks.run_id.in_(run_ids), checks.partition.in_(partitions))
        connection.execute(AssetCheckExecutionsTable.delete().where(theirs))
        for asset in connection.execute(sa.select(assets.asset_key)).scalars().all():
            mine = sa.and_(events.asset_key == asset, events.dagster_event_type.in_(kinds))
            last = connection.execute(
                sa.select(events.event, events.run_id).where(mine).order_by(events.id.desc()).limit(1)
            ).first()
            values: dict[str, Any] = {"cached_status_data": None, "last_materialization": None, "last_run_id": None}
            if last is not None:
                values |= {"last_materialization": last.event, "last_run_id": last.run_id}
            connection.execute(AssetKeyTable.update().where(assets.asset_key == asset).values(values))
