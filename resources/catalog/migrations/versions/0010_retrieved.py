"""What was found for a question in an index, in the exposure of its answer."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "exposures",
        sa.Column("retrieved", sa.String(), comment="JSON: index, version, passages, refused"),
    )


def downgrade() -> None:
    op.drop_column("exposures", "retrieved")
