"""Users, their sessions, and logins at a provider that are on their way."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("password_hash", sa.String(), comment="argon2id; null: logs in at a provider alone"),
        sa.Column("roles", sa.JSON(), nullable=False, comment="roles of the policy, given here"),
        sa.Column("issuer", sa.String(), comment="the provider that the user logs in at; null: a user of ours"),
        sa.Column("subject", sa.String(), comment="who it is there"),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("disabled_at", UtcDateTime()),
        sa.Column(
            "failures",
            sa.Integer(),
            nullable=False,
            server_default="0",
            comment="wrong passwords since the last right",
        ),
        sa.Column("failed_at", UtcDateTime()),
        sa.Column("revision", sa.Integer(), nullable=False, comment="sessions of an earlier one have ended"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_users")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_users_issuer_subject")),
    )
    op.create_table(
        "sessions",
        sa.Column("sha256", sa.String(), nullable=False, comment="of what the browser holds"),
        sa.Column("user", sa.String(), nullable=False),
        sa.Column("roles", sa.JSON(), nullable=False, comment="those that the provider said, beside the user's own"),
        sa.Column("user_revision", sa.Integer(), nullable=False),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("seen_at", UtcDateTime(), nullable=False),
        sa.Column("expires_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_sessions")),
    )
    op.create_index("ix_sessions_user", "sessions", ["user"])
    op.create_table(
        "logins",
        sa.Column("sha256", sa.String(), nullable=False, comment="of the state that was sent to the provider"),
        sa.Column("browser", sa.String(), nullable=False, comment="SHA-256 of what the browser holds that began it"),
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("verifier", sa.String(), nullable=False, comment="of PKCE"),
        sa.Column("target", sa.String(), nullable=False, comment="the page that was asked for"),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name=op.f("pk_logins")),
    )


def downgrade() -> None:
    op.drop_table("logins")
    op.drop_index("ix_sessions_user", table_name="sessions")
    op.drop_table("sessions")
    op.drop_table("users")
