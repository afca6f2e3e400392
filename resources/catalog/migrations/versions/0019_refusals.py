"""Requests that were refused before they reached a model, each or by the minute, and their number in the ledger."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refusals",
        sa.Column(
            "id", sa.String(), nullable=False, comment="the request's, or of those counted together one they share"
        ),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False, comment="of those counted together the minute"),
        sa.Column("endpoint", sa.String(), nullable=False, comment="empty where none was known yet"),
        sa.Column("key", sa.String(), nullable=False, comment="as in usage; empty where nobody was known"),
        sa.Column("reason", sa.String(), nullable=False, comment="code of the error"),
        sa.Column("status", sa.Integer(), nullable=False, comment="HTTP status"),
        sa.Column("requests", sa.Integer(), nullable=False, comment="how many it stands for"),
        sa.Column("worker", sa.String(), nullable=True, comment="the spool that it came through"),
        sa.Column("sequence", sa.Integer(), nullable=True, comment="its place in that spool; of several the last"),
        sa.Column("sequences", sa.Text(), nullable=True, comment="all places, with commas, where there are several"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_refusals")),
    )
    op.create_index("ix_refusals_endpoint_at", "refusals", ["endpoint", "at"])
    op.create_index("ix_refusals_worker_sequence", "refusals", ["worker", "sequence"])
    op.add_column(
        "usage",
        sa.Column(
            "refused",
            sa.BigInteger(),
            nullable=False,
            server_default="0",
            comment="others, which reached no model",
        ),
    )


def downgrade() -> None:
    op.drop_column("usage", "refused")
    op.drop_table("refusals")
