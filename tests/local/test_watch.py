"""Waiting for a partition: it tells the truth at the end, and what is waited for before."""

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test

from llmops_assets.local import watch
from llmops_assets.local.runs import tried_again
from llmops_assets.local.watch import Watcher
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.intent_runs import tags_of

ENDPOINT = "desk"
PARTITIONS = dg.StaticPartitionsDefinition([ENDPOINT])
LONG_AGO = datetime.now(UTC) - timedelta(days=1)


@dg.asset(partitions_def=PARTITIONS)
def deployment() -> None: ...


def run(instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, checks: list | None = None) -> None:
    """One run of assets and their checks on the partition, as the daemon starts it: with the assets that it is for."""
    job = dg.Definitions(assets=list(assets), asset_checks=checks or []).resolve_implicit_global_asset_job_def()
    keys = [asset.key for asset in assets]
    job.execute_in_process(instance=instance, partition_key=ENDPOINT, asset_selection=keys, raise_on_error=False)


def check(passed: bool) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=deployment, name="answers", blocking=True, partitions_def=PARTITIONS)
    def answers() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, description="it answers nothing")

    return answers


@pytest.fixture
def home(tmp_path: Path) -> Iterator[tuple[Settings, dg.DagsterInstance]]:
    settings = Settings(home=tmp_path, _env_file=None)
    settings.dagster_home.mkdir(parents=True)
    (settings.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(settings.dagster_home)) as instance:
        yield settings, instance


def test_a_target_whose_blocking_check_failed_is_not_done(home: tuple[Settings, dg.DagsterInstance]) -> None:
    settings, instance = home
    run(instance, deployment, checks=[check(False)])
    lines: list[str] = []
    outcome = Watcher(settings, lines.append).wait(ENDPOINT, "deployment", since=LONG_AGO, timeout=30)
    assert (outcome.state, outcome.asset, outcome.error) == ("failed", "deployment", "answers: it answers nothing")
    assert "  check deployment.answers FAILED: it answers nothing" in lines

    since = datetime.now(UTC)
    run(instance, deployment, checks=[check(True)])
    outcome = Watcher(settings, lines.append).wait(ENDPOINT, "deployment", since=since, timeout=30)
    assert outcome.state == "done" and [one.passed for one in outcome.checks] == [True]


@pytest.mark.parametrize("low", ["accuracy_gate", "suites_unseen"])
def test_whatever_check_withholds_a_model_ends_the_waiting(home: tuple[Settings, dg.DagsterInstance], low: str) -> None:
    settings, instance = home

    @dg.asset(partitions_def=PARTITIONS)
    def evaluation() -> None: ...

    @dg.asset(partitions_def=PARTITIONS, deps=[evaluation], output_required=False)
    def registered_model() -> Iterator[dg.Output[None]]:
        yield from ()

    def judged(name: str, passed: bool, severity: dg.AssetCheckSeverity) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=evaluation, name=name, partitions_def=PARTITIONS)
        def judge() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=passed, severity=severity, description=f"{name} says why")

        return judge

    error, warning = dg.AssetCheckSeverity.ERROR, dg.AssetCheckSeverity.WARN
    checks = [judged("beats_base", False, warning)]
    checks += [judged(name, name != low, error) for name in ("accuracy_gate", "suites_unseen")]
    run(instance, evaluation, registered_model, checks=checks)
    gate = ("evaluation", "accuracy_gate")
    outcome = Watcher(settings, str).wait(ENDPOINT, "registered_model", since=LONG_AGO, gate=gate, timeout=20)
    assert (outcome.state, outcome.asset, outcome.error) == ("withheld", "evaluation", f"{low} says why")


