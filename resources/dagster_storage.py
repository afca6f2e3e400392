"""Dagster's storage in SQLite files, with an engine a process instead of one for every statement.

The same files, tables and locks as Dagster's own, at the places that it takes by default. That one makes an engine,
compiles each statement anew, and asks whether the schema is up to date, several times for each look of a sensor: most
of what an idle daemon and code server cost. A connection is still made for each statement, so threads share none.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string
from dagster._serdes import ConfigurableClassData

_PREPARED: set[str] = set()
"""Files whose schema this process has seen to."""


@lru_cache(maxsize=8)
def _engine(url: str) -> sa.Engine:
    return create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})


def _folder(*parts: str) -> str:
    return str(Path(os.environ["DAGSTER_HOME"]).joinpath(*parts))


class RunStorage(SqliteRunStorage):
    """Runs, their tags, and the heartbeats of the daemon."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "RunStorage":
        folder = _folder("history")
        url = create_db_conn_string(folder, "runs")
        if url in _PREPARED and Path(folder, "runs.db").exists():
            return cls(url, inst_data)
        storage = cls.from_local(folder, inst_data)
        _PREPARED.add(url)
        return storage

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        with _engine(self._conn_string).begin() as connection:
            yield connection


class TickStorage(SqliteScheduleStorage):
    """Sensors and their ticks."""

    _has_instigators = False

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> SqliteScheduleStorage:
        folder = _folder("schedules")
        url = create_db_conn_string(folder, "schedules")
        if url in _PREPARED and Path(folder, "schedules.db").exists():
            return cls(url, inst_data)
        storage = cls.from_local(folder, inst_data)
        _PREPARED.add(url)
        return storage

    @contextmanager
    def connect(self) -> Iterator[sa.Connection]:
        with _engine(self._conn_string).begin() as connection:
            yield connection

    def has_instigators_table(self) -> bool:
        """Whether the tables are of a recent Dagster; once they are, they stay."""
        self._has_instigators = self._has_instigators or super().has_instigators_table()
        return self._has_instigators


class EventStorage(SqliteEventLogStorage):
    """The events of runs, a file a run, and the index of what assets and checks came to."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> "EventStorage":
        return cls(_folder("history", "runs"), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[sa.Connection]:
        url = self.conn_string_for_shard(shard)
        if shard != INDEX_SHARD_NAME or url not in _PREPARED or not Path(self.path_for_shard(shard)).exists():
            with super()._connect(shard) as connection:
                yield connection
            if shard == INDEX_SHARD_NAME:
                _PREPARED.add(url)
            return
        with self._db_lock, _engine(url).begin() as connection:
            yield connection
