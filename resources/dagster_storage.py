"""Lets Dagster's storage in SQLite files keep an engine for each file, in place of one for every statement.

Dagster makes an engine, compiles each statement anew, and asks whether the schema is up to date, several times for each
look of a sensor: most of what an idle daemon and code server cost. The files, tables, locks and transactions stay as
they are, and a connection is still made for each transaction, so threads share none. Beside it an idle one is kept
open: whoever closes the last connection of a file writes its whole log back, which an event of a check did ten times.
"""

import atexit
import os
import sqlite3
import threading
from collections import OrderedDict
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
_MOST_OPEN = 6
"""Files that a connection is kept open to: the index, runs and ticks, and of the runs' own files the last few."""


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


class _IdleConnections:
    """One open connection to each of the last `most` files, which nothing is asked by."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: OrderedDict[str, tuple[os.stat_result, sqlite3.Connection]] = OrderedDict()
        self._lock = threading.Lock()

    def keep(self, path: str) -> None:
        """Hold the file open from now on; one that was put in the place of another is another one."""
        with self._lock:
            found, now = self._open.pop(path, None), os.stat(path)
            if found is not None and not os.path.samestat(found[0], now):
                found[1].close()
                found = None
            self._open[path] = found or (now, _idle(path))
            while len(self._open) > self._most:
                self._open.popitem(last=False)[1][1].close()

    def close(self) -> None:
        """Close all; each file whose last connection that was then has all that is in it."""
        with self._lock:
            while self._open:
                self._open.popitem()[1][1].close()

    def forked(self) -> None:
        """A child has the locks of none of them: it begins anew."""
        self._lock = threading.Lock()
        self.close()


def _idle(path: str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, SQLITE_BUSY_TIMEOUT_SECONDS, isolation_level=None, check_same_thread=False)
    # It is not open before it has read something.
    connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    return connection


_IDLE = _IdleConnections(_MOST_OPEN)
atexit.register(_IDLE.close)
os.register_at_fork(after_in_child=_IDLE.forked)


@lru_cache(maxsize=16)
def _engine(url: str) -> sa.Engine:
    engine = create_engine(url, poolclass=sa.NullPool, connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS})
    sa.event.listen(engine, "connect", _configure)
    return engine


def _configure(connection: Any, _record: Any) -> None:
    # As the catalog's: with a write-ahead log a file stays whole whenever the power goes. Each of the ten transactions
    # of a check would wait for the disk otherwise.
    connection.execute("PRAGMA synchronous=NORMAL")


@contextmanager
def _connect(storage: Any) -> Iterator[sa.Connection]:
    engine = _engine(storage._conn_string)
    with engine.begin() as connection:
        _IDLE.keep(str(engine.url.database))
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
    """The index of all is what everybody reads; a run has a file of its own, which is written to while it goes."""

    @contextmanager
    def connect_index(storage: Any, shard: str) -> Iterator[sa.Connection]:
        url, path = storage.conn_string_for_shard(shard), storage.path_for_shard(shard)
        prepared = url in _PREPARED if shard == INDEX_SHARD_NAME else shard in storage._initialized_dbs
        if prepared and Path(path).exists():
            with storage._db_lock, _engine(url).begin() as connection:
                _IDLE.keep(path)
                yield connection
            return
        with connect(storage, shard) as connection:
            yield connection
        if shard == INDEX_SHARD_NAME:
            _PREPARED.add(url)

    return connect_index
