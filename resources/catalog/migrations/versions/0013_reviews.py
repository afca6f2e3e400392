"""Reviews: what people decided about answers."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "reviews",
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("reviewer", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("verdict", sa.String(), nullable=False, comment="accept, fix or reject"),
        sa.Column("text", sa.Text(), nullable=True, comment="the right answer, personal data masked"),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("request_id", "reviewer", name=op.f("pk_reviews")),
    )


def downgrade() -> None:
    op.drop_table("reviews")
