"""Digests of records: what each was written as, so that one that is edited by hand is noticed."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "record_digests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("record", sa.String(), nullable=False, comment="asset and partition, as the file is named"),
        sa.Column("sha256", sa.String(), nullable=False, comment="of the record before it is sealed"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_record_digests")),
    )
    op.create_index(op.f("ix_record_digests_record"), "record_digests", ["record"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_record_digests_record"), table_name="record_digests")
    op.drop_table("record_digests")
