"""The graph as a whole: its partitions, its gates, and what becomes due by itself."""

import subprocess
import sys

import dagster as dg
import pytest
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData,
)
from dagster._core.test_utils import create_run_for_test

from llmops_assets.definitions import defs
from llmops_assets.partitions import dataset_versions, recipes

CELL = "desk@v1|tuned-01"


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(dataset_versions.name, ["desk@v1", "other@v1"])
        instance.add_dynamic_partitions(recipes.name, ["tuned-01", "other-01"])
        yield instance


def report(instance: dg.DagsterInstance, asset: str, partition: str, version: str = "1") -> None:
    """Report an asset's partition as materialised, with the data version that its content has."""
    tags = {} if asset == "training_request" else {"dagster/data_version": version}
    instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition, tags=tags))


def report_checks(instance: dg.DagsterInstance, asset: str, partition: str, *, failed: str | None = None) -> None:
    """Report every check of an asset's partition as evaluated on its last materialisation."""
    where = dg.AssetRecordsFilter(dg.AssetKey(asset), asset_partitions=[partition])
    (last,) = instance.fetch_materializations(where, limit=1).records
    target = AssetCheckEvaluationTargetMaterializationData(
        storage_id=last.storage_id, run_id=last.run_id, timestamp=last.timestamp
    )
    run = create_run_for_test(instance)
    for key in defs.resolve_asset_graph().get_check_keys_for_assets({dg.AssetKey(asset)}):
        evaluation = dg.AssetCheckEvaluation(
            asset_key=key.asset_key,
            check_name=key.name,
            passed=key.name != failed,
            metadata={},
            partition=partition,
            target_materialization_data=target,
        )
        # Dagster keeps one evaluation of a check without a run, and none after it.
        kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION.value
        event = dg.DagsterEvent(kind, job_name=run.job_name, event_specific_data=evaluation)
        instance.report_dagster_event(event, run.run_id)


def due(instance: dg.DagsterInstance, cursor=None) -> tuple[dict[str, set[str]], object]:
    """Partitions requested by asset at one tick, and the cursor for the next."""
    result = dg.evaluate_automation_conditions(defs=defs, instance=instance, cursor=cursor)
    found = {}
    for key in defs.resolve_asset_graph().get_all_asset_keys():
        if subset := result.get_requested_partitions(key):
            found[key.to_user_string()] = set(subset)
    return found, result.cursor


GROUPS = {
    "datasets": {"question_answers", "dataset", "quality_report", "clean_dataset", "splits"},
    "training": {"recipe", "training_request", "training_plan", "adapter", "merged_model", "study"},
    "evaluation": {"evaluation", "registered_model", "quantized_model"},
    "serving": {
        "deployment",
        "drift_report",
        "ab_report",
        "retrieval_index",
        "traffic",
        "judged_traffic",
        "usage_report",
        "replay_report",
    },
}


def test_assets_stand_in_the_groups_of_the_design():
    graph = defs.resolve_asset_graph()
    found: dict[str, set[str]] = {}
    for key in graph.get_all_asset_keys():
        found.setdefault(graph.get(key).group_name, set()).add(key.to_user_string())
    assert found == GROUPS


def test_reports_that_somebody_waits_for_say_when_they_are_stale():
    specs = {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}
    assert {name for name, spec in specs.items() if spec.freshness_policy} == {"drift_report", "ab_report"}


def test_a_code_location_can_load_all_of_it():
    """As Dagster's server does at its start, which a sensor whose target is no asset that runs would end."""
    defs.get_repository_def().load_all_definitions()


def test_every_resource_says_what_it_is():
    resources = defs.get_repository_def().get_top_level_resources()
    assert resources
    for name, resource in resources.items():
        assert resource.description and len(resource.description) > 30, name


def test_every_asset_says_what_it_is():
    graph = defs.resolve_asset_graph()
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.description and node.owners and node.kinds, key
        assert node.group_name in GROUPS, key
        assert node.partitions_def is not None, key


def test_every_check_is_partitioned_like_its_asset():
    graph = defs.resolve_asset_graph()
    for key in graph.asset_check_keys:
        assert graph.get(key).partitions_def == graph.get(key.asset_key).partitions_def, key


