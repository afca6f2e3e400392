"""Statements: what people state of a model that its lineage cannot tell."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "model_statements",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("model", sa.String(), nullable=False, comment="name of the registered model"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("gap", sa.String(), nullable=False, comment="what lineage cannot tell, by its name in the dossier"),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("author", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model_statements")),
    )
    op.create_index("ix_model_statements_model", "model_statements", ["model", "version"])


def downgrade() -> None:
    op.drop_table("model_statements")
