"""Endpoints: what each shall serve, what it serves, and in which phases."""

import secrets
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import sqlalchemy as sa

from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.specs.deployment import DeploymentSpec
from resources.catalog import operations
from resources.catalog import tables as t
from resources.catalog.database import Database, Row, Transaction, now
from resources.catalog.endpoint_prompts import set_prompt
from resources.catalog.errors import Conflict, NotFound
from resources.catalog.intents import Outcome, acknowledge, want, withdraw

_SPEC, _SERVED = "spec", "served"
"""Of a `deploy` intent: the spec that was wanted, and the model that the endpoint came to serve by it."""


@dataclass(frozen=True)
class Endpoint:
    """An endpoint: `spec` and `revision` are what is wanted; `observed_revision` and `routes` are what is."""

    name: str
    spec: DeploymentSpec
    revision: int
    observed_revision: int
    state: str
    message: str
    routes: list[dict[str, Any]]
    phase: int
    salt: str
    created_at: datetime
    updated_at: datetime
    held: str | None = None


class Endpoints:
    """The part of the catalog that is about endpoints and their backends."""

    database: Database

    def want_endpoint(
        self,
        spec: DeploymentSpec,
        actor: str = "cli",
        detail: Mapping[str, Any] | None = None,
        *,
        salt: str | None = None,
    ) -> Endpoint:
        """Say what an endpoint shall serve; its new revision is that of the `deploy` intent, which the graph acts on.

        `detail` is what the run must know besides. salt: which users a new endpoint gives which model; drawn where none
        is given. An endpoint that is there keeps its own.
        """
        with self.database.write(actor) as transaction:
            want_endpoint(transaction, spec, actor, detail, salt)
        return self.endpoint(spec.endpoint)

    def want_endpoint_once(
        self,
        spec: DeploymentSpec,
        actor: str,
        *,
        kind: str,
        operation: str | None,
        detail: Mapping[str, Any] | None = None,
        expected_revision: int | None = None,
    ) -> int:
        """As `want_endpoint`, under an operation of the caller's: asked for again, it changes nothing more.

        The revision, of the first time where there was one. Raises Conflict where the endpoint is no longer at
        `expected_revision`, on which the caller decided. Whoever decides lets the rollout go on by itself again.
        """
        name = spec.endpoint
        with self.database.write(actor) as transaction:
            done = operations.begin(transaction, operation, kind, name)
            if done is not None:
                return int(done.result["revision"])
            known = transaction.first(sa.select(t.endpoints.c.revision).where(t.endpoints.c.name == name), lock=True)
            if expected_revision is not None and (known is None or known["revision"] != expected_revision):
                raise Conflict(f"something else is wanted of endpoint {name!r} by now: look at it, and ask again")
            revision = want_endpoint(transaction, spec, actor, detail)
            operations.remember(transaction, operation, kind, name, {"revision": revision})
            return revision

    def hold_rollout(self, name: str, reason: str | None, actor: str, *, operation: str | None = None) -> bool:
        """Have the rollout of an endpoint wait, for a reason, or with None go on; False when that is so already."""
        table = t.endpoints
        kind = "hold" if reason is not None else "resume"
        with self.database.write(actor) as transaction:
            if operations.begin(transaction, operation, kind, name) is not None:
                return False
            differs = table.c.held.is_(None) if reason is not None else table.c.held.is_not(None)
            statement = table.update().where(table.c.name == name, differs)
            changed = transaction.changed(statement.values(held=reason, updated_at=now())) == 1
            if changed:
                transaction.audit(f"endpoint.{kind}", name, **({"reason": reason} if reason is not None else {}))
            operations.remember(transaction, operation, kind, name, {"changed": changed})
            return changed

    def endpoint(self, name: str) -> Endpoint:
        return _endpoint(self.database.one(t.endpoints, name, "endpoint"))

    def served_as(self, name: str, model_ref: str, until: datetime | None = None) -> DeploymentSpec | None:
        """What was wanted of an endpoint when it last (until a moment) came to serve a model.

        None where it never did, or where that was before such specs were kept.
        """
        mine = [t.intents.c.kind == "deploy", t.intents.c.key == name]
        mine += [t.intents.c.detail[_SERVED].as_string() == model_ref]
        mine += [] if until is None else [t.intents.c.requested_at <= until]
        newest = sa.select(t.intents.c.detail).where(*mine).order_by(t.intents.c.revision.desc()).limit(1)
        rows = self.database.rows(newest)
        return DeploymentSpec.model_validate(rows[0]["detail"][_SPEC]) if rows else None

    def endpoints(self) -> list[Endpoint]:
        """All endpoints, newest first."""
        rows = self.database.rows(sa.select(t.endpoints).order_by(t.endpoints.c.created_at.desc()))
        return [_endpoint(r) for r in rows]

    def endpoint_names(self) -> list[str]:
        """The names of all endpoints, also of those whose entry cannot be read."""
        return [r["name"] for r in self.database.rows(sa.select(t.endpoints.c.name).order_by(t.endpoints.c.name))]

    def update_endpoint(
        self,
        name: str,
        *,
        expected_revision: int | None = None,
        expected_state: str | Collection[str] | None = None,
        **values: Any,
    ) -> bool:
        """Set state, message or observed_revision of an endpoint; False when it is not as it was expected.

        observed_revision never goes back. A state that is set with an expected revision holds for that one only.
        """
        if unknown := set(values) - {"state", "message", "observed_revision"}:
            raise ValueError(f"an endpoint's {', '.join(sorted(unknown))} cannot be set here")
        table = t.endpoints
        statement = table.update().where(table.c.name == name)
        if expected_revision is not None:
            statement = statement.where(table.c.revision == expected_revision)
        if expected_state is not None:
            states = [expected_state] if isinstance(expected_state, str) else list(expected_state)
            statement = statement.where(table.c.state.in_(states))
        if "observed_revision" in values:
            statement = statement.where(table.c.observed_revision <= values["observed_revision"])
        with self.database.write("deployment") as transaction:
            return transaction.changed(statement.values(updated_at=now(), **values)) == 1

    def conclude_deployment(
        self,
        name: str,
        revision: int,
        *,
        state: str,
        message: str = "",
        outcome: Outcome | None = "done",
        served: str | None = None,
        actor: str = "deployment",
    ) -> bool:
        """Note in one transaction how acting on a revision ended; False when something newer is wanted by now.

        `served` is the model that has users by it (`served_as`). `outcome` closes the `deploy` intent up to that
        revision, None leaves it open. What was wanted by an experiment is then noted on it: as acted on when done, else
        as withheld with the message. An endpoint of which something newer is wanted stays pending.
        """
        table = t.endpoints
        with self.database.write(actor) as transaction:
            row = transaction.first(sa.select(table.c.revision, table.c.state).where(table.c.name == name), lock=True)
            if row is None:
                raise NotFound(f"there is no endpoint {name!r}")
            is_newest = row["revision"] <= revision
            if row["state"] != "deleting":
                values = {
                    "state": state if is_newest else "pending",
                    "message": message,
                    "observed_revision": sa.case(
                        (table.c.observed_revision > revision, table.c.observed_revision), else_=revision
                    ),
                    "updated_at": now(),
                }
                transaction.execute(table.update().where(table.c.name == name).values(values))
            if served is not None:
                _note_served(transaction, name, revision, served)
            if outcome is not None:
                intent = _open_deployment(transaction, name)
                if acknowledge(transaction, "deploy", name, revision, outcome=outcome, reason=message or None):
                    _conclude_experiment(transaction, intent, None if outcome == "done" else message or outcome)
            return is_newest

    def set_routes(
        self,
        name: str,
        routes: list[dict[str, Any]],
        actor: str = "deployment",
        *,
        prompt: ResolvedPrompt | Literal["as it is"] | None = "as it is",
    ) -> int:
        """Replace an endpoint's route table; the new phase. An equal table opens no new phase.

        A `prompt` (None: none) takes the place of the one that the endpoint has, in the same transaction.
        """
        table = t.endpoints
        with self.database.write(actor) as transaction:
            row = transaction.first(sa.select(table.c.routes, table.c.phase).where(table.c.name == name), lock=True)
            if row is None:
                raise NotFound(f"there is no endpoint {name!r}")
            if prompt != "as it is":
                set_prompt(transaction, name, prompt)
            if row["routes"] == routes:
                return row["phase"]
            phase, at = row["phase"] + 1, now()
            changes = {"routes": routes, "phase": phase, "updated_at": at}
            transaction.execute(table.update().where(table.c.name == name).values(changes))
            transaction.execute(t.phases.insert().values(endpoint=name, phase=phase, routes=routes, at=at))
            transaction.audit("endpoint.routes", name, routes=routes)
            return phase

    def phases(self, endpoint: str) -> dict[int, list[dict[str, Any]]]:
        """The route table of each phase that an endpoint has had: what an experiment's shares are judged by."""
        statement = sa.select(t.phases).where(t.phases.c.endpoint == endpoint).order_by(t.phases.c.phase)
        return {r["phase"]: r["routes"] for r in self.database.rows(statement)}

    def remove_endpoint(self, name: str, actor: str = "cli", *, operation: str | None = None) -> bool:
        """Forget an endpoint and what is still wanted of it; False when it was gone.

        Refused while a backend of it is on record: only what is really gone is forgotten.
        """
        with self.database.write(actor) as transaction:
            transaction.first(sa.select(t.endpoints.c.name).where(t.endpoints.c.name == name), lock=True)
            left = transaction.execute(sa.select(t.backends.c.id).where(t.backends.c.endpoint == name)).scalars().all()
            if operations.begin(transaction, operation, "delete", name) is not None:
                return False
            if left:
                raise Conflict(f"endpoint {name!r} still has backends: {', '.join(left)}; stop them first")
            operations.remember(transaction, operation, "delete", name, {})
            if not transaction.changed(t.endpoints.delete().where(t.endpoints.c.name == name)):
                return False
            reason = f"endpoint {name} was deleted"
            _conclude_experiment(transaction, _open_deployment(transaction, name), reason)
            withdraw(transaction, "deploy", name, reason=reason)
            transaction.audit("endpoint.remove", name)
            return True


