"""What was erased on a person's request, and which models had learned from it: those get no more users."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from resources.catalog import tables as t
from resources.catalog.database import Row, now
from resources.catalog.errors import NotFound
from resources.catalog.intents import withdraw
from resources.catalog.traffic_statistics import rename_users

if TYPE_CHECKING:
    from resources.catalog import Catalog

CELL_KINDS = ("train", "trial", "index")
"""Intents whose key is a cell of dataset version × recipe."""
TAG = "llmops.affected_by_erasure"
"""Tag of a model version in the registry: the numbers of the erasures that it is affected by."""


class ModelAffected(ValueError):
    """The model was trained on rows that had to be erased since."""


@dataclass(frozen=True)
class Erasure:
    """One request, carried out or under way; what was looked for is kept as a keyed hash alone."""

    id: int
    name: str
    request: str
    looked_for: dict[str, int]
    reason: str
    requested_by: str
    state: str
    versions: dict[str, str | None]
    figures: dict[str, Any]
    started_at: datetime
    finished_at: datetime | None


@dataclass(frozen=True)
class Affected:
    """A training that saw erased rows, itself or in the model that it started from."""

    erasure: int
    cell: str
    content_hash: str | None
    model_ref: str | None
    why: str
    at: datetime


def begin(
    catalog: "Catalog", *, name: str, request: str, looked_for: Mapping[str, int], reason: str, actor: str
) -> Erasure:
    """Note that an erasure begins, or take up the one of the same request that was cut off."""
    table = t.erasures
    values: Row = {
        "name": name,
        "request": request,
        "looked_for": dict(looked_for),
        "reason": reason,
        "requested_by": actor,
        "state": "running",
        "versions": {},
        "figures": {},
        "started_at": now(),
    }
    with catalog.database.write(actor) as transaction:
        is_new = transaction.insert_missing(table, values)
        running = table.c.name == name, table.c.request == request, table.c.state == "running"
        row = transaction.only(sa.select(table).where(*running))
        if is_new:
            detail = {"erasure": row["id"], "request": request, "looked_for": dict(looked_for), "reason": reason}
            transaction.audit("dataset.forget", name, **detail)
    return Erasure(**row)


def erasure(catalog: "Catalog", id: int) -> Erasure:
    """One erasure; NotFound when there is none of that number."""
    return Erasure(**catalog.database.one(t.erasures, id, "erasure"))


def erasures(catalog: "Catalog", name: str | None = None) -> list[Erasure]:
    """All erasures (of a dataset), newest first."""
    statement = sa.select(t.erasures).order_by(t.erasures.c.id.desc())
    if name is not None:
        statement = statement.where(t.erasures.c.name == name)
    return [Erasure(**row) for row in catalog.database.rows(statement)]


def erasure_of(catalog: "Catalog", key: str) -> Erasure | None:
    """The erasure that took a dataset version away, if one did."""
    return next((one for one in erasures(catalog, None) if key in one.versions), None)


def note(catalog: "Catalog", id: int, **values: Any) -> None:
    """Set versions or figures of an erasure that is under way; NotFound when none of that number is."""
    if unknown := set(values) - {"versions", "figures"}:
        raise ValueError(f"an erasure's {', '.join(sorted(unknown))} cannot be set")
    table = t.erasures
    with catalog.database.write("erasure") as transaction:
        running = table.c.id == id, table.c.state == "running"
        if not transaction.changed(table.update().where(*running).values(**values)):
            raise NotFound(f"no erasure {id} is under way")


def finish(catalog: "Catalog", id: int, figures: Mapping[str, Any], actor: str) -> bool:
    """Note that an erasure is complete; False when that was noted before."""
    table = t.erasures
    with catalog.database.write(actor) as transaction:
        running = table.c.id == id, table.c.state == "running"
        done = {"state": "done", "figures": dict(figures), "finished_at": now()}
        if not transaction.changed(table.update().where(*running).values(done)):
            return False
        transaction.audit("dataset.forgotten", str(id), **figures)
        return True


def mark_erased(catalog: "Catalog", key: str, actor: str = "erasure") -> bool:
    """Take a dataset version out of use: it is neither ingested nor trained on again. False when it was before.

    What was wanted of it and not done yet is withdrawn.
    """
    table, wanted = t.datasets, t.intents
    with catalog.database.write(actor) as transaction:
        in_use = table.c.key == key, table.c.status != "erased"
        is_changed = transaction.changed(table.update().where(*in_use).values(status="erased")) == 1
        if is_changed:
            transaction.audit("dataset.erased", key)
        about_it = sa.or_(
            sa.and_(wanted.c.kind == "ingest", wanted.c.key == key),
            sa.and_(wanted.c.kind.in_(CELL_KINDS), wanted.c.key.startswith(f"{key}|", autoescape=True)),
        )
        statement = sa.select(wanted.c.kind, wanted.c.key).where(about_it, wanted.c.closed_at.is_(None))
        for intent in transaction.execute(statement).mappings().all():
            withdraw(transaction, intent["kind"], intent["key"], reason=f"{key} was erased on a person's request")
    return is_changed


def mark_affected(catalog: "Catalog", found: Iterable[Affected], actor: str) -> None:
    """Mark models as affected; marking again only completes what is known of them."""
    table = t.affected_models
    with catalog.database.write(actor) as transaction:
        for one in found:
            if transaction.insert_missing(table, vars(one)):
                transaction.audit("model.affected", one.cell, erasure=one.erasure, model=one.model_ref, why=one.why)
            else:
                mine = table.c.erasure == one.erasure, table.c.cell == one.cell
                values = {"content_hash": one.content_hash, "model_ref": one.model_ref}
                transaction.execute(table.update().where(*mine).values(values))


def affected(catalog: "Catalog") -> list[Affected]:
    """Every affected training, newest first."""
    statement = sa.select(t.affected_models).order_by(t.affected_models.c.erasure.desc(), t.affected_models.c.cell)
    return [Affected(**row) for row in catalog.database.rows(statement)]


def assert_not_affected(
    catalog: "Catalog", *, content_hash: str | None = None, cell: str | None = None, ref: str | None = None
) -> None:
    """Raise `ModelAffected` when a model saw rows that were erased since; by its content, its training or its name.

    The one question that every way to more users asks: training on it, registering, promoting, deploying.
    """
    for one in affected(catalog):
        if (
            (content_hash and one.content_hash == content_hash)
            or (cell and one.cell == cell)
            or (ref and one.model_ref == ref)
        ):
            follower = erasure(catalog, one.erasure).versions.get(one.cell.split("|")[0])
            hint = f"train again on {follower}" if follower else "train again on data without those rows"
            raise ModelAffected(
                f"{ref or one.model_ref or one.cell} is affected by erasure {one.erasure} ({one.why}), and nothing "
                f"here unlearns: it gets no more users. {hint[0].upper()}{hint[1:]}, and promote that model instead"
            )


def scrub_traffic(catalog: "Catalog", is_theirs: Any, pseudonym: Any) -> dict[str, int]:
    """Take a person's words out of what the gateway saw: `is_theirs` judges a text, `pseudonym` replaces a user.

    Counts and ratings stay, as experiments rest on them: texts become null, and a user or session that is named after
    the person gets a name that tells nothing.
    """
    counts = {"exposures": 0, "feedback": 0, "shadows": 0}
    _scrub_reviews(catalog, is_theirs)
    wanted = {
        "exposures": (
            t.exposures,
            t.exposures.c.request_id,
            ("query", "context", "response", "error"),
            ("user", "session"),
        ),
        "feedback": (t.feedback, t.feedback.c.id, ("comment", "correction"), ("user",)),
        "shadows": (t.shadows, t.shadows.c.request_id, ("response", "error"), ()),
    }
    with catalog.database.write("erasure") as transaction:
        connection = transaction.connection
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("PRAGMA secure_delete=ON")
        for name, (table, key, words, names) in wanted.items():
            changes = []
            columns = [key, *(table.c[c] for c in words + names)]
            for row in connection.execution_options(yield_per=5000).execute(sa.select(*columns)):
                values = row._mapping
                change = {c: None for c in words if values[c] and is_theirs(values[c])}
                change |= {c: pseudonym(values[c]) for c in names if values[c] and is_theirs(values[c])}
                if change:
                    changes.append((values[key.name], change))
            for identity, change in changes:
                connection.execute(table.update().where(key == identity).values(change))
            counts[name] = len(changes)
        rename_users(transaction, is_theirs, pseudonym)
    return counts


def _scrub_reviews(catalog: "Catalog", is_theirs: Any) -> None:
    """What reviewers wrote of a person goes with the person's words; that they decided stays."""
    table = t.reviews
    with catalog.database.write("erasure") as transaction:
        if transaction.connection.dialect.name == "sqlite":
            transaction.connection.exec_driver_sql("PRAGMA secure_delete=ON")
        for row in transaction.execute(sa.select(table)).mappings().all():
            change = {name: None for name in ("text", "reason") if row[name] and is_theirs(row[name])}
            if change:
                mine = table.c.request_id == row["request_id"], table.c.reviewer == row["reviewer"]
                # A fix without its text is none: nothing may be learned from it.
                transaction.execute(table.update().where(*mine).values(verdict="reject", **change))


def count_traffic(catalog: "Catalog", is_theirs: Any) -> dict[str, int]:
    """How many exposures and ratings hold a person's words."""
    found = {}
    texts = {
        "exposures": [t.exposures.c[c] for c in ("query", "context", "response", "error", "user", "session")],
        "feedback": [t.feedback.c[c] for c in ("comment", "correction", "user")],
        "shadows": [t.shadows.c[c] for c in ("response", "error")],
    }
    with catalog.database.read() as connection:
        for name, columns in texts.items():
            rows = connection.execution_options(yield_per=5000).execute(sa.select(*columns))
            found[name] = sum(any(value and is_theirs(value) for value in row) for row in rows)
    return found


def compact(catalog: "Catalog") -> None:
    """Give the pages of deleted text back, so that no byte of it is left in an SQLite file or its log."""
    catalog.database.compact()
