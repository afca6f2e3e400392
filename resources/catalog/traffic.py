"""What the gateway saw: exposures, ratings, and what an experiment has of them."""

from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Query, now

if TYPE_CHECKING:
    import polars as pl


class Traffic:
    """The part of the catalog that is about requests and ratings."""

    database: Database

    def add_exposures(self, rows: list[dict[str, Any]]) -> None:
        """Append exposures, a dict a row with the columns of the table."""
        if not rows:
            return
        with self.database.write("gateway") as transaction:
            transaction.execute(t.exposures.insert(), rows)

    def add_feedback(
        self, request_id: str, rating: int, *, user: str | None = None, comment: str | None = None
    ) -> None:
        with self.database.write("gateway") as transaction:
            transaction.execute(
                t.feedback.insert().values(request_id=request_id, at=now(), user=user, rating=rating, comment=comment)
            )

    def exposures(
        self, *, experiment: str | None = None, endpoint: str | None = None, since: datetime | None = None
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
        return self._frame(table, statement)

    def feedback(self, *, experiment: str | None = None, endpoint: str | None = None) -> "pl.DataFrame":
        """Ratings of the exposures selected, oldest first."""
        table = t.feedback
        statement = sa.select(table).order_by(table.c.id)
        if experiment is not None or endpoint is not None:
            statement = statement.join(t.exposures, t.exposures.c.request_id == table.c.request_id)
        if experiment is not None:
            statement = statement.where(t.exposures.c.experiment == experiment)
        if endpoint is not None:
            statement = statement.where(t.exposures.c.endpoint == endpoint)
        return self._frame(table, statement)

    def exposed_by(self, request_id: str) -> str | None:
        """The endpoint that answered a request, or None when no such exposure was written."""
        table = t.exposures
        rows = self.database.rows(sa.select(table.c.endpoint).where(table.c.request_id == request_id))
        return rows[0]["endpoint"] if rows else None

    def request_count(self, *, endpoint: str) -> int:
        statement = sa.select(sa.func.count()).where(t.exposures.c.endpoint == endpoint)
        return int(self.database.scalar(statement))

    def exposure_count(self, *, experiment: str) -> int:
        statement = sa.select(sa.func.count()).where(t.exposures.c.experiment == experiment)
        return int(self.database.scalar(statement))

    def progress(self, experiment: str, *, first_seen_before: datetime) -> tuple[int, int, int]:
        """Requests, ratings, and users whose first request was before a moment: what an analysis would look at."""
        mine = t.exposures.c.experiment == experiment
        rated = t.feedback.join(t.exposures, t.exposures.c.request_id == t.feedback.c.request_id)
        first = sa.select(sa.func.min(t.exposures.c.at).label("at")).where(mine).group_by(t.exposures.c.user).subquery()
        counts = (
            sa.select(sa.func.count()).select_from(t.exposures).where(mine),
            sa.select(sa.func.count()).select_from(rated).where(mine),
            sa.select(sa.func.count()).select_from(first).where(first.c.at <= first_seen_before),
        )
        with self.database.read() as connection:
            requests, ratings, users = (connection.execute(count).scalar_one() for count in counts)
        return requests, ratings, users

    def _frame(self, table: sa.Table, statement: Query) -> "pl.DataFrame":
        # Few commands ask for frames, and this import would be a quarter of what asking for a training takes.
        import polars as pl

        dtypes: dict[type, Any] = {sa.String: pl.String, sa.Text: pl.String, sa.Integer: pl.Int64, sa.Float: pl.Float64}
        schema = {
            c.name: pl.Datetime("us", "UTC") if isinstance(c.type, t.UtcDateTime) else dtypes[type(c.type)]
            for c in table.columns
        }
        with self.database.read() as connection:
            rows = [tuple(r) for r in connection.execute(statement)]
        return pl.DataFrame(rows, schema=schema, orient="row")
