"""Arms that an experiment gives no users any more, noted by the gateway or by a report."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dropped_arms",
        sa.Column("experiment", sa.String(), nullable=False),
        sa.Column("model_ref", sa.String(), nullable=False),
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("phase", sa.Integer(), nullable=False, comment="of the endpoint when it was noted"),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("noted_by", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("experiment", "model_ref", name=op.f("pk_dropped_arms")),
    )


def downgrade() -> None:
    op.drop_table("dropped_arms")
