"""Sufficient statistics of traffic: per user, phase and variant the sums that every estimate of an experiment needs.

They are kept by the transaction that writes exposures and ratings. One aggregation defines them: it adds up what a
batch brought, and makes the sums of an experiment anew where its plan has changed. Answers from a cache are left out.
"""

from collections.abc import Callable, Collection, Iterable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Query, Transaction

SLOW_MS = 2000.0
"""What the shipped policy calls slow (`experiments.latency_threshold_ms`): for who writes without a policy."""
BUSY_STATUS = (408, 429)
CLIENT_LEFT = 499
RATINGS = tuple(f"rated_{n}" for n in range(1, 6))
KEY = ("endpoint", "experiment", "user", "phase", "variant")
_NOT_RATED = ("cache", "fallback")
_MOST_AT_ONCE = 5000
_SUMS = (
    "requests",
    "judged",
    "failed",
    "fallbacks",
    "timed",
    "slow",
    "latency_sum",
    "latency_squares",
    "prompt_tokens",
    "completion_tokens",
    *RATINGS,
    "foreign_ratings",
)


def experiment_of(column: Any) -> Any:
    """The experiment of an exposure as the statistics name it."""
    return sa.func.coalesce(column, "")


def request_sums(within: sa.ColumnElement[bool]) -> Query:
    """Sums by `KEY` over the exposures `within`, with the times of the first and the last one.

    failed: a status of 500 and more, 408, 429, or an error beside a good status (the answer broke off, or another
    backend had to give it). What the caller did wrong is nobody's failure and no success: it is not judged. timed: not
    failed, and answered, or left by a caller for whom it was too slow; who left before that tells nothing.
    """
    x, p = t.exposures, t.statistics_plans
    late = x.c.latency_ms > p.c.slow_ms
    busy = x.c.status.in_(BUSY_STATUS)
    failed = sa.or_(x.c.status >= 500, busy, sa.and_(x.c.error.is_not(None), x.c.status < 400))
    is_callers_fault = sa.and_(x.c.status >= 400, x.c.status < CLIENT_LEFT, sa.not_(busy))
    answered = sa.or_(x.c.status < 400, sa.and_(x.c.status == CLIENT_LEFT, late))
    timed = sa.and_(sa.not_(failed), answered)
    latency = sa.case((timed, x.c.latency_ms), else_=0.0)
    values = {
        "requests": sa.func.count(),
        "judged": _count(sa.not_(is_callers_fault)),
        "failed": _count(failed),
        "fallbacks": _count(sa.func.coalesce(x.c.source, "") == "fallback"),
        "timed": _count(timed),
        "slow": _count(sa.and_(timed, late)),
        "latency_sum": sa.func.sum(latency),
        "latency_squares": sa.func.sum(latency * latency),
        "prompt_tokens": sa.func.coalesce(sa.func.sum(x.c.prompt_tokens), 0),
        "completion_tokens": sa.func.coalesce(sa.func.sum(x.c.completion_tokens), 0),
    }
    key = [x.c.endpoint, experiment_of(x.c.experiment), x.c.user, x.c.phase, x.c.variant]
    sums = [values.get(name, sa.literal_column("0")).label(name) for name in _SUMS]
    planned = sa.and_(p.c.endpoint == x.c.endpoint, p.c.experiment == experiment_of(x.c.experiment))
    return (
        sa.select(*key, sa.func.min(x.c.at), sa.func.max(x.c.at), *sums)
        .select_from(x.join(p, planned))
        .where(within, sa.func.coalesce(x.c.source, "") != "cache")
        .where(sa.or_(p.c.ends_at.is_(None), x.c.at <= p.c.ends_at))
        .group_by(*key)
    )


