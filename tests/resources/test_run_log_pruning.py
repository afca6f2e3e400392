"""Log lines of old runs are taken out of Dagster's storage, and nothing that anybody goes by."""

import time
from pathlib import Path

import dagster as dg
import pytest
import sqlalchemy as sa

from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Refused
from llmops_assets.operations.retention import prune as prune_operation
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.run_log import RunLog
from resources.run_log_pruning import Pruned, prune
from tests.resources.test_run_log import assert_read, written


@dg.asset
def corpus(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    context.log.info("ten rows")
    return dg.MaterializeResult(metadata={"rows": 10})


@pytest.fixture(params=["sqlite", "postgresql"])
def home(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    text = "telemetry: {enabled: false}\n"
    if request.param == "postgresql":
        server, name = request.getfixturevalue("postgres"), f"pruned_{time.time_ns()}"
        engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name}"))
        engine.dispose()
        url = sa.make_url(server).set(drivername="postgresql+psycopg2", database=name)
        text += f"storage: {{postgres: {{postgres_url: '{url.render_as_string(hide_password=False)}'}}}}\n"
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text(text)
    return home


def test_old_lines_go_and_what_assets_checks_and_runs_have_said_stays(home: Path) -> None:
    log = RunLog(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        made = dg.materialize([corpus], instance=instance).run_id
        checked, planned = written(instance)
        ids, before = (made, checked, planned), {}
        for id in ids:
            before[id] = instance.all_logs(id)
        assert any(entry.user_message == "ten rows" for entry in before[made])

        assert prune(log, time.time() - 3600) == Pruned(0, 0), "they ended a moment ago"
        wanted = prune(log, time.time() + 1, dry_run=True)
        assert wanted.runs == 3 and all(len(instance.all_logs(id)) == len(before[id]) for id in ids)
        assert prune(log, time.time() + 1) == wanted
        after = {id: instance.all_logs(id) for id in ids}
        assert sum(len(before[id]) - len(after[id]) for id in ids) == wanted.lines > 15
        assert prune(log, time.time() + 1) == Pruned(0, 0)

        assert_read(log, instance, checked, planned)
        assert not any(entry.user_message == "ten rows" for entry in after[made])
        event = instance.get_latest_materialization_event(dg.AssetKey("corpus"))
        assert event is not None and event.asset_materialization.metadata["rows"].value == 10
        assert len(instance.fetch_materializations(dg.AssetKey("corpus"), limit=5).records) == 1
        assert instance.get_run_by_id(made).status == dg.DagsterRunStatus.SUCCESS
        kinds = {entry.dagster_event.event_type for entry in after[planned] if entry.is_dagster_event}
        assert dg.DagsterEventType.STEP_FAILURE in kinds and dg.DagsterEventType.RUN_FAILURE in kinds


def test_a_run_that_goes_on_keeps_every_line(home: Path) -> None:
    from dagster._core.test_utils import create_run_for_test

    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
        instance.report_engine_event("it begins", run)
        assert prune(RunLog(home), time.time() + 1) == Pruned(0, 0)
        assert len(instance.all_logs(run.run_id)) == 1


def test_who_may_and_that_it_is_on_record(tmp_path: Path) -> None:
    wiring = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    with pytest.raises(Refused, match="0 days: lines are kept for 1 at least"):
        prune_operation(wiring, "kim", days=0)
    with pytest.raises(Exception, match=r"run\.prune"):
        prune_operation(wiring, Actor("lee", frozenset({"viewer"})), days=30)
    assert prune_operation(wiring, Actor("lee", frozenset({"operator"})), days=30) == Pruned(0, 0)
    assert wiring.catalog.audit_log() == [], "nothing was changed"
