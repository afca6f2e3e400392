"""Reads what Dagster has on record of runs and asset checks, in milliseconds and without importing Dagster.

Importing Dagster takes two seconds of CPU, which is most of what a command that only looks would take. The tables are
those of the pinned Dagster (1.13); only an instance with a storage of its own (PostgreSQL) is asked through Dagster,
for its connections.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
import yaml

if TYPE_CHECKING:
    import dagster as dg

PARTITION = "dagster/partition"
_FINISHED = ("SUCCESS", "FAILURE", "CANCELED")
_OWN_ERROR = re.compile(r"^(?:(?:dagster|llmops_assets|resources|images)\.[\w.]*): ?")
_RUNS = sa.table(
    "runs", *(sa.column(c) for c in ("id", "run_id", "status", "run_body", "create_timestamp", "end_time"))
)
_TAGS = sa.table("run_tags", *(sa.column(c) for c in ("run_id", "key", "value")))
_EVENTS = sa.table("event_logs", *(sa.column(c) for c in ("id", "run_id", "event", "dagster_event_type")))
_CHECKS = sa.table(
    "asset_check_executions",
    *(
        sa.column(c)
        for c in ("id", "run_id", "asset_key", "check_name", "partition", "execution_status", "evaluation_event")
    ),
)


@dataclass(frozen=True)
class Run:
    """One run: `status` is Dagster's own word, times are in seconds since the epoch, `assets` what it was asked for."""

    id: str
    status: str
    assets: frozenset[str]
    tags: Mapping[str, str]
    parent: str | None
    created_at: float
    ended_at: float | None

    @property
    def partition(self) -> str | None:
        return self.tags.get(PARTITION)

    @property
    def is_finished(self) -> bool:
        return self.status in _FINISHED

    @property
    def is_success(self) -> bool:
        return self.status == "SUCCESS"

    @property
    def is_failure(self) -> bool:
        return self.status == "FAILURE"

    @property
    def is_canceled(self) -> bool:
        return self.status == "CANCELED"

    @property
    def will_retry(self) -> bool:
        """Whether the daemon takes the work up in another run."""
        return self.is_failure and self.tags.get("dagster/will_retry") == "true"


@dataclass(frozen=True)
class Check:
    """The last evaluation of one asset check on one partition."""

    asset: str
    name: str
    passed: bool
    blocking: bool
    description: str
    run_id: str = ""
    warning: bool = False

    @property
    def objects(self) -> bool:
        """Whether it failed, and is more than a warning: what it guards is withheld, whether or not it blocks a run."""
        return not self.passed and not self.warning


