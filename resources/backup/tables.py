"""A database on a server, row by row: read in one transaction, so that all is of one moment, and written in one."""

import base64
import gzip
import json
import warnings
from collections.abc import Callable, Iterator
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import sqlalchemy.exc

REVISION = "alembic_version"
"""The table in which Alembic notes the revision of a schema."""
_BATCH = 500


class NotEmpty(RuntimeError):
    """A database that is to be restored into holds rows already."""


class OtherSchema(RuntimeError):
    """A database has another schema than the one that was backed up."""


def dump(url: str) -> Iterator[bytes]:
    """All tables of the database at an SQLAlchemy URL, as compressed lines of JSON; each begins with its columns."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            if connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ")
            yield from _compressed(_lines(connection))
    finally:
        engine.dispose()


def load(url: str, file: Path) -> None:
    """Write what `dump` gave into the database at `url`, whose tables are there and hold nothing of anybody's yet.

    What the making of the schema itself put there goes first. Raises OtherSchema where the revision differs, or a table
    is missing. All of it is written, or nothing.
    """
    engine = sa.create_engine(url)
    try:
        with engine.begin() as connection:
            metadata = reflected(connection)
            wanted = _columns(file)
            _same_schema(connection, metadata, wanted, file)
            for table in reversed(metadata.sorted_tables):
                if table.name in wanted and table.name != REVISION:
                    _empty(connection, table)
            for table, rows in _read(file, metadata):
                if table.name != REVISION:
                    connection.execute(table.insert(), rows)
            if connection.dialect.name == "postgresql":
                for table in metadata.tables.values():
                    _go_on_counting(connection, table)
    finally:
        engine.dispose()


def refuse_filled(url: str) -> None:
    """Raise NotEmpty where the database at `url` has tables already."""
    engine = sa.create_engine(url)
    try:
        found = sa.inspect(engine).get_table_names()
    finally:
        engine.dispose()
    if found:
        shown = sa.make_url(url).render_as_string(hide_password=True)
        raise NotEmpty(f"{shown} has {len(found)} tables already: restore into an empty database")


def faults(url: str, *, quick: bool = False) -> Iterator[tuple[str, str]]:
    """What is wrong with a database on a server, and what to do about each; with `quick` no row is read.

    Every value of every table is read, each table by itself, so that one fault hides no other. Indexes of texts are
    wrong without a word where the system under PostgreSQL sorts otherwise now, as with another C library.
    """
    engine = sa.create_engine(url, connect_args={"connect_timeout": 10})
    try:
        with engine.connect() as connection:
            tables = [] if quick else reflected(connection).sorted_tables
            version = connection.dialect.server_version_info or (0,)
            if connection.dialect.name == "postgresql" and int(version[0]) >= _TELLS_COLLATION:
                name, made, now = connection.execute(sa.text(_COLLATION)).one()
                if made != now:
                    yield (
                        f"its indexes were made where texts are sorted as in version {made}, and here it is {now}",
                        f'REINDEX DATABASE "{name}", then ALTER DATABASE "{name}" REFRESH COLLATION VERSION',
                    )
        for table in tables:
            try:
                with engine.connect().execution_options(stream_results=True) as connection:
                    for _ in connection.execute(sa.select(table)):
                        pass
            except sa.exc.DBAPIError as error:
                yield f"table {table.name} cannot be read: {error.orig}", _RESTORE
    except sa.exc.DBAPIError as error:
        yield f"it cannot be read: {error.orig}", "see whether the server is there (llmops doctor), or restore a backup"
    finally:
        engine.dispose()


_TELLS_COLLATION = 15
"""The first PostgreSQL that keeps how the texts of a database were sorted when it was made."""
_RESTORE = "restore a backup: llmops restore DIR"
_COLLATION = (
    "SELECT datname, datcollversion, pg_database_collation_actual_version(oid) FROM pg_database "
    "WHERE datname = current_database()"
)


def _empty(connection: sa.Connection, table: sa.Table) -> None:
    """Take out what is in a table: also where rows can only be added, as in the audit log."""
    if connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first() is None:
        return
    is_guarded = connection.dialect.name == "postgresql"
    name = connection.dialect.identifier_preparer.format_table(table)
    if is_guarded:
        connection.execute(sa.text(f"ALTER TABLE {name} DISABLE TRIGGER USER"))
    connection.execute(table.delete())
    if is_guarded:
        connection.execute(sa.text(f"ALTER TABLE {name} ENABLE TRIGGER USER"))


def reflected(connection: sa.Connection) -> sa.MetaData:
    """The tables of a database as they are there."""
    metadata = sa.MetaData()
    with warnings.catch_warnings():
        # Of indexes and types that it does not know; rows are all that is wanted.
        warnings.simplefilter("ignore", sa.exc.SAWarning)
        metadata.reflect(connection)
    return metadata


def _lines(connection: sa.Connection) -> Iterator[bytes]:
    for table in reflected(connection).sorted_tables:
        yield json.dumps({"table": table.name, "columns": [column.name for column in table.columns]}).encode()
        kinds = [isinstance(column.type, sa.JSON) for column in table.columns]
        result = connection.execution_options(stream_results=True).execute(sa.select(table))
        for row in result:
            try:
                yield json.dumps([_plain(v, is_json) for v, is_json in zip(row, kinds, strict=True)]).encode()
            except TypeError as error:
                raise TypeError(f"{error}: table {table.name}, columns {', '.join(table.columns.keys())}") from error


def _compressed(lines: Iterator[bytes]) -> Iterator[bytes]:
    held: list[bytes] = []
    size = 0
    for line in lines:
        held.append(line + b"\n")
        size += len(line)
        if size > 1 << 20:
            # Members of gzip follow each other as one file; without a time, equal rows are equal bytes.
            yield gzip.compress(b"".join(held), mtime=0)
            held.clear()
            size = 0
    yield gzip.compress(b"".join(held), mtime=0)


def _plain(value: Any, is_json: bool) -> Any:
    if value is None or (not is_json and isinstance(value, str | bool | int | float)):
        return value
    if is_json:
        return {"json": value}
    if isinstance(value, datetime):
        return {"datetime": value.isoformat()}
    if isinstance(value, date):
        return {"date": value.isoformat()}
    if isinstance(value, bytes | memoryview):
        return {"bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, Decimal):
        return {"decimal": str(value)}
    raise TypeError(f"a value of type {type(value).__name__} cannot be backed up")


def _as_it_is(value: Any) -> Any:
    return value


_READ: dict[str, Callable[[Any], Any]] = {
    "json": _as_it_is,
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "bytes": base64.b64decode,
    "decimal": Decimal,
}


def _value(plain: Any) -> Any:
    if not isinstance(plain, dict):
        return plain
    ((kind, value),) = plain.items()
    return _READ[kind](value)


def _columns(file: Path) -> dict[str, list[str]]:
    with gzip.open(file, "rb") as lines:
        heads = (json.loads(line) for line in lines if line.startswith(b"{"))
        return {head["table"]: head["columns"] for head in heads}


def _revision_of(file: Path) -> list[Any]:
    found: list[Any] = []
    with gzip.open(file, "rb") as lines:
        table = None
        for line in lines:
            if line.startswith(b"{"):
                table = json.loads(line)["table"]
            elif table == REVISION:
                found.append(json.loads(line))
    return sorted(found)


def _same_schema(connection: sa.Connection, metadata: sa.MetaData, wanted: dict[str, list[str]], file: Path) -> None:
    here: list[Any] = []
    if REVISION in metadata.tables:
        here = sorted(list(row) for row in connection.execute(sa.select(metadata.tables[REVISION])))
    there = _revision_of(file)
    missing = sorted(set(wanted) - set(metadata.tables))
    if here != there or missing:
        raise OtherSchema(
            f"the backup has the schema {there or 'of no revision'}, and this version of the platform makes "
            f"{here or 'one of no revision'}" + (f" without the tables {', '.join(missing)}" if missing else "")
            + ": restore with the version that made the backup, and upgrade then"
        )  # fmt: skip


def _read(file: Path, metadata: sa.MetaData) -> Iterator[tuple[sa.Table, list[dict[str, Any]]]]:
    table: sa.Table | None = None
    columns: list[str] = []
    rows: list[dict[str, Any]] = []
    with gzip.open(file, "rb") as lines:
        for line in lines:
            found = json.loads(line)
            if isinstance(found, dict):
                if table is not None and rows:
                    yield table, rows
                table, columns = metadata.tables[found["table"]], found["columns"]
                rows = list[dict[str, Any]]()
                continue
            rows.append(dict(zip(columns, map(_value, found), strict=True)))
            if len(rows) >= _BATCH and table is not None:
                yield table, rows
                rows = list[dict[str, Any]]()
    if table is not None and rows:
        yield table, rows


def _go_on_counting(connection: sa.Connection, table: sa.Table) -> None:
    """Have numbers that the server draws begin behind those that are there."""
    for column in table.primary_key.columns:
        if not isinstance(column.type, sa.Integer):
            continue
        name = connection.dialect.identifier_preparer.format_table(table)
        sequence = connection.execute(
            sa.text("SELECT pg_get_serial_sequence(:table, :column)"), {"table": name, "column": column.name}
        ).scalar()
        if sequence is not None:
            newest = connection.execute(sa.select(sa.func.max(column))).scalar()
            connection.execute(
                sa.text("SELECT setval(CAST(:sequence AS regclass), :newest, :is_used)"),
                {"sequence": sequence, "newest": newest or 1, "is_used": newest is not None},
            )
