"""Experiments: two models compared on one endpoint, and what was decided."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction, now
from resources.catalog.endpoints import Endpoint, deployment_of, endpoint_of, want_endpoint
from resources.catalog.errors import Conflict, NotFound


@dataclass(frozen=True)
class Experiment:
    """An experiment; `withheld` says why nobody acts on its decision, where nobody does."""

    name: str
    endpoint: str
    spec: ExperimentSpec
    state: str
    decision: str | None
    reason: str | None
    figures: dict[str, Any] | None
    started_at: datetime
    decided_at: datetime | None
    acted_at: datetime | None
    withheld: str | None = None


@dataclass(frozen=True)
class Withheld:
    """A decision that cannot be carried out, and why: it stays on record and stops nobody else."""

    reason: str


class Experiments:
    """The part of the catalog that is about experiments."""

    database: Database

    def create_experiment(self, spec: ExperimentSpec, actor: str = "cli") -> bool:
        """Start an experiment; True when it is new. One experiment runs on an endpoint at a time."""
        table, dump = t.experiments, spec.model_dump(mode="json")
        values = {
            "name": spec.name,
            "endpoint": spec.endpoint,
            "spec": dump,
            "state": "running",
            "started_at": now(),
        }
        with self.database.write(actor) as transaction:
            if transaction.insert_missing(table, values):
                transaction.audit("experiment.create", spec.name, endpoint=spec.endpoint)
                return True
            known = transaction.first(sa.select(table.c.spec).where(table.c.name == spec.name))
            if known is not None and known["spec"] == dump:
                return False
            if known is not None:
                raise Conflict(
                    f"experiment {spec.name!r} exists with another design; a running design never changes: "
                    "take another name"
                )
            running = table.c.endpoint == spec.endpoint, table.c.state == "running"
            other = transaction.first(sa.select(table.c.name).where(*running))
            name = repr(other["name"]) if other else "that was concluded just now"
            raise Conflict(f"experiment {name} is running on endpoint {spec.endpoint!r}; conclude it first")

    def experiment(self, name: str) -> Experiment:
        return _experiment(self.database.one(t.experiments, name, "experiment"))

    def experiments(self, state: str | None = None) -> list[Experiment]:
        """Experiments, newest first."""
        statement = sa.select(t.experiments).order_by(t.experiments.c.started_at.desc())
        if state is not None:
            statement = statement.where(t.experiments.c.state == state)
        return [_experiment(r) for r in self.database.rows(statement)]

    def running_experiments(self) -> dict[str, str]:
        """The name of the running experiment by endpoint, without its design."""
        table = t.experiments
        statement = sa.select(table.c.endpoint, table.c.name).where(table.c.state == "running")
        return {r["endpoint"]: r["name"] for r in self.database.rows(statement)}

    def running_controls(self) -> dict[str, tuple[str, str]]:
        """The name and the control of the running experiment by endpoint."""
        table = t.experiments
        columns = table.c.endpoint, table.c.name, table.c.spec["control"].as_string().label("control")
        statement = sa.select(*columns).where(table.c.state == "running")
        return {r["endpoint"]: (r["name"], r["control"]) for r in self.database.rows(statement)}

    def decide_experiment(
        self,
        name: str,
        decision: str,
        reason: str,
        figures: dict[str, Any],
        actor: str = "ab_report",
        *,
        carry_out: Callable[[Endpoint], DeploymentSpec | Withheld | None] | None = None,
    ) -> bool:
        """Write the decision of an experiment; True when this call wrote it. A decision is never taken back.

        `carry_out` says what the endpoint shall serve from now on: that is wanted in the same transaction, under a
        `deploy` intent whose detail names the experiment. None leaves the endpoint alone and the experiment acted on;
        `Withheld`, or an endpoint that is gone, is noted on the experiment.
        """
        table = t.experiments
        decided = {
            "decision": decision,
            "reason": reason,
            "figures": figures,
            "decided_at": now(),
            "state": "concluded",
        }
        with self.database.write(actor) as transaction:
            undecided = table.c.name == name, table.c.decision.is_(None)
            if not transaction.changed(table.update().where(*undecided).values(decided)):
                return False
            transaction.audit("experiment.decide", name, decision=decision)
            if carry_out is not None:
                _carry_out(transaction, name, decision, carry_out)
            return True

    def extend_experiment(self, name: str, hours: float, actor: str) -> bool:
        """Let an experiment that runs last `hours` in all; False when it does so already.

        Raises NotFound, or Conflict when it is decided, or lasts longer already.
        """
        table = t.experiments
        with self.database.write(actor) as transaction:
            found = transaction.first(sa.select(table).where(table.c.name == name), lock=True)
            if found is None:
                raise NotFound(f"there is no experiment {name!r}")
            if found["decision"] is not None:
                raise Conflict(f"experiment {name!r} is over ({found['decision']}): what is decided is not reopened")
            before = float(found["spec"]["duration_hours"])
            if before == hours:
                return False
            if before > hours:
                raise Conflict(
                    f"experiment {name!r} lasts {before:g} hours: it can be extended, and not cut to {hours:g}"
                )
            spec = {**found["spec"], "duration_hours": hours}
            transaction.execute(table.update().where(table.c.name == name).values(spec=spec))
            transaction.audit("experiment.extend", name, before=before, hours=hours)
            return True

    def conclude_experiment(
        self, name: str, winner: str, actor: str, carry_out: Callable[[Endpoint], DeploymentSpec | Withheld]
    ) -> bool:
        """Carry out a decision that nobody acted on, as a person chose; False when that is wanted already.

        winner: the model that shall have all users. Raises NotFound, or Conflict when the experiment is not decided,
        was acted on, or another model is about to get its users.
        """
        table = t.experiments
        with self.database.write(actor) as transaction:
            found = transaction.first(sa.select(table).where(table.c.name == name), lock=True)
            if found is None:
                raise NotFound(f"there is no experiment {name!r}")
            if found["decision"] is None:
                raise Conflict(f"experiment {name!r} is not decided")
            if found["acted_at"] is not None:
                raise Conflict(f"experiment {name!r} was carried out at {found['acted_at']:%Y-%m-%d %H:%M} UTC")
            wanted = deployment_of(transaction, found["endpoint"], name)
            if wanted is not None:
                if wanted != winner:
                    raise Conflict(f"experiment {name!r} was concluded: {wanted} is about to get all users")
                return False
            open_one = table.c.name == name, table.c.acted_at.is_(None)
            transaction.execute(table.update().where(*open_one).values(withheld=None))
            transaction.audit("experiment.conclude", name, winner=winner, decision=found["decision"])
            _carry_out(transaction, name, found["decision"], carry_out)
            return True

    def withhold_experiment(self, name: str, reason: str, actor: str) -> bool:
        """Note why nobody acts on a decision; False when it was acted on or noted before."""
        with self.database.write(actor) as transaction:
            return _withhold(transaction, name, reason)

    def mark_acted(self, name: str, actor: str = "promotion") -> bool:
        """Note that the endpoint was switched as the experiment decided; False when that was noted before."""
        with self.database.write(actor) as transaction:
            return _mark_acted(transaction, name)


def _carry_out(
    transaction: Transaction,
    name: str,
    decision: str,
    carry_out: Callable[[Endpoint], DeploymentSpec | Withheld | None],
) -> None:
    experiment = transaction.only(sa.select(t.experiments.c.endpoint).where(t.experiments.c.name == name))
    endpoint = endpoint_of(transaction, experiment["endpoint"])
    if endpoint is None or endpoint.state == "deleting":
        action = Withheld(f"endpoint {experiment['endpoint']!r} is gone, so there is nothing to switch")
    else:
        action = carry_out(endpoint)
    if isinstance(action, Withheld):
        _withhold(transaction, name, action.reason)
    elif action is None:
        _mark_acted(transaction, name)
    else:
        want_endpoint(transaction, action, transaction.actor, {"experiment": name, "decision": decision})


def _withhold(transaction: Transaction, name: str, reason: str) -> bool:
    table = t.experiments
    open_one = table.c.name == name, table.c.acted_at.is_(None), table.c.withheld.is_(None)
    if not transaction.changed(table.update().where(*open_one).values(withheld=reason)):
        return False
    transaction.audit("experiment.withheld", name, reason=reason)
    return True


def _mark_acted(transaction: Transaction, name: str) -> bool:
    table = t.experiments
    open_one = table.c.name == name, table.c.acted_at.is_(None)
    if not transaction.changed(table.update().where(*open_one).values(acted_at=now())):
        return False
    transaction.audit("experiment.act", name)
    return True


def _experiment(row: Row) -> Experiment:
    values: Row = {**row, "spec": ExperimentSpec.model_validate(row["spec"])}
    return Experiment(**values)
