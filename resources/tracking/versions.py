"""A version in the model registry, and how the versions are read from the store's own tables."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

import sqlalchemy as sa
import sqlalchemy.exc

from resources.stored_paths import StoredPaths

ModelState = Literal["draft", "approved", "staging", "production", "archived"]

# The tables of MLflow's registry, as far as they are read here without it (mlflow.store.model_registry.dbmodels).
_VERSIONS = sa.table(
    "model_versions",
    *(sa.column(name) for name in ("name", "version", "creation_time", "last_updated_time", "description")),
    *(sa.column(name) for name in ("current_stage", "source", "run_id")),
)
_VERSION_TAGS = sa.table("model_version_tags", *(sa.column(name) for name in ("name", "version", "key", "value")))
_ALIASES = sa.table("registered_model_aliases", *(sa.column(name) for name in ("name", "alias", "version")))


class UnknownModel(LookupError):
    """No such model, version or alias in the registry."""


@dataclass(frozen=True)
class ModelVersion:
    """One version in the registry; `created_at` and `updated_at` are in UTC, `tags` holds its lineage."""

    name: str
    version: int
    created_at: datetime
    updated_at: datetime
    path: str
    description: str
    run_id: str | None
    aliases: tuple[str, ...] = ()
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def ref(self) -> str:
        return f"{self.name}@{self.version}"

    @property
    def state(self) -> ModelState:
        """Where it stands between draft and archived: an alias while it serves a purpose, a tag otherwise."""
        if self.tags.get("state") == "archived":
            return "archived"
        for alias in ("production", "staging"):
            if alias in self.aliases:
                return alias
        return "approved" if self.tags.get("state") == "approved" else "draft"


def read_versions(database: sa.Engine, paths: StoredPaths, name: str | None) -> list[ModelVersion] | None:
    """The versions (of `name`) as the store's tables have them; None where the tables are not as they are known here.

    Raises OperationalError while another process holds an SQLite store.
    """
    chosen = sa.true() if name is None else _VERSIONS.c.name == name
    # A deleted version keeps its row, and a prompt of the prompt registry has one of the same kind.
    is_prompt = sa.exists().where(
        _VERSION_TAGS.c.name == _VERSIONS.c.name,
        _VERSION_TAGS.c.version == _VERSIONS.c.version,
        _VERSION_TAGS.c.key == "mlflow.prompt.is_prompt",
    )
    is_there = sa.func.coalesce(_VERSIONS.c.current_stage, "") != "Deleted_Internal"
    try:
        with database.connect() as connection:
            rows = connection.execute(sa.select(_VERSIONS).where(chosen, is_there, ~is_prompt)).mappings().all()
            tags: dict[tuple[str, int], dict[str, str]] = {}
            for row in connection.execute(_of_name(_VERSION_TAGS, name)):
                tags.setdefault((row.name, row.version), {})[row.key] = row.value
            aliases: dict[tuple[str, int], tuple[str, ...]] = {}
            for row in connection.execute(_of_name(_ALIASES, name).order_by(_ALIASES.c.alias)):
                key = (row.name, row.version)
                aliases[key] = (*aliases.get(key, ()), row.alias)
    except (sa.exc.OperationalError, sa.exc.ProgrammingError) as error:
        if "database is locked" in str(error):
            raise
        # A store that is new, or one of another MLflow: it knows how to make or read it.
        return None
    return [
        version_of(
            paths,
            row["name"],
            row["version"],
            row["creation_time"],
            row["last_updated_time"],
            row["source"],
            row["description"],
            row["run_id"],
            aliases.get((row["name"], row["version"]), ()),
            tags.get((row["name"], row["version"]), {}),
        )
        for row in rows
    ]


def _of_name(table: sa.TableClause, name: str | None) -> "sa.Select[Any]":
    return sa.select(table) if name is None else sa.select(table).where(table.c.name == name)


def version_of(
    paths: StoredPaths,
    name: str,
    version: int,
    created: int,
    updated: int | None,
    source: str,
    description: str | None,
    run_id: str | None,
    aliases: tuple[str, ...],
    tags: dict[str, str],
) -> ModelVersion:
    """A version by what MLflow knows of it; times are given in milliseconds since the epoch."""
    # In the store a path is written by the root that it lies under; here it is one of this machine.
    tags = tags | {key: paths.resolved(tags[key]) for key in ("path", "card") if tags.get(key)}
    return ModelVersion(
        name=name,
        version=version,
        created_at=datetime.fromtimestamp(created / 1000, UTC),
        updated_at=datetime.fromtimestamp((updated or created) / 1000, UTC),
        path=tags.get("path", source),
        description=description or "",
        run_id=run_id or None,
        aliases=aliases,
        tags=tags,
    )
