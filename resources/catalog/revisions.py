"""The revisions of the catalog's schema, and what each of them is for."""

from dataclasses import dataclass

from resources.catalog.database import MIGRATIONS


@dataclass(frozen=True)
class Revision:
    """A revision of the schema with the first line of its migration."""

    name: str
    about: str


def revisions_after(current: str | None) -> list[Revision]:
    """The revisions that a catalog of a revision has not been brought to, in order; all of them where it has none."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory(str(MIGRATIONS))
    order = [Revision(one.revision, (one.doc or "").split("\n")[0]) for one in script.walk_revisions()][::-1]
    known = [one.name for one in order]
    return order[known.index(current) + 1 :] if current in known else order
