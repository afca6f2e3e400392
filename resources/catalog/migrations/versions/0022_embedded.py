"""What embeddings used, by the minute: no exposures, and in the ledger all the same."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "embedded",
        sa.Column("id", sa.String(), nullable=False, comment="of what one worker counted in a minute, of one kind"),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False, comment="the minute"),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("model_ref", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False, comment="as in usage; empty where nobody was known"),
        sa.Column("team", sa.String(), nullable=False),
        sa.Column("requests", sa.Integer(), nullable=False),
        sa.Column("failed", sa.Integer(), nullable=False, comment="of these, with a status of 400 or above"),
        sa.Column("prompt_tokens", sa.BigInteger(), nullable=False),
        sa.Column(
            "estimated_tokens", sa.BigInteger(), nullable=False, comment="of these, that no model server counted"
        ),
        sa.Column("worker", sa.String(), nullable=True, comment="the spool that it came through"),
        sa.Column("sequence", sa.Integer(), nullable=True, comment="its place in that spool; of several the last"),
        sa.Column("sequences", sa.Text(), nullable=True, comment="all places, with commas, where there are several"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_embedded")),
    )
    op.create_index("ix_embedded_endpoint_at", "embedded", ["endpoint", "at"])
    op.create_index("ix_embedded_worker_sequence", "embedded", ["worker", "sequence"])


def downgrade() -> None:
    op.drop_table("embedded")
