"""What was erased on a person's request, and the models that had learned from it."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "erasures",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(), nullable=False, comment="the dataset that it started from"),
        sa.Column("request", sa.String(), nullable=False, comment="keyed hash of what was looked for; never the text"),
        sa.Column("looked_for", sa.JSON(), nullable=False, comment="how many texts, patterns, fields and rows"),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("requested_by", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False, comment="running or done"),
        sa.Column("versions", sa.JSON(), nullable=False, comment="the version that follows each erased one, or null"),
        sa.Column("figures", sa.JSON(), nullable=False, comment="what was found and removed, in numbers"),
        sa.Column("started_at", UtcDateTime(timezone=True), nullable=False),
        sa.Column("finished_at", UtcDateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_erasures")),
    )
    op.create_index(op.f("ix_erasures_name"), "erasures", ["name"], unique=False)
    op.create_table(
        "affected_models",
        sa.Column("erasure", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("cell", sa.String(), nullable=False, comment="dataset|recipe of the training"),
        sa.Column("content_hash", sa.String(), nullable=True, comment="of the merged model, where there is one"),
        sa.Column("model_ref", sa.String(), nullable=True, comment="in the registry, where it is there"),
        sa.Column("why", sa.String(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("erasure", "cell", name=op.f("pk_affected_models")),
    )
    op.create_index(op.f("ix_affected_models_content_hash"), "affected_models", ["content_hash"], unique=False)


def downgrade() -> None:
    raise NotImplementedError("what was erased stays on record: restore a backup instead")
