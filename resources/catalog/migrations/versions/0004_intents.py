"""Intents, and indices that allow one of what there may be one of: a running experiment, a running erasure."""

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_ACTOR = "migration"


def upgrade() -> None:
    op.create_table(
        "intents",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False, comment="ingest, train, trial, deploy, …"),
        sa.Column("key", sa.String(), nullable=False, comment="the partition that it is about"),
        sa.Column("revision", sa.Integer(), nullable=False, comment="counts what was wanted of one kind and key"),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("requested_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False, comment="what the run must know"),
        sa.Column("closed_at", UtcDateTime(timezone=True), nullable=True, comment="null while it is open"),
        sa.Column("outcome", sa.String(), nullable=True, comment="done, failed, withdrawn or superseded"),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_intents")),
        sa.UniqueConstraint("kind", "key", "revision", name=op.f("uq_intents_kind_key_revision")),
    )
    op.add_column("experiments", sa.Column("withheld", sa.String(), comment="why nobody acts on the decision"))
    connection = op.get_bind()
    _end_duplicates(connection)
    for name, table, columns, condition in _INDICES:
        only = sa.text(condition)
        op.create_index(name, table, columns, unique=True, sqlite_where=only, postgresql_where=only)
    _intents_of_today(connection)


def downgrade() -> None:
    _close_what_is_done(op.get_bind())
    for name, table, _columns, _condition in reversed(_INDICES):
        op.drop_index(name, table_name=table)
    op.drop_column("experiments", "withheld")
    op.drop_table("intents")


_INDICES = (
    ("uq_intents_open", "intents", ["kind", "key"], "closed_at IS NULL"),
    ("uq_experiments_running", "experiments", ["endpoint"], "state = 'running'"),
    ("uq_erasures_running", "erasures", ["name", "request"], "state = 'running'"),
)

# The tables as they are at this revision, whatever later ones make of them.
_metadata = sa.MetaData()


def _table(table: str, /, **types: sa.types.TypeEngine[Any] | type[sa.types.TypeEngine[Any]]) -> sa.Table:
    return sa.Table(table, _metadata, *(sa.Column(column, kind) for column, kind in types.items()))


_datasets = _table("datasets", key=sa.String, status=sa.String, spec=sa.JSON, requested_at=UtcDateTime)
_requests = _table(
    "training_requests",
    id=sa.Integer,
    dataset=sa.String,
    recipe=sa.String,
    requested_by=sa.String,
    requested_at=UtcDateTime,
    reported_at=UtcDateTime,
)
_endpoints = _table(
    "endpoints",
    name=sa.String,
    revision=sa.Integer,
    observed_revision=sa.Integer,
    state=sa.String,
    updated_at=UtcDateTime,
)
_experiments = _table(
    "experiments",
    name=sa.String,
    endpoint=sa.String,
    spec=sa.JSON,
    state=sa.String,
    decision=sa.String,
    reason=sa.String,
    started_at=UtcDateTime,
    decided_at=UtcDateTime,
    acted_at=UtcDateTime,
    withheld=sa.String,
)
_erasures = _table(
    "erasures", id=sa.Integer, name=sa.String, request=sa.String, state=sa.String, finished_at=UtcDateTime
)
_intents = _table(
    "intents",
    kind=sa.String,
    key=sa.String,
    revision=sa.Integer,
    requested_by=sa.String,
    requested_at=UtcDateTime,
    detail=sa.JSON,
    closed_at=UtcDateTime,
    outcome=sa.String,
    reason=sa.String,
)
_audit = _table("audit", at=UtcDateTime, actor=sa.String, action=sa.String, target=sa.String, detail=sa.JSON)


def _end_duplicates(connection: sa.Connection) -> None:
    """End what stands beside an earlier one of which there may be only one: two asked at once could slip through."""
    at = datetime.now(UTC)
    running = sa.select(_experiments).where(_experiments.c.state == "running").order_by(_experiments.c.started_at)
    first: dict[str, str] = {}
    for row in connection.execute(running).mappings().all():
        if row["endpoint"] not in first:
            first[row["endpoint"]] = row["name"]
            continue
        reason = f"it was started beside {first[row['endpoint']]} on endpoint {row['endpoint']}: one runs at a time"
        ended = {"state": "concluded", "decision": "invalid", "reason": reason, "decided_at": at, "acted_at": at}
        connection.execute(_experiments.update().where(_experiments.c.name == row["name"]).values(ended))
        _note(connection, at, "experiment.decide", row["name"], decision="invalid", reason=reason)
    requests = set()
    running = sa.select(_erasures).where(_erasures.c.state == "running").order_by(_erasures.c.id)
    for row in connection.execute(running).mappings().all():
        if (row["name"], row["request"]) in requests:
            ended = {"state": "done", "finished_at": at}
            connection.execute(_erasures.update().where(_erasures.c.id == row["id"]).values(ended))
            _note(connection, at, "dataset.forgotten", str(row["id"]), reason="the same request runs already")
        requests.add((row["name"], row["request"]))


