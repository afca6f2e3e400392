"""The training assets on a real Dagster instance, with real workers: a chain of two trainings, and what stops one."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llmops_assets.records.datasets import CleanRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.training import checks, folders, identity
from resources import content
from resources.tracking import Tracking
from resources.trainer import Trainer
from tests.training.conftest import Desk, pretrain_spec, sft_spec
from tests.training.house import House, failure, opened


@pytest.fixture(scope="module")
def house(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("house")
    trainer = Trainer(dg.PipesSubprocessClient(), locks=root / "locks", threads=1)
    with opened(root, desk, trainer) as house:
        yield house


@pytest.fixture(scope="module")
def base_cell(house: House) -> str:
    """A pre-training that went through the graph."""
    cell = house.request(pretrain_spec(), "corpus@v1")
    result = house.run(cell)
    assert result.success
    evaluations = result.get_asset_check_evaluations()
    declared = {key.name for check in dg.load_asset_checks_from_modules([checks]) for key in check.check_keys}
    assert {e.check_name for e in evaluations} == declared and all(e.passed for e in evaluations)
    return cell


def test_a_recipe_is_shown_whole_and_refused_when_the_policy_forbids_it(house: House) -> None:
    key = house.request(pretrain_spec(), "corpus@v1").split("|")[1]
    result = house.run(key, "recipe")
    shown = result.asset_materializations_for_node("recipe")[0].metadata
    assert '"max_steps": 20' in shown["spec"].value
    spec = {**pretrain_spec(), "model_family": "falcon"}
    forbidden = house.request(spec, "corpus@v1").split("|")[1]
    refused = house.run(forbidden, "recipe", raises=False)
    assert "falcon" in failure(refused, "recipe")


def test_a_request_that_was_withdrawn_is_not_trained_when_its_data_comes(house: House) -> None:
    spec, catalog = pretrain_spec(), house.resources["catalog"]
    cell = house.request({**spec, "hyperparams": {**spec["hyperparams"], "max_steps": 19}}, "corpus@v1")
    catalog.request_training(*cell.split("|"), "kim")
    assert catalog.intents.withdraw("train", cell, "lee", "the request was withdrawn by lee")
    automatic = {"dagster/from_automation_condition": "true"}
    refused = house.run(cell, "training_plan", raises=False, tags=automatic)
    assert "the request was withdrawn by lee: `llmops train resume`" in failure(refused, "training_plan")
    assert house.records.find(PlanRecord, cell) is None


def test_a_training_starts_from_an_earlier_one_and_is_not_done_twice(house: House, base_cell: str) -> None:
    cell = house.request(sft_spec(base_cell), "desk@v1")
    result = house.run(cell)
    assert all(e.passed for e in result.get_asset_check_evaluations())

    plan, adapter = house.records.load(PlanRecord, cell), house.records.load(AdapterRecord, cell)
    merged = house.records.load(MergedModelRecord, cell)
    base = house.records.load(MergedModelRecord, base_cell)
    assert plan.base.content_hash == base.content_hash and plan.base.path == base.path
    assert not adapter.reused and adapter.last_loss < adapter.first_loss
    assert merged.content_hash == content.content_hash(Path(merged.path)) != base.content_hash
    assert Path(plan.model_dir).parts[-4:] == ("models", "sft", "tiny-desk", plan.training_key)

    tracking: Tracking = house.resources["tracking"]
    assert tracking.run_status(adapter.mlflow_run_id) == "FINISHED"
    metrics = tracking.run_metrics(adapter.mlflow_run_id)
    assert metrics["loss"] == pytest.approx(adapter.curve[-1].loss or adapter.curve[-2].loss, rel=0.5)
    assert metrics["eval_loss"] == pytest.approx(adapter.eval_loss)

    shown = result.asset_materializations_for_node("adapter")[0].metadata
    assert shown["loss curve"].value.startswith("![")
    assert (
        "\\<\\|im\\_end\\|\\>**"
        in result.asset_materializations_for_node("training_plan")[0].metadata["a row as it is trained"].value
    )
    observed = house.instance.fetch_observations(dg.AssetKey("adapter"), limit=10).records
    steps = {r.asset_observation.metadata["step"].value for r in observed if r.partition_key == cell}
    assert steps == {4, 8, 12}

    again = house.run(cell)
    record = house.records.load(AdapterRecord, cell)
    assert record.reused and record.content_hash == adapter.content_hash
    assert record.mlflow_run_id == adapter.mlflow_run_id
    versions = [r.asset_materializations_for_node("adapter")[0].tags["dagster/data_version"] for r in (result, again)]
    assert versions[0] == versions[1]

    otherwise = {**sft_spec(base_cell), "evaluation": {"max_new_tokens": 7}}
    other = house.request(otherwise, "desk@v1")
    house.run(other)
    assert other != cell
    assert house.records.load(AdapterRecord, other).reused, "how a model is evaluated does not change its weights"


def test_a_changed_merge_merges_again_without_training(
    house: House, base_cell: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, trained = house.records.load(MergedModelRecord, base_cell), house.records.load(AdapterRecord, base_cell)
    assert house.run(base_cell, "merged_model").success
    assert house.records.load(MergedModelRecord, base_cell) == before, "what is there is not made twice"
    monkeypatch.setattr(identity, "merging_modules", lambda spec: ["images.train.merge"])
    assert house.run(base_cell, "merged_model").success
    after = house.records.load(MergedModelRecord, base_cell)
    assert after.merge_key != before.merge_key and after.path != before.path
    assert after.content_hash == before.content_hash, "the same weights, by way of other code"
    assert content.content_hash(Path(before.path)) == before.content_hash, "what may be served still is there"
    assert house.records.load(AdapterRecord, base_cell) == trained


def test_a_plan_says_why_the_training_is_another_one_than_before(house: House, base_cell: str) -> None:
    plan = house.records.load(PlanRecord, base_cell)
    assert plan.identity and plan.training_key == identity.key_of(plan.identity)
    another = {**plan.identity, "libraries": plan.identity["libraries"].replace("torch 2.13.0", "torch 2.12.0")}
    for old, reason in (({}, "earlier release"), (another, "libraries: torch 2.12.0 became torch 2.13.0")):
        old_plan = plan.model_copy(update={"training_key": "0" * 12, "identity": old})
        house.records.save(base_cell, old_plan)
        result = house.run(base_cell, "training_plan")
        metadata = result.asset_materializations_for_node("training_plan")[0].metadata
        assert reason in metadata["trains anew because"].value
        assert house.records.load(PlanRecord, base_cell) == plan
    metadata = house.run(base_cell, "training_plan").asset_materializations_for_node("training_plan")[0].metadata
    assert "trains anew because" not in metadata


def test_answers_that_are_cut_stop_the_training_before_it_starts(house: House, base_cell: str) -> None:
    cell = house.request(sft_spec(base_cell, max_seq_len=24), "desk@v1")
    result = house.run(cell, raises=False)
    assert not result.success
    failed = {e.check_name: e for e in result.get_asset_check_evaluations() if not e.passed}
    assert {"every_row_trains", "answers_whole"} <= set(failed)
    assert "overlong: drop" in failed["answers_whole"].description
    assert house.records.find(AdapterRecord, cell) is None
    assert house.records.find(PlanRecord, cell) is not None


def test_a_suite_that_came_after_the_splits_stops_the_training_before_it_starts(house: House, desk: Desk) -> None:
    read = desk.store.read(desk.corpus["train"]).head(3)
    asked = [[{"role": "user", "content": text}, {"role": "assistant", "content": "네"}] for text in read["text"]]
    items = desk.store.write(
        pl.DataFrame({"row_id": read["row_id"], "messages": asked, "extra": ["{}"] * 3}),
        kind="rows", dataset="exam@v1", step="clean_dataset", config_hash="0",
    )  # fmt: skip
    values = {"name": "exam", "version": "v1", "type": "eval_suite", "files": ["x"], "owner": "o", "description": "d"}
    house.resources["catalog"].register_dataset(DatasetSpec.model_validate(values), "exam")
    record = CleanRecord(
        dataset="exam@v1", type="eval_suite", manifest=items, dropped=items, rows=3, dropped_by_reason={},
        masked_by_type={}, content_hash="e",
    )  # fmt: skip
    kept = house.records.save("exam@v1", record)
    spec = pretrain_spec()
    cell = house.request({**spec, "hyperparams": {**spec["hyperparams"], "max_steps": 21}}, "corpus@v1")
    try:
        result = house.run(cell, raises=False)
    finally:
        kept.unlink()
    (failed,) = [e for e in result.get_asset_check_evaluations() if not e.passed]
    assert failed.check_name == "no_suite_in_training_rows" and "Items of exam@v1" in failed.description
    assert not result.success and house.records.find(AdapterRecord, cell) is None


def test_mlflow_knows_that_a_training_failed_and_that_it_was_interrupted(house: House, base_cell: str) -> None:
    endless = {"num_epochs": 1000, "max_steps": 9000, "save_steps": 8000}
    cell = house.request(sft_spec(base_cell, **endless), "desk@v1")
    assert house.run(cell, "training_plan").success
    folder = Path(house.records.load(PlanRecord, cell).model_dir)
    rows = folder / "plan" / "train.parquet"
    kept = rows.read_bytes()
    rows.write_bytes(kept[: len(kept) // 2])
    failed = house.run(cell, "adapter", raises=False)
    assert "task 'train' failed" in failure(failed, "adapter")
    run_id = (folder / "mlflow-run.txt").read_text()
    tracking: Tracking = house.resources["tracking"]
    assert tracking.run_status(run_id) == "FAILED"

    rows.write_bytes(kept)
    metrics = folder / "work" / "train.metrics"

    def interrupt() -> None:
        deadline = time.monotonic() + 300
        while not metrics.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(BaseException) as caught:
        house.run(cell, "adapter")
    assert not isinstance(caught.value, Exception)
    assert (folder / "mlflow-run.txt").read_text() == run_id, "a training goes on in the run that it began in"
    assert tracking.run_status(run_id) == "KILLED"
    step, _path, _warnings = folders.last_checkpoint(folder / "checkpoints")
    assert step and step < 8000
    assert "SIGINT" in json.loads((folder / "work" / "train.error").read_text())["message"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trainer": "axolotl"}, "the engine axolotl has no environment in"),
        ({"base_model_ref": "corpus@v1|never-trained"}, "'corpus@v1|never-trained' is not there"),
        ({"base_model_ref": "hf:/nowhere"}, "is not registered"),
        ({"resources": {"gpus": 0, "nodes": 2}}, "write nodes: 1"),
        ({"model_family": "mistral"}, "config.json is not mistral"),
    ],
)
def test_what_cannot_be_trained_is_refused_with_the_reason(
    house: House, base_cell: str, change: dict[str, Any], reason: str
) -> None:
    cell = house.request({**sft_spec(base_cell), **change}, "desk@v1")
    result = house.run(cell, "training_plan", raises=False)
    assert reason in failure(result, "training_plan")


def test_the_wrong_kind_of_dataset_is_refused(house: House, base_cell: str) -> None:
    cell = house.request(sft_spec(base_cell), "corpus@v1")
    assert "trains on sft_pair" in failure(house.run(cell, "training_plan", raises=False), "training_plan")
