"""The catalog: what users registered, asked for and deployed, and what the gateway saw."""

import fcntl
import hashlib
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from resources import tables as t

if TYPE_CHECKING:
    import polars as pl

HEAD = "0003"
_MIGRATIONS = Path(__file__).parent / "migrations"


class NotFound(LookupError):
    """What was asked for is not in the catalog."""


class Conflict(ValueError):
    """What was asked for contradicts what is in the catalog."""


@dataclass(frozen=True)
class Dataset:
    key: str
    spec: DatasetSpec
    digest: str
    status: str
    created_at: datetime
    requested_at: datetime


@dataclass(frozen=True)
class TrainingRequest:
    id: int
    dataset: str
    recipe: str
    requested_by: str
    requested_at: datetime
    reported_at: datetime | None


@dataclass(frozen=True)
class BaseModelEntry:
    ref: str
    family: str
    path: str
    content_hash: str | None
    license: str | None
    state: str
    created_at: datetime
    approved_at: datetime | None
    approved_by: str | None


@dataclass(frozen=True)
class Endpoint:
    name: str
    spec: DeploymentSpec
    revision: int
    observed_revision: int
    state: str
    message: str
    routes: list[dict[str, Any]]
    phase: int
    salt: str
    created_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class Backend:
    id: str
    endpoint: str
    model_ref: str
    model_path: str
    engine: str
    runtime: dict[str, Any]
    url: str
    pid: int | None
    pid_started: float | None
    state: str
    log_path: str | None
    created_at: datetime


@dataclass(frozen=True)
class Experiment:
    name: str
    endpoint: str
    spec: ExperimentSpec
    state: str
    decision: str | None
    reason: str | None
    figures: dict[str, Any] | None
    started_at: datetime
    decided_at: datetime | None
    acted_at: datetime | None


def _now() -> datetime:
    return datetime.now(UTC)


