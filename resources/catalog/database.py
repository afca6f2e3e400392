"""The one way to the catalog's database: its engine, its migrations, its transactions and its locks."""

import fcntl
import hashlib
import json
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy import event, exc

from resources.catalog import audit_chain
from resources.catalog import tables as t
from resources.catalog.errors import Busy, CatalogDamaged, CatalogTooNew, NotFound
from resources.stored_paths import StoredPaths

HEAD = "0023"
MIGRATIONS = Path(__file__).parent / "migrations"
_BUSY_SECONDS = 30
PATIENCE = {
    "connect_timeout": 10,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 60_000,
}
"""Parameters of libpq: seconds, but the last, which is milliseconds."""
_POOL = {"pool_size": 5, "max_overflow": 5, "pool_pre_ping": True}
"""Of a process on PostgreSQL: ten connections at most, as docs/operate.md counts them; who needs one more waits."""
_BEGIN = "llmops_begin"

Query = sa.Select[*tuple[Any, ...]]
Row = dict[str, Any]
"""A row by the names of its columns."""


def now() -> datetime:
    """The present moment, aware and in UTC, as the catalog keeps times."""
    return datetime.now(UTC)


class Transaction:
    """A transaction that writes: all of it is kept, its audit lines included, or nothing.

    On SQLite it is the only one that writes, from its first statement on. On PostgreSQL rows are locked as they are
    changed; where several tables are, the order is experiments, endpoints, intents, so that none waits in a circle.
    """

    def __init__(self, connection: sa.Connection, actor: str) -> None:
        self.connection = connection
        self.actor = actor
        self._lines: list[Row] = []

    def execute(self, statement: sa.Executable, *parameters: Any) -> sa.CursorResult[Any]:
        return self.connection.execute(statement, *parameters)

    def first(self, statement: Query, *, lock: bool = False) -> Row | None:
        """The first row, or None; with `lock` nobody else changes it until this transaction ends."""
        found = self.connection.execute(statement.with_for_update() if lock else statement).mappings().first()
        return None if found is None else _row(found)

    def only(self, statement: Query, *, lock: bool = False) -> Row:
        """The first row of what is known to have one."""
        found = self.first(statement, lock=lock)
        if found is None:
            raise LookupError(f"a row that was there a moment ago is gone: {statement}")
        return found

    def changed(self, statement: sa.Update | sa.Delete) -> int:
        """How many rows a statement changed: with a condition on what was read, whether the comparison held."""
        return self.connection.execute(statement).rowcount

    def insert_missing(self, table: sa.Table, values: Mapping[str, Any]) -> bool:
        """Insert a row unless a unique index knows one like it; True when it was inserted."""
        # Each costs a command more to import than it has for it; only the one in use is.
        if self.connection.dialect.name == "postgresql":
            from sqlalchemy.dialects.postgresql import insert
        else:
            from sqlalchemy.dialects.sqlite import insert
        statement = insert(table).values(dict(values)).on_conflict_do_nothing()
        return self.connection.execute(statement.returning(*table.primary_key.columns)).first() is not None

    def serialize(self, name: str) -> None:
        """Let no other transaction that serializes the same name run until this one ends."""
        if self.connection.dialect.name == "postgresql":
            self.connection.execute(sa.text("SELECT pg_advisory_xact_lock(:key)"), {"key": _lock_key(name)})

    def audit(self, action: str, target: str, **detail: Any) -> None:
        """Append a line to the audit log. Only for what this transaction changed."""
        # As it will be read again: what is hashed is what is stored.
        kept = json.loads(json.dumps(detail))
        self._lines.append({"at": now(), "actor": self.actor, "action": action, "target": target, "detail": kept})

    def append_lines(self) -> None:
        """Write the lines of the audit log behind the last one, at the end of the transaction.

        Whoever has the end of the chain keeps others from it until the transaction is over: so it is taken last, when
        nothing else is waited for any more, and only for a moment.
        """
        if not self._lines:
            return
        head = self.only(sa.select(t.audit_head), lock=True)
        previous = head["sha256"]
        for line in self._lines:
            own = audit_chain.digest(previous, line)
            self.connection.execute(t.audit.insert().values(**line, previous=previous, sha256=own))
            previous = own
        end = {"lines": head["lines"] + len(self._lines), "sha256": previous}
        self.connection.execute(t.audit_head.update().values(end))
        self._lines = []


