"""What model servers are wanted apart from what was observed of them, leases, and operations that act once."""

from typing import Any

import sqlalchemy as sa
from alembic import op

from resources.catalog.tables import UtcDateTime

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


_STATES = "starting, healthy, unhealthy, stopping or stopped"
_MORE_STATES = "wanted, starting, healthy, unhealthy, failed, draining, stopping or stopped"


def _backends() -> "tuple[sa.Column[Any], ...]":
    return (
        sa.Column("wanted", sa.String(), nullable=False, server_default="running", comment="running or gone"),
        sa.Column(
            "warm_until", UtcDateTime(timezone=True), comment="until when it is kept although nothing routes to it"
        ),
        sa.Column("message", sa.String(), nullable=False, server_default="", comment="why it is not as it is wanted"),
        sa.Column("changed_at", UtcDateTime(timezone=True), comment="since when it has its state"),
        sa.Column("healthy_at", UtcDateTime(timezone=True), comment="when it first was healthy since it was wanted"),
        sa.Column(
            "restarts", sa.Integer(), nullable=False, server_default="0", comment="in a row, without health between"
        ),
        sa.Column("retry_at", UtcDateTime(timezone=True), comment="it is not started again before"),
    )


def upgrade() -> None:
    for column in _backends():
        op.add_column("backends", column)
    _comment(_STATES, _MORE_STATES)
    # What ran under the earlier version was healthy: its crash is a restart, and no deployment that failed.
    op.execute("UPDATE backends SET healthy_at = created_at WHERE state IN ('healthy', 'unhealthy', 'stopped')")
    held = sa.Column("held", sa.String(), comment="why its rollout does not go on by itself; null where it does")
    op.add_column("endpoints", held)
    op.create_table(
        "leases",
        sa.Column("name", sa.String(), nullable=False),
        sa.Column(
            "holder", sa.String(), nullable=False, comment="who has it, as host, process and start; empty when free"
        ),
        sa.Column(
            "token", sa.Integer(), nullable=False, comment="counts the holders: what an earlier one writes is refused"
        ),
        sa.Column("beat", sa.Integer(), nullable=False, comment="counts the renewals"),
        sa.Column("seconds", sa.Float(), nullable=False, comment="without a beat for so long, another may have it"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_leases")),
    )
    op.create_table(
        "operations",
        sa.Column("id", sa.String(), nullable=False, comment="the caller's: the same one acts once"),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("target", sa.String(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("at", UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_operations")),
    )


def downgrade() -> None:
    _comment(_MORE_STATES, _STATES)
    op.drop_table("operations")
    op.drop_table("leases")
    op.drop_column("endpoints", "held")
    # The earlier version knows no server that is wanted and was never started: it would take it for one that died.
    op.execute("DELETE FROM backends WHERE state = 'wanted'")
    for column in reversed(_backends()):
        op.drop_column("backends", column.name)


def _comment(before: str, after: str) -> None:
    """Say of the column what it may hold, where the database keeps comments."""
    if op.get_bind().dialect.name == "postgresql":
        op.alter_column("backends", "state", existing_type=sa.String(), comment=after, existing_comment=before)
