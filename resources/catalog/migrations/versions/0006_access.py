"""API keys, and the ledger of what was used: one row a key, team, endpoint, model and day."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String(), nullable=False, comment="the part of the key that may be shown"),
        sa.Column("sha256", sa.String(), nullable=False, comment="of the whole key, which is stored nowhere"),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("team", sa.String()),
        sa.Column("role", sa.String(), nullable=False, comment="a role of the policy"),
        sa.Column("endpoints", sa.JSON(), comment="names of endpoints; null: all that the role may call"),
        sa.Column("requests_per_minute", sa.Integer()),
        sa.Column("monthly_tokens", sa.BigInteger()),
        sa.Column("note", sa.String(), nullable=False, server_default=""),
        sa.Column("created_at", UtcDateTime(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("expires_at", UtcDateTime()),
        sa.Column("revoked_at", UtcDateTime()),
        sa.Column("revoked_by", sa.String()),
        sa.Column("last_used_at", UtcDateTime()),
        sa.Column(
            "revision", sa.Integer(), nullable=False, comment="counts the changes, by which a gateway sees that one is"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("sha256", name=op.f("uq_api_keys_sha256")),
    )
    op.create_table(
        "usage",
        sa.Column("day", sa.String(), nullable=False, comment="in UTC, YYYY-MM-DD"),
        sa.Column("key", sa.String(), nullable=False, comment="id of an API key, subject of a token, or empty"),
        sa.Column("team", sa.String(), nullable=False, comment="empty for none"),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("model_ref", sa.String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=False),
        sa.Column("failed", sa.BigInteger(), nullable=False, comment="of these, those with a status of 400 or above"),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column("completion_tokens", sa.BigInteger(), nullable=False),
        sa.Column("estimated_tokens", sa.BigInteger(), nullable=False, comment="of these, what no server counted"),
        sa.PrimaryKeyConstraint("day", "key", "team", "endpoint", "model_ref", name=op.f("pk_usage")),
    )
    op.create_index("ix_usage_key_day", "usage", ["key", "day"])


def downgrade() -> None:
    op.drop_index("ix_usage_key_day", table_name="usage")
    op.drop_table("usage")
    op.drop_table("api_keys")