class RunLog:
    """The runs of the Dagster instance in a home folder; a folder without one has none."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def runs(self, partitions: Iterable[str], assets: Iterable[str]) -> dict[str, list[Run]]:
        """Runs that touch one of `assets`, by partition, oldest first; every partition is a key of the answer."""
        wanted, touched = list(dict.fromkeys(partitions)), set(assets)
        found: dict[str, list[Run]] = {partition: [] for partition in wanted}
        with self._connect_runs() as connection:
            if connection is None:
                return found
            # SQLite takes a few hundred values in one statement.
            for start in range(0, len(wanted), 500):
                for run in self._of(connection, wanted[start : start + 500]):
                    if run.partition is not None and touched & run.assets:
                        found[run.partition].append(run)
        return found

    @staticmethod
    def _of(connection: sa.Connection, partitions: list[str]) -> list[Run]:
        ids = sa.select(_TAGS.c.run_id).where(_TAGS.c.key == PARTITION, _TAGS.c.value.in_(partitions))
        rows = connection.execute(sa.select(_RUNS).where(_RUNS.c.run_id.in_(ids)).order_by(_RUNS.c.id))
        return [_run(row) for row in rows.mappings()]

    def busy(self, partition: str, assets: Iterable[str]) -> bool:
        """Whether a run that touches `assets` works on a partition, waits to, or will be taken up by the daemon."""
        runs = self.runs([partition], assets)[partition]
        retried = {run.parent for run in runs}
        return any(not run.is_finished or (run.will_retry and run.id not in retried) for run in runs)

    def run(self, id: str) -> Run | None:
        """One run by its id, None when there is none."""
        with self._connect_runs() as connection:
            if connection is None:
                return None
            row = connection.execute(sa.select(_RUNS).where(_RUNS.c.run_id == id)).mappings().first()
            return _run(row) if row is not None else None

    def counts(self) -> dict[str, int]:
        """How many runs are on record, by status."""
        with self._connect_runs() as connection:
            if connection is None:
                return {}
            rows = connection.execute(sa.select(_RUNS.c.status, sa.func.count()).group_by(_RUNS.c.status)).all()
            return {status: count for status, count in rows}

    def oldest(self, status: str) -> float | None:
        """When the oldest run of a status was created, in seconds since the epoch; None where there is none."""
        with self._connect_runs() as connection:
            if connection is None:
                return None
            found = sa.select(sa.func.min(_RUNS.c.create_timestamp)).where(_RUNS.c.status == status)
            moment = connection.execute(found).scalar()
            return None if moment is None else _seconds(moment)

    def ended_since(self, status: str, since: float) -> int:
        """How many runs of a status ended after a moment, in seconds since the epoch."""
        with self._connect_runs() as connection:
            if connection is None:
                return 0
            found = sa.select(sa.func.count()).where(_RUNS.c.status == status, _RUNS.c.end_time >= since)
            return connection.execute(found).scalar() or 0

    def ended_before(self, moment: float) -> list[str]:
        """Ids of the runs that ended before a moment, in seconds since the epoch, oldest first."""
        with self._connect_runs() as connection:
            if connection is None:
                return []
            old = _RUNS.c.status.in_(_FINISHED), _RUNS.c.end_time < moment
            return list(connection.execute(sa.select(_RUNS.c.run_id).where(*old).order_by(_RUNS.c.id)).scalars())

    def daemon_beats(self) -> dict[str, float]:
        """When each part of the daemon last said that it is there, in seconds since the epoch; {} where none did."""
        with self._connect_runs() as connection:
            if connection is None or not sa.inspect(connection).has_table("daemon_heartbeats"):
                return {}
            beats = sa.table("daemon_heartbeats", sa.column("daemon_type"), sa.column("body"))
            rows = connection.execute(sa.select(beats.c.daemon_type, beats.c.body)).all()
        found = ((str(kind), json.loads(body).get("timestamp")) for kind, body in rows if body)
        return {kind: float(at) for kind, at in found if at}

    @contextmanager
    def events(self) -> Iterator[sa.Connection]:
        """A connection to the events of all runs, where they are in one database."""
        with self.instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]
            yield connection

    def failure(self, run_id: str) -> str | None:
        """What the first step that failed raised, or what the run itself ended with; None where it did not fail."""
        kinds = ("STEP_FAILURE", "PIPELINE_FAILURE", "PIPELINE_CANCELED")
        with self._connect_events(run_id) as connection:
            if connection is None:
                return None
            statement = (
                sa.select(_EVENTS.c.event)
                .where(_EVENTS.c.run_id == run_id, _EVENTS.c.dagster_event_type.in_(kinds))
                .order_by(_EVENTS.c.id)
                .limit(1)
            )
            text = connection.execute(statement).scalar()
        if text is None:
            return None
        event = json.loads(text)["dagster_event"]
        error = (event.get("event_specific_data") or {}).get("error")
        return root_message(error) if error else event.get("message") or None

    def checks(self, partition: str, assets: Iterable[str]) -> list[Check]:
        """The last evaluation of every check of `assets` on a partition."""
        keys = [json.dumps([asset]) for asset in assets]
        with self._connect_index() as connection:
            if connection is None:
                return []
            statement = (
                sa.select(_CHECKS.c.run_id, _CHECKS.c.evaluation_event)
                .where(
                    _CHECKS.c.partition == partition,
                    _CHECKS.c.asset_key.in_(keys),
                    _CHECKS.c.execution_status.in_(("SUCCEEDED", "FAILED")),
                )
                .order_by(_CHECKS.c.id)
            )
            rows = connection.execute(statement).all()
        found = [_check(json.loads(text)["dagster_event"]["event_specific_data"], run or "") for run, text in rows]
        return list({(check.asset, check.name): check for check in found}.values())

    def failed_checks(self, since: datetime) -> list[tuple[str, Check]]:
        """Checks whose last evaluation on a partition was after `since` and failed: (partition, check)."""
        with self._connect_index() as connection:
            if connection is None:
                return []
            done = _CHECKS.c.execution_status.in_(("SUCCEEDED", "FAILED")), _CHECKS.c.partition.is_not(None)
            groups = (_CHECKS.c.asset_key, _CHECKS.c.check_name, _CHECKS.c.partition)
            newest = sa.select(sa.func.max(_CHECKS.c.id)).where(*done).group_by(*groups)
            columns = (_CHECKS.c.partition, _CHECKS.c.run_id, _CHECKS.c.evaluation_event)
            statement = sa.select(*columns).where(_CHECKS.c.id.in_(newest)).order_by(_CHECKS.c.id)
            rows = connection.execute(statement).all()
        found = []
        for partition, run, text in rows:
            event = json.loads(text)
            if event["timestamp"] >= since.timestamp():
                found.append((partition, _check(event["dagster_event"]["event_specific_data"], run or "")))
        return [(partition, check) for partition, check in found if not check.passed]

    def unfinished_check(self, partition: str, assets: Iterable[str]) -> tuple[str, str, "Run | None"] | None:
        """A check that was planned and not evaluated since: its asset, its name and the run that was to; None if none.

        It holds up what depends on its partition until somebody evaluates it, whether or not that run still goes on.
        """
        keys = [json.dumps([asset]) for asset in assets]
        with self._connect_index() as connection:
            if connection is None:
                return None
            columns = (_CHECKS.c.asset_key, _CHECKS.c.check_name, _CHECKS.c.run_id, _CHECKS.c.execution_status)
            mine = _CHECKS.c.partition == partition, _CHECKS.c.asset_key.in_(keys)
            rows = connection.execute(sa.select(*columns).where(*mine).order_by(_CHECKS.c.id)).all()
        newest = {(asset, name): (run, status) for asset, name, run, status in rows}
        for (asset, name), (run, status) in newest.items():
            if status == "PLANNED":
                return json.loads(asset)[0], name, self.run(run or "")
        return None

    def failed_check(self, partition: str, assets: Iterable[str], run_id: str | None = None) -> Check | None:
        """The blocking check that holds up a partition (as a certain run found it); None when none does."""
        failed = [check for check in self.checks(partition, assets) if check.blocking and not check.passed]
        return next((check for check in reversed(failed) if run_id in (None, check.run_id)), None)

    @cached_property
    def instance(self) -> "dg.DagsterInstance":
        """Dagster's own view of the same storage, for what changes something."""
        os.environ["DAGSTER_HOME"] = str(self.home)
        import dagster as dg

        return dg.DagsterInstance.get()

    def cancel(self, partition: str, assets: Iterable[str], *, reach_seconds: float) -> list[str]:
        """End every run that touches one of `assets` on a partition; the ids of those that were reached.

        Raises RunUnreachable for one that is not reached within `reach_seconds`.
        """
        from resources.cancellation import cancel

        def active() -> "list[dg.DagsterRun]":
            ids = [run.id for run in self.runs([partition], assets)[partition] if not run.is_finished]
            found = (self.instance.get_run_by_id(id) for id in ids)
            return [run for run in found if run is not None]

        return cancel(self.instance, active, reach_seconds=reach_seconds)

    @cached_property
    def in_files(self) -> bool:
        """Whether the instance keeps its records in SQLite files below its home, which is Dagster's default."""
        try:
            config = yaml.safe_load((self.home / "dagster.yaml").read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            return True
        return not {"storage", "run_storage", "event_log_storage"} & set(config)

    @contextmanager
    def _connect_runs(self) -> Iterator[sa.Connection | None]:
        if self.in_files:
            with _file(self.home / "history" / "runs.db") as connection:
                yield connection
        else:
            with self.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
                yield connection

    @contextmanager
    def _connect_index(self) -> Iterator[sa.Connection | None]:
        if self.in_files:
            with _file(self.home / "history" / "runs" / "index.db") as connection:
                yield connection
        else:
            with self.instance.event_log_storage.index_connection() as connection:  # type: ignore[attr-defined]
                yield connection

    @contextmanager
    def _connect_events(self, run_id: str) -> Iterator[sa.Connection | None]:
        if self.in_files:
            with _file(self.home / "history" / "runs" / f"{run_id}.db") as connection:
                yield connection
        else:
            with self.instance.event_log_storage.run_connection(run_id) as connection:  # type: ignore[attr-defined]
                yield connection


@contextmanager
def _file(path: Path) -> Iterator[sa.Connection | None]:
    """A connection that only reads an SQLite file; None where the file, or its tables, are not there yet."""
    if not path.exists():
        yield None
        return
    engine = sa.create_engine(
        f"sqlite:///file:{path}?mode=ro&uri=true", poolclass=sa.NullPool, connect_args={"timeout": 30}
    )
    with engine.connect() as connection:
        yield connection if sa.inspect(connection).has_table("alembic_version") else None


def _run(row: sa.RowMapping) -> Run:
    body = json.loads(row["run_body"])
    selected = body.get("asset_selection") or {}
    if isinstance(selected, dict):
        # A run that takes up another has a set where that one had a frozen one.
        selected = selected.get("__frozenset__", selected.get("__set__", ()))
    keys = selected
    return Run(
        id=row["run_id"],
        # The column is what changes; the body repeats it.
        status=row["status"],
        assets=frozenset("/".join(key["path"]) for key in keys),
        tags=body.get("tags") or {},
        parent=body.get("parent_run_id"),
        created_at=_seconds(row["create_timestamp"]),
        ended_at=row["end_time"],
    )


def _seconds(moment: datetime | str) -> float:
    """Seconds since the epoch of a timestamp that Dagster stores in UTC without saying so."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    return (moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment).timestamp()


def _check(data: Mapping[str, Any], run_id: str) -> Check:
    warning = "WARN" in str(data.get("severity"))
    return Check(
        asset="/".join(data["asset_key"]["path"]),
        name=data["check_name"],
        passed=bool(data.get("success", data.get("passed"))),
        # A warning blocks nothing, whatever its check may do.
        blocking=bool(data.get("blocking")) and not warning,
        description=data.get("description") or "",
        run_id=run_id,
        warning=warning,
    )


def root_message(error: Any) -> str:
    """What a serialised error (Dagster's object or its JSON) says to a person, without our class names.

    A refusal of ours is a `dg.Failure`, whose text was written to be read; of any other error, its first cause.
    """

    def part(name: str) -> Any:
        return error.get(name) if isinstance(error, Mapping) else getattr(error, name, None)

    while part("cls_name") != "Failure" and part("cause") is not None:
        error = part("cause")
    return _OWN_ERROR.sub("", str(part("message") or error).strip()).strip()
