"""The catalog's first schema, with an audit log that can only grow."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SQLITE_GUARD = """
CREATE TRIGGER audit_{action} BEFORE {action} ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""
_POSTGRES_GUARD = """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'the audit log is append-only'; END $$;
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
"""


def upgrade() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_table(
        "backends",
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("model_ref", sa.String(), nullable=False),
        sa.Column("model_path", sa.String(), nullable=False),
        sa.Column("engine", sa.String(), nullable=False),
        sa.Column("runtime", sa.JSON(), nullable=False),
        sa.Column("url", sa.String(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column(
            "pid_started",
            sa.Float(),
            nullable=True,
            comment="start time of the process, so that a reused pid is not taken for it",
        ),
        sa.Column("state", sa.String(), nullable=False, comment="starting, healthy, unhealthy, stopping or stopped"),
        sa.Column("log_path", sa.String(), nullable=True),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_backends")),
    )
    op.create_index(op.f("ix_backends_endpoint"), "backends", ["endpoint"], unique=False)
    op.create_table(
        "base_models",
        sa.Column("ref", sa.String(), nullable=False, comment="as a spec names it: hf:… or a plain name"),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("path", sa.String(), nullable=False, comment="local folder or hub id"),
        sa.Column("content_hash", sa.String(), nullable=True),
        sa.Column("license", sa.String(), nullable=True),
        sa.Column("state", sa.String(), nullable=False, comment="draft, approved or archived"),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("approved_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("approved_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("ref", name=op.f("pk_base_models")),
    )
    op.create_table(
        "datasets",
        sa.Column("key", sa.String(), nullable=False, comment="name@version"),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False, comment="DatasetSpec"),
        sa.Column("digest", sa.String(), nullable=False, comment="SHA-256 over the registered files"),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column(
            "requested_at",
            UtcDateTime(timezone=True),
            nullable=False,
            comment="last time someone asked for its ingestion",
        ),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_datasets")),
    )
    op.create_index(op.f("ix_datasets_name"), "datasets", ["name"], unique=False)
    op.create_table(
        "endpoints",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False, comment="DeploymentSpec that is wanted"),
        sa.Column("revision", sa.Integer(), nullable=False, comment="counts the wanted specs"),
        sa.Column("observed_revision", sa.Integer(), nullable=False, comment="the revision that was last acted on"),
        sa.Column("state", sa.String(), nullable=False, comment="pending, deploying, live, failed or deleting"),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("routes", sa.JSON(), nullable=False, comment="list of backend_id, model_ref, weight"),
        sa.Column("phase", sa.Integer(), nullable=False, comment="counts the route tables"),
        sa.Column("salt", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("updated_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_endpoints")),
    )
    op.create_table(
        "experiments",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False, comment="ExperimentSpec"),
        sa.Column("state", sa.String(), nullable=False, comment="running or concluded"),
        sa.Column(
            "decision", sa.String(), nullable=True, comment="promote, rollback, inconclusive or invalid; written once"
        ),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("figures", sa.JSON(), nullable=True, comment="what the decision was made on"),
        sa.Column("started_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("decided_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column(
            "acted_at", UtcDateTime(timezone=True), nullable=True, comment="when the endpoint was switched accordingly"
        ),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_experiments")),
    )
    op.create_index(op.f("ix_experiments_endpoint"), "experiments", ["endpoint"], unique=False)
    op.create_table(
        "exposures",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("experiment", sa.String(), nullable=True),
        sa.Column("phase", sa.Integer(), nullable=False),
        sa.Column("variant", sa.Integer(), nullable=False, comment="index into the phase's routes"),
        sa.Column("backend", sa.String(), nullable=False),
        sa.Column("model_ref", sa.String(), nullable=False),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("session", sa.String(), nullable=True),
        sa.Column("query", sa.Text(), nullable=True, comment="last user message, personal data masked"),
        sa.Column("response", sa.Text(), nullable=True, comment="the answer, personal data masked"),
        sa.Column("status", sa.Integer(), nullable=False, comment="HTTP status"),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("ttft_ms", sa.Float(), nullable=True, comment="time to the first token, streamed requests only"),
        sa.Column("prompt_tokens", sa.Integer(), nullable=True),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("finish_reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_exposures")),
    )
    op.create_index("ix_exposures_endpoint_at", "exposures", ["endpoint", "at"], unique=False)
    op.create_index("ix_exposures_experiment", "exposures", ["experiment"], unique=False)
    op.create_table(
        "feedback",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("user", sa.String(), nullable=True),
        sa.Column("rating", sa.Integer(), nullable=False),
        sa.Column("comment", sa.Text(), nullable=True),
        sa.CheckConstraint("rating BETWEEN 1 AND 5", name=op.f("ck_feedback_rating_range")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_request_id"), "feedback", ["request_id"], unique=False)
    op.create_table(
        "phases",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("phase", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("routes", sa.JSON(), nullable=False, comment="the route table of this phase"),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", "phase", name=op.f("pk_phases")),
    )
    op.create_table(
        "recipes",
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False, comment="TrainJobSpec less dataset_ref"),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_recipes")),
    )
    op.create_table(
        "training_requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("requested_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column(
            "reported_at",
            UtcDateTime(timezone=True),
            nullable=True,
            comment="when the request became an event in the asset graph",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_training_requests")),
    )

    if op.get_bind().dialect.name == "postgresql":
        op.execute(_POSTGRES_GUARD)
    else:
        for action in ("UPDATE", "DELETE"):
            op.execute(_SQLITE_GUARD.format(action=action))


def downgrade() -> None:
    raise NotImplementedError("the first schema has nothing before it: restore a backup instead")
