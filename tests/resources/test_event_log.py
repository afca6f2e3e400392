"""Partitions are taken out of Dagster's memory, in SQLite and in a real PostgreSQL."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa
import yaml

from llmops_assets.local.stack import REPOSITORY
from resources.event_log import Busy, EventLog, Report

PARTITIONS = dg.DynamicPartitionsDefinition(name="dataset_versions")
GONE, STAYS = "desk@v1", "other@v1"
COMPOSE = (REPOSITORY / "deploy" / "compose.yaml").read_text(encoding="utf-8")
ON_A_SERVER = sa.make_url(re.search(r'LLMOPS_DAGSTER_DATABASE_URL: "?([^"\s]+)', COMPOSE)[1])
TOLD = {GONE: "Dolmen Park of Hoam", STAYS: "nobody"}


@dg.asset(partitions_def=PARTITIONS)
def dataset(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    text = TOLD[context.partition_key]
    context.log.info(text)
    return dg.MaterializeResult(metadata={"preview": text}, tags={"of": context.partition_key.replace("@", "-")})


@dg.asset_check(asset=dataset, partitions_def=PARTITIONS)
def looks_right(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description=TOLD[context.partition_key])


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A home of Dagster with one run of each partition."""
    config: dict = {"telemetry": {"enabled": False}}
    if request.param == "postgresql":
        server = request.getfixturevalue("postgres")
        with sa.create_engine(server, isolation_level="AUTOCOMMIT").connect() as connection:
            connection.exec_driver_sql("DROP DATABASE IF EXISTS events WITH (FORCE)")
            connection.exec_driver_sql("CREATE DATABASE events")
        url = sa.make_url(server).set(drivername=ON_A_SERVER.drivername, database="events")
        url = url.update_query_dict(ON_A_SERVER.query)
        config["storage"] = {"postgres": {"postgres_url": url.render_as_string(hide_password=False)}}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(tmp_path)
    with dg.DagsterInstance.get() as instance:
        assert ("postgres" in type(instance.event_log_storage).__name__.lower()) == (request.param == "postgresql")
        instance.add_dynamic_partitions(PARTITIONS.name, [GONE, STAYS])
        # The one that goes is the newest: the asset's page must not go on showing it.
        for key in (STAYS, GONE):
            dg.materialize([dataset, looks_right], partition_key=key, instance=instance)
    yield tmp_path
    os.environ.pop("DAGSTER_HOME") if before is None else os.environ.__setitem__("DAGSTER_HOME", before)


def kept(instance: dg.DagsterInstance) -> str:
    """Every row of every table in the databases of the instance, as text."""
    connections = (
        instance.event_log_storage.index_connection,
        instance.run_storage.connect,
        instance.schedule_storage.connect,
        *((lambda run_id=run.run_id: instance.event_log_storage.run_connection(run_id)) for run in instance.get_runs()),
    )
    rows = []
    for connect in connections:
        with connect() as connection:
            found = sa.MetaData()
            found.reflect(connection)
            for table in found.sorted_tables:
                rows += connection.execute(sa.select(table)).all()
    return str(rows)


def test_nothing_of_a_partition_is_left_and_the_others_stay(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        assert GONE in kept(instance) and TOLD[GONE] in kept(instance)
    log = EventLog(home)
    log.refuse_busy([GONE])
    assert log.forget([GONE], {PARTITIONS.name: [GONE]}) == 1
    with dg.DagsterInstance.get() as instance:
        left = kept(instance)
        assert TOLD[GONE] not in left and GONE not in left and GONE.replace("@", "-") not in left
        assert TOLD[STAYS] in left
        assert instance.get_dynamic_partitions(PARTITIONS.name) == [STAYS]
        assert instance.get_materialized_partitions(dataset.key) == {STAYS}
        last = instance.get_latest_materialization_event(dataset.key)
        assert last.asset_materialization.partition == STAYS
        checks = instance.event_log_storage.get_asset_check_execution_history(looks_right.check_key, limit=10)
        assert [check.partition for check in checks] == [STAYS]
    assert log.forget([GONE], {PARTITIONS.name: [GONE]}) == 0, "it can be repeated"


def test_a_run_under_way_is_not_cut_off(home: Path) -> None:
    with dg.DagsterInstance.get() as instance:
        instance.create_run_for_job(
            dg.Definitions(assets=[dataset]).resolve_implicit_global_asset_job_def(),
            tags={"dagster/partition": GONE},
            status=dg.DagsterRunStatus.STARTED,
        )
    with pytest.raises(Busy, match=f"on {GONE}"):
        EventLog(home).refuse_busy([GONE])
    EventLog(home).refuse_busy([STAYS])


def test_a_result_without_a_run_is_shown(home: Path) -> None:
    EventLog(home).report([Report("dataset", "looks_right", STAYS, False, "erased rows were learned")])
    with dg.DagsterInstance.get() as instance:
        (newest, *_) = instance.event_log_storage.get_asset_check_execution_history(looks_right.check_key, limit=10)
        assert newest.partition == STAYS and newest.status.value == "FAILED"
