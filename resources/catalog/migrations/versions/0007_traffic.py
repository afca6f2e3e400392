"""Traffic through spools: where a row came from, and statistics per user, made from the rows that are there."""

from datetime import timedelta
from typing import Any

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

_EXPOSURES = (
    ("source", sa.String(), "model, cache, or fallback: another model than the assigned one; null: model"),
    ("prompt_version", sa.String(), "of the prompt that the answer was made with"),
    ("consent", sa.Boolean(), "whether the user agreed to the use of the texts; null: not asked"),
    ("worker", sa.String(), "the spool that it came through"),
    ("sequence", sa.Integer(), "its place in that spool, counted without a gap"),
)
_FEEDBACK = (
    ("correction", sa.Text(), "what the user says would have been right, personal data masked"),
    ("scores", sa.JSON(), "other numbers of this feedback by name"),
    ("event", sa.String(), "id that makes writing it twice harmless"),
    ("worker", sa.String(), "the spool that it came through"),
    ("sequence", sa.Integer(), "its place in that spool, counted with the exposures"),
)
_MORE = ("prompt_tokens", "completion_tokens", "rated_1", "rated_2", "rated_3", "rated_4", "rated_5", "foreign_ratings")
_OUTSIDE = "empty: what was answered outside of experiments"
# What the shipped policy called slow when this was written; where the policy says otherwise the sums are made anew.
_SLOW_MS = 2000.0