def test_what_the_steps_behind_a_failure_did_not_do_is_no_news(home: tuple[Settings, dg.DagsterInstance]) -> None:
    settings, instance = home

    @dg.asset(partitions_def=PARTITIONS)
    def training_plan() -> None:
        raise dg.Failure("max_seq_len is too short for every row", allow_retries=False)

    @dg.asset(partitions_def=PARTITIONS, deps=[training_plan])
    def adapter() -> None: ...

    @dg.asset(partitions_def=PARTITIONS, deps=[adapter])
    def merged_model() -> None: ...

    run(instance, training_plan, adapter, merged_model)
    lines: list[str] = []
    outcome = Watcher(settings, lines.append).wait(ENDPOINT, "merged_model", since=LONG_AGO, timeout=30)
    assert (outcome.state, outcome.error) == ("failed", "max_seq_len is too short for every row")
    assert not [line for line in lines if "Dependencies for step" in line]


def test_while_nothing_runs_it_says_what_is_waited_for(
    home: tuple[Settings, dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, instance = home
    monkeypatch.setattr(watch, "WAITING_SECONDS", 0.5)
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    queued = create_run_for_test(
        instance,
        "queued",
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={"dagster/partition": ENDPOINT},
        asset_selection=frozenset({deployment.key}),
    )
    lines: list[str] = []
    repeated = threading.Event()

    def say(line: str) -> None:
        lines.append(line)
        if len(lines) == 3:
            instance.report_run_canceled(instance.get_run_by_id(queued.run_id))
            repeated.set()

    outcome = Watcher(settings, say).wait(
        ENDPOINT, "deployment", since=LONG_AGO, timeout=60, grace=0, explain=lambda: "queued: waits for its turn"
    )
    assert repeated.is_set() and (outcome.state, outcome.error) == ("failed", "the run was stopped")
    assert lines[:3] == ["  queued: waits for its turn"] * 3


def test_a_failed_check_of_another_run_counts_and_a_warning_does_not(
    home: tuple[Settings, dg.DagsterInstance],
) -> None:
    settings, instance = home

    def evaluated(passed: bool, severity: dg.AssetCheckSeverity) -> dg.AssetChecksDefinition:
        @dg.asset_check(asset=deployment, name="answers", blocking=True, partitions_def=PARTITIONS)
        def answers() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=passed, severity=severity, description="rounded")

        return answers

    def outcome_of(*asked: dg.AssetChecksDefinition) -> str:
        since = datetime.now(UTC)
        run(instance, deployment, checks=list(asked))
        return Watcher(settings, lambda line: None).wait(ENDPOINT, "deployment", since=since, timeout=30).state

    assert outcome_of(evaluated(False, dg.AssetCheckSeverity.WARN)) == "done"
    assert outcome_of(evaluated(False, dg.AssetCheckSeverity.ERROR)) == "failed"
    # Materialised anew by a run that did not ask the check: what stands on record still holds up what follows.
    assert outcome_of() == "failed"
    assert outcome_of(evaluated(True, dg.AssetCheckSeverity.ERROR)) == outcome_of() == "done"


def test_a_run_that_will_be_tried_again_is_not_the_end(
    home: tuple[Settings, dg.DagsterInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, instance = home
    monkeypatch.setattr(watch, "LOOK_SECONDS", 0.05)
    wiring = Wiring(settings)
    wiring.catalog.intents.want("deploy", ENDPOINT, "kim")
    tags = {"dagster/partition": ENDPOINT, **tags_of(f"deploy:{ENDPOINT}:1", 1)}
    kind = {"asset_selection": frozenset({deployment.key}), "tags": tags}
    first = create_run_for_test(instance, "deploy", status=dg.DagsterRunStatus.STARTED, **kind)
    instance.report_run_failed(first, "the process was killed")
    lines: list[str] = []

    def say(line: str) -> None:
        lines.append(line)
        if "tried again at" in line:
            run(instance, deployment)

    watcher = Watcher(settings, say)
    wait = {"since": LONG_AGO, "timeout": 30, "grace": 0}
    outcome = watcher.wait(ENDPOINT, "deployment", **wait, tried_again=lambda one: tried_again(wiring, one))
    assert outcome.state == "done" and [line for line in lines if "the process was killed" in line]
    # Nobody wants it any more, so nothing is asked for.
    wiring.catalog.intents.withdraw("deploy", ENDPOINT, "kim")
    assert tried_again(wiring, wiring.run_log.run(first.run_id)) is None
