"""What names this catalog for ever, wherever it is moved: spools and backups say by it whose they are."""

import uuid

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    table = op.create_table(
        "installation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("identity", sa.String(), nullable=False, comment="a random UUID, made once"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_installation")),
    )
    op.bulk_insert(table, [{"id": 1, "identity": str(uuid.uuid4())}])


def downgrade() -> None:
    op.drop_table("installation")