def rating_sums(within: sa.ColumnElement[bool], dialect: str, sign: int = 1) -> Query:
    """How often each rating was given, by `KEY`, over the rated exposures `within`; `sign` -1 to take them back.

    Of several ratings of one answer the last counts, given within the plan's window after the user's first exposure,
    and only the asker's own. An answer that another model or a cache gave is not rated.
    """
    x, f, p, s = t.exposures, t.feedback, t.statistics_plans, t.user_statistics
    experiment = experiment_of(x.c.experiment)
    first = (
        sa.select(sa.func.min(s.c.first_at))
        .where(s.c.endpoint == x.c.endpoint, s.c.experiment == experiment, s.c.user == x.c.user)
        .scalar_subquery()
    )
    own = sa.or_(f.c.user.is_(None), f.c.user == x.c.user)
    in_time = sa.or_(p.c.rating_window_seconds.is_(None), _seconds(f.c.at, first, dialect) <= p.c.rating_window_seconds)
    counts = sa.and_(own, in_time)
    newest = sa.func.row_number().over(
        partition_by=(f.c.request_id, sa.case((counts, 1), else_=0)), order_by=(f.c.at.desc(), f.c.id.desc())
    )
    planned = sa.and_(p.c.endpoint == x.c.endpoint, p.c.experiment == experiment)
    rated = (
        sa.select(
            x.c.endpoint,
            experiment.label("experiment"),
            x.c.user,
            x.c.phase,
            x.c.variant,
            x.c.at,
            sa.case((sa.and_(counts, newest == 1), f.c.rating), else_=0).label("rating"),
            sa.case((own, 0), else_=1).label("foreign"),
        )
        .select_from(x.join(f, f.c.request_id == x.c.request_id).join(p, planned))
        .where(within, sa.func.coalesce(x.c.source, "").not_in(_NOT_RATED))
        .where(sa.or_(p.c.ends_at.is_(None), x.c.at <= p.c.ends_at))
        .subquery()
    )
    sums: list[Any] = []
    for name in _SUMS:
        if name in RATINGS:
            value: Any = sign * _count(rated.c.rating == int(name[-1]))
        elif name == "foreign_ratings":
            value = sign * sa.func.sum(rated.c.foreign)
        else:
            value = sa.literal_column("0")
        sums.append(value.label(name))
    key = [rated.c[name] for name in KEY]
    return sa.select(*key, sa.func.min(rated.c.at), sa.func.max(rated.c.at), *sums).group_by(*key)


def add_requests(transaction: Transaction, request_ids: Collection[str]) -> None:
    """Add what exposures that were just written bring to the sums."""
    _run(transaction, "requests", 1, request_ids)


def add_ratings(transaction: Transaction, request_ids: Collection[str], sign: int = 1) -> None:
    """Add what the ratings of these requests bring to the sums; take it back with `sign` -1."""
    _run(transaction, "ratings", sign, request_ids)


def _run(transaction: Transaction, kind: str, sign: int, request_ids: Collection[str]) -> None:
    statement = _statement(kind, sign, transaction.connection.dialect.name)
    # In one order, so that two writers do not wait in a circle, and few enough for a statement.
    ordered = sorted(request_ids)
    for at in range(0, len(ordered), _MOST_AT_ONCE):
        transaction.execute(statement, {"request_ids": ordered[at : at + _MOST_AT_ONCE]})


@lru_cache
def _statement(kind: str, sign: int, dialect: str) -> sa.Executable:
    """Building it takes longer than running it."""
    within = t.exposures.c.request_id.in_(sa.bindparam("request_ids", expanding=True))
    return _upsert(request_sums(within) if kind == "requests" else rating_sums(within, dialect, sign), dialect)


def _upsert(sums: Query, dialect: str) -> sa.Executable:
    """The statement that adds sums to those that are kept."""
    if dialect == "postgresql":
        from sqlalchemy.dialects.postgresql import insert

        least, greatest = sa.func.least, sa.func.greatest
    else:
        from sqlalchemy.dialects.sqlite import insert

        least, greatest = sa.func.min, sa.func.max
    s = t.user_statistics
    ordered = sums.order_by(*_first_columns(len(KEY)))
    statement = insert(s).from_select([*KEY, "first_at", "last_at", *_SUMS], ordered)
    new = statement.excluded
    return statement.on_conflict_do_update(
        index_elements=list(KEY),
        set_={
            "first_at": least(s.c.first_at, new.first_at),
            "last_at": greatest(s.c.last_at, new.last_at),
            **{name: s.c[name] + new[name] for name in _SUMS},
        },
    )


def rename_users(transaction: Transaction, is_theirs: Callable[[str], bool], pseudonym: Callable[[str], str]) -> int:
    """Give users another name in the sums, and add them to those that have it already; how many rows that were."""
    s = t.user_statistics
    names = [name for name in transaction.execute(sa.select(s.c.user).distinct()).scalars() if is_theirs(name)]
    if not names:
        return 0
    rows = [dict(row) for row in transaction.execute(sa.select(s).where(s.c.user.in_(names))).mappings()]
    transaction.execute(s.delete().where(s.c.user.in_(names)))
    for row in rows:
        values: list[Any] = [
            sa.bindparam(None, row[c.name] if c.name != "user" else pseudonym(row["user"]), type_=c.type)
            for c in s.columns
        ]
        ordered = dict(zip((c.name for c in s.columns), values, strict=True))
        chosen = sa.select(*(ordered[name] for name in (*KEY, "first_at", "last_at", *_SUMS))).where(sa.true())
        transaction.execute(_upsert(chosen, transaction.connection.dialect.name))
    return len(rows)


