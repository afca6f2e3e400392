"""Which requests came from one address, which is not kept itself."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "exposures",
        sa.Column("origin", sa.String(), comment="keyed hash of the client's address, where the user agreed"),
    )


def downgrade() -> None:
    op.drop_column("exposures", "origin")
