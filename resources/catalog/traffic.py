"""What the gateway saw: exposures, ratings, and what an experiment has of them."""

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog import traffic_statistics as statistics
from resources.catalog.database import Database, Query, Transaction, now
from resources.catalog.embedded import add_embedded
from resources.catalog.inserts import insert_missing
from resources.catalog.refusals import add_refusals
from resources.catalog.usage import Used, add_usage

if TYPE_CHECKING:
    import polars as pl


class Traffic:
    """The part of the catalog that is about requests and ratings."""

    database: Database

    def add_exposures(self, rows: list[dict[str, Any]], *, slow_ms: float = statistics.SLOW_MS) -> int:
        """Append exposures, a dict a row with the columns of the table; see `add_traffic`."""
        return self.add_traffic(rows, [], slow_ms=slow_ms)[0]

    def add_feedback(
        self, request_id: str, rating: int, *, user: str | None = None, comment: str | None = None
    ) -> None:
        row = {"request_id": request_id, "at": now(), "user": user, "rating": rating, "comment": comment}
        self.add_traffic([], [row])

    def add_traffic(
        self,
        exposures: list[dict[str, Any]],
        feedback: list[dict[str, Any]],
        refusals: Sequence[dict[str, Any]] = (),
        shadows: Sequence[dict[str, Any]] = (),
        embedded: Sequence[dict[str, Any]] = (),
        *,
        slow_ms: float = statistics.SLOW_MS,
    ) -> tuple[int, int]:
        """Append exposures and ratings and add them to the statistics, in one transaction; how many of each were new.

        A row that is on record already (by `request_id`, or `event` of a rating) changes nothing: a batch may be
        written twice. A rating may come before its exposure. What a new exposure used (`used`, beside the columns) is
        added to the ledger. Refusals (see `add_refusals`), what candidates answered and what embeddings used (see
        `add_embedded`) go with them.
        """
        if not (exposures or feedback or refusals or shadows or embedded):
            return 0, 0
        with self.database.write("gateway") as transaction:
            # Two that write ratings of one answer at once would each add its own, and neither take the other's back.
            transaction.serialize("traffic")
            statistics.make_plans(
                transaction, ((row["endpoint"], row.get("experiment") or "") for row in exposures), slow_ms
            )
            # Whose first exposure turns out to be earlier has other ratings in the window.
            moved = statistics.earlier_users(transaction, exposures)
            touched = {row["request_id"] for row in (*exposures, *feedback)}
            touched |= statistics.rated_requests(transaction, moved)
            statistics.add_ratings(transaction, touched, -1)
            rows = [{name: value for name, value in row.items() if name != "used"} for row in exposures]
            new = insert_missing(transaction, t.exposures, rows, t.exposures.c.request_id)
            rated = insert_missing(transaction, t.feedback, feedback, t.feedback.c.id)
            statistics.add_requests(transaction, new)
            statistics.add_ratings(transaction, touched)
            _add_used(transaction, exposures, set(new))
            if refusals:
                add_refusals(transaction, refusals)
            if embedded:
                add_embedded(transaction, embedded)
            insert_missing(transaction, t.shadows, list(shadows), t.shadows.c.request_id)
        return len(new), len(rated)

    def user_statistics(self, *, endpoint: str, experiment: str = "", slow_ms: float | None = None) -> "pl.DataFrame":
        """The sums of an experiment, or of what was answered outside of experiments: a row per user, phase, variant.

        They are made by a plan: until when exposures count, how long ratings do, and what is slow. Where the
        experiment was extended since, or `slow_ms` is another than they were counted by, they are made anew first.
        """
        self._keep_plan(endpoint, experiment, slow_ms)
        table = t.user_statistics
        mine = table.c.endpoint == endpoint, table.c.experiment == experiment
        columns = [c for c in table.columns if c.name not in ("endpoint", "experiment")]
        return self._frame(columns, sa.select(*columns).where(*mine))

    def _keep_plan(self, endpoint: str, experiment: str, slow_ms: float | None) -> None:
        p, e = t.statistics_plans, t.experiments
        mine = p.c.endpoint == endpoint, p.c.experiment == experiment
        wanted = sa.select(e.c.spec, e.c.started_at).where(e.c.name == experiment)
        with self.database.read() as connection:
            found = connection.execute(sa.select(p).where(*mine)).mappings().first()
            row = connection.execute(wanted).mappings().first() if experiment else None
        plan = statistics.plan_values(None if row is None else dict(row))
        if slow_ms is not None:
            plan["slow_ms"] = slow_ms
        if found is None or all(found[name] == value for name, value in plan.items()):
            return
        if self._is_expired(endpoint, experiment):
            return
        with self.database.write("statistics") as transaction:
            transaction.execute(p.update().where(*mine).values(plan))
            statistics.rebuild(transaction, endpoint, experiment)

    def exposures(
        self,
        *,
        experiment: str | None = None,
        endpoint: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> "pl.DataFrame":
        """Exposures, oldest first; a column per column of the table."""
        table = t.exposures
        statement = sa.select(table).order_by(table.c.at, table.c.request_id)
        if experiment is not None:
            statement = statement.where(table.c.experiment == experiment)
        if endpoint is not None:
            statement = statement.where(table.c.endpoint == endpoint)
        if since is not None:
            statement = statement.where(table.c.at >= since)
        if until is not None:
            statement = statement.where(table.c.at < until)
        return self._frame(table.columns, statement)

    def feedback(
        self,
        *,
        experiment: str | None = None,
        endpoint: str | None = None,
        exposed_since: datetime | None = None,
        exposed_until: datetime | None = None,
    ) -> "pl.DataFrame":
        """Ratings of the exposures selected, oldest first."""
        table = t.feedback
        statement = sa.select(table).order_by(table.c.id)
        if experiment is not None or endpoint is not None:
            statement = statement.join(t.exposures, t.exposures.c.request_id == table.c.request_id)
        if experiment is not None:
            statement = statement.where(t.exposures.c.experiment == experiment)
        if endpoint is not None:
            statement = statement.where(t.exposures.c.endpoint == endpoint)
            if exposed_since is not None:
                statement = statement.where(t.exposures.c.at >= exposed_since)
            if exposed_until is not None:
                statement = statement.where(t.exposures.c.at < exposed_until)
        return self._frame(table.columns, statement)

    def last_requests(
        self, endpoint: str, experiment: str, variants: list[tuple[int, int]], most: int
    ) -> "pl.DataFrame":
        """The last requests of an experiment that say something of the server, oldest first: user, at, status, error
        and latency_ms of at most `most`, of the given (phase, variant) pairs."""
        x = t.exposures
        columns = [x.c.user, x.c.at, x.c.status, x.c.error, x.c.latency_ms]
        of_server = sa.or_(
            x.c.status < 400, x.c.status >= statistics.CLIENT_LEFT, x.c.status.in_(statistics.BUSY_STATUS)
        )
        by_phase: dict[int, list[int]] = {}
        for phase, variant in variants:
            by_phase.setdefault(phase, []).append(variant)
        within = [sa.and_(x.c.phase == phase, x.c.variant.in_(of)) for phase, of in by_phase.items()]
        statement = (
            sa.select(*columns)
            .where(x.c.endpoint == endpoint, x.c.experiment == experiment, of_server)
            .where(sa.func.coalesce(x.c.source, "") != "cache", sa.or_(sa.false(), *within))
            .order_by(x.c.at.desc(), x.c.request_id.desc())
            .limit(most)
        )
        return self._frame(columns, statement).reverse()

    def exposed_by(self, request_id: str) -> str | None:
        """The endpoint that answered a request, or None when no such exposure was written."""
        table = t.exposures
        rows = self.database.rows(sa.select(table.c.endpoint).where(table.c.request_id == request_id))
        return rows[0]["endpoint"] if rows else None

    def salt_of(self, request_id: str) -> str | None:
        """The salt of the endpoint that answered a request, or None where either is not on record."""
        joined = t.exposures.join(t.endpoints, t.endpoints.c.name == t.exposures.c.endpoint)
        statement = sa.select(t.endpoints.c.salt).select_from(joined).where(t.exposures.c.request_id == request_id)
        rows = self.database.rows(statement)
        return rows[0]["salt"] if rows else None

    def request_count(self, *, endpoint: str) -> int:
        statement = sa.select(sa.func.count()).where(t.exposures.c.endpoint == endpoint)
        return int(self.database.scalar(statement))

    def outcomes(self, *, endpoint: str, since: datetime) -> dict[str, dict[str, float]]:
        """Of each model that answered an endpoint since then: requests, failures, and mean latency of the rest in ms.

        A request failed where its status is 500 or more, which an answer that broke off has too.
        """
        table = t.exposures
        failed = table.c.status >= 500
        statement = (
            sa.select(
                table.c.model_ref,
                sa.func.count().label("requests"),
                sa.func.sum(sa.case((failed, 1), else_=0)).label("failures"),
                sa.func.avg(sa.case((failed, None), else_=table.c.latency_ms)).label("latency_ms"),
            )
            .where(table.c.endpoint == endpoint, table.c.at >= since)
            .group_by(table.c.model_ref)
        )
        names = ("requests", "failures", "latency_ms")
        return {r["model_ref"]: {n: float(r[n] or 0.0) for n in names} for r in self.database.rows(statement)}

    def exposure_count(self, *, experiment: str) -> int:
        statement = sa.select(sa.func.count()).where(t.exposures.c.experiment == experiment)
        return int(self.database.scalar(statement))

    def progress(self, experiment: str, *, first_seen_before: datetime) -> tuple[int, int, int]:
        """Requests, the sum of ratings, and users whose first request was before a moment, by the statistics of users:
        what an analysis would look at."""
        s, e = t.user_statistics, t.experiments
        endpoint = sa.select(e.c.endpoint).where(e.c.name == experiment).scalar_subquery()
        mine = s.c.endpoint == endpoint, s.c.experiment == experiment
        # A rating that its user changed counts anew: the sum of ratings moves where their number does not.
        rated = sum((n * s.c[name] for n, name in enumerate(statistics.RATINGS, 1)), s.c.foreign_ratings)
        first = sa.select(sa.func.min(s.c.first_at).label("at")).where(*mine).group_by(s.c.user).subquery()
        counts = (
            sa.select(sa.func.coalesce(sa.func.sum(s.c.requests), 0)).where(*mine),
            sa.select(sa.func.coalesce(sa.func.sum(rated), 0)).where(*mine),
            sa.select(sa.func.count()).select_from(first).where(first.c.at <= first_seen_before),
        )
        with self.database.read() as connection:
            requests, ratings, users = (int(connection.execute(count).scalar_one()) for count in counts)
        return requests, ratings, users

    def _is_expired(self, endpoint: str, experiment: str) -> bool:
        """Whether rows that the sums were made from are past their retention: then nothing can make them anew."""
        s, x = t.user_statistics, t.exposures
        named = x.c.experiment == experiment if experiment else x.c.experiment.is_(None)
        summed = sa.select(sa.func.min(s.c.first_at)).where(s.c.endpoint == endpoint, s.c.experiment == experiment)
        there = sa.select(sa.func.min(x.c.at)).where(x.c.endpoint == endpoint, named)
        first, oldest = self.database.scalar(summed), self.database.scalar(there)
        return first is not None and (oldest is None or oldest > first)

    def _frame(self, columns: Iterable[Any], statement: Query) -> "pl.DataFrame":
        # Few commands ask for frames, and this import would be a quarter of what asking for a training takes.
        import polars as pl

        dtypes: dict[type, Any] = {
            sa.String: pl.String,
            sa.Text: pl.String,
            sa.Integer: pl.Int64,
            sa.Float: pl.Float64,
            sa.Boolean: pl.Boolean,
            sa.JSON: pl.String,
        }
        schema = {
            c.name: pl.Datetime("us", "UTC") if isinstance(c.type, t.UtcDateTime) else dtypes[type(c.type)]
            for c in columns
        }
        json_at = [place for place, c in enumerate(columns) if isinstance(c.type, sa.JSON)]
        frames = [pl.DataFrame(schema=schema)]
        with self.database.read() as connection:
            # In pieces: as Python's objects a million rows are ten times what they are in columns.
            for rows in connection.execution_options(yield_per=_ROWS_AT_ONCE).execute(statement).partitions():
                plain = [_with_json(row, json_at) for row in rows] if json_at else [tuple(row) for row in rows]
                frames.append(pl.DataFrame(plain, schema=schema, orient="row"))
        return pl.concat(frames)


_ROWS_AT_ONCE = 50_000


def _with_json(row: Any, places: list[int]) -> tuple[Any, ...]:
    values = list(row)
    for place in places:
        values[place] = None if values[place] is None else json.dumps(values[place], ensure_ascii=False)
    return tuple(values)


def _add_used(transaction: Transaction, exposures: list[dict[str, Any]], new: set[Any]) -> None:
    """Add to the ledger what those of the exposures used that are new."""
    found: list[Used] = []
    last_used: dict[str, datetime] = {}
    for row in exposures:
        used: dict[str, Any] | None = row.get("used")
        if used is None or row["request_id"] not in new:
            continue
        # A request id that comes twice in one batch is one row.
        new.discard(row["request_id"])
        key, at = used["key"], row["at"]
        tokens = used["prompt_tokens"] + used["completion_tokens"]
        found.append(
            Used(
                day=at.astimezone(UTC).date().isoformat(),
                key=key,
                team=used["team"],
                endpoint=row["endpoint"],
                model_ref=row["model_ref"],
                requests=1,
                failed=int(row["status"] >= 400),
                prompt_tokens=used["prompt_tokens"],
                completion_tokens=used["completion_tokens"],
                estimated_tokens=tokens if used["estimated"] else 0,
            )
        )
        if key:
            last_used[key] = max(at, last_used.get(key, at))
    add_usage(transaction, found, last_used)
