"""Lets MLflow name artifacts by the root of the installation that they lie under (``llmops:/home/mlflow-artifacts/…``):
MLflow's own stores write a machine's path into every experiment, run and model version.

`mlflow server` finds the repository by its entry point in `pyproject.toml`; our own processes announce it themselves.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from urllib.parse import unquote, urlsplit

import sqlalchemy as sa
from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository

from resources.stored_paths import StoredPaths

SCHEME = "llmops"
_COLUMNS = {
    "experiments": ("artifact_location",),
    "runs": ("artifact_uri",),
    "model_versions": ("source", "storage_location"),
}
_TAGS = {"model_version_tags": ("path", "card"), "tags": ("llmops.weights",)}
_known: dict[str, StoredPaths] = {}


class HomeArtifactRepository(LocalArtifactRepository):
    """The artifacts below a root of the installation whose tracking store names them."""

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(path_of(artifact_uri, _paths(tracking_uri)), tracking_uri, registry_uri)


def announce(uri: str, paths: StoredPaths) -> None:
    """Have this process resolve the artifacts of the tracking store at `uri` by `paths`."""
    # The registry imports this module for the entry point.
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

    _known[uri] = paths
    _artifact_repository_registry.register(SCHEME, HomeArtifactRepository)


def _paths(tracking_uri: str | None) -> StoredPaths:
    if tracking_uri in _known:
        return _known[tracking_uri]
    # In MLflow's server: the environment is that of the installation.
    from llmops_assets.specs.settings import Settings

    settings = Settings()
    return StoredPaths(settings.root, settings.artifacts)


def uri_of(path: str | Path, paths: StoredPaths) -> str:
    """A path as MLflow is given it: by its root, or as a ``file:`` URI when it lies under none."""
    stored = paths.stored(path)
    name, colon, rest = stored.partition(":")
    if colon and name in paths.roots:
        return f"{SCHEME}:/{name}/{rest}"
    return Path(stored).absolute().as_uri() if "://" not in stored else stored


def path_of(uri: str, paths: StoredPaths) -> str:
    """The path that such a URI means on this machine."""
    name, _, rest = uri.removeprefix(f"{SCHEME}:").lstrip("/").partition("/")
    return paths.resolved(f"{name}:{rest}")


def rewrite(uri: str, paths: StoredPaths) -> int:
    """Have an SQL store name by their roots the artifacts that it names by a machine's path; how many it did.

    Stores of earlier versions hold such paths, also those of a machine that the home was moved from since.
    """
    engine, changed = sa.create_engine(uri), 0
    try:
        tables = set(sa.inspect(engine).get_table_names())
        with engine.begin() as connection:
            for table, columns in _COLUMNS.items():
                for column in columns if table in tables else ():
                    changed += _rewrite_values(connection, table, column, "", partial(_as_uri, paths=paths))
            for table, keys in _TAGS.items():
                for key in keys if table in tables else ():
                    changed += _rewrite_values(connection, table, "value", key, paths.stored)
    finally:
        engine.dispose()
    return changed


def _as_uri(text: str, paths: StoredPaths) -> str:
    uri = uri_of(unquote(urlsplit(text).path) if text.startswith("file:") else text, paths)
    return uri if uri.startswith(f"{SCHEME}:") else text


def _rewrite_values(connection: sa.Connection, table: str, column: str, key: str, change: Callable[[str], str]) -> int:
    """Change the paths in a column (of the rows with a tag's key); nothing is written where none is to be changed."""
    values = sa.table(table, sa.column(column), sa.column("key"))
    at = values.c[column]
    mine = sa.or_(at.like("/%"), at.like("file:%"))
    if key:
        mine = sa.and_(mine, values.c.key == key)
    changed = 0
    for text in connection.execute(sa.select(at).where(mine).distinct()).scalars().all():
        if (new := change(text)) != text:
            where = sa.and_(at == text, values.c.key == key) if key else at == text
            changed += connection.execute(sa.update(values).where(where).values({column: new})).rowcount
    return changed