class Database:
    """The catalog's database at an SQLAlchemy URL; the schema is brought up to date on first use.

    Paths in it are written by the root of `paths` that they lie under; by default the folder of an SQLite file.
    """

    def __init__(self, url: str, paths: StoredPaths | None = None) -> None:
        self.url = url
        file = sa.make_url(url).database if url.startswith("sqlite") else None
        self.paths = paths or StoredPaths(Path(file).absolute().parent if file else None)

    @cached_property
    def engine(self) -> sa.Engine:
        """The engine, migrated. For this package and its tests alone."""
        engine = self._connectable
        if _revision(engine) != HEAD:
            self.migrate()
        return engine

    @cached_property
    def identity(self) -> str:
        """What names this catalog for ever, wherever it is moved."""
        return str(self.scalar(sa.select(t.installation.c.identity)))

    def close(self) -> None:
        """End the connections that are kept open for the next use."""
        if "_connectable" in vars(self):
            self._connectable.dispose()

    @cached_property
    def _connectable(self) -> sa.Engine:
        is_sqlite = self.url.startswith("sqlite")
        if is_sqlite:
            Path(sa.make_url(self.url).database or "").parent.mkdir(parents=True, exist_ok=True)
        more: dict[str, Any] = (
            {"connect_args": {"timeout": _BUSY_SECONDS}} if is_sqlite else _POOL | _patience(self.url)
        )
        engine = sa.create_engine(self.url, **more)
        t.keep_paths(engine, self.paths)
        if is_sqlite:
            event.listen(engine, "connect", _configure)
            event.listen(engine, "begin", _begin)
        return engine

    def migrate(self, revision: str = "head") -> None:
        """Bring the schema to a revision, forwards or back, one process at a time."""
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        script = ScriptDirectory.from_config(config)
        order = [found.revision for found in script.walk_revisions()][::-1]
        wanted = order[-1] if revision == "head" else revision
        with self._migrating(), self._begun("IMMEDIATE") as connection:
            config.attributes["connection"] = connection
            current = _revision_of(connection)
            if current is not None and current not in order:
                raise CatalogTooNew(
                    f"the catalog {self._connectable.url!r} has the schema {current}, which is later than {HEAD}, the "
                    "last that this version of the platform knows: run the version that wrote it, or restore a backup"
                )
            if current is not None and order.index(wanted) < order.index(current):
                command.downgrade(config, wanted)
            else:
                command.upgrade(config, wanted)

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection to read with; all that is read on it is of one moment on SQLite."""
        with self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self, actor: str) -> Iterator[Transaction]:
        """A transaction of `actor`, committed at the end of the block and rolled back by an exception."""
        _ = self.engine
        with self._begun("IMMEDIATE") as connection:
            transaction = Transaction(connection, actor)
            yield transaction
            transaction.append_lines()

    @contextmanager
    def _begun(self, mode: str) -> Iterator[sa.Connection]:
        connection = self._connectable.connect().execution_options(**{_BEGIN: mode})
        with connection, connection.begin():
            yield connection

    def rows(self, statement: Query) -> list[Row]:
        with self.read() as connection, self._named(statement):
            return [_row(found) for found in connection.execute(statement).mappings()]

    @contextmanager
    def _named(self, statement: Query) -> Iterator[None]:
        """Raises CatalogDamaged, with the tables, for a value that a column cannot hold."""
        try:
            yield
        except ValueError as error:
            tables = ", ".join(sorted({table.description for table in getattr(statement, "columns_clause_froms", ())}))
            # Without its cause: what shows the first cause of a failed step would show a parser's words alone.
            raise CatalogDamaged(
                f"the catalog {self._connectable.url!r} holds a value in {tables} that is none of its column "
                f"({error}): restore it from a backup"
            ) from None

    def scalar(self, statement: Query) -> Any:
        with self.read() as connection:
            return connection.execute(statement).scalar()

    def one(self, table: sa.Table, key: Any, what: str) -> Row:
        """The row with a primary key; NotFound names `what` is missing and what there is."""
        column = next(iter(table.primary_key.columns))
        statement = sa.select(table).where(column == key)
        with self.read() as connection:
            with self._named(statement):
                row = connection.execute(statement).mappings().first()
            if row is not None:
                return _row(row)
            known = [str(k) for k in connection.execute(sa.select(column).order_by(column).limit(10)).scalars()]
        raise NotFound(f"there is no {what} {key!r}; known are: {', '.join(known) or 'none yet'}")

    def lock(self, name: str, timeout: float = 60.0) -> AbstractContextManager[None]:
        """Hold the lock of that name, however long, against every thread, process and machine on this catalog.

        It ends with the process that holds it. `timeout` in seconds is how long it is waited for; then `Busy`. Who
        holds a lock and asks for it again waits for itself. No transaction is open meanwhile: others read and write.
        """
        if self._connectable.dialect.name == "postgresql":
            return _advisory_lock(self._connectable, name, timeout)
        return _file_lock(Path(f"{self._connectable.url.database}.locks"), name, timeout)

    def compact(self) -> None:
        """Give the pages of deleted text back, so that no byte of it is left in an SQLite file or its log."""
        if self.engine.dialect.name != "sqlite":
            return
        with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("VACUUM")
            connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _migrating(self) -> Iterator[None]:
        """Hold a lock that other processes migrating the same catalog wait for, those of earlier versions too."""
        engine = self._connectable
        if engine.dialect.name == "postgresql":
            with _advisory_lock(engine, "llmops catalog migration", 600.0):
                yield
            return
        with open(f"{engine.url.database}.migrating", "w") as lock:
            deadline = time.monotonic() + 60
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Busy(f"another process has been migrating {engine.url!r} for a minute") from None
                    time.sleep(0.05)
            yield


def _row(found: sa.RowMapping) -> Row:
    return cast(Row, dict(found))


def _configure(connection: Any, _record: Any) -> None:
    # Transactions are begun by `_begin`; the driver's own would begin at the first write, too late to lock for it.
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")


def _begin(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    if options.get("isolation_level") != "AUTOCOMMIT":
        # A transaction that first reads and then writes is refused on SQLite when another wrote in between: what
        # will write says so at once, and waits for its turn.
        connection.exec_driver_sql(f"BEGIN {options.get(_BEGIN, 'DEFERRED')}")


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        return _revision_of(connection)


def _revision_of(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


def _lock_key(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7])


def _patience(url: str) -> dict[str, Any]:
    """How long a PostgreSQL that says nothing is waited for, as far as its URL does not say.

    Without, a host that a firewall or a broken network hides is waited for until the kernel gives up, after minutes to
    a quarter of an hour; one that accepts and then hangs is waited for without end.
    """
    given = sa.make_url(url).query
    return {"connect_args": {name: value for name, value in PATIENCE.items() if name not in given}}


@contextmanager
def _advisory_lock(engine: sa.Engine, name: str, timeout: float) -> Iterator[None]:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        # Its own, closed for good at the end: no other is waited for while this one is held, and whatever happens in
        # between, the lock goes with the connection.
        connection.detach()
        key = {"key": _lock_key(name)}
        deadline = time.monotonic() + timeout
        pause = 0.01
        while not connection.execute(sa.text("SELECT pg_try_advisory_lock(:key)"), key).scalar():
            if time.monotonic() >= deadline:
                raise _busy(name, timeout)
            time.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(2 * pause, 0.25)
        try:
            yield
        finally:
            # The server is slow to notice that a connection ended. One that broke has lost the lock already.
            with suppress(exc.DBAPIError):
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), key)


@contextmanager
def _file_lock(folder: Path, name: str, timeout: float) -> Iterator[None]:
    """An SQLite file a name, in which a transaction is open as long as the lock is held: the kernel ends it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.db"
    connection = sqlite3.connect(path, timeout=timeout, isolation_level=None)
    try:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            raise _busy(name, timeout) from None
        yield
    finally:
        connection.close()


def _busy(name: str, timeout: float) -> Busy:
    return Busy(f"the lock {name!r} is held by another process, still after {timeout:g} s: wait until that is done")
