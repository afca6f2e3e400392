"""What a model was sent beside the user's last message."""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("exposures", sa.Column("turns", sa.Integer(), comment="messages that were sent; null: not known"))
    op.add_column(
        "exposures",
        sa.Column(
            "context",
            sa.Text(),
            comment="JSON: all messages and tools that were sent, where they are more than query; masked",
        ),
    )


def downgrade() -> None:
    op.drop_column("exposures", "context")
    op.drop_column("exposures", "turns")
