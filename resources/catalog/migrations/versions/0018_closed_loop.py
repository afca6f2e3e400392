"""The closed loop: rules of retraining, alerts with their messages, heartbeats."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "retraining_rules",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("spec", sa.JSON(), nullable=False, comment="RetrainingRule"),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_retraining_rules")),
    )
    op.create_table(
        "retrainings",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("rule", sa.String(), nullable=False),
        sa.Column("cause", sa.String(), nullable=False, comment="what it was asked for upon: once each"),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("recipe", sa.String(), nullable=False),
        sa.Column(
            "reviewed_until",
            UtcDateTime(timezone=True),
            nullable=True,
            comment="reviews up to then are in the dataset; null: none are",
        ),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_retrainings")),
        sa.UniqueConstraint("rule", "dataset", name=op.f("uq_retrainings_rule_dataset")),
    )
    op.create_index(op.f("ix_retrainings_rule"), "retrainings", ["rule"])
    op.create_table(
        "alerts",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(), nullable=False, comment="kind and subject"),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("severity", sa.String(), nullable=False, comment="info, warning or error"),
        sa.Column("text", sa.Text(), nullable=False, comment="what was found, and what to do"),
        sa.Column("times", sa.Integer(), nullable=False, comment="how often it began, without another message"),
        sa.Column("first_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("last_at", UtcDateTime(timezone=True), nullable=False, comment="when it last was found to be so"),
        sa.Column("resolved_at", UtcDateTime(timezone=True), nullable=True, comment="null while it is so"),
        sa.Column("acked_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("acked_by", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alerts")),
    )
    op.create_index(op.f("ix_alerts_key"), "alerts", ["key"])
    op.create_index(
        "uq_alerts_open",
        "alerts",
        ["key"],
        unique=True,
        sqlite_where=sa.text("resolved_at IS NULL"),
        postgresql_where=sa.text("resolved_at IS NULL"),
    )
    op.create_table(
        "alert_messages",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("alert", sa.Integer(), nullable=False),
        sa.Column("event", sa.String(), nullable=False, comment="raised or resolved"),
        sa.Column("channel", sa.String(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column(
            "due_at",
            UtcDateTime(timezone=True),
            nullable=True,
            comment="when it is tried next; null: delivered, or given up",
        ),
        sa.Column("delivered_at", UtcDateTime(timezone=True), nullable=True),
        sa.Column("error", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_alert_messages")),
        sa.UniqueConstraint("alert", "event", "channel", name=op.f("uq_alert_messages_alert_event_channel")),
    )
    op.create_index(op.f("ix_alert_messages_alert"), "alert_messages", ["alert"])
    op.create_table(
        "heartbeats",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_heartbeats")),
    )


def downgrade() -> None:
    for table in ("heartbeats", "alert_messages", "alerts", "retrainings", "retraining_rules"):
        op.drop_table(table)
