"""What candidates answered to copies of users' requests."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "shadows",
        sa.Column("request_id", sa.String(), nullable=False, comment="of the exposure that it was copied from"),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False, comment="that was asked"),
        sa.Column("candidate", sa.String(), nullable=False, comment="the endpoint that it was copied to"),
        sa.Column("model_ref", sa.String(), nullable=False, comment="the candidate's"),
        sa.Column("response", sa.Text(), nullable=True, comment="its answer, which nobody got, personal data masked"),
        sa.Column("status", sa.Integer(), nullable=False, comment="HTTP status"),
        sa.Column("error", sa.String(), nullable=True),
        sa.Column("latency_ms", sa.Float(), nullable=False),
        sa.Column("completion_tokens", sa.Integer(), nullable=True),
        sa.Column("finish_reason", sa.String(), nullable=True),
        sa.Column("worker", sa.String(), nullable=True, comment="the spool that it came through"),
        sa.Column("sequence", sa.Integer(), nullable=True, comment="its place in that spool"),
        sa.PrimaryKeyConstraint("request_id", name=op.f("pk_shadows")),
    )
    op.create_index("ix_shadows_endpoint_at", "shadows", ["endpoint", "at"])
    op.create_index("ix_shadows_worker_sequence", "shadows", ["worker", "sequence"])


def downgrade() -> None:
    op.drop_table("shadows")
