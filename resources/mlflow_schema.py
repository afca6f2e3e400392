"""The schema of MLflow's own database: its revision, and how it is brought up to date."""

import sqlalchemy as sa


def newest() -> str:
    """The revision that the MLflow that is installed works with."""
    from alembic.script import ScriptDirectory
    from mlflow.store.db.utils import _get_alembic_config

    return ",".join(sorted(ScriptDirectory.from_config(_get_alembic_config("")).get_heads()))


def upgrade(url: str) -> None:
    """Bring the database at `url` to it, as `mlflow db upgrade` does: on a command line its password would be seen."""
    from mlflow.store.db.utils import _upgrade_db

    engine = sa.create_engine(url)
    try:
        _upgrade_db(engine)
    finally:
        engine.dispose()
