"""MLflow as the platform uses it: training runs with their true status, and the model registry.

A small client of our own rather than dagster-mlflow's resource: that one opens one MLflow run for each Dagster run and
leaves it FINISHED when the Dagster run fails. Here a run belongs to one training and carries the status it earned.
"""

import os
import random
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import sqlalchemy as sa
import sqlalchemy.exc

from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.specs.names import split_versioned
from resources import files
from resources.stored_paths import StoredPaths

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion as MlflowVersion

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]
ModelState = Literal["draft", "approved", "staging", "production", "archived"]

# Limits of one `log_batch` request (mlflow.utils.validation).
_BATCH_METRICS = 1000
_BATCH_PARAMS = 100
_LOCK_DEADLINE_SECONDS = 60.0
_LINEAGE = ("dataset", "recipe", "content_hash", "family", "job_type")

# The tables of MLflow's registry, as far as they are read here without it (mlflow.store.model_registry.dbmodels).
_VERSIONS = sa.table(
    "model_versions",
    *(sa.column(name) for name in ("name", "version", "creation_time", "last_updated_time", "description")),
    *(sa.column(name) for name in ("current_stage", "source", "run_id")),
)
_VERSION_TAGS = sa.table("model_version_tags", *(sa.column(name) for name in ("name", "version", "key", "value")))
_ALIASES = sa.table("registered_model_aliases", *(sa.column(name) for name in ("name", "alias", "version")))

T = TypeVar("T")


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


class OpenedBeside:
    """A run that is opened in a thread of its own, because that takes seconds: importing MLflow alone is three of CPU.

    Whoever needs its id waits for it; where opening failed it is tried once more then.
    """

    def __init__(self, open_run: Callable[[], str]) -> None:
        self._open, self._lock, self._id = open_run, threading.Lock(), ""
        threading.Thread(target=self._first, name="open-mlflow-run", daemon=True).start()

    def _first(self) -> None:
        with suppress(Exception):
            self.id()

    def id(self) -> str:
        """The run's id; raises what opening it raises."""
        with self._lock:
            self._id = self._id or self._open()
            return self._id