def _intents_of_today(connection: sa.Connection) -> None:
    """Open what was asked for and not done yet; what is left of it is what the run needs to know."""
    erased = set()
    for row in connection.execute(sa.select(_datasets).order_by(_datasets.c.requested_at)).mappings():
        if row["status"] == "erased":
            erased.add(row["key"])
        else:
            # Whether a version was ingested is on record outside the catalog: who acts on it looks there first.
            _want(connection, "ingest", row["key"], 1, _ACTOR, row["requested_at"], {"migrated": True})
    _trainings(connection, erased)
    _deployments(connection)


def _close_what_is_done(connection: sa.Connection) -> None:
    """Say in the columns of before what only the intents know: else what is done or withheld would be done again."""
    at = datetime.now(UTC)
    wanted = sa.select(_intents.c.detail).where(_intents.c.kind.in_(("train", "trial")), _intents.c.closed_at.is_(None))
    still_open = [detail["request"] for detail in connection.execute(wanted).scalars() if "request" in detail]
    done = _requests.c.reported_at.is_(None), _requests.c.id.not_in(still_open)
    connection.execute(_requests.update().where(*done).values(reported_at=at))
    withheld = _experiments.c.acted_at.is_(None), _experiments.c.withheld.is_not(None)
    connection.execute(_experiments.update().where(*withheld).values(acted_at=at))


def _trainings(connection: sa.Connection, erased: set[str]) -> None:
    statement = sa.select(_requests).where(_requests.c.reported_at.is_(None)).order_by(_requests.c.id)
    waiting: dict[tuple[str, str], list[sa.RowMapping]] = {}
    for row in connection.execute(statement).mappings():
        kind = "trial" if row["requested_by"].startswith("study:") else "train"
        waiting.setdefault((kind, f"{row['dataset']}|{row['recipe']}"), []).append(row)
    for (kind, key), rows in waiting.items():
        for number, row in enumerate(rows, 1):
            closed: dict[str, str] = {}
            if number < len(rows):
                closed = {"outcome": "superseded", "reason": f"wanted anew by {rows[number]['requested_by']}"}
            elif row["dataset"] in erased:
                closed = {"outcome": "withdrawn", "reason": f"{row['dataset']} was erased"}
            detail = {"request": row["id"]}
            _want(connection, kind, key, number, row["requested_by"], row["requested_at"], detail, **closed)


def _deployments(connection: sa.Connection) -> None:
    wanted: dict[str, int] = {}
    gone = set()
    for row in connection.execute(sa.select(_endpoints)).mappings():
        closed: dict[str, str] = {}
        if row["state"] == "deleting":
            gone.add(row["name"])
            closed = {"outcome": "withdrawn", "reason": f"endpoint {row['name']} is being deleted"}
        elif row["observed_revision"] >= row["revision"]:
            closed = {"outcome": "done"}
        wanted[row["name"]] = row["revision"]
        _want(connection, "deploy", row["name"], row["revision"], _ACTOR, row["updated_at"], {}, **closed)
    decided = _experiments.c.decision.is_not(None), _experiments.c.acted_at.is_(None)
    statement = sa.select(_experiments).where(*decided).order_by(_experiments.c.decided_at)
    for row in connection.execute(statement).mappings().all():
        spec, name, endpoint = row["spec"], row["name"], row["endpoint"]
        mine, at = _experiments.c.name == name, row["decided_at"] or row["started_at"]
        if endpoint not in wanted or endpoint in gone:
            reason = f"endpoint {endpoint!r} is gone, so there is nothing to switch"
            connection.execute(_experiments.update().where(mine).values(withheld=reason))
            continue
        if row["decision"] == "promote" and not spec.get("auto_promote", True):
            connection.execute(_experiments.update().where(mine).values(acted_at=at))
            continue
        model = spec["treatment"] if row["decision"] == "promote" else spec["control"]
        wanted[endpoint] += 1
        superseded = _intents.c.kind == "deploy", _intents.c.key == endpoint, _intents.c.closed_at.is_(None)
        end = {"closed_at": datetime.now(UTC), "outcome": "superseded", "reason": f"decided by {name}"}
        connection.execute(_intents.update().where(*superseded).values(end))
        detail = {"experiment": name, "decision": row["decision"], "model_ref": model}
        _want(connection, "deploy", endpoint, wanted[endpoint], "ab_report", at, detail)
        values = {"revision": wanted[endpoint], "state": "pending"}
        connection.execute(_endpoints.update().where(_endpoints.c.name == endpoint).values(values))


def _want(
    connection: sa.Connection,
    kind: str,
    key: str,
    number: int,
    actor: str,
    at: datetime,
    detail: dict[str, Any],
    **closed: str,
) -> None:
    values = {"kind": kind, "key": key, "revision": number, "requested_by": actor, "requested_at": at, "detail": detail}
    if closed:
        values |= {"closed_at": datetime.now(UTC), **closed}
    connection.execute(_intents.insert().values(values))


def _note(connection: sa.Connection, at: datetime, action: str, target: str, **detail: str) -> None:
    values = {"at": at, "actor": _ACTOR, "action": action, "target": target, "detail": detail}
    connection.execute(_audit.insert().values(values))
