"""The version of a prompt that each endpoint uses, and what guards decided about a request."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "endpoint_prompts",
        sa.Column("endpoint", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False, comment="of the prompt in the registry"),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("alias", sa.String(), nullable=True, comment="by which the spec names it; null: by its version"),
        sa.Column("template", sa.JSON(), nullable=False, comment="a text, or messages with role and content"),
        sa.Column("updated_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("endpoint", name=op.f("pk_endpoint_prompts")),
    )
    verdicts = sa.Column("verdicts", sa.String(), nullable=True, comment="JSON: of guards, in and out")
    op.add_column("exposures", verdicts)


def downgrade() -> None:
    op.drop_column("exposures", "verdicts")
    op.drop_table("endpoint_prompts")
