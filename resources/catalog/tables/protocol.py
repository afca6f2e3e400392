"""What is wanted, by whom, what was done, and what went wrong."""

import sqlalchemy as sa

from resources.catalog.tables.columns import UtcDateTime, metadata

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

audit_head = sa.Table(
    "audit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("lines", sa.Integer, nullable=False),
    sa.Column("sha256", sa.String, nullable=False, comment="of the last line"),
)

installation = sa.Table(
    "installation",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("identity", sa.String, nullable=False, comment="a random UUID, made once"),
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