def want_endpoint(
    transaction: Transaction,
    spec: DeploymentSpec,
    actor: str,
    detail: Mapping[str, Any] | None = None,
    salt: str | None = None,
) -> int:
    """Want another spec of an endpoint, or a new endpoint, within a transaction; the new revision."""
    table, name, at = t.endpoints, spec.endpoint, now()
    # The row is locked before the intent is, by the insertion or by the select.
    last_phase = transaction.execute(sa.select(sa.func.max(t.phases.c.phase)).where(t.phases.c.endpoint == name))
    values: Row = {
        "name": name,
        "spec": spec.model_dump(mode="json"),
        "revision": 0,
        "observed_revision": 0,
        "state": "pending",
        "message": "",
        "routes": [],
        # An endpoint of this name may have been there before; its phases stay on record, so count on.
        "phase": last_phase.scalar() or 0,
        "salt": salt or secrets.token_hex(8),
        "created_at": at,
        "updated_at": at,
    }
    if not transaction.insert_missing(table, values):
        known = transaction.first(sa.select(table.c.state).where(table.c.name == name), lock=True)
        if known is None or known["state"] == "deleting":
            raise Conflict(f"endpoint {name!r} is being deleted; wait until `llmops endpoint list` no longer has it")
    _conclude_experiment(
        transaction, _open_deployment(transaction, name), f"{actor} wanted {spec.model_ref} before it ran"
    )
    # The endpoint's row forgets it with the next revision, and a model that comes back is run as it was then.
    revision = want(transaction, "deploy", name, actor, {**(detail or {}), _SPEC: values["spec"]})
    changes = {"spec": values["spec"], "revision": revision, "state": "pending", "held": None, "updated_at": at}
    transaction.execute(table.update().where(table.c.name == name).values(changes))
    back_to = {"back_to": detail["back_to"]} if detail and "back_to" in detail else {}
    transaction.audit("endpoint.want", name, model_ref=spec.model_ref, revision=revision, **back_to)
    return revision


