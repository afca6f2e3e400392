"""Copies of SQLite files that others write to meanwhile: by SQLite's own online backup, never by reading the file."""

import sqlite3
from contextlib import closing
from pathlib import Path

MAGIC = b"SQLite format 3\0"
BESIDE = ("-wal", "-shm", "-journal")
"""What SQLite keeps beside a file that is open: it is in the copy already."""
_BUSY_SECONDS = 60


def is_sqlite(path: Path) -> bool:
    """Whether a file is a database of SQLite."""
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def is_quiet(path: Path) -> bool:
    """Whether all of a database is in its file."""
    wal = path.with_name(f"{path.name}-wal")
    return not wal.exists() or wal.stat().st_size == 0


def copy(source: Path, target: Path) -> None:
    """Write all of a database, as it is at one moment, to a new file."""
    with closing(sqlite3.connect(source, timeout=_BUSY_SECONDS)) as one, closing(sqlite3.connect(target)) as two:
        one.backup(two)


def fault(path: Path) -> str | None:
    """What SQLite says is wrong with a file; None where nothing is."""
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_SECONDS)) as connection:
            found = [row[0] for row in connection.execute("PRAGMA quick_check(5)")]
    except sqlite3.DatabaseError as error:
        return str(error)
    return None if found == ["ok"] else "; ".join(found)
