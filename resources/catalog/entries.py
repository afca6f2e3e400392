"""The names of what stands in a catalog, also of entries that this version cannot read."""

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database


def names_of(database: Database) -> dict[str, list[str]]:
    """The names by kind: dataset versions, base models, experiments."""
    columns = {
        "dataset versions": t.datasets.c.key,
        "base models": t.base_models.c.ref,
        "experiments": t.experiments.c.name,
    }
    return {
        kind: [str(row[column.name]) for row in database.rows(sa.select(column).order_by(column))]
        for kind, column in columns.items()
    }
