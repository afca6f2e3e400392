"""Rules of retraining, and what they asked for: `catalog.retrainings`."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, now
from resources.catalog.errors import NotFound
from resources.catalog.trainings import want_training


@dataclass(frozen=True)
class RuleEntry:
    """A rule as somebody wrote it, and since when it holds."""

    name: str
    spec: dict[str, Any]
    created_by: str
    created_at: datetime


@dataclass(frozen=True)
class Retraining:
    """A training that a rule asked for. reviewed_until: reviews up to then are in its dataset; None: none are."""

    id: int
    rule: str
    cause: str
    reason: str
    dataset: str
    recipe: str
    reviewed_until: datetime | None
    at: datetime


class Retrainings:
    """The part of the catalog that is about retraining."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def rules(self) -> list[RuleEntry]:
        """All rules by name."""
        return [RuleEntry(**row) for row in self.database.rows(sa.select(t.retraining_rules).order_by("name"))]

    def put(self, name: str, spec: Mapping[str, Any], actor: str) -> bool:
        """Write a rule, in the place of one of that name; False when it is as it was. It holds from now on."""
        table = t.retraining_rules
        values = {"spec": dict(spec), "created_by": actor, "created_at": now()}
        with self.database.write(actor) as transaction:
            found = transaction.first(sa.select(table).where(table.c.name == name), lock=True)
            if found is not None and found["spec"] == values["spec"]:
                return False
            if found is None:
                transaction.insert_missing(table, {"name": name, **values})
            else:
                transaction.execute(table.update().where(table.c.name == name).values(values))
            transaction.audit("retraining.set", name, recipe=spec["recipe"], datasets=spec["datasets"])
        return True

    def remove(self, name: str, actor: str) -> None:
        """Take a rule away; what it asked for goes on. NotFound where there is none."""
        table = t.retraining_rules
        with self.database.write(actor) as transaction:
            if not transaction.changed(table.delete().where(table.c.name == name)):
                raise NotFound(f"there is no retraining rule {name!r}: `llmops retrain list` shows those that are")
            transaction.audit("retraining.remove", name)

    def made(self, rule: str | None = None) -> list[Retraining]:
        """What was asked for, oldest first."""
        table = t.retrainings
        statement = sa.select(table).order_by(table.c.id)
        if rule is not None:
            statement = statement.where(table.c.rule == rule)
        return [Retraining(**row) for row in self.database.rows(statement)]

    def request(
        self,
        rule: str,
        *,
        cause: str,
        reason: str,
        dataset: str,
        recipe: str,
        reviewed_until: datetime | None,
        actor: str,
    ) -> bool:
        """Want a training for a rule, in one transaction with why; False when the rule asked for it before."""
        with self.database.write(actor) as transaction:
            # Two rules of one recipe, looked at at once by two processes, shall not both find that none is under way.
            transaction.serialize(f"retraining {recipe}")
            intents = t.intents.c
            mine = intents.kind == "train", intents.key.endswith(f"|{recipe}", autoescape=True)
            if transaction.first(sa.select(intents.id).where(*mine, intents.closed_at.is_(None))) is not None:
                return False
            values = {
                "rule": rule,
                "cause": cause,
                "reason": reason,
                "dataset": dataset,
                "recipe": recipe,
                "reviewed_until": reviewed_until,
                "at": now(),
            }
            if not transaction.insert_missing(t.retrainings, values):
                return False
            want_training(transaction, dataset, recipe, actor, reason)
        return True
