"""MLflow as the platform uses it: runs, and the model registry."""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.specs.names import split_versioned
from resources.tracking.runs import Runs
from resources.tracking.versions import ModelVersion, UnknownModel, read_versions, version_of

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

_LINEAGE = ("dataset", "recipe", "content_hash", "family", "job_type")


class Tracking(Runs):
    """Runs and model versions of one MLflow store (`MlflowStore` says what it may be)."""

    def register(
        self,
        name: str,
        model_dir: str | Path,
        run_id: str | None,
        tags: Mapping[str, str],
        description: str = "",
    ) -> int:
        """Register the model in folder `model_dir` as a version of `name` and return the version.

        `tags` holds the lineage and must have dataset, recipe, content_hash, family and job_type. The same
        `content_hash` under the same name is the same version: its tags and description are brought up to date.

        With an SQLite or PostgreSQL store the version's source is the folder itself. An MLflow server refuses a local
        folder outside of its run's artifacts, so there the folder is uploaded to the run first.
        """
        from mlflow.exceptions import MlflowException

        missing = [key for key in _LINEAGE if not tags.get(key)]
        if missing:
            raise ValueError(f"model {name!r} cannot be registered without the lineage tags {', '.join(missing)}")
        tags = {key: str(value) for key, value in tags.items()} | {"path": self.paths.stored(model_dir)}
        if tags.get("card"):
            tags["card"] = self.paths.stored(tags["card"])
        # The client takes the same lock when it is made, and a process that holds it would wait for itself.
        self.prepare()
        with self._exclusive():
            existing = next(
                (v for v in self._versions(name) if v.tags.get("content_hash") == tags["content_hash"]), None
            )
            if existing is None:
                try:
                    self._call(lambda: self._client.create_registered_model(name))
                except MlflowException as error:
                    if error.error_code != "RESOURCE_ALREADY_EXISTS":
                        raise
                source = self._source(model_dir, run_id)
                created = self._call(
                    lambda: self._client.create_model_version(
                        name, source, run_id=run_id, tags=tags, description=description, await_creation_for=0
                    )
                )
                return int(created.version)
        version = int(existing.version)
        for key, value in tags.items():
            if existing.tags.get(key) != value:
                self.tag(name, version, key, value)
        if description and existing.description != description:
            self.describe(name, version, description)
        return version

    def _source(self, model_dir: str | Path, run_id: str | None) -> str:
        local = "://" not in str(model_dir)
        if not (local and self.uri.startswith(("http://", "https://"))):
            named = self._named(model_dir)
            return Path(model_dir).absolute().as_uri() if local and named == str(model_dir) else named
        if run_id is None:
            raise ValueError(
                f"{model_dir} is a local folder and {self.uri} an MLflow server: it takes such a model only with a run"
            )
        self.log_artifact(run_id, model_dir, "model")
        return f"{self._call(lambda: self._client.get_run(run_id)).info.artifact_uri}/model"

    def model(self, ref: str) -> RegisteredModelRecord:
        """The registered model that `ref` names: `name@version`, or `name@alias` such as `desk@production`.

        Raises UnknownModel, naming what there is instead.
        """
        return self._record(self.version(ref))

    def version(self, ref: str) -> ModelVersion:
        """The registry's entry for `name@version` or `name@alias`, with aliases and tags; raises UnknownModel."""
        name, wanted = split_versioned(ref)
        of_name = self.models(name)
        for entry in of_name:
            if str(entry.version) == wanted or wanted in entry.aliases:
                return entry
        if not of_name:
            raise UnknownModel(f"no model {name!r} in the registry: `llmops model list` shows what there is")
        known = ", ".join(f"{e.version}" + (f" ({', '.join(e.aliases)})" if e.aliases else "") for e in of_name[:10])
        raise UnknownModel(f"model {name!r} has no version or alias {wanted!r}; its newest versions are {known}")

    def models(self, name: str | None = None) -> list[ModelVersion]:
        """All registered versions (of `name`), newest first by `created_at`.

        Read from the store's tables where it is a database: a program that only lists models would else wait three
        seconds for MLflow to be imported.
        """
        entries = self._call(lambda: self._read_versions(name))
        if entries is None:
            aliases = self._aliases(name)
            entries = [self._entry(found, aliases) for found in self._versions(name)]
        return sorted(entries, key=lambda e: (e.created_at, e.name, e.version), reverse=True)

    @cached_property
    def _database(self) -> sa.Engine | None:
        """The store's database for reading; None where the store is a server."""
        if self.uri.startswith(("http://", "https://")):
            return None
        return sa.create_engine(self.uri, poolclass=sa.NullPool)

    def _read_versions(self, name: str | None) -> list[ModelVersion] | None:
        """The versions as the store's tables have them; None where they have to be asked for through MLflow."""
        if self._database is None:
            return None
        if self._file is not None and not self._file.exists():
            return []
        return read_versions(self._database, self.paths, name)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Point `alias` (staging, production…) at a version; it leaves the version that had it."""
        self._call(lambda: self._client.set_registered_model_alias(name, alias, str(version)))

    def delete_alias(self, name: str, alias: str) -> None:
        self._call(lambda: self._client.delete_registered_model_alias(name, alias))

    def tag(self, name: str, version: int, key: str, value: str) -> None:
        self._call(lambda: self._client.set_model_version_tag(name, str(version), key, value))

    def describe(self, name: str, version: int, description: str) -> None:
        self._call(lambda: self._client.update_model_version(name, str(version), description))

    def _versions(self, name: str | None) -> "list[MlflowVersion]":
        query = f"name = '{name}'" if name else None
        found: list[Any] = []
        token = None
        while True:
            page = self._call(
                lambda token=token: self._client.search_model_versions(query, max_results=1000, page_token=token)
            )
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _aliases(self, name: str | None) -> dict[tuple[str, int], tuple[str, ...]]:
        """Aliases by (name, version); a search for versions leaves them empty."""
        query = f"name = '{name}'" if name else None
        by_version: dict[tuple[str, int], tuple[str, ...]] = {}
        token = None
        while True:
            page = self._call(
                lambda token=token: self._client.search_registered_models(query, max_results=100, page_token=token)
            )
            for model in page:
                for alias, version in sorted(model.aliases.items()):
                    key = (model.name, int(version))
                    by_version[key] = (*by_version.get(key, ()), alias)
            token = page.token
            if not token:
                return by_version

    def _entry(self, found: "MlflowVersion", aliases: dict[tuple[str, int], tuple[str, ...]]) -> ModelVersion:
        version = int(found.version)
        return version_of(
            self.paths,
            found.name,
            version,
            found.creation_timestamp,
            found.last_updated_timestamp,
            found.source or "",
            found.description,
            found.run_id,
            aliases.get((found.name, version), ()),
            dict(found.tags),
        )

    def _record(self, entry: ModelVersion) -> RegisteredModelRecord:
        missing = [key for key in _LINEAGE if key not in entry.tags]
        if missing:
            raise UnknownModel(
                f"{entry.ref} was registered outside of this platform: it lacks the tags {', '.join(missing)}"
            )
        return RegisteredModelRecord(
            dataset=entry.tags["dataset"],
            recipe=entry.tags["recipe"],
            name=entry.name,
            version=entry.version,
            path=entry.path,
            content_hash=entry.tags["content_hash"],
            family=entry.tags["family"],
            job_type=entry.tags["job_type"],
            mlflow_run_id=entry.run_id,
            card=entry.tags.get("card", ""),
            scheme=entry.tags.get("scheme") or None,
        )
