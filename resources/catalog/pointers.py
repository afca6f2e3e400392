"""Named pointers into the versions of a dataset (``desk@prod`` → ``desk@v3``): moved, never rewritten."""

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from llmops_assets.specs.names import split_versioned
from resources.catalog import tables as t
from resources.catalog.database import now
from resources.catalog.datasets import Dataset
from resources.catalog.errors import Conflict, NotFound

if TYPE_CHECKING:
    from resources.catalog import Catalog

CURRENT = "current"
"""The pointer that every dataset has: its newest version, until it is rolled back or moved by hand.

A version that could not be ingested has no rows, and the pointer stays at the one before, where there is one.
"""


@dataclass(frozen=True)
class Move:
    """One time that a pointer was set; `action` is tag, rollback, or register for a version that came after.

    For a version that came after and could not be ingested it is `failed`, and the pointer was not set.
    """

    tag: str
    version: str
    action: str
    at: datetime
    by: str


def move(catalog: "Catalog", name: str, tag: str, version: str, actor: str, action: str = "tag") -> str | None:
    """Let ``name@tag`` point to ``name@version``; the version it pointed to before, or None.

    Raises NotFound when there is no such version and Conflict when a version has that name or the version was erased.
    """
    entry = catalog.dataset_entry(f"{name}@{version}")
    if entry.status == "erased":
        raise Conflict(f"{entry.key} was erased: point to a version that has rows")
    split_versioned(f"{name}@{tag}")
    if any(other.spec.version == tag for other in _versions(catalog, name)):
        raise Conflict(f"{name}@{tag} is a version, and a version never changes: take another name for the tag")
    with catalog.database.write(actor) as transaction:
        # Read when it is this one's turn: of two that move a tag at once, the later one moves it from the earlier's.
        transaction.serialize(f"pointer {name}@{tag}")
        before = find(catalog, name, tag)
        if before == version:
            return before
        at = now()
        values = {"name": name, "tag": tag, "version": version, "action": action, "at": at, "by": actor}
        transaction.execute(t.dataset_pointers.insert().values(values))
        transaction.audit(f"dataset.{action}", f"{name}@{tag}", **{"from": before, "to": version})
    return before


def moves(catalog: "Catalog", name: str, tag: str | None = None) -> list[Move]:
    """Every move of a dataset's pointers, oldest first; for `current`, each registration is one too."""
    table = t.dataset_pointers
    statement = sa.select(table.c.tag, table.c.version, table.c.action, table.c.at, table.c.by)
    statement = statement.where(table.c.name == name).order_by(table.c.id)
    found = [Move(**row) for row in catalog.database.rows(statement)]
    versions, failed = _versions(catalog, name)[::-1], _failed(catalog, name)
    if all(entry.key in failed for entry in versions):
        # There is no better one to stay at.
        failed = set()
    found += [
        Move(CURRENT, entry.spec.version, "failed" if entry.key in failed else "register", entry.created_at, "")
        for entry in versions
    ]
    # Sorting is stable: what was moved by hand at the very moment of a registration came after it.
    found.sort(key=lambda m: (m.at, m.action not in ("register", "failed")))
    return [m for m in found if tag is None or m.tag == tag]


def tags(catalog: "Catalog", name: str) -> dict[str, str]:
    """Version by tag of a dataset, `current` included."""
    return {m.tag: m.version for m in moves(catalog, name) if m.action != "failed"}


def find(catalog: "Catalog", name: str, tag: str) -> str | None:
    """The version that a tag points to, or None when there is no such tag."""
    return tags(catalog, name).get(tag)


def previous(catalog: "Catalog", name: str, tag: str) -> str | None:
    """Where a pointer stood before, as a rollback would put it: moves that were rolled back count no more."""
    stack: list[str] = []
    for one in moves(catalog, name, tag):
        if one.action == "failed":
            continue
        if one.action == "rollback" and one.version in stack:
            while stack[-1] != one.version:
                stack.pop()
        elif not stack or stack[-1] != one.version:
            stack.append(one.version)
    return stack[-2] if len(stack) > 1 else None


def resolve(catalog: "Catalog", ref: str) -> str:
    """The version key that ``name@version`` or ``name@tag`` means; NotFound names the tags there are."""
    name, word = split_versioned(ref if "@" in ref else f"{ref}@{CURRENT}")
    versions = _versions(catalog, name)
    if any(entry.spec.version == word for entry in versions):
        return f"{name}@{word}"
    if (version := find(catalog, name, word)) is not None:
        return f"{name}@{version}"
    if not versions:
        known = sorted({entry.spec.name for entry in catalog.datasets()})
        raise NotFound(f"there is no dataset {name!r}; known are: {', '.join(known[:10]) or 'none yet'}")
    raise NotFound(
        f"{name} has no version or tag {word!r}; versions: {', '.join(e.spec.version for e in versions[:10])}; "
        f"tags: {', '.join(sorted(tags(catalog, name)))}"
    )


def _versions(catalog: "Catalog", name: str) -> list[Dataset]:
    """The versions of a dataset, newest first."""
    return catalog.datasets(name)


def _failed(catalog: "Catalog", name: str) -> set[str]:
    """The versions of a dataset whose ingestion failed, and that were never ingested."""
    table = t.intents
    mine = table.c.kind == "ingest", table.c.key.startswith(f"{name}@", autoescape=True)
    failed: set[str] = set()
    ingested: set[str] = set()
    for row in catalog.database.rows(sa.select(table).where(*mine).order_by(table.c.key, table.c.revision)):
        if row["outcome"] == "done":
            ingested.add(row["key"])
        has_failed = row["outcome"] == "failed" or (row["closed_at"] is None and row["reason"] is not None)
        (failed.add if has_failed else failed.discard)(row["key"])
    return failed - ingested
