"""What every table of the catalog is made with: names of constraints, times in UTC, paths that may move."""

from datetime import UTC, datetime

import sqlalchemy as sa
from sqlalchemy.types import TypeDecorator

from resources.stored_paths import StoredPaths

_PATHS = "llmops_stored_paths"
metadata = sa.MetaData(
    naming_convention={
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_name)s_%(referred_table_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC datetime; SQLite drops the zone, so it is put back on reading."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a naive datetime cannot be stored: {value!r}")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def keep_paths(engine: sa.Engine, paths: StoredPaths) -> None:
    """Have an engine write paths by the roots of `paths`; without that it can read and write no column of paths."""
    setattr(engine.dialect, _PATHS, paths)


def _paths(dialect: sa.Dialect) -> StoredPaths:
    paths: StoredPaths = getattr(dialect, _PATHS)
    return paths


class StoredPath(TypeDecorator[str]):
    """A path: absolute where it is used, written by the root that it lies under (`StoredPaths`, of the engine)."""

    impl = sa.String
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return _paths(dialect).stored(value) if value else value

    def process_result_value(self, value: str | None, dialect: sa.Dialect) -> str | None:
        return _paths(dialect).resolved(value) if value else value
