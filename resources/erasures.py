"""What was erased on a person's request, and which models had learned from it: those get no more users."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from resources import tables as t
from resources.catalog import Catalog

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
    catalog: Catalog, *, name: str, request: str, looked_for: Mapping[str, int], reason: str, actor: str
) -> Erasure:
    """Note that an erasure begins, or take up the one of the same request that was cut off."""
    table = t.erasures
    with catalog.engine.begin() as connection:
        running = sa.select(table.c.id).where(
            table.c.name == name, table.c.request == request, table.c.state == "running"
        )
        known = connection.execute(running).scalar()
        if known is None:
            values = {
                "name": name,
                "request": request,
                "looked_for": dict(looked_for),
                "reason": reason,
                "requested_by": actor,
                "state": "running",
                "versions": {},
                "figures": {},
                "started_at": datetime.now(UTC),
            }
            known = connection.execute(table.insert().values(values)).inserted_primary_key[0]
            connection.execute(
                t.audit.insert().values(
                    at=datetime.now(UTC),
                    actor=actor,
                    action="dataset.forget",
                    target=name,
                    detail={"erasure": known, "request": request, "looked_for": dict(looked_for), "reason": reason},
                )
            )
    return erasure(catalog, int(known))


def erasure(catalog: Catalog, id: int) -> Erasure:
    return next(found for found in erasures(catalog) if found.id == id)


def erasures(catalog: Catalog, name: str | None = None) -> list[Erasure]:
    """All erasures (of a dataset), newest first."""
    statement = sa.select(t.erasures).order_by(t.erasures.c.id.desc())
    if name is not None:
        statement = statement.where(t.erasures.c.name == name)
    with catalog.engine.connect() as connection:
        return [Erasure(**row) for row in connection.execute(statement).mappings()]


def note(catalog: Catalog, id: int, **values: Any) -> None:
    """Set versions or figures of an erasure that is under way."""
    if unknown := set(values) - {"versions", "figures"}:
        raise ValueError(f"an erasure's {', '.join(sorted(unknown))} cannot be set")
    with catalog.engine.begin() as connection:
        connection.execute(t.erasures.update().where(t.erasures.c.id == id).values(**values))


def finish(catalog: Catalog, id: int, figures: Mapping[str, Any], actor: str) -> None:
    """Note that an erasure is complete."""
    with catalog.engine.begin() as connection:
        connection.execute(
            t.erasures.update()
            .where(t.erasures.c.id == id)
            .values(state="done", figures=dict(figures), finished_at=datetime.now(UTC))
        )
    catalog.log(actor, "dataset.forgotten", str(id), **figures)


def mark_erased(catalog: Catalog, key: str) -> None:
    """Take a dataset version out of use: it is neither ingested nor trained on again."""
    with catalog.engine.begin() as connection:
        connection.execute(t.datasets.update().where(t.datasets.c.key == key).values(status="erased"))


def mark_affected(catalog: Catalog, found: Iterable[Affected], actor: str) -> None:
    """Mark models as affected; marking again only completes what is known of them."""
    table = t.affected_models
    with catalog.engine.begin() as connection:
        for one in found:
            mine = sa.and_(table.c.erasure == one.erasure, table.c.cell == one.cell)
            if connection.execute(sa.select(table.c.cell).where(mine)).first() is None:
                connection.execute(table.insert().values(vars(one)))
                detail = {"erasure": one.erasure, "model": one.model_ref, "why": one.why}
                connection.execute(
                    t.audit.insert().values(
                        at=one.at, actor=actor, action="model.affected", target=one.cell, detail=detail
                    )
                )
            else:
                values = {"content_hash": one.content_hash, "model_ref": one.model_ref}
                connection.execute(table.update().where(mine).values(values))


def affected(catalog: Catalog) -> list[Affected]:
    """Every affected training, newest first."""
    statement = sa.select(t.affected_models).order_by(t.affected_models.c.erasure.desc(), t.affected_models.c.cell)
    with catalog.engine.connect() as connection:
        return [Affected(**row) for row in connection.execute(statement).mappings()]


def assert_not_affected(
    catalog: Catalog, *, content_hash: str | None = None, cell: str | None = None, ref: str | None = None
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


def scrub_traffic(catalog: Catalog, is_theirs: Any, pseudonym: Any) -> dict[str, int]:
    """Take a person's words out of what the gateway saw: `is_theirs` judges a text, `pseudonym` replaces a user.

    Counts and ratings stay, as experiments rest on them: texts become null, and a user or session that is named after
    the person gets a name that tells nothing.
    """
    counts = {"exposures": 0, "feedback": 0}
    wanted = {
        "exposures": (t.exposures, t.exposures.c.request_id, ("query", "response", "error"), ("user", "session")),
        "feedback": (t.feedback, t.feedback.c.id, ("comment",), ("user",)),
    }
    with catalog.engine.begin() as connection:
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
    return counts


def count_traffic(catalog: Catalog, is_theirs: Any) -> dict[str, int]:
    """How many exposures and ratings hold a person's words."""
    found = {}
    texts = {
        "exposures": [t.exposures.c[c] for c in ("query", "response", "error", "user", "session")],
        "feedback": [t.feedback.c[c] for c in ("comment", "user")],
    }
    with catalog.engine.connect() as connection:
        for name, columns in texts.items():
            rows = connection.execution_options(yield_per=5000).execute(sa.select(*columns))
            found[name] = sum(any(value and is_theirs(value) for value in row) for row in rows)
    return found


def compact(catalog: Catalog) -> None:
    """Give the pages of deleted text back, so that no byte of it is left in an SQLite file or its log."""
    if catalog.engine.dialect.name != "sqlite":
        return
    with catalog.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM")
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