class Catalog:
    """Reads and writes the catalog at an SQLAlchemy URL; the schema is brought up to date on first use."""

    def __init__(self, url: str) -> None:
        self.url = url

    @cached_property
    def engine(self) -> sa.Engine:
        sqlite = self.url.startswith("sqlite")
        if sqlite:
            Path(sa.make_url(self.url).database or "").parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(self.url, connect_args={"timeout": 30} if sqlite else {}, pool_pre_ping=not sqlite)
        if sqlite:

            @sa.event.listens_for(engine, "connect")
            def _configure(connection: Any, _record: Any) -> None:
                connection.execute("PRAGMA journal_mode=WAL")
                connection.execute("PRAGMA synchronous=NORMAL")

        self._migrate(engine)
        return engine

    def _migrate(self, engine: sa.Engine) -> None:
        """Run the missing migrations, one process at a time."""
        if _revision(engine) == HEAD:
            return
        from alembic import command
        from alembic.config import Config

        with _only_one(engine), engine.begin() as connection:
            config = Config()
            config.set_main_option("script_location", str(_MIGRATIONS))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")

    def _rows(self, statement: sa.Select) -> list[sa.RowMapping]:
        with self.engine.connect() as connection:
            return list(connection.execute(statement).mappings())

    def _one(self, table: sa.Table, key: str, what: str) -> sa.RowMapping:
        column = next(iter(table.primary_key.columns))
        rows = self._rows(sa.select(table).where(column == key))
        if not rows:
            known = [r[0] for r in self._rows_plain(sa.select(column).order_by(column).limit(10))]
            raise NotFound(f"there is no {what} {key!r}; known are: {', '.join(known) or 'none yet'}")
        return rows[0]

    def _rows_plain(self, statement: sa.Select) -> list[sa.Row]:
        with self.engine.connect() as connection:
            return list(connection.execute(statement))

    @contextmanager
    def _write(self, actor: str, action: str, target: str, **detail: Any):
        """A transaction that leaves a line in the audit log with what it did."""
        with self.engine.begin() as connection:
            yield connection
            connection.execute(
                t.audit.insert().values(at=_now(), actor=actor, action=action, target=target, detail=detail)
            )

    # datasets

    def register_dataset(self, spec: DatasetSpec, digest: str, actor: str = "cli") -> bool:
        """Register a dataset version and ask for its ingestion; True when it is new.

        Registering the same files again only asks again. Other files, or another type, under a known version raise
        `Conflict`: a version never changes.
        """
        now = _now()
        with self._write(actor, "dataset.register", spec.key, digest=digest) as connection:
            known = connection.execute(sa.select(t.datasets).where(t.datasets.c.key == spec.key)).mappings().first()
            if known is None:
                connection.execute(
                    t.datasets.insert().values(
                        key=spec.key,
                        name=spec.name,
                        version=spec.version,
                        type=spec.type,
                        spec=spec.model_dump(mode="json"),
                        digest=digest,
                        status=spec.status,
                        created_at=now,
                        requested_at=now,
                    )
                )
                return True
            if known["status"] == "erased":
                raise Conflict(
                    f"{spec.key} was erased on a person's request, and its files are not to come back under its name. "
                    "Register what you have, without that person, as another version"
                )
            if known["digest"] != digest or known["type"] != spec.type:
                raise Conflict(
                    f"{spec.key} is registered already, with other "
                    f"{'content' if known['digest'] != digest else 'type (' + known['type'] + ')'}. "
                    f"A version never changes: register the new files as another version, for example {spec.name}@next"
                )
            connection.execute(t.datasets.update().where(t.datasets.c.key == spec.key).values(requested_at=now))
            return False

    def dataset_entry(self, key: str) -> Dataset:
        row = self._one(t.datasets, key, "dataset version")
        return _dataset(row)

    def dataset(self, key: str) -> DatasetSpec:
        """The registration of one dataset version, ``name@version``."""
        return self.dataset_entry(key).spec

    def datasets(self) -> list[Dataset]:
        """All dataset versions, newest first."""
        return [_dataset(r) for r in self._rows(sa.select(t.datasets).order_by(t.datasets.c.created_at.desc()))]

    # recipes and requests

    def add_recipe(self, key: str, recipe: Mapping[str, Any], actor: str = "cli") -> bool:
        """Keep a recipe under its content-addressed key; True when it is new."""
        with self._write(actor, "recipe.add", key) as connection:
            if connection.execute(sa.select(t.recipes.c.key).where(t.recipes.c.key == key)).first():
                return False
            connection.execute(t.recipes.insert().values(key=key, spec=dict(recipe), created_at=_now()))
            return True

    def recipe(self, key: str) -> dict[str, Any]:
        return dict(self._one(t.recipes, key, "recipe")["spec"])

    def recipes(self) -> list[str]:
        return [r["key"] for r in self._rows(sa.select(t.recipes.c.key).order_by(t.recipes.c.created_at))]

    def request_training(self, dataset: str, recipe: str, actor: str = "cli") -> int:
        """Ask for one training; the id of the request."""
        self.dataset(dataset)
        self.recipe(recipe)
        with self._write(actor, "training.request", f"{dataset}|{recipe}") as connection:
            result = connection.execute(
                t.training_requests.insert().values(
                    dataset=dataset, recipe=recipe, requested_by=actor, requested_at=_now()
                )
            )
            return int(result.inserted_primary_key[0])

    def open_training_requests(self) -> list[TrainingRequest]:
        """Requests that are not events in the asset graph yet, oldest first."""
        table = t.training_requests
        rows = self._rows(sa.select(table).where(table.c.reported_at.is_(None)).order_by(table.c.id))
        return [TrainingRequest(**r) for r in rows]

    def training_requests(self) -> list[TrainingRequest]:
        """All requests, newest first."""
        table = t.training_requests
        return [TrainingRequest(**r) for r in self._rows(sa.select(table).order_by(table.c.id.desc()))]

    def mark_reported(self, ids: Iterable[int]) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                t.training_requests.update().where(t.training_requests.c.id.in_(list(ids))).values(reported_at=_now())
            )

    # base models

    def register_base(
        self, ref: str, *, family: str, path: str, content_hash: str | None, license: str | None, actor: str = "cli"
    ) -> BaseModelEntry:
        """Register a base model as a draft. Other content under a known ref puts it back to draft."""
        with self._write(actor, "base.register", ref, family=family, content_hash=content_hash) as connection:
            known = connection.execute(sa.select(t.base_models).where(t.base_models.c.ref == ref)).mappings().first()
            values = {"family": family, "path": path, "content_hash": content_hash, "license": license}
            if known is None:
                connection.execute(t.base_models.insert().values(ref=ref, state="draft", created_at=_now(), **values))
            elif known["content_hash"] != content_hash:
                connection.execute(
                    t.base_models.update()
                    .where(t.base_models.c.ref == ref)
                    .values(state="draft", approved_at=None, approved_by=None, **values)
                )
        return self.base_model(ref)

    def approve_base(self, ref: str, actor: str = "cli") -> BaseModelEntry:
        """Let trainings start from a base model."""
        self.base_model(ref)
        with self._write(actor, "base.approve", ref) as connection:
            connection.execute(
                t.base_models.update()
                .where(t.base_models.c.ref == ref)
                .values(state="approved", approved_at=_now(), approved_by=actor)
            )
        return self.base_model(ref)

    def archive_base(self, ref: str, actor: str = "cli") -> BaseModelEntry:
        """Let no more trainings start from a base model."""
        self.base_model(ref)
        with self._write(actor, "base.archive", ref) as connection:
            connection.execute(t.base_models.update().where(t.base_models.c.ref == ref).values(state="archived"))
        return self.base_model(ref)

    def base_model(self, ref: str) -> BaseModelEntry:
        return BaseModelEntry(**self._one(t.base_models, ref, "base model"))

    def base_models(self) -> list[BaseModelEntry]:
        """All base models, newest first."""
        rows = self._rows(sa.select(t.base_models).order_by(t.base_models.c.created_at.desc()))
        return [BaseModelEntry(**r) for r in rows]

    # endpoints and their backends

    def want_endpoint(self, spec: DeploymentSpec, actor: str = "cli") -> Endpoint:
        """Say what an endpoint shall serve; raises its revision, and the graph acts on that."""
        name, now, dump = spec.endpoint, _now(), spec.model_dump(mode="json")
        with self._write(actor, "endpoint.want", name, model_ref=spec.model_ref) as connection:
            known = connection.execute(sa.select(t.endpoints).where(t.endpoints.c.name == name)).mappings().first()
            if known is None:
                # An endpoint of this name may have been there before; its phases stay on record, so count on.
                last = sa.select(sa.func.max(t.phases.c.phase)).where(t.phases.c.endpoint == name)
                connection.execute(
                    t.endpoints.insert().values(
                        name=name,
                        spec=dump,
                        revision=1,
                        observed_revision=0,
                        state="pending",
                        message="",
                        routes=[],
                        phase=connection.execute(last).scalar() or 0,
                        salt=secrets.token_hex(8),
                        created_at=now,
                        updated_at=now,
                    )
                )
            else:
                if known["state"] == "deleting":
                    raise Conflict(
                        f"endpoint {name!r} is being deleted; wait until `llmops endpoint list` no longer has it"
                    )
                connection.execute(
                    t.endpoints.update()
                    .where(t.endpoints.c.name == name)
                    .values(spec=dump, revision=known["revision"] + 1, state="pending", updated_at=now)
                )
        return self.endpoint(name)

    def endpoint(self, name: str) -> Endpoint:
        return _endpoint(self._one(t.endpoints, name, "endpoint"))

    def endpoints(self) -> list[Endpoint]:
        """All endpoints, newest first."""
        rows = self._rows(sa.select(t.endpoints).order_by(t.endpoints.c.created_at.desc()))
        return [_endpoint(r) for r in rows]

    def endpoint_names(self) -> list[str]:
        """The names of all endpoints, also of those whose entry cannot be read."""
        return [r["name"] for r in self._rows(sa.select(t.endpoints.c.name).order_by(t.endpoints.c.name))]

    def update_endpoint(self, name: str, **values: Any) -> None:
        """Set state, message or observed_revision of an endpoint."""
        allowed = {"state", "message", "observed_revision"}
        if unknown := set(values) - allowed:
            raise ValueError(f"an endpoint's {', '.join(sorted(unknown))} cannot be set here")
        with self.engine.begin() as connection:
            connection.execute(
                t.endpoints.update().where(t.endpoints.c.name == name).values(updated_at=_now(), **values)
            )

    def set_routes(self, name: str, routes: list[dict[str, Any]], actor: str = "deployment") -> int:
        """Replace an endpoint's route table; the new phase. An equal table opens no new phase."""
        with self._write(actor, "endpoint.routes", name, routes=routes) as connection:
            row = connection.execute(
                sa.select(t.endpoints.c.routes, t.endpoints.c.phase).where(t.endpoints.c.name == name).with_for_update()
            ).first()
            if row is None:
                raise NotFound(f"there is no endpoint {name!r}")
            if row.routes == routes:
                return row.phase
            connection.execute(
                t.endpoints.update()
                .where(t.endpoints.c.name == name)
                .values(routes=routes, phase=row.phase + 1, updated_at=_now())
            )
            connection.execute(t.phases.insert().values(endpoint=name, phase=row.phase + 1, routes=routes, at=_now()))
            return row.phase + 1

    def phases(self, endpoint: str) -> dict[int, list[dict[str, Any]]]:
        """The route table of each phase that an endpoint has had: what an experiment's shares are judged by."""
        statement = sa.select(t.phases).where(t.phases.c.endpoint == endpoint).order_by(t.phases.c.phase)
        return {r["phase"]: r["routes"] for r in self._rows(statement)}

    def remove_endpoint(self, name: str, actor: str = "cli") -> None:
        """Forget an endpoint. Refused while a backend of it is on record: only what is really gone is forgotten."""
        with self._write(actor, "endpoint.remove", name) as connection:
            left = [r.id for r in connection.execute(sa.select(t.backends.c.id).where(t.backends.c.endpoint == name))]
            if left:
                raise Conflict(f"endpoint {name!r} still has backends: {', '.join(left)}; stop them first")
            connection.execute(t.endpoints.delete().where(t.endpoints.c.name == name))

    def add_backend(self, backend: Backend) -> None:
        values = {c.name: getattr(backend, c.name) for c in t.backends.columns}
        with self._write("deployment", "backend.add", backend.id, model_ref=backend.model_ref) as connection:
            connection.execute(t.backends.insert().values(values))

    def update_backend(self, id: str, **values: Any) -> None:
        with self.engine.begin() as connection:
            connection.execute(t.backends.update().where(t.backends.c.id == id).values(**values))

    def backend(self, id: str) -> Backend:
        return Backend(**self._one(t.backends, id, "backend"))

    def backends(self, endpoint: str | None = None) -> list[Backend]:
        """Backends on record, oldest first."""
        statement = sa.select(t.backends).order_by(t.backends.c.created_at)
        if endpoint is not None:
            statement = statement.where(t.backends.c.endpoint == endpoint)
        return [Backend(**r) for r in self._rows(statement)]

    def remove_backend(self, id: str) -> None:
        with self._write("deployment", "backend.remove", id) as connection:
            connection.execute(t.backends.delete().where(t.backends.c.id == id))

    # experiments

    def create_experiment(self, spec: ExperimentSpec, actor: str = "cli") -> bool:
        """Start an experiment; True when it is new. One experiment runs on an endpoint at a time."""
        dump = spec.model_dump(mode="json")
        with self._write(actor, "experiment.create", spec.name, endpoint=spec.endpoint) as connection:
            table = t.experiments
            known = connection.execute(sa.select(table).where(table.c.name == spec.name)).mappings().first()
            if known is not None:
                if known["spec"] != dump:
                    raise Conflict(
                        f"experiment {spec.name!r} exists with another design; a running design never changes: "
                        "take another name"
                    )
                return False
            other = connection.execute(
                sa.select(table.c.name).where(table.c.endpoint == spec.endpoint, table.c.state == "running")
            ).first()
            if other is not None:
                raise Conflict(f"experiment {other.name!r} is running on endpoint {spec.endpoint!r}; conclude it first")
            connection.execute(
                table.insert().values(
                    name=spec.name, endpoint=spec.endpoint, spec=dump, state="running", started_at=_now()
                )
            )
            return True

    def experiment(self, name: str) -> Experiment:
        return _experiment(self._one(t.experiments, name, "experiment"))

    def experiments(self, state: str | None = None) -> list[Experiment]:
        """Experiments, newest first."""
        statement = sa.select(t.experiments).order_by(t.experiments.c.started_at.desc())
        if state is not None:
            statement = statement.where(t.experiments.c.state == state)
        return [_experiment(r) for r in self._rows(statement)]

    def running_experiments(self) -> dict[str, str]:
        """The name of the running experiment by endpoint, without its design: the gateway asks twice a second."""
        table = t.experiments
        return {
            r["endpoint"]: r["name"]
            for r in self._rows(sa.select(table.c.endpoint, table.c.name).where(table.c.state == "running"))
        }

    def decide_experiment(
        self, name: str, decision: str, reason: str, figures: dict[str, Any], actor: str = "ab_report"
    ) -> bool:
        """Write the decision of an experiment; True when this call wrote it. A decision is never taken back."""
        table = t.experiments
        with self._write(actor, "experiment.decide", name, decision=decision) as connection:
            result = connection.execute(
                table.update()
                .where(table.c.name == name, table.c.decision.is_(None))
                .values(decision=decision, reason=reason, figures=figures, decided_at=_now(), state="concluded")
            )
            return result.rowcount == 1

    def mark_acted(self, name: str) -> None:
        """Note that the endpoint was switched as the experiment decided."""
        with self._write("promotion", "experiment.act", name) as connection:
            connection.execute(t.experiments.update().where(t.experiments.c.name == name).values(acted_at=_now()))

    # what the gateway saw

    def add_exposures(self, rows: list[dict[str, Any]]) -> None:
        """Append exposures, a dict a row with the columns of the table."""
        if not rows:
            return
        with self.engine.begin() as connection:
            connection.execute(t.exposures.insert(), rows)

    def add_feedback(
        self, request_id: str, rating: int, *, user: str | None = None, comment: str | None = None
    ) -> None:
        with self.engine.begin() as connection:
            connection.execute(
                t.feedback.insert().values(request_id=request_id, at=_now(), user=user, rating=rating, comment=comment)
            )

    def exposures(
        self, *, experiment: str | None = None, endpoint: str | None = None, since: datetime | None = None
    ) -> "pl.DataFrame":
        """Exposures, oldest first; a column per column of the table."""
        table = t.exposures
        statement = sa.select(table).order_by(table.c.at, table.c.request_id)
        if experiment is not None:
            statement = statement.where(table.c.experiment == experiment)
        if endpoint is not None:
            statement = statement.where(table.c.endpoint == endpoint)
        if since is not None:
            statement = statement.where(table.c.at >= since)
        return self._frame(table, statement)

    def feedback(self, *, experiment: str | None = None, endpoint: str | None = None) -> "pl.DataFrame":
        """Ratings of the exposures selected, oldest first."""
        table = t.feedback
        statement = sa.select(table).order_by(table.c.id)
        if experiment is not None or endpoint is not None:
            statement = statement.join(t.exposures, t.exposures.c.request_id == table.c.request_id)
        if experiment is not None:
            statement = statement.where(t.exposures.c.experiment == experiment)
        if endpoint is not None:
            statement = statement.where(t.exposures.c.endpoint == endpoint)
        return self._frame(table, statement)

    def exposed_by(self, request_id: str) -> str | None:
        """The endpoint that answered a request, or None when no such exposure was written."""
        table = t.exposures
        rows = self._rows(sa.select(table.c.endpoint).where(table.c.request_id == request_id))
        return rows[0]["endpoint"] if rows else None

    def request_count(self, *, endpoint: str) -> int:
        statement = sa.select(sa.func.count()).where(t.exposures.c.endpoint == endpoint)
        return int(self._rows_plain(statement)[0][0])

    def exposure_count(self, *, experiment: str) -> int:
        statement = sa.select(sa.func.count()).where(t.exposures.c.experiment == experiment)
        return int(self._rows_plain(statement)[0][0])

    def progress(self, experiment: str, *, first_seen_before: datetime) -> tuple[int, int, int]:
        """Requests, ratings, and users whose first request was before a moment: what an analysis would look at."""
        mine = t.exposures.c.experiment == experiment
        rated = t.feedback.join(t.exposures, t.exposures.c.request_id == t.feedback.c.request_id)
        first = sa.select(sa.func.min(t.exposures.c.at).label("at")).where(mine).group_by(t.exposures.c.user).subquery()
        counts = (
            sa.select(sa.func.count()).select_from(t.exposures).where(mine),
            sa.select(sa.func.count()).select_from(rated).where(mine),
            sa.select(sa.func.count()).select_from(first).where(first.c.at <= first_seen_before),
        )
        with self.engine.connect() as connection:
            requests, ratings, users = (int(connection.execute(count).scalar_one()) for count in counts)
        return requests, ratings, users

    def _frame(self, table: sa.Table, statement: sa.Select) -> "pl.DataFrame":
        # Few commands ask for frames, and this import would be a quarter of what asking for a training takes.
        import polars as pl

        dtypes = {sa.String: pl.String, sa.Text: pl.String, sa.Integer: pl.Int64, sa.Float: pl.Float64}
        schema = {
            c.name: pl.Datetime("us", "UTC") if isinstance(c.type, t.UtcDateTime) else dtypes[type(c.type)]
            for c in table.columns
        }
        with self.engine.connect() as connection:
            rows = [tuple(r) for r in connection.execute(statement)]
        return pl.DataFrame(rows, schema=schema, orient="row")

    # audit

    def audit_log(self, limit: int = 100) -> list[dict[str, Any]]:
        """The newest lines of the audit log, newest first."""
        return [dict(r) for r in self._rows(sa.select(t.audit).order_by(t.audit.c.id.desc()).limit(limit))]

    def audit_of(self, target: str, *, exact: bool = True, limit: int = 100) -> list[dict[str, Any]]:
        """The newest lines about a target, or whose detail names it as the model, newest first.

        Without `exact`, `target` is the name of a model, whose versions are all meant.
        """
        subjects = (t.audit.c.target, t.audit.c.detail["model_ref"].as_string())
        if exact:
            mine = sa.or_(*(subject == target for subject in subjects))
        else:
            mine = sa.or_(*(subject.startswith(f"{target}@", autoescape=True) for subject in subjects))
        return [dict(r) for r in self._rows(sa.select(t.audit).where(mine).order_by(t.audit.c.id.desc()).limit(limit))]

    def log(self, actor: str, action: str, target: str, **detail: Any) -> None:
        """Append a line to the audit log."""
        with self._write(actor, action, target, **detail):
            return


