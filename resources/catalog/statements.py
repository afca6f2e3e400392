"""What people state of a model that its lineage cannot tell: kept with name and date, in lines that are only added."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, now


@dataclass(frozen=True)
class ModelStatement:
    """One person's words about one gap of one version."""

    model: str
    version: int
    gap: str
    text: str
    author: str
    at: datetime

    @property
    def ref(self) -> str:
        return f"{self.model}@{self.version}"


class Statements:
    """The part of the catalog that is about what people state of models."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def add(self, model: str, version: int, gap: str, text: str, author: str) -> ModelStatement:
        """Add a statement; the newest of a gap holds, and earlier ones stay on record."""
        values = {"model": model, "version": version, "gap": gap, "text": text, "author": author, "at": now()}
        with self.database.write(author) as transaction:
            transaction.execute(t.model_statements.insert().values(values))
            transaction.audit("model.state", f"{model}@{version}", gap=gap)
        return ModelStatement(**values)

    def holding(self, model: str, version: int) -> dict[str, ModelStatement]:
        """The newest statement by gap, of this version or else of the nearest one before it."""
        table = t.model_statements
        names = ("model", "version", "gap", "text", "author", "at")
        statement = (
            sa.select(*(table.c[name] for name in names))
            .where(table.c.model == model, table.c.version <= version)
            .order_by(table.c.version, table.c.id)
        )
        return {row["gap"]: ModelStatement(**row) for row in self.database.rows(statement)}
