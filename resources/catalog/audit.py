"""The audit log: who did what to what, in lines that can only be added."""

from collections.abc import Collection, Iterator
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.audit_chain import Head
from resources.catalog.database import Database


class AuditLog:
    """The part of the catalog that is about the audit log."""

    database: Database

    def audit_log(self, limit: int = 100, before: int | None = None) -> list[dict[str, Any]]:
        """The newest lines of the audit log (before the line of an id), newest first."""
        statement = sa.select(t.audit).where(_before(before)).order_by(t.audit.c.id.desc()).limit(limit)
        return [dict(r) for r in self.database.rows(statement)]

    def audit_of(
        self, target: str, *, exact: bool = True, limit: int = 100, before: int | None = None
    ) -> list[dict[str, Any]]:
        """The newest lines about a target, or whose detail names it as the model, newest first.

        Without `exact`, `target` is the name of a model, whose versions are all meant.
        """
        subjects = (t.audit.c.target, t.audit.c.detail["model_ref"].as_string())
        if exact:
            mine = sa.or_(*(subject == target for subject in subjects))
        else:
            mine = sa.or_(*(subject.startswith(f"{target}@", autoescape=True) for subject in subjects))
        statement = sa.select(t.audit).where(mine, _before(before)).order_by(t.audit.c.id.desc()).limit(limit)
        return [dict(r) for r in self.database.rows(statement)]

    def audit_steps(self, target: str, actions: Collection[str]) -> list[dict[str, Any]]:
        """Every line about exactly this target that is one of `actions`, oldest first."""
        mine = t.audit.c.target == target, t.audit.c.action.in_(actions)
        return [dict(r) for r in self.database.rows(sa.select(t.audit).where(*mine).order_by(t.audit.c.id))]

    def audit_head(self) -> Head:
        """The end of the audit log as the catalog knows it."""
        found = self.database.rows(sa.select(t.audit_head.c.lines, t.audit_head.c.sha256))
        return Head(**found[0]) if found else Head()

    def audit_lines(self, batch: int = 1000) -> Iterator[dict[str, Any]]:
        """Every line of the audit log, oldest first."""
        last = 0
        while rows := self.database.rows(
            sa.select(t.audit).where(t.audit.c.id > last).order_by(t.audit.c.id).limit(batch)
        ):
            yield from rows
            last = rows[-1]["id"]

    def log(self, actor: str, action: str, target: str, **detail: Any) -> None:
        """Append a line about something that happened outside the catalog."""
        with self.database.write(actor) as transaction:
            transaction.audit(action, target, **detail)


def _before(id: int | None) -> sa.ColumnElement[bool]:
    return sa.true() if id is None else t.audit.c.id < id