def _revision(engine: sa.Engine) -> str | None:
    with engine.connect() as connection:
        if not sa.inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()


@contextmanager
def _only_one(engine: sa.Engine):
    """Hold a lock that other processes migrating the same catalog wait for."""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            key = int.from_bytes(hashlib.sha256(b"llmops catalog migration").digest()[:7])
            connection.execute(sa.text("SELECT pg_advisory_lock(:key)"), {"key": key})
            try:
                yield
            finally:
                connection.execute(sa.text("SELECT pg_advisory_unlock(:key)"), {"key": key})
        return
    with open(f"{engine.url.database}.migrating", "w") as lock:
        deadline = time.monotonic() + 60
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise TimeoutError(f"another process has been migrating {engine.url} for a minute") from None
                time.sleep(0.05)
        yield


def _dataset(row: sa.RowMapping) -> Dataset:
    return Dataset(
        key=row["key"],
        spec=DatasetSpec.model_validate(row["spec"]),
        digest=row["digest"],
        status=row["status"],
        created_at=row["created_at"],
        requested_at=row["requested_at"],
    )


def _endpoint(row: sa.RowMapping) -> Endpoint:
    return Endpoint(**{**row, "spec": DeploymentSpec.model_validate(row["spec"])})


def _experiment(row: sa.RowMapping) -> Experiment:
    return Experiment(**{**row, "spec": ExperimentSpec.model_validate(row["spec"])})
