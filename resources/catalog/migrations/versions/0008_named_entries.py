"""What is entered by name through the HTTP interface: datasets before their files, models, and requests answered."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "dataset_drafts",
        sa.Column("key", sa.String(), nullable=False, comment="name@version"),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("fields", sa.JSON(), nullable=False, comment="fields of the DatasetSpec that were given"),
        sa.Column("reason", sa.String(), nullable=False, comment="why there are no files yet"),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_dataset_drafts")),
    )
    op.create_table(
        "named_models",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("version", sa.String(), nullable=False),
        sa.Column("storage_uri", sa.String(), nullable=False),
        sa.Column("family", sa.String(), nullable=False),
        sa.Column("license", sa.String(), nullable=True),
        sa.Column("owner", sa.String(), nullable=False),
        sa.Column("detail", sa.JSON(), nullable=False, comment="what else was said of it"),
        sa.Column(
            "base_ref", sa.String(), nullable=True, comment="the base model that it is, once its files were looked at"
        ),
        sa.Column("reason", sa.String(), nullable=False, comment="why its files were not looked at yet"),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.Column("created_at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", "version", name=op.f("pk_named_models")),
    )
    op.create_table(
        "answered_requests",
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False, comment="the Idempotency-Key that the client chose"),
        sa.Column("digest", sa.String(), nullable=False, comment="SHA-256 of method, path and body"),
        sa.Column("status", sa.Integer(), nullable=True, comment="null while the request is being carried out"),
        sa.Column("body", sa.JSON(), nullable=True),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("actor", "key", name=op.f("pk_answered_requests")),
    )
    op.create_index(op.f("ix_answered_requests_at"), "answered_requests", ["at"], unique=False)


def downgrade() -> None:
    op.drop_index(op.f("ix_answered_requests_at"), table_name="answered_requests")
    for table in ("answered_requests", "named_models", "dataset_drafts"):
        op.drop_table(table)
