"""Takes the log lines of runs that ended long ago out of Dagster's storage, which grows without end otherwise.

What assets and checks have said stays: it is their history. So does how each run began and ended, and why it failed.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa

from resources.run_log import RunLog

if TYPE_CHECKING:
    from sqlalchemy.sql.dml import Delete

KEPT = (
    "ASSET_CHECK_EVALUATION",
    "ASSET_CHECK_EVALUATION_PLANNED",
    "ASSET_FAILED_TO_MATERIALIZE",
    "ASSET_MATERIALIZATION",
    "ASSET_MATERIALIZATION_PLANNED",
    "ASSET_OBSERVATION",
    "ASSET_WIPED",
    "FRESHNESS_STATE_CHANGE",
    "FRESHNESS_STATE_EVALUATION",
    "STEP_FAILURE",
)
"""Types of Dagster's events that stay, beside those of a run's own states (PIPELINE_…)."""
_EVENTS = sa.table("event_logs", *(sa.column(name) for name in ("id", "run_id", "dagster_event_type")))
_AT_ONCE = 200


@dataclass(frozen=True)
class Pruned:
    """How many lines of how many runs were taken out, or would be."""

    runs: int
    lines: int


def prune(run_log: RunLog, before: float, *, dry_run: bool = False) -> Pruned:
    """Take out the lines of runs that ended before a moment, in seconds since the epoch."""
    ids = run_log.ended_before(before)
    if run_log.in_files:
        counts = [_in_file(run_log.home / "history" / "runs" / f"{id}.db", dry_run=dry_run) for id in ids]
    else:
        counts = list(_in_database(run_log, ids, dry_run=dry_run))
    return Pruned(runs=sum(1 for count in counts if count), lines=sum(counts))


def _taken(ids: Sequence[str] | None) -> sa.ColumnElement[bool]:
    """Whether a line is taken out: a message, or an event that is neither of an asset nor of the run's own state."""
    kind = _EVENTS.c.dagster_event_type
    passing = sa.or_(kind.is_(None), sa.and_(kind.notin_(KEPT), kind.notlike("PIPELINE%")))
    return passing if ids is None else sa.and_(_EVENTS.c.run_id.in_(ids), passing)


def _in_file(path: Path, *, dry_run: bool) -> int:
    """The same of a run's own SQLite file, which gives its pages back."""
    if not path.exists():
        return 0
    engine = sa.create_engine(f"sqlite:///{path}", poolclass=sa.NullPool, connect_args={"timeout": 30})
    with engine.begin() as connection:
        if not sa.inspect(connection).has_table("event_logs"):
            return 0
        counted = sa.select(sa.func.count()).select_from(_EVENTS).where(_taken(None))
        found = connection.execute(counted).scalar() or 0
        if found and not dry_run:
            connection.execute(_delete(None))
    if found and not dry_run:
        with closing(sqlite3.connect(path, timeout=30, isolation_level=None)) as plain:
            plain.execute("VACUUM")
            # Another process may have the file open: what was taken out would stay in the file and its log.
            plain.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return found


def _in_database(run_log: RunLog, ids: Sequence[str], *, dry_run: bool) -> Iterator[int]:
    """The lines of each run, taken out of a database some runs at a time, so that no lock is held for long."""
    for start in range(0, len(ids), _AT_ONCE):
        some = ids[start : start + _AT_ONCE]
        with run_log.events() as connection:
            column = _EVENTS.c.run_id
            counted = sa.select(column, sa.func.count()).where(_taken(some)).group_by(column)
            counts = connection.execute(counted).all()
            if counts and not dry_run:
                connection.execute(_delete(some))
        yield from (count for _run, count in counts)


def _delete(ids: Sequence[str] | None) -> "Delete":
    return sa.delete(_EVENTS).where(_taken(ids))
