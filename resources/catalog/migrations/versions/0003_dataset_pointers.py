"""Tags of dataset versions: every move of a named pointer."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset_pointers",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False, comment="of the dataset"),
        sa.Column("tag", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False, comment="what it points to from here on"),
        sa.Column("action", sa.String(), nullable=False, comment="tag or rollback"),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_dataset_pointers")),
    )
    op.create_index(op.f("ix_dataset_pointers_name"), "dataset_pointers", ["name"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_dataset_pointers_name"), table_name="dataset_pointers")
    op.drop_table("dataset_pointers")
