"""Rows that stand for what was counted within a minute: added to as it is shipped, each part once."""

from collections.abc import Collection

import sqlalchemy as sa

from resources.catalog.database import Database, Row, Transaction
from resources.catalog.inserts import insert_into


def add_to_minute(transaction: Transaction, table: sa.Table, row: Row, sums: Collection[str]) -> bool:
    """Add a worker's counts to the row with their id; False where they are in it already, as numbers only grow."""
    statement = insert_into(transaction, table).values(row)
    added = statement.excluded
    before = sa.func.coalesce(table.c.sequences, sa.cast(table.c.sequence, sa.Text))
    values = {name: table.c[name] + added[name] for name in sums}
    values |= {"sequence": added.sequence, "sequences": before + "," + sa.cast(added.sequence, sa.Text)}
    statement = statement.on_conflict_do_update(
        index_elements=["id"], set_=values, where=table.c.sequence < added.sequence
    )
    return transaction.execute(statement.returning(table.c.id)).first() is not None


def entries_between(database: Database, table: sa.Table, worker: str, first: int, last: int) -> int:
    """How many of a worker's entries with a number from `first` to `last` are in rows of a table."""
    mine = table.c.worker == worker, table.c.sequence >= first
    single = table.c.sequences.is_(None), table.c.sequence <= last
    count = int(database.scalar(sa.select(sa.func.count()).where(*mine, *single)))
    several = database.rows(sa.select(table.c.sequences).where(*mine, table.c.sequences.is_not(None)))
    return count + sum(first <= int(number) <= last for row in several for number in row["sequences"].split(","))
