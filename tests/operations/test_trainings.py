"""Trainings as a person asks about them: the true state with its reason, and a way out of every one of them."""

import json
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import AssetCheckEvaluationPlanned
from dagster._core.test_utils import create_run_for_test

from llmops_assets.local.stack import prepare_home
from llmops_assets.operations.datasets import register_dataset
from llmops_assets.operations.errors import Forbidden
from llmops_assets.operations.training_status import READY, find_training, training_status
from llmops_assets.operations.trainings import request_training, request_trial, resume_training, stop_training
from llmops_assets.partitions import trainings
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict, NotFound
from resources.catalog.erasures import begin, mark_erased, note
from tests.evaluation.test_beats_base import record as evaluated
from tests.training.conftest import sft_spec

ROW = {"messages": [{"role": "user", "content": "질문"}, {"role": "assistant", "content": "답"}]}
DATASET = "desk@v1"
SPEC = TrainJobSpec.model_validate({**sft_spec("hf:/models/x"), "dataset_ref": DATASET})


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    """A platform whose dataset is registered and whose training is wanted, both of them by nobody's run yet."""
    found = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    prepare_home(found.settings)
    file = tmp_path / "desk.jsonl"
    file.write_text(json.dumps(ROW, ensure_ascii=False) + "\n", encoding="utf-8")
    spec = DatasetSpec(name="desk", version="v1", type="sft_pair", files=["desk.jsonl"], owner="x", description="d")
    assert register_dataset(found, "kim", spec, [str(file)]).new
    return found


@pytest.fixture
def cell(wiring: Wiring) -> str:
    return request_training(wiring, "kim", SPEC).partition


@pytest.fixture
def instance(wiring: Wiring) -> Iterator[dg.DagsterInstance]:
    (wiring.settings.dagster_home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.from_config(str(wiring.settings.dagster_home)) as found:
        yield found


def run(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, partition: str, **extra: object) -> None:
    """One run of an asset on a partition, as the daemon starts it: with the assets that it is for."""
    job = dg.Definitions(assets=[asset], **extra).resolve_implicit_global_asset_job_def()
    job.execute_in_process(
        instance=instance, partition_key=partition, asset_selection=[asset.key], raise_on_error=False
    )


def state(wiring: Wiring, cell: str) -> tuple[str, str]:
    status = training_status(wiring, cell)
    return status.state, status.detail


def splits(wiring: Wiring) -> None:
    rows = dict.fromkeys(("train", "validation", "test"), 1)
    record = SplitsRecord(
        dataset=DATASET,
        type="sft_pair",
        manifests={},
        rows=rows,
        stratify_by=None,
        group_by=None,
        seed=0,
        data_hash="h",
    )
    wiring.records.save(DATASET, record)


def test_a_training_waits_for_its_dataset_and_says_so(wiring: Wiring, cell: str) -> None:
    assert state(wiring, cell) == ("requested", "waits for the splits of desk@v1, whose ingest has not begun")
    splits(wiring)
    assert state(wiring, cell) == ("requested", READY)


def test_a_training_of_a_version_that_failed_says_why_and_can_be_withdrawn(
    wiring: Wiring, cell: str, instance: dg.DagsterInstance
) -> None:
    versions = dg.StaticPartitionsDefinition([DATASET])

    @dg.asset(partitions_def=versions)
    def dataset() -> None:
        raise dg.Failure("desk.jsonl holds no row that can be read", allow_retries=False)

    run(instance, dataset, DATASET)
    held, reason = state(wiring, cell)
    assert held == "held" and reason.endswith("failed: desk.jsonl holds no row that can be read")
    assert stop_training(wiring, "lee", cell).state == "stopped"
    assert state(wiring, cell) == ("stopped", "the request was withdrawn by lee")
    with pytest.raises(Conflict, match="nothing to stop"):
        stop_training(wiring, "lee", cell)
    resume_training(wiring, "kim", cell)
    assert state(wiring, cell)[0] == "held"


def test_a_training_of_an_erased_version_says_so_and_names_what_follows(wiring: Wiring, cell: str) -> None:
    erasure = begin(wiring.catalog, name="desk", request="r", looked_for={"texts": 1}, reason="asked", actor="kim")
    note(wiring.catalog, erasure.id, versions={DATASET: "desk@v1-e1"})
    mark_erased(wiring.catalog, DATASET, "kim")
    reason = "desk@v1 was erased on a person's request: train on desk@v1-e1, which follows it"
    assert state(wiring, cell) == ("stopped", reason)
    assert wiring.catalog.intents.open() == []
    with pytest.raises(Conflict, match="nothing to stop"):
        stop_training(wiring, "kim", cell)
    with pytest.raises(Conflict, match="cannot be resumed"):
        resume_training(wiring, "kim", cell)


def test_a_training_that_a_blocking_check_of_its_data_holds_up_names_the_check(
    wiring: Wiring, cell: str, instance: dg.DagsterInstance
) -> None:
    versions = dg.StaticPartitionsDefinition([DATASET])

    @dg.asset(name="splits", partitions_def=versions)
    def made() -> None: ...

    @dg.asset_check(asset=made, name="no_contamination", blocking=True, partitions_def=versions)
    def contaminated() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="3 of 10 rows stand in suite kobest@v1")

    splits(wiring)
    run(instance, made, DATASET, asset_checks=[contaminated])
    check = "check splits.no_contamination of desk@v1 failed: 3 of 10 rows stand in suite kobest@v1"
    assert state(wiring, cell) == ("held", check)


