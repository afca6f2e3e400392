"""What Dagster has on record is read from its tables as Dagster itself would say it."""

import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from resources.run_log import RunLog

PARTITIONS = dg.StaticPartitionsDefinition(["desk@v1|a", "desk@v1|b"])


@dg.asset(partitions_def=PARTITIONS)
def adapter() -> None: ...


@dg.asset_check(asset=adapter, blocking=True, partitions_def=PARTITIONS)
def learned() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=False, description="the loss did not fall")


@dg.asset(partitions_def=PARTITIONS)
def training_plan() -> None:
    try:
        raise ValueError("no rows")
    except ValueError as error:
        raise RuntimeError("cannot plan") from error


def written(instance: dg.DagsterInstance) -> tuple[str, str]:
    """Two runs that fail: of a blocking check, and of an asset."""
    checked = dg.materialize(
        [adapter, learned], instance=instance, partition_key="desk@v1|a", raise_on_error=False, tags={"who": "kim"}
    )
    planned = dg.materialize([training_plan], instance=instance, partition_key="desk@v1|b", raise_on_error=False)
    return checked.run_id, planned.run_id


def assert_read(log: RunLog, instance: dg.DagsterInstance, checked: str, planned: str) -> None:
    for id in (checked, planned):
        theirs, ours = instance.get_run_record_by_id(id), log.run(id)
        assert theirs is not None and ours is not None
        assert (ours.status, ours.tags) == (theirs.dagster_run.status.value, theirs.dagster_run.tags)
        assert ours.created_at == pytest.approx(theirs.create_timestamp.timestamp())
        assert ours.ended_at == theirs.end_time and ours.is_failure and ours.is_finished
    assert log.failure(planned) == "ValueError: no rows"
    (check,) = log.checks("desk@v1|a", ["adapter"])
    assert (check.name, check.passed, check.blocking, check.run_id) == ("learned", False, True, checked)
    assert log.failed_check("desk@v1|a", ["adapter"], checked) == check
    assert log.failed_check("desk@v1|a", ["adapter"], planned) is None
    assert log.checks("desk@v1|b", ["adapter"]) == []


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return tmp_path


def test_it_reads_what_dagster_wrote(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert RunLog(home).runs(["desk@v1|a"], ["adapter"]) == {"desk@v1|a": []}
        assert_read(RunLog(home), instance, *written(instance))


def test_runs_are_those_of_a_partition_and_its_assets(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.create_run_for_job(
            dg.Definitions(assets=[adapter]).resolve_implicit_global_asset_job_def(),
            tags={"dagster/partition": "desk@v1|a"},
            asset_selection=frozenset({adapter.key}),
            status=dg.DagsterRunStatus.STARTED,
        )
        log = RunLog(home)
        (found,) = log.runs(["desk@v1|a", "desk@v1|b"], ["adapter", "merged_model"])["desk@v1|a"]
        assert (found.id, found.assets, found.is_finished) == (run.run_id, {"adapter"}, False)
        assert log.busy("desk@v1|a", ["adapter"]) and not log.busy("desk@v1|b", ["adapter"])
        assert log.runs(["desk@v1|a"], ["splits"]) == {"desk@v1|a": []}
        instance.report_run_failed(run, "its process is gone")
        instance.add_run_tags(run.run_id, {"dagster/will_retry": "true"})
        assert log.failure(run.run_id) == "its process is gone"
        assert log.busy("desk@v1|a", ["adapter"]), "the daemon takes it up"


def test_a_refusal_of_ours_says_it_in_its_own_words(home: Path) -> None:
    @dg.asset(partitions_def=PARTITIONS)
    def refused() -> None:
        try:
            raise LookupError("hf:/x")
        except LookupError as error:
            raise dg.Failure(f"base model 'hf:/x' is not there: {error}", allow_retries=False) from error

    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = dg.materialize([refused], instance=instance, partition_key="desk@v1|a", raise_on_error=False)
        assert RunLog(home).failure(run.run_id) == "base model 'hf:/x' is not there: hf:/x"


def test_a_run_that_takes_up_another_is_seen_and_ends_the_waiting_for_it(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        same = {"job_name": "job", "asset_selection": {adapter.key}}
        tags = {"dagster/partition": "desk@v1|a"}
        died = dg.DagsterRun(**same, tags=tags | {"dagster/will_retry": "true"}, status=dg.DagsterRunStatus.FAILURE)
        taken_up = dg.DagsterRun(
            **same, tags=tags, parent_run_id=died.run_id, root_run_id=died.run_id, status=dg.DagsterRunStatus.SUCCESS
        )
        log = RunLog(home)
        instance.add_run(died)
        assert log.busy("desk@v1|a", ["adapter"])
        instance.add_run(taken_up)
        assert [run.id for run in log.runs(["desk@v1|a"], ["adapter"])["desk@v1|a"]] == [died.run_id, taken_up.run_id]
        assert not log.busy("desk@v1|a", ["adapter"])


def test_a_home_without_an_instance_has_no_runs(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "nowhere")
    assert log.runs(["desk@v1|a"], ["adapter"]) == {"desk@v1|a": []}
    assert log.run("x") is None and log.failure("x") is None and log.checks("desk@v1|a", ["adapter"]) == []


def test_it_reads_an_instance_in_postgresql(tmp_path: Path, postgres: str) -> None:
    url = postgres.replace("postgresql+psycopg://", "postgresql+psycopg2://", 1)
    config = f"telemetry: {{enabled: false}}\nstorage: {{postgres: {{postgres_url: '{url}'}}}}\n"
    (tmp_path / "dagster.yaml").write_text(config)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert_read(RunLog(tmp_path), instance, *written(instance))


def test_reading_imports_no_dagster(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        _checked, planned = written(instance)
    code = (
        "import sys; from pathlib import Path; from resources.run_log import RunLog\n"
        f"log = RunLog(Path({str(home)!r})); print(log.failure({planned!r}))\n"
        "log.runs(['desk@v1|a'], ['adapter']); log.checks('desk@v1|a', ['adapter'])\n"
        "print({'dagster', 'mlflow', 'polars'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["ValueError: no rows", "set()"]
