"""Dataset versions: what was registered, and that it is to be ingested."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa

from llmops_assets.specs.dataset import DatasetSpec
from resources.catalog import tables as t
from resources.catalog.database import Database, Row, now
from resources.catalog.errors import Conflict
from resources.catalog.intents import want


@dataclass(frozen=True)
class Dataset:
    """A registered dataset version; `requested_at` is the last time that somebody asked for its ingestion."""

    key: str
    spec: DatasetSpec
    digest: str
    status: str
    created_at: datetime
    requested_at: datetime


class Datasets:
    """The part of the catalog that is about dataset versions."""

    database: Database

    def register_dataset(self, spec: DatasetSpec, digest: str, actor: str = "cli") -> bool:
        """Register a dataset version and want its ingestion; True when it is new.

        Registering the same files again only wants the ingestion anew. Other files, or another type, under a known
        version raise `Conflict`: a version never changes.
        """
        at = now()
        values = {
            "key": spec.key,
            "name": spec.name,
            "version": spec.version,
            "type": spec.type,
            "spec": spec.model_dump(mode="json"),
            "digest": digest,
            "status": spec.status,
            "created_at": at,
            "requested_at": at,
        }
        with self.database.write(actor) as transaction:
            is_new = transaction.insert_missing(t.datasets, values)
            if not is_new:
                mine = t.datasets.c.key == spec.key
                known = transaction.only(sa.select(t.datasets).where(mine), lock=True)
                _assert_same(spec, digest, known)
                transaction.execute(t.datasets.update().where(mine).values(requested_at=at))
            revision = want(transaction, "ingest", spec.key, actor)
            action = "dataset.register" if is_new else "dataset.ingest"
            transaction.audit(action, spec.key, digest=digest, revision=revision)
        return is_new

    def archive_suite(self, key: str, actor: str = "cli") -> bool:
        """No longer use an evaluation suite; its rows and what was measured with it stay. Whether that is a change."""
        return self._set_status(key, "archived", "suite.archive", actor)

    def restore_suite(self, key: str, actor: str = "cli") -> bool:
        """Use an archived suite again; whether that is a change."""
        return self._set_status(key, "active", "suite.restore", actor)

    def _set_status(self, key: str, status: str, action: str, actor: str) -> bool:
        table = t.datasets
        with self.database.write(actor) as transaction:
            # What was erased stays so; restoring takes back an archiving, and no other mark.
            other = ("active", "deprecated") if status == "archived" else ("archived",)
            update = table.update().where(table.c.key == key, table.c.status.in_(other)).values(status=status)
            if changed := bool(transaction.changed(update)):
                transaction.audit(action, key)
        return changed

    def dataset_entry(self, key: str) -> Dataset:
        return _dataset(self.database.one(t.datasets, key, "dataset version"))

    def dataset(self, key: str) -> DatasetSpec:
        """The registration of one dataset version, ``name@version``."""
        return self.dataset_entry(key).spec

    def datasets(self, name: str | None = None) -> list[Dataset]:
        """All dataset versions, or those of one dataset, newest first."""
        statement = sa.select(t.datasets).order_by(t.datasets.c.created_at.desc())
        if name is not None:
            statement = statement.where(t.datasets.c.name == name)
        return [_dataset(row) for row in self.database.rows(statement)]

    def datasets_page(self, start: int, count: int, name: str | None = None) -> tuple[list[Dataset], int]:
        """`count` versions (of one dataset) from `start` on, newest first, and how many there are."""
        mine = sa.true() if name is None else t.datasets.c.name == name
        total = self.database.rows(sa.select(sa.func.count().label("n")).select_from(t.datasets).where(mine))[0]["n"]
        order = t.datasets.c.created_at.desc(), t.datasets.c.key
        statement = sa.select(t.datasets).where(mine).order_by(*order).limit(max(count, 0)).offset(start)
        return [_dataset(row) for row in self.database.rows(statement)] if count > 0 else [], int(total)


def _assert_same(spec: DatasetSpec, digest: str, known: Row) -> None:
    if known["status"] == "erased":
        raise Conflict(
            f"{spec.key} was erased on a person's request, and its files are not to come back under its name. "
            "Register what you have, without that person, as another version"
        )
    if known["digest"] != digest or known["type"] != spec.type:
        raise Conflict(
            f"{spec.key} is registered already, with other "
            f"{'content' if known['digest'] != digest else 'type (' + known['type'] + ')'}. "
            f"A version never changes: register the new files as another version, for example {spec.name}@next"
        )


def _dataset(row: Row) -> Dataset:
    return Dataset(
        key=row["key"],
        spec=DatasetSpec.model_validate(row["spec"]),
        digest=row["digest"],
        status=row["status"],
        created_at=row["created_at"],
        requested_at=row["requested_at"],
    )
