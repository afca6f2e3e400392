"""Reviews of answers: what people decided about requests that users complained of, and what waits for them."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Database, Row, now
from resources.catalog.errors import NotFound

VERDICTS = ("accept", "fix", "reject")


@dataclass(frozen=True)
class Review:
    """What one reviewer decided about one answer; `text` is the right answer where there is one."""

    request_id: str
    reviewer: str
    at: datetime
    verdict: str
    text: str | None
    reason: str | None


class Reviews:
    """The part of the catalog that is about reviews."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def decide(self, request_id: str, reviewer: str, verdict: str, text: str | None, reason: str | None) -> bool:
        """Write a reviewer's decision; a later one of the same reviewer takes its place. False when nothing changes."""
        if verdict not in VERDICTS:
            raise ValueError(f"a review says {', '.join(VERDICTS)}, not {verdict!r}")
        table = t.reviews
        values = {"verdict": verdict, "text": text, "reason": reason}
        with self.database.write(reviewer) as transaction:
            key = table.c.request_id == request_id, table.c.reviewer == reviewer
            known = transaction.first(sa.select(table).where(*key), lock=True)
            if known is not None and all(known[name] == value for name, value in values.items()):
                return False
            if known is None:
                row: Row = {"request_id": request_id, "reviewer": reviewer, "at": now(), **values}
                transaction.insert_missing(table, row)
            else:
                transaction.execute(table.update().where(*key).values(at=now(), **values))
            # The audit log names the decision, never the words.
            transaction.audit("review.decide", request_id, verdict=verdict)
        return True

    def all(self, *, endpoint: str | None = None) -> dict[str, list[Review]]:
        """The reviews by request, each request's oldest first."""
        table, x = t.reviews, t.exposures
        statement = sa.select(table).order_by(table.c.at, table.c.reviewer)
        if endpoint is not None:
            statement = statement.join(x, x.c.request_id == table.c.request_id).where(x.c.endpoint == endpoint)
        found: dict[str, list[Review]] = {}
        for row in self.database.rows(statement):
            found.setdefault(row["request_id"], []).append(Review(**row))
        return found

    def made(self) -> list[tuple[str, str, datetime]]:
        """The endpoint and the model of every reviewed answer, and when it was reviewed; a row a review."""
        r, x = t.reviews, t.exposures
        statement = sa.select(x.c.endpoint, x.c.model_ref, r.c.at).join(x, x.c.request_id == r.c.request_id)
        return [(row["endpoint"], row["model_ref"], row["at"]) for row in self.database.rows(statement)]

    def candidates(self, *, endpoint: str | None = None, rating_at_most: int, sample_share: float = 0.0) -> list[Row]:
        """Answers that are to be reviewed, oldest first, each with what the one who asked says of it last.

        Those rated `rating_at_most` or lower, those with a correction, those that were reviewed, and of the others
        `sample_share`, chosen by their ids. Without text, or without the consent of the user, there is none.
        """
        x, f = t.exposures, t.feedback
        columns = [
            x.c[name] for name in ("request_id", "at", "endpoint", "model_ref", "user", "session", "origin", "query")
        ]
        columns += [x.c.turns, x.c.context, x.c.response, x.c.finish_reason, x.c.consent]
        has_text = x.c.query.is_not(None), sa.func.coalesce(x.c.consent, sa.true())
        complained = sa.select(f.c.request_id).where(sa.or_(f.c.rating <= rating_at_most, f.c.correction.is_not(None)))
        wanted: Any = sa.or_(x.c.request_id.in_(complained), x.c.request_id.in_(sa.select(t.reviews.c.request_id)))
        if sample_share > 0:
            wanted = sa.true()
        statement = sa.select(*columns).where(*has_text, wanted).order_by(x.c.at, x.c.request_id)
        if endpoint is not None:
            statement = statement.where(x.c.endpoint == endpoint)
        rows = {row["request_id"]: row for row in self.database.rows(statement)}
        feedback = (
            sa.select(f)
            .join(x, x.c.request_id == f.c.request_id)
            .where(sa.or_(f.c.user.is_(None), f.c.user == x.c.user))
        )
        for rating in self.database.rows(feedback.where(wanted).order_by(f.c.at, f.c.id)):
            row = rows.get(rating["request_id"])
            if row is not None:
                row |= {name: rating[name] for name in ("rating", "comment", "correction") if rating[name] is not None}
                row["rated_at"] = rating["at"]
        reviewed = set(self.all(endpoint=endpoint))
        return [
            row
            for row in rows.values()
            if row.get("correction")
            or row.get("rating", rating_at_most + 1) <= rating_at_most
            or row["request_id"] in reviewed
            or _sampled(row["request_id"], sample_share)
        ]

    def answer(self, request_id: str) -> Row:
        """The request that is reviewed; NotFound where there is none of that id."""
        x = t.exposures
        rows = self.database.rows(sa.select(x).where(x.c.request_id == request_id))
        if not rows:
            raise NotFound(f"there was no answer {request_id!r}: `llmops review list` shows those that wait")
        return rows[0]


def _sampled(request_id: str, share: float) -> bool:
    import hashlib

    return int.from_bytes(hashlib.sha256(f"review:{request_id}".encode()).digest()[:4]) < share * 2**32
