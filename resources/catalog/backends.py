"""Backends: the model servers that endpoints may route to, what is wanted of each, and what was observed."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, now
from resources.catalog.leases import Lease

Wanted = Literal["running", "gone"]
_OBSERVED_ANEW: Row = {"message": "", "healthy_at": None, "restarts": 0, "retry_at": None}
"""What was observed of a server counts no more once it is wanted anew."""


@dataclass(frozen=True)
class Backend:
    """A model server that an endpoint may route to.

    wanted and warm_until are desired: by a deployment, and by whoever stops it. All from `url` on but these are what
    was observed: state wanted (nothing was done yet), starting, healthy, unhealthy, failed, draining, stopping or
    stopped, since
    `changed_at`; healthy_at: when it first answered since it was wanted; restarts: how often it was started again in a
    row, the next time not before `retry_at`; message: why it is not as it is wanted.
    """

    id: str
    endpoint: str
    model_ref: str
    model_path: str
    engine: str
    runtime: dict[str, Any]
    url: str
    pid: int | None
    pid_started: float | None
    state: str
    log_path: str | None
    created_at: datetime
    wanted: str = "running"
    warm_until: datetime | None = None
    message: str = ""
    changed_at: datetime | None = None
    healthy_at: datetime | None = None
    restarts: int = 0
    retry_at: datetime | None = None

    @property
    def kind(self) -> str:
        """What runs it: local, docker, kubernetes or url."""
        return str(self.runtime.get("backend", "local"))


class Backends:
    """The part of the catalog that is about model servers."""

    database: Database

    def want_backend(self, backend: Backend, actor: str = "deployment", *, anew: bool = False) -> None:
        """Want a model server to run; of one that is on record, what it is to serve is replaced.

        Its health is to be observed anew, and how often it was started again is forgotten. With `anew` what runs as it
        is another server: it is started once more.
        """
        table = t.backends
        desired = {
            name: getattr(backend, name) for name in ("endpoint", "model_ref", "model_path", "engine", "runtime")
        }
        with self.database.write(actor) as transaction:
            known = transaction.first(sa.select(table).where(table.c.id == backend.id), lock=True)
            if known is None:
                values = {c.name: getattr(backend, c.name) for c in table.columns}
                values |= {"wanted": "running", "state": "wanted", "changed_at": now(), **_OBSERVED_ANEW}
                transaction.execute(table.insert().values(values))
                transaction.audit("backend.add", backend.id, model_ref=backend.model_ref)
                return
            changes: Row = {**desired, "wanted": "running", "warm_until": None, **_OBSERVED_ANEW}
            if anew:
                changes |= {"state": "wanted", "changed_at": now(), "url": ""}
            elif known["state"] in ("healthy", "draining"):
                # What it answered a while ago says nothing about now.
                changes |= {"state": "starting", "healthy_at": known["healthy_at"], "changed_at": now()}
            elif known["state"] in ("failed", "stopping"):
                changes |= {"state": "wanted", "changed_at": now()}
            transaction.execute(table.update().where(table.c.id == backend.id).values(changes))

    def unwant_backends(
        self, ids: Collection[str], actor: str = "deployment", *, warm_until: datetime | None = None
    ) -> list[str]:
        """Want model servers gone, or with `warm_until` kept until then although nothing routes to them.

        The ids of those of which something else was wanted before.
        """
        table = t.backends
        found: list[str] = []
        with self.database.write(actor) as transaction:
            for id in ids:
                mine = table.update().where(table.c.id == id)
                if warm_until is None:
                    changed = transaction.changed(
                        mine.where(table.c.wanted != "gone").values(
                            wanted="gone", warm_until=None, retry_at=None, message=""
                        )
                    )
                else:
                    unset = table.c.warm_until.is_(None), table.c.wanted == "running"
                    changed = transaction.changed(mine.where(*unset).values(warm_until=warm_until))
                if changed:
                    found.append(id)
                    detail = {} if warm_until is None else {"warm_until": warm_until.isoformat()}
                    transaction.audit("backend.unwant", id, **detail)
        return found

    def observe_backend(
        self, id: str, lease: Lease | None = None, *, expected_wanted: Wanted | None = None, **values: Any
    ) -> bool:
        """Note what was observed of a backend; False when it is gone, or something else is wanted of it by now.

        `lease` is the observer's: LeaseLost when another one has it. A state that differs notes since when it is so.
        """
        table = t.backends
        with self.database.write("reconciler") as transaction:
            if lease is not None:
                lease.verify(transaction)
            statement = table.update().where(table.c.id == id)
            if expected_wanted is not None:
                statement = statement.where(table.c.wanted == expected_wanted)
            if "state" in values:
                values["changed_at"] = sa.case((table.c.state == values["state"], table.c.changed_at), else_=now())
            return transaction.changed(statement.values(**values)) == 1

    def add_backend(self, backend: Backend, actor: str = "deployment") -> None:
        """Put a model server on record as it is."""
        values = {c.name: getattr(backend, c.name) for c in t.backends.columns}
        with self.database.write(actor) as transaction:
            transaction.execute(t.backends.insert().values(values))
            transaction.audit("backend.add", backend.id, model_ref=backend.model_ref)

    def update_backend(self, id: str, *, expected_state: str | Collection[str] | None = None, **values: Any) -> bool:
        """Set columns of a backend; False when it is gone, or not in the state that was expected."""
        table = t.backends
        statement = table.update().where(table.c.id == id)
        if expected_state is not None:
            states = [expected_state] if isinstance(expected_state, str) else list(expected_state)
            statement = statement.where(table.c.state.in_(states))
        with self.database.write("deployment") as transaction:
            return transaction.changed(statement.values(**values)) == 1

    def backend(self, id: str) -> Backend:
        return Backend(**self.database.one(t.backends, id, "backend"))

    def find_backend(self, id: str) -> Backend | None:
        """A backend, or None where it is not on record."""
        rows = self.database.rows(sa.select(t.backends).where(t.backends.c.id == id))
        return Backend(**rows[0]) if rows else None

    def backends(self, endpoint: str | None = None) -> list[Backend]:
        """Backends on record, oldest first."""
        statement = sa.select(t.backends).order_by(t.backends.c.created_at)
        if endpoint is not None:
            statement = statement.where(t.backends.c.endpoint == endpoint)
        return [Backend(**r) for r in self.database.rows(statement)]

    def remove_backend(
        self, id: str, actor: str = "deployment", lease: Lease | None = None, expected_wanted: Wanted | None = None
    ) -> bool:
        """Forget a backend; False when it was gone, or is wanted otherwise by now. `lease` as for `observe_backend`."""
        table = t.backends
        statement = table.delete().where(table.c.id == id)
        if expected_wanted is not None:
            statement = statement.where(table.c.wanted == expected_wanted)
        with self.database.write(actor) as transaction:
            if lease is not None:
                lease.verify(transaction)
            if not transaction.changed(statement):
                return False
            transaction.audit("backend.remove", id)
            return True
