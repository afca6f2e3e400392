"""Recipes, requested trainings, and the base models that trainings start from."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from llmops_assets.specs.names import STUDY_ACTOR, training_key
from resources.catalog import tables as t
from resources.catalog.database import Database, Transaction, now
from resources.catalog.intents import want


@dataclass(frozen=True)
class TrainingRequest:
    """Somebody asked for one training; `reported_at` is when it became an event of the asset graph."""

    id: int
    dataset: str
    recipe: str
    requested_by: str
    requested_at: datetime
    reported_at: datetime | None


@dataclass(frozen=True)
class BaseModelEntry:
    """A base model; `state` is draft, approved or archived."""

    ref: str
    family: str
    path: str
    content_hash: str | None
    license: str | None
    state: str
    created_at: datetime
    approved_at: datetime | None
    approved_by: str | None


class Trainings:
    """The part of the catalog that is about trainings."""

    database: Database

    def add_recipe(self, key: str, recipe: Mapping[str, Any], actor: str = "cli") -> bool:
        """Keep a recipe under its content-addressed key; True when it is new."""
        with self.database.write(actor) as transaction:
            values = {"key": key, "spec": dict(recipe), "created_at": now()}
            is_new = transaction.insert_missing(t.recipes, values)
            if is_new:
                transaction.audit("recipe.add", key)
        return is_new

    def recipe(self, key: str) -> dict[str, Any]:
        return dict(self.database.one(t.recipes, key, "recipe")["spec"])

    def recipes(self) -> list[str]:
        return [r["key"] for r in self.database.rows(sa.select(t.recipes.c.key).order_by(t.recipes.c.created_at))]

    def request_training(self, dataset: str, recipe: str, actor: str = "cli") -> int:
        """Want one training; the id of the request, which the intent's detail names.

        The intent is of kind `trial` where a study asks, else `train`.
        """
        self.database.one(t.datasets, dataset, "dataset version")
        self.database.one(t.recipes, recipe, "recipe")
        with self.database.write(actor) as transaction:
            return want_training(transaction, dataset, recipe, actor)

    def open_training_requests(self) -> list[TrainingRequest]:
        """Requests that are not events in the asset graph yet, oldest first."""
        table = t.training_requests
        rows = self.database.rows(sa.select(table).where(table.c.reported_at.is_(None)).order_by(table.c.id))
        return [TrainingRequest(**r) for r in rows]

    def training_requests(self) -> list[TrainingRequest]:
        """All requests, newest first."""
        table = t.training_requests
        return [TrainingRequest(**r) for r in self.database.rows(sa.select(table).order_by(table.c.id.desc()))]

    def training_requests_page(self, start: int, count: int) -> tuple[list[TrainingRequest], int]:
        """The newest request of each of `count` trainings from `start` on, newest first, and how many trainings were
        asked for."""
        table = t.training_requests
        newest = sa.select(sa.func.max(table.c.id).label("id")).group_by(table.c.dataset, table.c.recipe).subquery()
        total = self.database.rows(sa.select(sa.func.count().label("n")).select_from(newest))[0]["n"]
        ids = sa.select(newest.c.id).order_by(newest.c.id.desc()).limit(count).offset(start)
        rows = self.database.rows(sa.select(table).where(table.c.id.in_(ids)).order_by(table.c.id.desc()))
        return [TrainingRequest(**r) for r in rows], int(total)

    def mark_reported(self, ids: Iterable[int], actor: str = "training_request") -> int:
        """Note that requests became events of the asset graph; how many were not noted before."""
        table = t.training_requests
        with self.database.write(actor) as transaction:
            open_ones = table.c.id.in_(list(ids)), table.c.reported_at.is_(None)
            return transaction.changed(table.update().where(*open_ones).values(reported_at=now()))

    def register_base(
        self,
        ref: str,
        *,
        family: str,
        path: str,
        content_hash: str | None,
        license: str | None,
        files: Mapping[str, str] | None = None,
        actor: str = "cli",
    ) -> BaseModelEntry:
        """Register a base model as a draft. Other content under a known ref puts it back to draft.

        `files` are its files with their hashes: the audit line keeps them, so that what changes later has a name.
        """
        table = t.base_models
        values = {"family": family, "path": path, "content_hash": content_hash, "license": license}
        with self.database.write(actor) as transaction:
            is_changed = transaction.insert_missing(
                table, {"ref": ref, "state": "draft", "created_at": now(), **values}
            )
            if not is_changed:
                is_other = table.c.content_hash.is_distinct_from(content_hash)
                draft = {"state": "draft", "approved_at": None, "approved_by": None, **values}
                is_changed = transaction.changed(table.update().where(table.c.ref == ref, is_other).values(draft)) == 1
            if is_changed:
                listed = {"files": dict(files)} if files else {}
                transaction.audit("base.register", ref, family=family, content_hash=content_hash, **listed)
        return self.base_model(ref)

    def approve_base(self, ref: str, actor: str = "cli") -> BaseModelEntry:
        """Let trainings start from a base model."""
        self._set_base_state(ref, actor, "base.approve", state="approved", approved_at=now(), approved_by=actor)
        return self.base_model(ref)

    def archive_base(self, ref: str, actor: str = "cli") -> BaseModelEntry:
        """Let no more trainings start from a base model."""
        self._set_base_state(ref, actor, "base.archive", state="archived")
        return self.base_model(ref)

    def _set_base_state(self, ref: str, actor: str, action: str, **values: Any) -> None:
        table = t.base_models
        with self.database.write(actor) as transaction:
            other = table.c.ref == ref, table.c.state != values["state"]
            if transaction.changed(table.update().where(*other).values(values)):
                transaction.audit(action, ref)

    def base_model(self, ref: str) -> BaseModelEntry:
        return BaseModelEntry(**self.database.one(t.base_models, ref, "base model"))

    def base_files(self, ref: str) -> dict[str, str]:
        """The files of a base model with their hashes as they were registered; none where nobody noted them."""
        registered = t.audit.c.target == ref, t.audit.c.action == "base.register"
        statement = sa.select(t.audit.c.detail).where(*registered).order_by(t.audit.c.id.desc()).limit(1)
        rows = self.database.rows(statement)
        return dict(rows[0]["detail"].get("files", {})) if rows else {}

    def base_models(self) -> list[BaseModelEntry]:
        """All base models, newest first."""
        rows = self.database.rows(sa.select(t.base_models).order_by(t.base_models.c.created_at.desc()))
        return [BaseModelEntry(**r) for r in rows]


def want_training(transaction: Transaction, dataset: str, recipe: str, actor: str, reason: str | None = None) -> int:
    """Want one training in the transaction that says why; the id of the request."""
    key = training_key(dataset, recipe)
    values = {"dataset": dataset, "recipe": recipe, "requested_by": actor, "requested_at": now()}
    insert = t.training_requests.insert().values(values).returning(t.training_requests.c.id)
    request: int = transaction.execute(insert).scalar_one()
    kind = "trial" if actor.startswith(STUDY_ACTOR) else "train"
    why = {} if reason is None else {"reason": reason}
    want(transaction, kind, key, actor, {"request": request, **why})
    transaction.audit("training.request", key, request=request, **why)
    return request
