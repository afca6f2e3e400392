"""The catalog's tables."""

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


datasets = sa.Table(
    "datasets",
    metadata,
    sa.Column("key", sa.String, primary_key=True, comment="name@version"),
    sa.Column("name", sa.String, nullable=False, index=True),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("spec", sa.JSON, nullable=False, comment="DatasetSpec"),
    sa.Column("digest", sa.String, nullable=False, comment="SHA-256 over the registered files"),
    sa.Column("status", sa.String, nullable=False, default="active"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False, comment="last time someone asked for its ingestion"),
)

recipes = sa.Table(
    "recipes",
    metadata,
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False, comment="TrainJobSpec less dataset_ref"),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

training_requests = sa.Table(
    "training_requests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("recipe", sa.String, nullable=False),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("reported_at", UtcDateTime, comment="when the request became an event in the asset graph"),
)

base_models = sa.Table(
    "base_models",
    metadata,
    sa.Column("ref", sa.String, primary_key=True, comment="as a spec names it: hf:… or a plain name"),
    sa.Column("family", sa.String, nullable=False),
    sa.Column("path", StoredPath, nullable=False, comment="local folder or hub id"),
    sa.Column("content_hash", sa.String),
    sa.Column("license", sa.String),
    sa.Column("state", sa.String, nullable=False, comment="draft, approved or archived"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("approved_at", UtcDateTime),
    sa.Column("approved_by", sa.String),
)

endpoints = sa.Table(
    "endpoints",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False, comment="DeploymentSpec that is wanted"),
    sa.Column("revision", sa.Integer, nullable=False, comment="counts the wanted specs"),
    sa.Column("observed_revision", sa.Integer, nullable=False, comment="the revision that was last acted on"),
    sa.Column("state", sa.String, nullable=False, comment="pending, deploying, live, failed or deleting"),
    sa.Column("message", sa.String, nullable=False, default=""),
    sa.Column("routes", sa.JSON, nullable=False, comment="list of backend_id, model_ref, weight"),
    sa.Column("phase", sa.Integer, nullable=False, comment="counts the route tables"),
    sa.Column("salt", sa.String, nullable=False),
    sa.Column("held", sa.String, comment="why its rollout does not go on by itself; null where it does"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

phases = sa.Table(
    "phases",
    metadata,
    sa.Column("endpoint", sa.String, primary_key=True),
    sa.Column("phase", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("routes", sa.JSON, nullable=False, comment="the route table of this phase"),
    sa.Column("at", UtcDateTime, nullable=False),
)

backends = sa.Table(
    "backends",
    metadata,
    sa.Column("id", sa.String, primary_key=True),
    sa.Column("endpoint", sa.String, nullable=False, index=True),
    sa.Column("model_ref", sa.String, nullable=False),
    sa.Column("model_path", StoredPath, nullable=False),
    sa.Column("engine", sa.String, nullable=False),
    sa.Column("runtime", sa.JSON, nullable=False),
    sa.Column("url", sa.String, nullable=False),
    sa.Column("pid", sa.Integer),
    sa.Column("pid_started", sa.Float, comment="start time of the process, so that a reused pid is not taken for it"),
    sa.Column(
        "state",
        sa.String,
        nullable=False,
        comment="wanted, starting, healthy, unhealthy, failed, draining, stopping or stopped",
    ),
    sa.Column("log_path", StoredPath),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("wanted", sa.String, nullable=False, server_default="running", comment="running or gone"),
    sa.Column("warm_until", UtcDateTime, comment="until when it is kept although nothing routes to it"),
    sa.Column("message", sa.String, nullable=False, server_default="", comment="why it is not as it is wanted"),
    sa.Column("changed_at", UtcDateTime, comment="since when it has its state"),
    sa.Column("healthy_at", UtcDateTime, comment="when it first was healthy since it was wanted"),
    sa.Column("restarts", sa.Integer, nullable=False, server_default="0", comment="in a row, without health between"),
    sa.Column("retry_at", UtcDateTime, comment="it is not started again before"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("holder", sa.String, nullable=False, comment="who has it, as host, process and start; empty when free"),
    sa.Column("token", sa.Integer, nullable=False, comment="counts the holders: what an earlier one writes is refused"),
    sa.Column("beat", sa.Integer, nullable=False, comment="counts the renewals"),
    sa.Column("seconds", sa.Float, nullable=False, comment="without a beat for so long, another may have it"),
)

operations = sa.Table(
    "operations",
    metadata,
    sa.Column("id", sa.String, primary_key=True, comment="the caller's: the same one acts once"),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("result", sa.JSON, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

experiments = sa.Table(
    "experiments",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("endpoint", sa.String, nullable=False, index=True),
    sa.Column("spec", sa.JSON, nullable=False, comment="ExperimentSpec"),
    sa.Column("state", sa.String, nullable=False, comment="running or concluded"),
    sa.Column("decision", sa.String, comment="promote, rollback, inconclusive or invalid; written once"),
    sa.Column("reason", sa.String),
    sa.Column("figures", sa.JSON, comment="what the decision was made on"),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("decided_at", UtcDateTime),
    sa.Column("acted_at", UtcDateTime, comment="when the endpoint was switched accordingly"),
    sa.Column("withheld", sa.String, comment="why nobody acts on the decision"),
    sa.Index(
        "uq_experiments_running",
        "endpoint",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)

dropped_arms = sa.Table(
    "dropped_arms",
    metadata,
    sa.Column("experiment", sa.String, primary_key=True),
    sa.Column("model_ref", sa.String, primary_key=True),
    sa.Column("endpoint", sa.String, nullable=False),
    sa.Column("phase", sa.Integer, nullable=False, comment="of the endpoint when it was noted"),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("figures", sa.JSON, nullable=False),
    sa.Column("noted_by", sa.String, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

exposures = sa.Table(
    "exposures",
    metadata,
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("endpoint", sa.String, nullable=False),
    sa.Column("experiment", sa.String),
    sa.Column("phase", sa.Integer, nullable=False),
    sa.Column("variant", sa.Integer, nullable=False, comment="index into the phase's routes"),
    sa.Column("backend", sa.String, nullable=False),
    sa.Column("model_ref", sa.String, nullable=False),
    sa.Column("user", sa.String, nullable=False),
    sa.Column("session", sa.String),
    sa.Column("query", sa.Text, comment="last user message, personal data masked"),
    sa.Column("response", sa.Text, comment="the answer, personal data masked"),
    sa.Column("status", sa.Integer, nullable=False, comment="HTTP status"),
    sa.Column("error", sa.String),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("ttft_ms", sa.Float, comment="time to the first token, streamed requests only"),
    sa.Column("prompt_tokens", sa.Integer),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("finish_reason", sa.String),
    sa.Column(
        "source", sa.String, comment="model, cache, or fallback: another model than the assigned one; null: model"
    ),
    sa.Column("prompt_version", sa.String, comment="of the prompt that the answer was made with"),
    sa.Column("retrieved", sa.String, comment="JSON: index, version, passages, refused"),
    sa.Column("verdicts", sa.String, comment="JSON: of guards, in and out"),
    sa.Column("consent", sa.Boolean, comment="whether the user agreed to the use of the texts; null: not asked"),
    sa.Column("worker", sa.String, comment="the spool that it came through"),
    sa.Column("sequence", sa.Integer, comment="its place in that spool, counted without a gap"),
    sa.Index("ix_exposures_endpoint_at", "endpoint", "at"),
    sa.Index("ix_exposures_experiment_user", "experiment", "user"),
    sa.Index("ix_exposures_worker_sequence", "worker", "sequence"),
)

feedback = sa.Table(
    "feedback",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("request_id", sa.String, nullable=False, index=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("user", sa.String),
    sa.Column("rating", sa.Integer, nullable=False),
    sa.Column("comment", sa.Text),
    sa.Column("correction", sa.Text, comment="what the user says would have been right, personal data masked"),
    sa.Column("scores", sa.JSON, comment="other numbers of this feedback by name"),
    sa.Column("event", sa.String, comment="id that makes writing it twice harmless"),
    sa.Column("worker", sa.String, comment="the spool that it came through"),
    sa.Column("sequence", sa.Integer, comment="its place in that spool, counted with the exposures"),
    sa.CheckConstraint("rating BETWEEN 1 AND 5", name="rating_range"),
    sa.Index("uq_feedback_event", "event", unique=True),
    sa.Index("ix_feedback_worker_sequence", "worker", "sequence"),
)

statistics_plans = sa.Table(
    "statistics_plans",
    metadata,
    sa.Column("endpoint", sa.String, primary_key=True),
    sa.Column("experiment", sa.String, primary_key=True, comment="empty: what was answered outside of experiments"),
    sa.Column("slow_ms", sa.Float, nullable=False, comment="a request that took longer counts as slow"),
    sa.Column("ends_at", UtcDateTime, comment="exposures after it do not count"),
    sa.Column("rating_window_seconds", sa.Float, comment="after a user's first exposure; null: any rating counts"),
)

user_statistics = sa.Table(
    "user_statistics",
    metadata,
    sa.Column("endpoint", sa.String, primary_key=True),
    sa.Column("experiment", sa.String, primary_key=True, comment="empty: what was answered outside of experiments"),
    sa.Column("user", sa.String, primary_key=True),
    sa.Column("phase", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("variant", sa.Integer, primary_key=True, autoincrement=False, comment="index into the phase's routes"),
    sa.Column("first_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False),
    sa.Column("requests", sa.Integer, nullable=False),
    sa.Column("judged", sa.Integer, nullable=False, comment="requests less what the caller did wrong"),
    sa.Column("failed", sa.Integer, nullable=False, comment="of the judged"),
    sa.Column("fallbacks", sa.Integer, nullable=False, comment="of the failed: another model gave the answer"),
    sa.Column("timed", sa.Integer, nullable=False, comment="requests whose time says something of the model"),
    sa.Column("slow", sa.Integer, nullable=False, comment="of the timed"),
    sa.Column("latency_sum", sa.Float, nullable=False, comment="ms, over the timed"),
    sa.Column("latency_squares", sa.Float, nullable=False, comment="ms², over the timed"),
    sa.Column("prompt_tokens", sa.Integer, nullable=False),
    sa.Column("completion_tokens", sa.Integer, nullable=False),
    *(sa.Column(f"rated_{n}", sa.Integer, nullable=False, comment=f"answers whose rating is {n}") for n in range(1, 6)),
    sa.Column("foreign_ratings", sa.Integer, nullable=False, comment="ratings by another user than the one who asked"),
)

reviews = sa.Table(
    "reviews",
    metadata,
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("reviewer", sa.String, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("verdict", sa.String, nullable=False, comment="accept, fix or reject"),
    sa.Column("text", sa.Text, comment="the right answer, personal data masked"),
    sa.Column("reason", sa.Text),
)

dataset_pointers = sa.Table(
    "dataset_pointers",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, index=True, comment="of the dataset"),
    sa.Column("tag", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False, comment="what it points to from here on"),
    sa.Column("action", sa.String, nullable=False, comment="tag or rollback"),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("by", sa.String, nullable=False),
)

audit = sa.Table(
    "audit",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("actor", sa.String, nullable=False),
    sa.Column("action", sa.String, nullable=False),
    sa.Column("target", sa.String, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False),
    sa.Column("previous", sa.String, comment="hash of the line before"),
    sa.Column("sha256", sa.String, comment="of this line behind that hash"),
)

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("identity", sa.String, nullable=False, comment="a random UUID, made once"),
)

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String, nullable=False, comment="of the last line"),
)

erasures = sa.Table(
    "erasures",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String, nullable=False, index=True, comment="the dataset that it started from"),
    sa.Column("request", sa.String, nullable=False, comment="keyed hash of what was looked for; never the text"),
    sa.Column("looked_for", sa.JSON, nullable=False, comment="how many texts, patterns, fields and rows"),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("state", sa.String, nullable=False, comment="running or done"),
    sa.Column("versions", sa.JSON, nullable=False, comment="the version that follows each erased one, or null"),
    sa.Column("figures", sa.JSON, nullable=False, comment="what was found and removed, in numbers"),
    sa.Column("started_at", UtcDateTime, nullable=False),
    sa.Column("finished_at", UtcDateTime),
    sa.Index(
        "uq_erasures_running",
        "name",
        "request",
        unique=True,
        sqlite_where=sa.text("state = 'running'"),
        postgresql_where=sa.text("state = 'running'"),
    ),
)

affected_models = sa.Table(
    "affected_models",
    metadata,
    sa.Column("erasure", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("cell", sa.String, primary_key=True, comment="dataset|recipe of the training"),
    sa.Column("content_hash", sa.String, index=True, comment="of the merged model, where there is one"),
    sa.Column("model_ref", sa.String, comment="in the registry, where it is there"),
    sa.Column("why", sa.String, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
)

record_digests = sa.Table(
    "record_digests",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("record", sa.String, nullable=False, index=True, comment="asset and partition, as the file is named"),
    sa.Column("sha256", sa.String, nullable=False, comment="of the record before it is sealed"),
)

dataset_drafts = sa.Table(
    "dataset_drafts",
    metadata,
    sa.Column("key", sa.String, primary_key=True, comment="name@version"),
    sa.Column("name", sa.String, nullable=False),
    sa.Column("version", sa.String, nullable=False),
    sa.Column("fields", sa.JSON, nullable=False, comment="fields of the DatasetSpec that were given"),
    sa.Column("reason", sa.String, nullable=False, comment="why there are no files yet"),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

named_models = sa.Table(
    "named_models",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("version", sa.String, primary_key=True),
    sa.Column("storage_uri", sa.String, nullable=False),
    sa.Column("family", sa.String, nullable=False),
    sa.Column("license", sa.String),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False, comment="what else was said of it"),
    sa.Column("base_ref", sa.String, comment="the base model that it is, once its files were looked at"),
    sa.Column("reason", sa.String, nullable=False, comment="why its files were not looked at yet"),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

answered_requests = sa.Table(
    "answered_requests",
    metadata,
    sa.Column("actor", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True, comment="the Idempotency-Key that the client chose"),
    sa.Column("digest", sa.String, nullable=False, comment="SHA-256 of method, path and body"),
    sa.Column("status", sa.Integer, comment="null while the request is being carried out"),
    sa.Column("body", sa.JSON),
    sa.Column("at", UtcDateTime, nullable=False, index=True),
)

intents = sa.Table(
    "intents",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("kind", sa.String, nullable=False, comment="ingest, train, trial, deploy, …"),
    sa.Column("key", sa.String, nullable=False, comment="the partition that it is about"),
    sa.Column("revision", sa.Integer, nullable=False, comment="counts what was wanted of one kind and key"),
    sa.Column("requested_by", sa.String, nullable=False),
    sa.Column("requested_at", UtcDateTime, nullable=False),
    sa.Column("detail", sa.JSON, nullable=False, comment="what the run must know"),
    sa.Column("closed_at", UtcDateTime, comment="null while it is open"),
    sa.Column("outcome", sa.String, comment="done, failed, withdrawn or superseded"),
    sa.Column("reason", sa.String),
    sa.UniqueConstraint("kind", "key", "revision"),
    sa.Index(
        "uq_intents_open",
        "kind",
        "key",
        unique=True,
        sqlite_where=sa.text("closed_at IS NULL"),
        postgresql_where=sa.text("closed_at IS NULL"),
    ),
)

api_keys = sa.Table(
    "api_keys",
    metadata,
    sa.Column("id", sa.String, primary_key=True, comment="the part of the key that may be shown"),
    sa.Column("sha256", sa.String, nullable=False, unique=True, comment="of the whole key, which is stored nowhere"),
    sa.Column("owner", sa.String, nullable=False),
    sa.Column("team", sa.String),
    sa.Column("role", sa.String, nullable=False, comment="a role of the policy"),
    sa.Column("endpoints", sa.JSON, comment="names of endpoints; null: all that the role may call"),
    sa.Column("requests_per_minute", sa.Integer),
    sa.Column("monthly_tokens", sa.BigInteger),
    sa.Column("note", sa.String, nullable=False, server_default=""),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("expires_at", UtcDateTime),
    sa.Column("revoked_at", UtcDateTime),
    sa.Column("revoked_by", sa.String),
    sa.Column("last_used_at", UtcDateTime),
    sa.Column(
        "revision", sa.Integer, nullable=False, comment="counts the changes, by which a gateway sees that one is"
    ),
)

users = sa.Table(
    "users",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("password_hash", sa.String, comment="argon2id; null: logs in at a provider alone"),
    sa.Column("roles", sa.JSON, nullable=False, comment="roles of the policy, given here"),
    sa.Column("issuer", sa.String, comment="the provider that the user logs in at; null: a user of ours"),
    sa.Column("subject", sa.String, comment="who it is there"),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("disabled_at", UtcDateTime),
    sa.Column(
        "failures", sa.Integer, nullable=False, server_default="0", comment="wrong passwords since the last right"
    ),
    sa.Column("failed_at", UtcDateTime),
    sa.Column("revision", sa.Integer, nullable=False, comment="sessions of an earlier one have ended"),
    sa.UniqueConstraint("issuer", "subject"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("sha256", sa.String, primary_key=True, comment="of what the browser holds"),
    sa.Column("user", sa.String, nullable=False, index=True),
    sa.Column("roles", sa.JSON, nullable=False, comment="those that the provider said, beside the user's own"),
    sa.Column("user_revision", sa.Integer, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False),
)

logins = sa.Table(
    "logins",
    metadata,
    sa.Column("sha256", sa.String, primary_key=True, comment="of the state that was sent to the provider"),
    sa.Column("browser", sa.String, nullable=False, comment="SHA-256 of what the browser holds that began it"),
    sa.Column("nonce", sa.String, nullable=False),
    sa.Column("verifier", sa.String, nullable=False, comment="of PKCE"),
    sa.Column("target", sa.String, nullable=False, comment="the page that was asked for"),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

endpoint_prompts = sa.Table(
    "endpoint_prompts",
    metadata,
    sa.Column("endpoint", sa.String, primary_key=True),
    sa.Column("name", sa.String, nullable=False, comment="of the prompt in the registry"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("alias", sa.String, comment="by which the spec names it; null: by its version"),
    sa.Column("template", sa.JSON, nullable=False, comment="a text, or messages with role and content"),
    sa.Column("updated_at", UtcDateTime, nullable=False),
)

usage = sa.Table(
    "usage",
    metadata,
    sa.Column("day", sa.String, primary_key=True, comment="in UTC, YYYY-MM-DD"),
    sa.Column("key", sa.String, primary_key=True, comment="id of an API key, subject of a token, or empty"),
    sa.Column("team", sa.String, primary_key=True, comment="empty for none"),
    sa.Column("endpoint", sa.String, primary_key=True),
    sa.Column("model_ref", sa.String, primary_key=True),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("failed", sa.BigInteger, nullable=False, comment="of these, those with a status of 400 or above"),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("estimated_tokens", sa.BigInteger, nullable=False, comment="of these, what no server counted"),
    sa.Index("ix_usage_key_day", "key", "day"),
)

model_statements = sa.Table(
    "model_statements",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
    sa.Column("model", sa.String, nullable=False, comment="name of the registered model"),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("gap", sa.String, nullable=False, comment="what lineage cannot tell, by its name in the dossier"),
    sa.Column("text", sa.Text, nullable=False),
    sa.Column("author", sa.String, nullable=False),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Index("ix_model_statements_model", "model", "version"),
)

retraining_rules = sa.Table(
    "retraining_rules",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("spec", sa.JSON, nullable=False, comment="RetrainingRule"),
    sa.Column("created_by", sa.String, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

retrainings = sa.Table(
    "retrainings",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("rule", sa.String, nullable=False, index=True),
    sa.Column("cause", sa.String, nullable=False, comment="what it was asked for upon: once each"),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("dataset", sa.String, nullable=False),
    sa.Column("recipe", sa.String, nullable=False),
    sa.Column("reviewed_until", UtcDateTime, comment="reviews up to then are in the dataset; null: none are"),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("rule", "dataset"),
)

alerts = sa.Table(
    "alerts",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("key", sa.String, nullable=False, index=True, comment="kind and subject"),
    sa.Column("kind", sa.String, nullable=False),
    sa.Column("subject", sa.String, nullable=False),
    sa.Column("severity", sa.String, nullable=False, comment="info, warning or error"),
    sa.Column("text", sa.Text, nullable=False, comment="what was found, and what to do"),
    sa.Column("times", sa.Integer, nullable=False, comment="how often it began, without another message"),
    sa.Column("first_at", UtcDateTime, nullable=False),
    sa.Column("last_at", UtcDateTime, nullable=False, comment="when it last was found to be so"),
    sa.Column("resolved_at", UtcDateTime, comment="null while it is so"),
    sa.Column("acked_at", UtcDateTime),
    sa.Column("acked_by", sa.String),
    sa.Index(
        "uq_alerts_open",
        "key",
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    ),
)

alert_messages = sa.Table(
    "alert_messages",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("alert", sa.Integer, nullable=False, index=True),
    sa.Column("event", sa.String, nullable=False, comment="raised or resolved"),
    sa.Column("channel", sa.String, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("due_at", UtcDateTime, comment="when it is tried next; null: delivered, or given up"),
    sa.Column("delivered_at", UtcDateTime),
    sa.Column("error", sa.String),
    sa.UniqueConstraint("alert", "event", "channel"),
)

heartbeats = sa.Table(
    "heartbeats",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("at", UtcDateTime, nullable=False),
)
