"""Copies of databases that are changed and thrown away: what would become of the originals is tried on them."""

import secrets
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from resources.backup import sqlite, tables

_PREFIX = "llmops_scratch_"
MakeTables = Callable[[str], None]
"""Makes the tables of a copy at its URL, of the revision of the original; without it, as they are there."""


@contextmanager
def scratch_copy(url: str, folder: Path, make_tables: MakeTables | None = None) -> Iterator[str]:
    """The URL of a copy of the database at `url`, which is gone at the end of the block.

    Of an SQLite file the copy lies in `folder`. On a server it is a schema beside the original's, in its own database,
    so that it is of the same kind and nobody needs more rights; it takes as much room again. A copy that a killed
    process left is removed by the next one. What reads or writes the original meanwhile is not held up.
    """
    if url.startswith("sqlite"):
        source = Path(sa.make_url(url).database or "")
        copy = folder / source.name
        sqlite.copy(source, copy)
        yield f"sqlite:///{copy}"
        return
    with _schema(url) as there:
        (make_tables or (lambda here: _same_tables(url, here)))(there)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            rows = Path(place, "rows")
            with rows.open("wb") as stream:
                stream.writelines(tables.dump(url))
            tables.load(there, rows)
        yield there


def row_counts(url: str) -> dict[str, int]:
    """The rows of each table of a database."""
    engine = sa.create_engine(url)
    try:
        with engine.connect() as connection:
            names = sa.inspect(connection).get_table_names()
            return {
                name: int(connection.execute(sa.select(sa.func.count()).select_from(sa.table(name))).scalar() or 0)
                for name in sorted(names)
            }
    finally:
        engine.dispose()


@contextmanager
def _schema(url: str) -> Iterator[str]:
    """The URL of a schema of its own in the database at `url`."""
    name = f"{_PREFIX}{secrets.token_hex(6)}"
    made = sa.make_url(url)
    before = made.query.get("options", "")
    given = before if isinstance(before, str) else " ".join(before)
    there = made.update_query_dict({"options": f"{given} -csearch_path={name}".strip()})
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT")
    try:
        with engine.connect() as connection:
            _remove_left(connection)
            # Held as long as the copy is used: by it others see that somebody does.
            connection.execute(sa.text("SELECT pg_advisory_lock(hashtext(:name))"), {"name": name})
            connection.execute(sa.text(f"CREATE SCHEMA {name}"))
            try:
                yield there.render_as_string(hide_password=False)
            finally:
                connection.execute(sa.text(f"DROP SCHEMA {name} CASCADE"))
    finally:
        engine.dispose()


def _remove_left(connection: sa.Connection) -> None:
    """Remove copies whose process has ended without doing so."""
    for name in sa.inspect(connection).get_schema_names():
        if not name.startswith(_PREFIX):
            continue
        if connection.execute(sa.text("SELECT pg_try_advisory_lock(hashtext(:name))"), {"name": name}).scalar():
            connection.execute(sa.text(f"DROP SCHEMA IF EXISTS {name} CASCADE"))
            connection.execute(sa.text("SELECT pg_advisory_unlock(hashtext(:name))"), {"name": name})


def _same_tables(source: str, target: str) -> None:
    """Make the tables of one database in another, with keys, indexes and the revision that Alembic has noted."""
    one, two = sa.create_engine(source), sa.create_engine(target)
    try:
        with one.connect() as there, two.begin() as here:
            metadata = tables.reflected(there)
            for column in (column for table in metadata.tables.values() for column in table.columns):
                default = getattr(column.server_default, "arg", None)
                if str(default).startswith("nextval("):
                    # The sequence of the original; the copy gets its own.
                    column.server_default = None
            metadata.create_all(here, checkfirst=False)
            revision = metadata.tables.get(tables.REVISION)
            if revision is not None:
                for row in there.execute(sa.select(revision)).all():
                    here.execute(revision.insert().values(tuple(row)))
    finally:
        one.dispose()
        two.dispose()
