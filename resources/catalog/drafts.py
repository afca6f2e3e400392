"""What is entered by name before its files are there: datasets that wait for an upload, and base models."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, now
from resources.catalog.errors import Conflict, NotFound


@dataclass(frozen=True)
class DatasetDraft:
    """A dataset version without files: `fields` are those of its DatasetSpec, `reason` says why it has no files yet."""

    key: str
    name: str
    version: str
    fields: dict[str, Any]
    reason: str
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class NamedModel:
    """A base model under a name and a version of the user's.

    `base_ref` is the base model that it is; None until its files could be looked at, and `reason` says why.
    """

    name: str
    version: str
    storage_uri: str
    family: str
    license: str | None
    owner: str
    detail: dict[str, Any]
    base_ref: str | None
    reason: str
    created_by: str
    created_at: datetime

    @property
    def key(self) -> str:
        return f"{self.name}@{self.version}"


class Drafts:
    """The entries by name of a catalog: `catalog.drafts`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def enter_dataset(self, fields: Mapping[str, Any], reason: str, actor: str) -> DatasetDraft:
        """Enter a dataset version that waits for files; other fields than a draft's replace them."""
        name, version = str(fields["name"]), str(fields["version"])
        key, table = f"{name}@{version}", t.dataset_drafts
        values = {"name": name, "version": version, "fields": dict(fields), "reason": reason}
        with self.database.write(actor) as transaction:
            fresh = {"key": key, "created_by": actor, "created_at": now(), **values}
            if transaction.insert_missing(table, fresh):
                transaction.audit("dataset.draft", key)
            else:
                known = transaction.only(sa.select(table).where(table.c.key == key), lock=True)
                if known["fields"] != values["fields"]:
                    transaction.execute(table.update().where(table.c.key == key).values(values))
                    transaction.audit("dataset.draft", key)
        return self.dataset(key)

    def dataset(self, key: str) -> DatasetDraft:
        """The draft of a dataset version; NotFound where there is none."""
        return DatasetDraft(**self.database.one(t.dataset_drafts, key, "draft of a dataset version"))

    def datasets(self) -> list[DatasetDraft]:
        """All drafts of dataset versions, newest first."""
        table = t.dataset_drafts
        return [DatasetDraft(**row) for row in self.database.rows(sa.select(table).order_by(table.c.created_at.desc()))]

    def close_dataset(self, key: str, actor: str) -> None:
        """Take a draft away: its files are registered, or nobody wants it any more."""
        with self.database.write(actor) as transaction:
            if transaction.changed(t.dataset_drafts.delete().where(t.dataset_drafts.c.key == key)):
                transaction.audit("dataset.draft_closed", key)

    def enter_model(
        self,
        name: str,
        version: str,
        *,
        storage_uri: str,
        family: str,
        license: str | None,
        owner: str,
        detail: Mapping[str, Any],
        base_ref: str | None,
        reason: str,
        actor: str,
    ) -> NamedModel:
        """Enter a model under a name and a version; Conflict where other files are entered under them."""
        table = t.named_models
        given = {"storage_uri": storage_uri, "family": family, "license": license}
        fresh = {"owner": owner, "detail": dict(detail), "base_ref": base_ref, "reason": reason}
        with self.database.write(actor) as transaction:
            made = {"name": name, "version": version, "created_by": actor, "created_at": now()}
            if transaction.insert_missing(table, {**made, **given, **fresh}):
                transaction.audit("model.enter", f"{name}@{version}", storage_uri=storage_uri)
            else:
                mine = table.c.name == name, table.c.version == version
                known = transaction.only(sa.select(table).where(*mine), lock=True)
                if other := [field for field, value in given.items() if known[field] != value]:
                    raise Conflict(
                        f"{name}@{version} is entered already, with another {' and '.join(other)}. "
                        f"A version never changes: enter {name} under another version"
                    )
        return self.model(name, version)

    def found_model(self, name: str, version: str, base_ref: str, actor: str) -> NamedModel:
        """Note which base model an entry is, once its files were looked at."""
        table = t.named_models
        with self.database.write(actor) as transaction:
            mine = table.c.name == name, table.c.version == version, table.c.base_ref.is_distinct_from(base_ref)
            if transaction.changed(table.update().where(*mine).values(base_ref=base_ref, reason="")):
                transaction.audit("model.found", f"{name}@{version}", base_ref=base_ref)
        return self.model(name, version)

    def model(self, name: str, version: str) -> NamedModel:
        """One entry; NotFound names what there is of that name."""
        found = self.models(name)
        for one in found:
            if one.version == version:
                return one
        known = ", ".join(one.key for one in found) or "none"
        raise NotFound(f"there is no model {name}@{version}; entered under that name: {known}")

    def models(self, name: str | None = None) -> list[NamedModel]:
        """All entries, or those of one name, newest first."""
        table = t.named_models
        statement = sa.select(table).order_by(table.c.created_at.desc())
        if name is not None:
            statement = statement.where(table.c.name == name)
        return [NamedModel(**row) for row in self.database.rows(statement)]