def upgrade() -> None:
    for name, kind, comment in _EXPOSURES:
        op.add_column("exposures", sa.Column(name, kind, nullable=True, comment=comment))
    for name, kind, comment in _FEEDBACK:
        op.add_column("feedback", sa.Column(name, kind, nullable=True, comment=comment))
    op.drop_index("ix_exposures_experiment", table_name="exposures")
    op.create_index("ix_exposures_experiment_user", "exposures", ["experiment", "user"], unique=False)
    op.create_index("ix_exposures_worker_sequence", "exposures", ["worker", "sequence"], unique=False)
    op.create_index("uq_feedback_event", "feedback", ["event"], unique=True)
    op.create_index("ix_feedback_worker_sequence", "feedback", ["worker", "sequence"], unique=False)
    op.create_table(
        "statistics_plans",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False, comment="empty: what was answered outside of experiments"),
        sa.Column("slow_ms", sa.Float(), nullable=False, comment="a request that took longer counts as slow"),
        sa.Column("ends_at", UtcDateTime(timezone=True), nullable=True, comment="exposures after it do not count"),
        sa.Column(
            "rating_window_seconds",
            sa.Float(),
            nullable=True,
            comment="after a user's first exposure; null: any rating counts",
        ),
        sa.PrimaryKeyConstraint("endpoint", "experiment", name=op.f("pk_statistics_plans")),
    )
    op.create_table(
        "user_statistics",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=False, comment=_OUTSIDE),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False, autoincrement=False),
        sa.Column(
            "variant", sa.Integer(), nullable=False, autoincrement=False, comment="index into the phase's routes"
        ),
        sa.Column("first_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("judged", sa.Integer(), nullable=False, comment="requests less what the caller did wrong"),
        sa.Column("failed", sa.Integer(), nullable=False, comment="of the judged"),
        sa.Column("fallbacks", sa.Integer(), nullable=False, comment="of the failed: another model gave the answer"),
        sa.Column("timed", sa.Integer(), nullable=False, comment="requests whose time says something of the model"),
        sa.Column("slow", sa.Integer(), nullable=False, comment="of the timed"),
        sa.Column("latency_sum", sa.Float(), nullable=False, comment="ms, over the timed"),
        sa.Column("latency_squares", sa.Float(), nullable=False, comment="ms², over the timed"),
        sa.Column("prompt_tokens", sa.Integer(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=False),
        *(
            sa.Column(f"rated_{n}", sa.Integer(), nullable=False, comment=f"answers whose rating is {n}")
            for n in range(1, 6)
        ),
        sa.Column(
            "foreign_ratings",
            sa.Integer(),
            nullable=False,
            comment="ratings by another user than the one who asked",
        ),
        sa.PrimaryKeyConstraint("endpoint", "experiment", "user", "phase", "variant", name=op.f("pk_user_statistics")),
    )
    _fill(op.get_bind())


def downgrade() -> None:
    op.drop_table("user_statistics")
    op.drop_table("statistics_plans")
    op.drop_index("ix_feedback_worker_sequence", table_name="feedback")
    op.drop_index("uq_feedback_event", table_name="feedback")
    op.drop_index("ix_exposures_worker_sequence", table_name="exposures")
    op.drop_index("ix_exposures_experiment_user", table_name="exposures")
    op.create_index("ix_exposures_experiment", "exposures", ["experiment"], unique=False)
    for name, _kind, _comment in _FEEDBACK:
        op.drop_column("feedback", name)
    for name, _kind, _comment in _EXPOSURES:
        op.drop_column("exposures", name)


def _fill(connection: sa.Connection) -> None:
    """Write the plan of every experiment that has exposures, and the sums of its users."""
    found = sa.MetaData()
    found.reflect(connection, only=["exposures", "feedback", "experiments", "phases"])
    tables = found.tables
    x, f = tables["exposures"], tables["feedback"]
    times = {"at": UtcDateTime(timezone=True)}
    _mark_fallbacks(connection, x, tables["phases"])
    plans = sa.table(
        "statistics_plans",
        *map(sa.column, ("endpoint", "experiment", "slow_ms")),
        sa.column("ends_at", UtcDateTime(timezone=True)),
        sa.column("rating_window_seconds"),
    )
    name = sa.func.coalesce(x.c.experiment, "")
    experiments = {}
    chosen = sa.select(
        tables["experiments"].c.name, tables["experiments"].c.spec, _typed(tables["experiments"], "started_at")
    )
    for row in connection.execute(chosen):
        experiments[row.name] = row
    for endpoint, experiment in connection.execute(sa.select(x.c.endpoint, name).distinct()).all():
        row = experiments.get(experiment)
        window = None if row is None else 3600 * float(row.spec.get("rating_window_hours", 24.0))
        ends_at = None if row is None else row.started_at + timedelta(hours=float(row.spec["duration_hours"]))
        values = {"endpoint": endpoint, "experiment": experiment, "slow_ms": _SLOW_MS}
        connection.execute(plans.insert().values(**values, ends_at=ends_at, rating_window_seconds=window))
    at = sa.type_coerce(x.c.at, times["at"])
    in_time = sa.or_(plans.c.ends_at.is_(None), at <= plans.c.ends_at)
    planned = sa.and_(plans.c.endpoint == x.c.endpoint, plans.c.experiment == name)
    _fill_requests(connection, x, name, plans, planned, in_time)
    _fill_ratings(connection, x, f, name, plans, planned, in_time)


def _typed(table: sa.Table, column: str) -> sa.ColumnElement[Any]:
    return sa.type_coerce(table.c[column], UtcDateTime(timezone=True)).label(column)


def _mark_fallbacks(connection: sa.Connection, x: sa.Table, phases: sa.Table) -> None:
    """An answer that another model than the assigned one gave says so from now on."""
    assigned = {}
    for row in connection.execute(sa.select(phases.c.endpoint, phases.c.phase, phases.c.routes)):
        for variant, route in enumerate(row.routes):
            if isinstance(route, dict):
                assigned[row.endpoint, row.phase, variant] = route.get("model_ref")
    key = (x.c.endpoint, x.c.phase, x.c.variant, x.c.model_ref)
    for endpoint, phase, variant, answered in connection.execute(sa.select(*key).distinct()).all():
        if assigned.get((endpoint, phase, variant), answered) != answered:
            theirs = (x.c.endpoint == endpoint, x.c.phase == phase, x.c.variant == variant, x.c.model_ref == answered)
            connection.execute(x.update().where(*theirs).values(source="fallback"))


def _count(condition: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _fill_requests(connection: sa.Connection, x: Any, name: Any, plans: Any, planned: Any, in_time: Any) -> None:
    late, busy = x.c.latency_ms > plans.c.slow_ms, x.c.status.in_((408, 429))
    failed = sa.or_(x.c.status >= 500, busy, sa.and_(x.c.error.is_not(None), x.c.status < 400))
    callers = sa.and_(x.c.status >= 400, x.c.status < 499, sa.not_(busy))
    timed = sa.and_(sa.not_(failed), sa.or_(x.c.status < 400, sa.and_(x.c.status == 499, late)))
    latency = sa.case((timed, x.c.latency_ms), else_=0.0)
    values = {
        "requests": sa.func.count(),
        "judged": _count(sa.not_(callers)),
        "failed": _count(failed),
        "fallbacks": _count(sa.func.coalesce(x.c.source, "") == "fallback"),
        "timed": _count(timed),
        "slow": _count(sa.and_(timed, late)),
        "latency_sum": sa.func.sum(latency),
        "latency_squares": sa.func.sum(latency * latency),
        "prompt_tokens": sa.func.coalesce(sa.func.sum(x.c.prompt_tokens), 0),
        "completion_tokens": sa.func.coalesce(sa.func.sum(x.c.completion_tokens), 0),
        **dict.fromkeys(_MORE[2:], sa.literal_column("0")),
    }
    key = [x.c.endpoint, name, x.c.user, x.c.phase, x.c.variant]
    chosen = sa.select(*key, sa.func.min(x.c.at), sa.func.max(x.c.at), *values.values())
    chosen = chosen.select_from(x.join(plans, planned)).where(in_time).group_by(*key)
    names = ("endpoint", "experiment", "user", "phase", "variant", "first_at", "last_at", *values)
    connection.execute(sa.insert(sa.table("user_statistics", *map(sa.column, names))).from_select(names, chosen))


def _fill_ratings(connection: sa.Connection, x: Any, f: Any, name: Any, plans: Any, planned: Any, in_time: Any) -> None:
    """Ratings are few beside requests, and go by Python: the last of each answer, by the asker, within the window."""
    at = UtcDateTime(timezone=True)
    firsts: dict[tuple[str, str, str], Any] = {}
    table = sa.table("user_statistics", *map(sa.column, ("endpoint", "experiment", "user", "phase", "variant", *_MORE)))
    known = sa.table("user_statistics", *map(sa.column, ("endpoint", "experiment", "user")), sa.column("first_at", at))
    rated = (
        sa.select(
            x.c.endpoint, name.label("experiment"), x.c.user, x.c.phase, x.c.variant, x.c.request_id, x.c.source,
            f.c.rating, f.c.user.label("rater"), _typed(f, "at"), plans.c.rating_window_seconds.label("window"),
        )
        .select_from(x.join(f, f.c.request_id == x.c.request_id).join(plans, planned))
        .where(in_time)
        .order_by(f.c.at, f.c.id)
    )  # fmt: skip
    rows = connection.execute(rated).all()
    if not rows:
        return
    for row in connection.execute(sa.select(known)):
        key = (row.endpoint, row.experiment, row.user)
        firsts[key] = min(firsts.get(key, row.first_at), row.first_at)
    last: dict[str, tuple[Any, ...]] = {}
    sums: dict[tuple[Any, ...], dict[str, int]] = {}
    for row in rows:
        if row.source in ("cache", "fallback"):
            continue
        key = (row.endpoint, row.experiment, row.user, row.phase, row.variant)
        if row.rater is not None and row.rater != row.user:
            own = sums.setdefault(key, {})
            own["foreign_ratings"] = own.get("foreign_ratings", 0) + 1
        elif row.window is None or (row.at - firsts[key[:3]]).total_seconds() <= row.window:
            last[row.request_id] = (key, f"rated_{row.rating}")
    for key, column in last.values():
        own = sums.setdefault(key, {})
        own[column] = own.get(column, 0) + 1
    for (endpoint, experiment, user, phase, variant), values in sums.items():
        mine = table.c.endpoint == endpoint, table.c.experiment == experiment, table.c.user == user
        mine += table.c.phase == phase, table.c.variant == variant
        connection.execute(table.update().where(*mine).values(values))
