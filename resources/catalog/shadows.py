"""What candidates answered to copies of users' requests, beside what these users got."""

from datetime import datetime

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row

_OF_USERS = (
    "user",
    "query",
    "turns",
    "context",
    "response",
    "model_ref",
    "finish_reason",
    "latency_ms",
    "prompt_tokens",
    "consent",
    "source",
)


class Shadows:
    """`catalog.shadows`: reads copies with the exposures that they were made of."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def candidates(self, endpoint: str, since: datetime) -> list[str]:
        """The endpoints that requests of an endpoint were copied to, the last one first."""
        s = t.shadows
        mine = s.c.endpoint == endpoint, s.c.at >= since
        found = sa.select(s.c.candidate).where(*mine).group_by(s.c.candidate).order_by(sa.func.max(s.c.at).desc())
        return [row["candidate"] for row in self.database.rows(found)]

    def outcomes(self, endpoint: str, candidate: str, since: datetime) -> dict[tuple[str, int], int]:
        """How many copies there are by the candidate's model and status."""
        s = t.shadows
        mine = s.c.endpoint == endpoint, s.c.candidate == candidate, s.c.at >= since
        columns = s.c.model_ref, s.c.status
        rows = self.database.rows(sa.select(*columns, sa.func.count().label("copies")).where(*mine).group_by(*columns))
        return {(row["model_ref"], row["status"]): int(row["copies"]) for row in rows}

    def errors(self, endpoint: str, candidate: str, since: datetime, most: int = 3) -> list[tuple[str, int]]:
        """The errors that came most often, and how often."""
        s = t.shadows
        mine = s.c.endpoint == endpoint, s.c.candidate == candidate, s.c.at >= since, s.c.error.is_not(None)
        count = sa.func.count().label("copies")
        found = sa.select(s.c.error, count).where(*mine).group_by(s.c.error).order_by(count.desc(), s.c.error)
        return [(row["error"], int(row["copies"])) for row in self.database.rows(found.limit(most))]

    def pairs(self, endpoint: str, candidate: str, model_ref: str, since: datetime, most: int) -> list[Row]:
        """The newest answers of a candidate's model with what users got (`then_…`), at most so many."""
        s, x = t.shadows, t.exposures
        mine = s.c.endpoint == endpoint, s.c.candidate == candidate, s.c.model_ref == model_ref, s.c.at >= since
        theirs = [x.c[name].label(f"then_{name}") for name in _OF_USERS]
        answered = s.c.status == 200, x.c.status == 200, s.c.response.is_not(None), x.c.response.is_not(None)
        joined = s.join(x, x.c.request_id == s.c.request_id)
        statement = sa.select(s, *theirs).select_from(joined).where(*mine, *answered)
        return self.database.rows(statement.order_by(s.c.at.desc(), s.c.request_id).limit(most))
