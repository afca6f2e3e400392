"""Lets Dagster's storage in SQLite files keep an engine for each file, in place of one for every statement.

Dagster makes an engine, compiles each statement anew, and asks whether the schema is up to date, several times for each
look of a sensor: most of what an idle daemon and code server cost. The files, tables, locks and transactions stay as
they are, and a connection is still made for each transaction, so threads share none.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.schedules import SqliteScheduleStorage
from dagster._core.storage.sql import create_engine
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS, create_db_conn_string

_PREPARED: set[str] = set()
"""URLs of the files whose schema this process has seen to."""
_RECENT: set[str] = set()
"""URLs of the files of ticks whose tables are those of a recent Dagster."""


def share_engines() -> None:
    """From here on, in this process; calling it again changes nothing. PostgreSQL is not concerned."""
    if _PATCHED.get(SqliteRunStorage):
        return
    for storage, file in ((SqliteRunStorage, "runs"), (SqliteScheduleStorage, "schedules")):
        _PATCHED[storage] = True
        _replace(storage, connect=_connect, from_local=classmethod(_prepared_once(storage.from_local.__func__, file)))
    _replace(SqliteScheduleStorage, has_instigators_table=_is_recent(SqliteScheduleStorage.has_instigators_table))
    _replace(SqliteEventLogStorage, _connect=_connect_index(SqliteEventLogStorage._connect))


_PATCHED: dict[type, bool] = {}


def _replace(storage: type, **methods: Any) -> None:
    for name, method in methods.items():
        setattr(storage, name, method)


@lru_cache(maxsize=8)
def _engine(url: str) -> sa.Engine:
    return create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})


@contextmanager
def _connect(storage: Any) -> Iterator[sa.Connection]:
    with _engine(storage._conn_string).begin() as connection:
        yield connection


def _prepared_once(from_local: Callable[..., Any], file: str) -> Callable[..., Any]:
    def prepared(cls: Any, base_dir: str, inst_data: Any = None) -> Any:
        url = create_db_conn_string(base_dir, file)
        if url in _PREPARED and Path(base_dir, f"{file}.db").exists():
            return cls(url, inst_data)
        storage = from_local(cls, base_dir, inst_data)
        _PREPARED.add(url)
        return storage

    return prepared


def _is_recent(has_instigators_table: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def recent(storage: Any) -> bool:
        if storage._conn_string not in _RECENT and has_instigators_table(storage):
            _RECENT.add(storage._conn_string)
        return storage._conn_string in _RECENT

    return recent


def _connect_index(
    connect: Callable[[Any, str], AbstractContextManager[sa.Connection]],
) -> Callable[[Any, str], AbstractContextManager[sa.Connection]]:
    """A run has a file of its own, which few ever look into; the index of all is what everybody reads."""

    @contextmanager
    def connect_index(storage: Any, shard: str) -> Iterator[sa.Connection]:
        url = storage.conn_string_for_shard(shard)
        if shard == INDEX_SHARD_NAME and url in _PREPARED and Path(storage.path_for_shard(shard)).exists():
            with storage._db_lock, _engine(url).begin() as connection:
                yield connection
            return
        with connect(storage, shard) as connection:
            yield connection
        if shard == INDEX_SHARD_NAME:
            _PREPARED.add(url)

    return connect_index