def endpoint_of(transaction: Transaction, name: str) -> Endpoint | None:
    """An endpoint, locked until the transaction ends; None when there is none."""
    row = transaction.first(sa.select(t.endpoints).where(t.endpoints.c.name == name), lock=True)
    return None if row is None else _endpoint(row)


def deployment_of(transaction: Transaction, name: str, experiment: str) -> str | None:
    """The model that an endpoint is about to get as an experiment decided; None where nothing is under way for it."""
    intent = _open_deployment(transaction, name)
    if intent is None or intent["detail"].get("experiment") != experiment:
        return None
    row = transaction.first(sa.select(t.endpoints.c.spec).where(t.endpoints.c.name == name))
    return None if row is None else str(row["spec"]["model_ref"])


def _note_served(transaction: Transaction, name: str, revision: int, model_ref: str) -> None:
    """Note what an endpoint serves by a revision: the spec may name the model by an alias, which moves."""
    mine = t.intents.c.kind == "deploy", t.intents.c.key == name, t.intents.c.revision == revision
    row = transaction.first(sa.select(t.intents.c.detail).where(*mine), lock=True)
    if row is not None and _SPEC in row["detail"]:
        noted = t.intents.update().where(*mine).values(detail={**row["detail"], _SERVED: model_ref})
        transaction.execute(noted)


def _open_deployment(transaction: Transaction, name: str) -> Row | None:
    mine = t.intents.c.kind == "deploy", t.intents.c.key == name, t.intents.c.closed_at.is_(None)
    return transaction.first(sa.select(t.intents.c.detail).where(*mine))


def _conclude_experiment(transaction: Transaction, intent: Row | None, withheld: str | None) -> None:
    """Note on the experiment whose decision an intent was to carry out that it was, or why it was not."""
    experiment = None if intent is None else intent["detail"].get("experiment")
    if experiment is None:
        return
    table = t.experiments
    open_one = table.c.name == experiment, table.c.acted_at.is_(None), table.c.withheld.is_(None)
    values = {"acted_at": now()} if withheld is None else {"withheld": withheld}
    if transaction.changed(table.update().where(*open_one).values(values)):
        reason = {} if withheld is None else {"reason": withheld}
        transaction.audit("experiment.act" if withheld is None else "experiment.withheld", experiment, **reason)


def _endpoint(row: Row) -> Endpoint:
    values: Row = {**row, "spec": DeploymentSpec.model_validate(row["spec"])}
    return Endpoint(**values)
