"""Endpoints and what runs for them."""

import sqlalchemy as sa

from resources.catalog.tables.columns import StoredPath, UtcDateTime, metadata

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