def test_only_the_requested_cell_is_trained(instance):
    _, cursor = due(instance)
    for version in ("desk@v1", "other@v1"):
        report(instance, "splits", version)
        report_checks(instance, "splits", version)
    for recipe in ("tuned-01", "other-01"):
        report(instance, "recipe", recipe)
    found, cursor = due(instance, cursor)
    assert found == {}
    report(instance, "training_request", CELL)
    found, cursor = due(instance, cursor)
    assert found == {asset: {CELL} for asset in ("training_plan", "adapter", "merged_model", "evaluation")}
    assert due(instance, cursor)[0] == {}


def test_a_request_waits_for_its_splits(instance):
    _, cursor = due(instance)
    report(instance, "recipe", "tuned-01")
    report(instance, "training_request", CELL)
    found, cursor = due(instance, cursor)
    assert found == {}
    report(instance, "splits", "desk@v1")
    report_checks(instance, "splits", "desk@v1")
    assert set(due(instance, cursor)[0]) == {"training_plan", "adapter", "merged_model", "evaluation"}


TRAINED = ("training_plan", "adapter", "merged_model", "evaluation", "registered_model")
MADE_AGAIN = {asset: {CELL} for asset in TRAINED[:-1]}


def make_rows(instance: dg.DagsterInstance, *assets: str, version: str = "1") -> None:
    for asset in assets:
        report(instance, asset, "desk@v1", version)
        report_checks(instance, asset, "desk@v1")


@pytest.fixture
def trained(instance):
    """The cursor of a tick after a cell was requested and trained, to its version in the registry."""
    _, cursor = due(instance)
    make_rows(instance, "dataset", "quality_report", "clean_dataset", "splits")
    report(instance, "recipe", "tuned-01")
    report(instance, "training_request", CELL)
    _, cursor = due(instance, cursor)
    for asset in TRAINED:
        report(instance, asset, CELL)
        report_checks(instance, asset, CELL)
    found, cursor = due(instance, cursor)
    assert found == {}
    return cursor


@pytest.mark.parametrize(
    "looked_at", ["dataset", "quality_report", "clean_dataset", "splits", "training_plan", "adapter"]
)
def test_what_comes_out_as_it_was_makes_nothing_anew(instance, trained, looked_at):
    if looked_at in TRAINED:
        report(instance, looked_at, CELL)
        report_checks(instance, looked_at, CELL)
    else:
        make_rows(instance, looked_at)
    found, cursor = due(instance, trained)
    assert found == {} and due(instance, cursor)[0] == {}


def test_a_new_look_at_the_same_rows_trains_nothing_anew(instance, trained):
    make_rows(instance, "quality_report", version="other findings")
    found, cursor = due(instance, trained)
    assert found == {"clean_dataset": {"desk@v1"}, "splits": {"desk@v1"}}
    make_rows(instance, "clean_dataset", "splits")
    assert due(instance, cursor)[0] == {}


def test_other_rows_train_the_requested_cell_anew_and_no_other(instance, trained):
    report(instance, "recipe", "other-01")
    make_rows(instance, "splits", version="other rows")
    assert due(instance, trained)[0] == MADE_AGAIN


def test_a_request_trains_anew_what_has_not_changed(instance, trained):
    report(instance, "training_request", CELL)
    assert due(instance, trained)[0] == MADE_AGAIN


def test_a_bad_dataset_version_holds_back_its_own_cells_only(instance):
    _, cursor = due(instance)
    report(instance, "recipe", "tuned-01")
    for version in ("desk@v1", "other@v1"):
        report(instance, "splits", version)
        report(instance, "training_request", f"{version}|tuned-01")
    graph = defs.resolve_asset_graph()
    bad = min(key.name for key in graph.get_check_keys_for_assets({dg.AssetKey("splits")}))
    report_checks(instance, "splits", "desk@v1", failed=bad)
    report_checks(instance, "splits", "other@v1")
    assert due(instance, cursor)[0]["training_plan"] == {"other@v1|tuned-01"}


@pytest.mark.parametrize(("failed", "registered"), [(None, {CELL}), ("accuracy_gate", None), ("beats_base", {CELL})])
def test_a_model_that_misses_its_gate_is_withheld(instance, failed, registered):
    _, cursor = due(instance)
    report(instance, "evaluation", CELL)
    report_checks(instance, "evaluation", CELL, failed=failed)
    assert due(instance, cursor)[0].get("registered_model") == registered


def test_the_collector_is_at_work_again_once_the_graph_is_loaded() -> None:
    program = "import gc, llmops_assets.definitions; assert gc.isenabled() and gc.get_freeze_count() > 100_000"
    assert subprocess.run([sys.executable, "-c", program], timeout=300).returncode == 0
