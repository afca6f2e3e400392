"""Inserts that pass over what is there already, on either database."""

from typing import Any

import sqlalchemy as sa

from resources.catalog.database import Transaction


def insert_into(transaction: Transaction, table: sa.Table) -> Any:
    """An insert of the dialect at hand, which knows conflicts."""
    if transaction.connection.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert
    else:
        from sqlalchemy.dialects.sqlite import insert
    return insert(table)


def insert_missing(
    transaction: Transaction, table: sa.Table, rows: list[dict[str, Any]], key: sa.Column[Any]
) -> list[Any]:
    """Insert rows unless a unique index knows them; the keys of those that are new."""
    if not rows:
        return []
    statement = insert_into(transaction, table).on_conflict_do_nothing().returning(key)
    return list(transaction.execute(statement, rows).scalars())