def _first_columns(count: int) -> list[Any]:
    """The first columns of a statement, by their place."""
    return [sa.literal_column(str(place)) for place in range(1, count + 1)]


def make_plans(transaction: Transaction, pairs: Iterable[tuple[str, str]], slow_ms: float) -> None:
    """See that each (endpoint, experiment) has the plan that its sums are made by."""
    p, e = t.statistics_plans, t.experiments
    for endpoint, experiment in sorted(set(pairs)):
        known = sa.select(p.c.endpoint).where(p.c.endpoint == endpoint, p.c.experiment == experiment)
        if transaction.first(known) is not None:
            continue
        row = (
            transaction.first(sa.select(e.c.spec, e.c.started_at).where(e.c.name == experiment)) if experiment else None
        )
        transaction.insert_missing(
            p, {"endpoint": endpoint, "experiment": experiment, "slow_ms": slow_ms, **plan_values(row)}
        )


def plan_values(experiment: dict[str, Any] | None) -> dict[str, Any]:
    """Until when exposures of an experiment count, and for how long ratings do; without one, always."""
    if experiment is None:
        return {"ends_at": None, "rating_window_seconds": None}
    spec = experiment["spec"]
    return {
        "ends_at": experiment["started_at"] + timedelta(hours=float(spec["duration_hours"])),
        "rating_window_seconds": 3600 * float(spec.get("rating_window_hours", 24.0)),
    }


def earlier_users(transaction: Transaction, rows: Iterable[dict[str, Any]]) -> list[tuple[str, str, str]]:
    """(endpoint, experiment, user) of those in `rows` who are on record with a later first exposure."""
    firsts: dict[tuple[str, str, str], datetime] = {}
    for row in rows:
        key = (row["endpoint"], row.get("experiment") or "", row["user"])
        if key not in firsts or row["at"] < firsts[key]:
            firsts[key] = row["at"]
    s = t.user_statistics
    found: list[tuple[str, str, str]] = []
    for (endpoint, experiment), users in _grouped(firsts).items():
        statement = (
            sa.select(s.c.user, sa.func.min(s.c.first_at).label("first_at"))
            .where(s.c.endpoint == endpoint, s.c.experiment == experiment, s.c.user.in_(users))
            .group_by(s.c.user)
        )
        for row in transaction.execute(statement).mappings():
            key = (endpoint, experiment, row["user"])
            if firsts[key] < row["first_at"]:
                found.append(key)
    return found


def _grouped(keys: Iterable[tuple[str, str, str]]) -> dict[tuple[str, str], list[str]]:
    groups: dict[tuple[str, str], list[str]] = {}
    for endpoint, experiment, user in keys:
        groups.setdefault((endpoint, experiment), []).append(user)
    return groups


def rated_requests(transaction: Transaction, users: Iterable[tuple[str, str, str]]) -> set[str]:
    """The requests of users (endpoint, experiment, user) that somebody rated."""
    x, f = t.exposures, t.feedback
    found: set[str] = set()
    for (endpoint, experiment), names in _grouped(users).items():
        named = x.c.experiment == experiment if experiment else x.c.experiment.is_(None)
        statement = (
            sa.select(x.c.request_id)
            .join(f, f.c.request_id == x.c.request_id)
            .where(named, x.c.endpoint == endpoint, x.c.user.in_(names))
        )
        found.update(transaction.execute(statement).scalars())
    return found


def rebuild(transaction: Transaction, endpoint: str, experiment: str) -> None:
    """Make the sums of an experiment anew from its exposures and ratings, by the plan on record."""
    x, s = t.exposures, t.user_statistics
    transaction.execute(s.delete().where(s.c.endpoint == endpoint, s.c.experiment == experiment))
    named = x.c.experiment == experiment if experiment else x.c.experiment.is_(None)
    mine = sa.and_(x.c.endpoint == endpoint, named)
    dialect = transaction.connection.dialect.name
    transaction.execute(_upsert(request_sums(mine), dialect))
    transaction.execute(_upsert(rating_sums(mine, dialect), dialect))


def _count(condition: Any) -> Any:
    return sa.func.sum(sa.case((condition, 1), else_=0))


def _seconds(later: Any, earlier: Any, dialect: str) -> Any:
    if dialect == "postgresql":
        return sa.extract("epoch", later - earlier)
    return (sa.func.julianday(later) - sa.func.julianday(earlier)) * 86400.0
