"""Experiments, and what users asked, got and said."""

import sqlalchemy as sa

from resources.catalog.tables.columns import UtcDateTime, metadata

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
    sa.Column("turns", sa.Integer, comment="messages that were sent; null: not known"),
    sa.Column(
        "context",
        sa.Text,
        comment="JSON: all messages and tools that were sent, where they are more than query; masked",
    ),
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

refusals = sa.Table(
    "refusals",
    metadata,
    sa.Column("id", sa.String, primary_key=True, comment="the request's, or of those counted together one they share"),
    sa.Column("at", UtcDateTime, nullable=False, comment="of those counted together the minute"),
    sa.Column("endpoint", sa.String, nullable=False, comment="empty where none was known yet"),
    sa.Column("key", sa.String, nullable=False, comment="as in usage; empty where nobody was known"),
    sa.Column("reason", sa.String, nullable=False, comment="code of the error"),
    sa.Column("status", sa.Integer, nullable=False, comment="HTTP status"),
    sa.Column("requests", sa.Integer, nullable=False, comment="how many it stands for"),
    sa.Column("worker", sa.String, comment="the spool that it came through"),
    sa.Column("sequence", sa.Integer, comment="its place in that spool; of several the last"),
    sa.Column("sequences", sa.Text, comment="all places, with commas, where there are several"),
    sa.Index("ix_refusals_endpoint_at", "endpoint", "at"),
    sa.Index("ix_refusals_worker_sequence", "worker", "sequence"),
)

shadows = sa.Table(
    "shadows",
    metadata,
    sa.Column("request_id", sa.String, primary_key=True, comment="of the exposure that it was copied from"),
    sa.Column("at", UtcDateTime, nullable=False),
    sa.Column("endpoint", sa.String, nullable=False, comment="that was asked"),
    sa.Column("candidate", sa.String, nullable=False, comment="the endpoint that it was copied to"),
    sa.Column("model_ref", sa.String, nullable=False, comment="the candidate's"),
    sa.Column("response", sa.Text, comment="its answer, which nobody got, personal data masked"),
    sa.Column("status", sa.Integer, nullable=False, comment="HTTP status"),
    sa.Column("error", sa.String),
    sa.Column("latency_ms", sa.Float, nullable=False),
    sa.Column("completion_tokens", sa.Integer),
    sa.Column("finish_reason", sa.String),
    sa.Column("worker", sa.String, comment="the spool that it came through"),
    sa.Column("sequence", sa.Integer, comment="its place in that spool"),
    sa.Index("ix_shadows_endpoint_at", "endpoint", "at"),
    sa.Index("ix_shadows_worker_sequence", "worker", "sequence"),
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
