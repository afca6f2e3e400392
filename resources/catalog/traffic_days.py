"""Traffic by the day: which days there are, what is missing of the log, and what is past its retention."""

from datetime import UTC, date, datetime, timedelta

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database
from resources.catalog.minutes import entries_between


class TrafficDays:
    """The part of the catalog that is about keeping traffic."""

    database: Database

    def days_with_traffic(self, first: date, last: date) -> list[tuple[str, str]]:
        """(endpoint, day) of the days (UTC) from `first` to `last` in which an endpoint was asked anything."""
        x = t.exposures
        found: list[tuple[str, str]] = []
        for number in range((last - first).days + 1):
            begin = datetime.combine(first + timedelta(days=number), datetime.min.time(), UTC)
            asked = x.c.at >= begin, x.c.at < begin + timedelta(days=1)
            names = self.database.rows(sa.select(x.c.endpoint).where(*asked).distinct().order_by(x.c.endpoint))
            found += [(row["endpoint"], begin.date().isoformat()) for row in names]
        return found

    def missing_entries(self, endpoint: str, begin: datetime, end: datetime) -> dict[str, int]:
        """Of each worker whose log holds requests of a time, how many entries are missing between them."""
        x, f = t.exposures, t.feedback
        mine = x.c.endpoint == endpoint, x.c.at >= begin, x.c.at < end, x.c.sequence.is_not(None)
        ranges = (
            sa.select(x.c.worker, sa.func.min(x.c.sequence).label("first"), sa.func.max(x.c.sequence).label("last"))
            .where(*mine)
            .group_by(x.c.worker)
        )
        missing: dict[str, int] = {}
        for row in self.database.rows(ranges):
            mine = row["worker"], row["first"], row["last"]
            there = sum(entries_between(self.database, table, *mine) for table in (t.refusals, t.embedded))
            for table in (x, f, t.shadows):
                within = table.c.worker == row["worker"], table.c.sequence.between(row["first"], row["last"])
                there += int(self.database.scalar(sa.select(sa.func.count()).select_from(table).where(*within)))
            if lost := row["last"] - row["first"] + 1 - there:
                missing[row["worker"]] = lost
        return missing

    def expire_traffic(self, endpoint: str, before: datetime) -> int:
        """Delete exposures of an endpoint from before a moment, with their ratings; how many. The sums stay.

        With them go the refusals of the endpoint, those that named none, what candidates answered, and the minutes of
        embeddings.

        What a running experiment rests on is kept until it is decided.
        """
        x, e = t.exposures, t.experiments
        running = sa.select(e.c.name).where(e.c.state == "running")
        experiment = sa.func.coalesce(x.c.experiment, "")
        old = sa.and_(x.c.endpoint == endpoint, x.c.at < before, experiment.not_in(running))
        with self.database.write("retention") as transaction:
            refused = t.refusals.c.endpoint.in_((endpoint, "")), t.refusals.c.at < before
            transaction.execute(t.refusals.delete().where(*refused))
            used = t.embedded.c.endpoint == endpoint, t.embedded.c.at < before
            transaction.execute(t.embedded.delete().where(*used))
            transaction.execute(t.shadows.delete().where(t.shadows.c.endpoint == endpoint, t.shadows.c.at < before))
            theirs = t.feedback.c.request_id.in_(sa.select(x.c.request_id).where(old))
            transaction.execute(t.feedback.delete().where(theirs))
            count = transaction.changed(x.delete().where(old))
            if count:
                transaction.audit("traffic.expire", endpoint, before=before.isoformat(), requests=count)
        return count
