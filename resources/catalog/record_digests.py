"""What each record was written as: `catalog.record_digests`, which `Records` holds its files to."""

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database


class RecordDigests:
    """SHA-256 of records by name; while one is being written, of what it was and of what it becomes."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def expect(self, record: str, sha256: str) -> int:
        """Note what a record is about to be, beside what it is; the number of that note."""
        statement = t.record_digests.insert().values(record=record, sha256=sha256).returning(t.record_digests.c.id)
        with self.database.write("records") as transaction:
            return int(transaction.execute(statement).scalar_one())

    def settle(self, record: str, number: int) -> None:
        """Forget what a record was before the note of that number: it is written."""
        table = t.record_digests
        with self.database.write("records") as transaction:
            transaction.execute(table.delete().where(table.c.record == record, table.c.id < number))

    def of(self, record: str) -> set[str]:
        """What a record may be; empty for one that an earlier release wrote."""
        table = t.record_digests
        return {row["sha256"] for row in self.database.rows(sa.select(table).where(table.c.record == record))}

    def of_asset(self, asset: str) -> dict[str, set[str]]:
        """The same of every record of an asset, by name."""
        table = t.record_digests
        found: dict[str, set[str]] = {}
        statement = sa.select(table).where(table.c.record.startswith(f"{asset}/", autoescape=True))
        for row in self.database.rows(statement):
            found.setdefault(row["record"], set()).add(row["sha256"])
        return found
