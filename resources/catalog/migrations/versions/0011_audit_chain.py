"""The audit log becomes a chain: every line with the hash of the one before, those that are there already too."""

import sqlalchemy as sa
from alembic import op

from resources.catalog.audit_chain import FIRST, digest
from resources.catalog.tables import UtcDateTime

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SQLITE_GUARD = """
CREATE TRIGGER audit_{action} BEFORE {action} ON audit
BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END
"""
_POSTGRES_GUARD = """
CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
"""
_LINES = sa.table(
    "audit",
    sa.column("id", sa.Integer),
    sa.column("at", UtcDateTime),
    sa.column("actor", sa.String),
    sa.column("action", sa.String),
    sa.column("target", sa.String),
    sa.column("detail", sa.JSON),
    sa.column("previous", sa.String),
    sa.column("sha256", sa.String),
)
_HEAD = sa.table(
    "audit_head", sa.column("id", sa.Integer), sa.column("lines", sa.Integer), sa.column("sha256", sa.String)
)


def upgrade() -> None:
    op.add_column("audit", sa.Column("previous", sa.String(), nullable=True, comment="hash of the line before"))
    op.add_column("audit", sa.Column("sha256", sa.String(), nullable=True, comment="of this line behind that hash"))
    op.create_table(
        "audit_head",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("lines", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(), nullable=False, comment="of the last line"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_head")),
    )
    connection = op.get_bind()
    _drop_guards()
    previous, count = FIRST, 0
    for line in connection.execute(sa.select(_LINES).order_by(_LINES.c.id)).mappings().all():
        own = digest(previous, dict(line))
        mine = _LINES.c.id == line["id"]
        connection.execute(sa.update(_LINES).where(mine).values(previous=previous, sha256=own))
        previous, count = own, count + 1
    connection.execute(sa.insert(_HEAD).values(id=1, lines=count, sha256=previous))
    _make_guards()


def downgrade() -> None:
    op.drop_table("audit_head")
    _drop_guards()
    op.drop_column("audit", "sha256")
    op.drop_column("audit", "previous")
    _make_guards()


def _drop_guards() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP TRIGGER audit_append_only ON audit")
    else:
        for action in ("UPDATE", "DELETE"):
            op.execute(f"DROP TRIGGER audit_{action}")


def _make_guards() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute(_POSTGRES_GUARD)
    else:
        for action in ("UPDATE", "DELETE"):
            op.execute(_SQLITE_GUARD.format(action=action))