def test_a_training_that_a_cut_off_check_of_its_data_holds_up_names_the_check_and_the_run(
    wiring: Wiring, cell: str, instance: dg.DagsterInstance
) -> None:
    splits(wiring)
    begun = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags={"dagster/partition": DATASET})
    planned = AssetCheckEvaluationPlanned(
        asset_key=dg.AssetKey("splits"),
        check_name="no_contamination",
        partitions_subset=dg.StaticPartitionsDefinition([DATASET]).subset_with_partition_keys([DATASET]),
    )
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION_PLANNED.value
    event = dg.DagsterEvent(kind, job_name=begun.job_name, event_specific_data=planned)
    instance.report_dagster_event(event, begun.run_id)
    short = begun.run_id[:8]
    waits = f"waits for check splits.no_contamination of desk@v1, which run {short} evaluates"
    assert state(wiring, cell) == ("requested", waits)
    instance.report_run_canceled(begun)
    reason = f"run {short} was cancelled before check splits.no_contamination of desk@v1 was evaluated"
    assert state(wiring, cell) == (
        "held",
        f"{reason}: the sensor registered_suites asks for another run, three times at most",
    )


def test_a_training_whose_plan_failed_has_the_reason(wiring: Wiring, cell: str, instance: dg.DagsterInstance) -> None:
    cells = dg.StaticPartitionsDefinition([cell])

    @dg.asset(partitions_def=cells)
    def training_plan() -> None:
        try:
            raise LookupError("hf:/models/x is not registered")
        except LookupError as error:
            raise dg.Failure(f"cannot plan: {error}", allow_retries=False) from error

    splits(wiring)
    run(instance, training_plan, cell)
    assert state(wiring, cell) == ("failed", "cannot plan: hf:/models/x is not registered")
    resume_training(wiring, "kim", cell)
    assert state(wiring, cell) == ("requested", READY), "asked for anew, the old failure is none of it"


def test_a_training_in_the_queue_is_told_apart_from_one_at_work(
    wiring: Wiring, cell: str, instance: dg.DagsterInstance
) -> None:
    queued = create_run_for_test(
        instance,
        "train",
        status=dg.DagsterRunStatus.NOT_STARTED,
        tags={"dagster/partition": cell},
        asset_selection=frozenset({dg.AssetKey("training_plan"), dg.AssetKey("adapter")}),
    )
    assert state(wiring, cell)[0] == "queued"
    with pytest.raises(Conflict, match="nothing to resume"):
        resume_training(wiring, "kim", cell)
    instance.report_run_canceled(queued)
    assert state(wiring, cell) == ("stopped", "it was stopped before it began")


def test_a_training_that_starts_from_another_waits_for_it(wiring: Wiring, cell: str) -> None:
    splits(wiring)
    later = request_training(
        wiring, "kim", SPEC.model_copy(update={"base_model_ref": cell, "output": SPEC.output.model_copy()})
    ).partition
    assert state(wiring, later) == ("requested", f"waits for its base model {cell}, which is requested: {READY}")
    stop_training(wiring, "kim", cell)
    held, reason = state(wiring, later)
    assert held == "held" and reason.startswith(f"waits for its base model {cell}, which is stopped")


def test_a_trial_is_withdrawn_as_a_training_is(wiring: Wiring) -> None:
    partition = request_trial(wiring, "kim", "study-1", SPEC)
    assert training_status(wiring, partition).requested_by == "study:study-1"
    assert stop_training(wiring, "kim", partition).state == "stopped"
    assert wiring.catalog.intents.open("trial") == []


def test_nobody_asks_for_nothing(wiring: Wiring) -> None:
    with pytest.raises(Forbidden, match=r"training\.request"):
        request_training(wiring, " ", SPEC)
    assert wiring.catalog.training_requests() == []
    with pytest.raises(NotFound, match="llmops train status"):
        find_training(wiring, "tiny")
    request_training(wiring, "kim", SPEC)
    assert find_training(wiring, SPEC.output.artifact_name) == f"{DATASET}|{SPEC.recipe_key()}"


def test_a_model_that_passed_its_checks_is_no_withheld_one_while_its_registration_is_not_asked_for_yet(
    wiring: Wiring, cell: str, instance: dg.DagsterInstance
) -> None:
    splits(wiring)
    dataset, recipe = cell.split("|")
    instance.add_dynamic_partitions("dataset_versions", [dataset])
    instance.add_dynamic_partitions("recipes", [recipe])
    passed = True

    @dg.asset(
        partitions_def=trainings,
        check_specs=[dg.AssetCheckSpec("accuracy_gate", asset="evaluation", partitions_def=trainings)],
    )
    def evaluation():
        yield dg.MaterializeResult(
            check_results=[dg.AssetCheckResult(passed=passed, check_name="accuracy_gate", description="12 of 200")]
        )

    wiring.records.save(cell, evaluated().model_copy(update={"dataset": dataset, "recipe": recipe}))
    run(instance, evaluation, cell)
    assert state(wiring, cell) == ("finishing", "it passed its checks: automation has it registered at its next look")
    passed = False
    run(instance, evaluation, cell)
    assert state(wiring, cell) == ("withheld", "check accuracy_gate: 12 of 200")
