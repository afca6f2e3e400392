"""What Dagster and MLflow keep on PostgreSQL is copied row by row, read back by them, and goes on from there."""

import uuid
from pathlib import Path

import dagster as dg
import sqlalchemy as sa

from resources.backup import dagster_database
from resources.backup.tables import dump, load
from resources.tracking import Tracking


def new_database(server: str) -> str:
    name = f"copied_{uuid.uuid4().hex}"
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    engine.dispose()
    return str(sa.make_url(server).set(database=name).render_as_string(hide_password=False))


@dg.asset
def counted() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"rows": 3})


def test_runs_and_events_of_dagster(postgres: str, tmp_path: Path):
    addresses = []
    for name in ("one", "two"):
        url = new_database(postgres).replace("postgresql+psycopg://", "postgresql+psycopg2://")
        (tmp_path / name).mkdir()
        configuration = f'storage:\n  postgres:\n    postgres_url: "{url}"\n'
        (tmp_path / name / "dagster.yaml").write_text(configuration, encoding="utf-8")
        addresses.append(dagster_database.address(tmp_path / name))
    assert dagster_database.address(tmp_path) is None
    with dg.DagsterInstance.from_config(str(tmp_path / "one")) as instance:
        assert dg.materialize([counted], instance=instance).success
    (tmp_path / "rows").write_bytes(b"".join(dump(addresses[0])))
    dagster_database.make_tables(tmp_path / "two")
    load(addresses[1], tmp_path / "rows")
    with dg.DagsterInstance.from_config(str(tmp_path / "two")) as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey("counted"))
        assert event is not None and event.asset_materialization.metadata["rows"].value == 3
        assert dg.materialize([counted], instance=instance).success
        assert instance.get_runs_count() == 2


def test_runs_of_mlflow(postgres: str, tmp_path: Path):
    one, two = new_database(postgres), new_database(postgres)
    before = Tracking(one, str(tmp_path / "artifacts"))
    run = before.start_run("trainings", "first")
    before.log_metrics(run, [("loss", 0.5, 1)])
    before.end_run(run, "FINISHED")
    (tmp_path / "rows").write_bytes(b"".join(dump(one)))
    after = Tracking(two, str(tmp_path / "artifacts"))
    after.prepare()
    load(two, tmp_path / "rows")
    assert after.run_metrics(run) == {"loss": 0.5} and after.run_status(run) == "FINISHED"
    assert after.start_run("more trainings", "second") != run