class Tracking:
    """Runs and model versions of one MLflow store.

    `uri` is an SQLAlchemy URL or the address of an MLflow server. `artifact_root` is where the artifacts of new
    experiments go; by default a folder `mlflow-artifacts` beside an SQLite file (MLflow itself would take `./mlruns` of
    whatever process came first), and the server's own choice otherwise. What lies under a root of `paths` is named by
    it, so that the store tells nothing of the machine; a server of MLflow elsewhere would not know how to read that.

    Several processes may share an SQLite store: creating it is serialised by a lock file, and a call that finds the
    database locked is tried again for up to a minute.
    """

    def __init__(self, uri: str, artifact_root: str | None = None, paths: StoredPaths | None = None) -> None:
        self.uri = uri
        self._file = Path(uri.removeprefix("sqlite:///")) if uri.startswith("sqlite:///") else None
        if artifact_root is None and self._file is not None:
            artifact_root = str(self._file.absolute().parent / "mlflow-artifacts")
        self.artifact_root = artifact_root
        self.paths = paths or StoredPaths(self._file.absolute().parent if self._file else None)

    @property
    def _own_store(self) -> bool:
        """Whether the store is a database that we open ourselves, and no server of MLflow."""
        return not self.uri.startswith(("http://", "https://"))

    @cached_property
    def _client(self) -> "MlflowClient":
        # Must be set before the import: mlflow reports its use to its makers by default.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        import logging

        logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
        from mlflow import MlflowClient

        from resources import mlflow_home

        # The store creates or checks its tables here; two processes doing so at once leave half of them.
        with self._exclusive():
            client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
            if self._own_store:
                mlflow_home.announce(self.uri, self.paths)
                self._call(lambda: mlflow_home.rewrite(self.uri, self.paths))
            return client

    @contextmanager
    def _exclusive(self) -> Iterator[None]:
        """Hold the lock file beside an SQLite store; a database server needs none."""
        if self._file is None:
            yield
            return
        with files.locked(f"{self._file}.lock"):
            yield

    def _call(self, call: Callable[[], T]) -> T:
        """Run `call`, again and again while SQLite says that another process holds the database."""
        deadline = time.monotonic() + _LOCK_DEADLINE_SECONDS
        pause = 0.05
        while True:
            try:
                return call()
            except Exception as error:
                if "database is locked" not in str(error) or time.monotonic() > deadline:
                    raise
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(2 * pause, 2.0)

    def prepare(self) -> None:
        """Create the store when it is new (about two seconds), so that no later call pays for it."""
        _ = self._client

    def start_run(
        self,
        experiment: str,
        run_name: str,
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Start a run in `experiment` (created when it is new) and return its id."""
        experiment_id = self._experiment(experiment)
        run = self._call(lambda: self._client.create_run(experiment_id, run_name=run_name, tags=dict(tags or {})))
        if params:
            self.log_params(run.info.run_id, params)
        return run.info.run_id

    def _experiment(self, name: str) -> str:
        from mlflow.exceptions import MlflowException

        found = self._call(lambda: self._client.get_experiment_by_name(name))
        if found is None:
            location = self._named(f"{self.artifact_root.rstrip('/')}/{name}") if self.artifact_root else None
            try:
                return self._call(lambda: self._client.create_experiment(name, artifact_location=location))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            # Another process created it between the two calls.
            found = self._call(lambda: self._client.get_experiment_by_name(name))
        if found is None or found.lifecycle_stage == "deleted":
            raise ValueError(
                f"the MLflow experiment {name!r} is deleted: restore it, or remove it for good with `mlflow gc`"
            )
        return found.experiment_id

    def _named(self, path: str | Path) -> str:
        """A path as the store is to name it."""
        from resources import mlflow_home

        if self._own_store:
            named = mlflow_home.uri_of(path, self.paths)
            return named if named.startswith(f"{mlflow_home.SCHEME}:") else str(path)
        return str(path)

    def resume(self, run_id: str) -> str:
        """Set an ended run to RUNNING again and return its id; raise LookupError when there is no such run."""
        from mlflow.exceptions import MlflowException

        try:
            self._call(lambda: self._client.update_run(run_id, status="RUNNING"))
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                raise LookupError(f"no MLflow run {run_id!r} in {self.uri}") from error
            raise
        return run_id

    @contextmanager
    def run(self, open_run: Callable[[], str]) -> Iterator[OpenedBeside]:
        """A run around a body: FINISHED after it, FAILED when it raises, KILLED when it is interrupted.

        `open_run` gives the run's id, that of a new run or of one to go on with; the body begins while it is at work.
        The body's exception is passed on in every case.
        """
        opened = OpenedBeside(lambda: self.resume(open_run()))
        try:
            yield opened
        except BaseException as error:
            # KeyboardInterrupt, SystemExit, and Dagster's own interrupt when a run is terminated are no Exception. What
            # ended the body matters more than a store that cannot be told of it.
            try:
                self.end_run(opened.id(), "FAILED" if isinstance(error, Exception) else "KILLED")
            except Exception as failure:  # noqa: BLE001  whatever the store's trouble is, the body's own error is raised
                print(f"MLflow was not told that this run ended: {failure}", file=sys.stderr)
            raise
        self.end_run(opened.id(), "FINISHED")

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log parameters; values are written with `str` and cut at MLflow's 6,000 characters."""
        from mlflow.entities import Param

        entries = [Param(key, str(value)[:6000]) for key, value in params.items()]
        for start in range(0, len(entries), _BATCH_PARAMS):
            batch = entries[start : start + _BATCH_PARAMS]
            self._call(lambda batch=batch: self._client.log_batch(run_id, params=batch))

    def log_metrics(self, run_id: str, metrics: Iterable[tuple[str, float, int]]) -> None:
        """Log (key, value, step) triples, up to a thousand in a request."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        entries = [Metric(key, float(value), now, step) for key, value, step in metrics]
        for start in range(0, len(entries), _BATCH_METRICS):
            batch = entries[start : start + _BATCH_METRICS]
            self._call(lambda batch=batch: self._client.log_batch(run_id, metrics=batch))

    def log_artifact(self, run_id: str, path: str | Path, folder: str | None = None) -> None:
        """Copy a file, or a folder with all that is in it, to the run's artifacts (under `folder`)."""
        if Path(path).is_dir():
            self._call(lambda: self._client.log_artifacts(run_id, str(path), folder))
        else:
            self._call(lambda: self._client.log_artifact(run_id, str(path), folder))

    def delete_artifacts(self, run_id: str, folder: str) -> None:
        """Delete a folder of a run's artifacts, where there is one; nothing happens for a run that is not there."""
        from mlflow.exceptions import MlflowException
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        try:
            run = self._call(lambda: self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return
        repository = get_artifact_repository(run.info.artifact_uri, tracking_uri=self.uri)
        if repository.list_artifacts(folder):
            repository.delete_artifacts(folder)

    def set_run_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run; a path below a root of the installation is written by that root."""
        for key, value in tags.items():
            self._call(lambda key=key, value=value: self._client.set_tag(run_id, key, self.paths.stored(value)))

    def end_run(self, run_id: str, status: RunStatus) -> None:
        self._call(lambda: self._client.set_terminated(run_id, status))

    def has_run(self, run_id: str) -> bool:
        """Whether the store still knows a run."""
        from mlflow.exceptions import MlflowException

        try:
            self._call(lambda: self._client.get_run(run_id))
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
        return True

    def run_status(self, run_id: str) -> str:
        """RUNNING, FINISHED, FAILED or KILLED."""
        return self._call(lambda: self._client.get_run(run_id)).info.status

    def run_metrics(self, run_id: str) -> dict[str, float]:
        """The last value of each metric of a run."""
        return dict(self._call(lambda: self._client.get_run(run_id)).data.metrics)

    def run_url(self, run_id: str, ui: str) -> str:
        """Address of a run's page in the MLflow UI that listens at `ui`."""
        run = self._call(lambda: self._client.get_run(run_id))
        return f"{ui.rstrip('/')}/#/experiments/{run.info.experiment_id}/runs/{run_id}"

    def artifact_url(self, run_id: str, path: str, ui: str) -> str:
        """Address of the page that shows an artifact of a run in the MLflow UI at `ui`: HTML is rendered there."""
        return f"{self.run_url(run_id, ui)}/artifactPath/{path}"

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
        chosen = sa.true() if name is None else _VERSIONS.c.name == name
        # A deleted version keeps its row, and a prompt of the prompt registry has one of the same kind.
        is_prompt = sa.exists().where(
            _VERSION_TAGS.c.name == _VERSIONS.c.name,
            _VERSION_TAGS.c.version == _VERSIONS.c.version,
            _VERSION_TAGS.c.key == "mlflow.prompt.is_prompt",
        )
        is_there = sa.func.coalesce(_VERSIONS.c.current_stage, "") != "Deleted_Internal"
        try:
            with self._database.connect() as connection:
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
            _version(
                self.paths,
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

    def with_client(self, call: "Callable[[MlflowClient], T]") -> T:
        """What `call` gives, asked of MLflow's own client; tried again while the store is locked."""
        return self._call(lambda: call(self._client))

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
        return _version(
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


def _of_name(table: sa.TableClause, name: str | None) -> "sa.Select[Any]":
    return sa.select(table) if name is None else sa.select(table).where(table.c.name == name)


def _version(
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
