"""The assets in Dagster, with real workers, tiny models and registry: the gate opens, withholds, has no way round."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
import yaml

from images.ask import generate
from llmops_assets.evaluation import assets, checks
from llmops_assets.partitions import dataset_versions, recipes, trainings
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.jobs import GenerateJob
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, BaseModelRecord, MergedModelRecord, PlanRecord
from llmops_assets.registry.assets import registered_model
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.names import training_key
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.content import content_hash
from resources.dataset_store import DatasetStore
from resources.records import Records
from resources.tracking import Tracking
from resources.trainer import Trainer
from tests.evaluation.conftest import make_tiny_model, read_jsonl, write_jsonl
from tests.evaluation.test_suites import chat_frame

N = 205
GOOD, BAD, CORPUS = "desk@v1", "desk@v2", "corpus@v1"


@dataclass
class House:
    """One installation with three trained cells, whose records stand for the stages before evaluation."""

    root: Path
    instance: dg.DagsterInstance
    resources: dict[str, Any]
    cells: dict[str, str]

    @property
    def records(self) -> Records:
        return self.resources["records"]

    @property
    def tracking(self) -> Tracking:
        return self.resources["tracking"]

    def defs(self) -> dg.Definitions:
        upstream = dg.AssetSpec("merged_model", partitions_def=trainings)
        return dg.Definitions(
            assets=[upstream, assets.evaluation, registered_model],
            asset_checks=[
                checks.accuracy_gate,
                checks.complete,
                checks.answers_end,
                checks.same_alone,
                checks.questions_matter,
                checks.judge_tells_apart,
                checks.beats_base,
                checks.nothing_forgotten,
                checks.no_regression,
                checks.suite_gates,
                checks.suites_unseen,
            ],
            resources=self.resources,
        )

    def run(self, asset: str, cell: str, *, raises: bool = True) -> dg.ExecuteInProcessResult:
        job = dg.define_asset_job("one", selection=dg.AssetSelection.assets(asset))
        defs = dg.Definitions.merge(self.defs(), dg.Definitions(jobs=[job]))
        return defs.resolve_job_def("one").execute_in_process(
            instance=self.instance, partition_key=cell, raise_on_error=raises
        )


def spec_of(name: str, dataset: str, **more: Any) -> TrainJobSpec:
    sft = {
        "job_type": "SFT",
        "model_family": "llama",
        "base_model_ref": "corpus@v1|tiny-base",
        "dataset_ref": dataset,
        "method": "lora",
        "hyperparams": {"lr": 1e-3, "batch_size": 8, "num_epochs": 1, "max_seq_len": 256},
        "resources": {"gpus": 0},
        "output": {"artifact_name": name},
        "evaluation": {"max_new_tokens": 8},
    }
    return TrainJobSpec.model_validate({k: v for k, v in (sft | more).items() if v is not None})


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("house")
    settings = Settings(home=root, _env_file=None)
    store, records = DatasetStore(root / "datasets"), Records(root / "records")
    resources = {
        "settings": settings,
        "records": records,
        "store": store,
        "artifacts": Artifacts(root / "artifacts"),
        "catalog": Catalog(f"sqlite:///{root}/catalog.db"),
        "policy": never_ending(load_policy()),
        "tracking": Tracking(f"sqlite:///{root}/mlflow.db"),
        "trainer": Trainer(dg.PipesSubprocessClient(), locks=root / "locks", threads=1),
    }
    base, tuned = make_tiny_model(root / "base"), make_tiny_model(root / "tuned", seed=1)
    questions = [f"{place} {n}번 차로 통행료가 얼마예요?" for n in range(80) for place in ("서울", "부산", "대전")]
    prompts = [{"id": str(n), "messages": [{"role": "user", "content": q}]} for n, q in enumerate(questions)]
    job = {"model_dir": str(tuned), "max_new_tokens": 8, "output_file": str(root / "said.jsonl")}
    job["prompts_file"] = str(write_jsonl(root / "questions.jsonl", prompts))
    generate.run(GenerateJob.model_validate(job))
    said = [
        (q, a["text"]) for q, a in zip(questions, read_jsonl(root / "said.jsonl"), strict=True) if a["text"].strip()
    ]
    assert len(said) >= N and len({a for _, a in said}) > 10, "the tiny model must say different things"
    said = said[:N]
    # What the model says is right by definition in one version; in the other nothing that it says is.
    chat = {
        GOOD: chat_frame([(f"g{n}", ["toll", "refund"][n % 2], q, a, {}) for n, (q, a) in enumerate(said)]),
        BAD: chat_frame([(f"b{n}", "toll", q, f"답 {n}", {}) for n, (q, _) in enumerate(said)]),
    }
    text = pl.DataFrame(
        {
            "row_id": [f"t{n}" for n in range(60)],
            "category": ["manual"] * 60,
            "text": [f"{q} 안내문" for q in questions[:60]],
        }
    )
    instance = dg.DagsterInstance.local_temp(str(tmp_path_factory.mktemp("dagster")))
    specs = {
        GOOD: spec_of("tiny-desk", GOOD),
        BAD: spec_of("tiny-desk", BAD),
        CORPUS: spec_of("tiny-base", CORPUS, job_type="PRETRAIN", base_model_ref=None, method="full"),
    }
    cells = {}
    for dataset, spec in specs.items():
        name, _, version = dataset.partition("@")
        recipe = spec.recipe_key()
        cell = cells[dataset] = training_key(dataset, recipe)
        instance.add_dynamic_partitions(dataset_versions.name, [dataset])
        instance.add_dynamic_partitions(recipes.name, [recipe])
        kind = "pretrain_corpus" if dataset == CORPUS else "sft_pair"
        write_records(
            resources, spec, cell, recipe, kind, text if dataset == CORPUS else chat[dataset], base, tuned, root
        )
        resources["catalog"].register_dataset(
            DatasetSpec(
                name=name,
                version=version,
                type=kind,
                files=["x"],
                owner="desk",
                description="시험 자료",
                license="cc-by-4.0",
            ),
            digest=dataset,
        )
    yield House(root, instance, resources, cells)
    instance.dispose()


def never_ending(policy: Policy) -> Policy:
    """The policy for models of random weights, which end no turn: what they said until the limit is their reference."""
    return policy.model_copy(update={"limits": policy.limits.model_copy(update={"max_cut_answers": 1.0})})


def write_records(
    resources: dict[str, Any],
    spec: TrainJobSpec,
    cell: str,
    recipe: str,
    kind: str,
    frame: pl.DataFrame,
    base: Path,
    tuned: Path,
    root: Path,
) -> None:
    """What splits, training_plan, adapter and merged_model would have left."""
    records, dataset = resources["records"], spec.dataset_ref
    manifest = resources["store"].write(frame, kind=kind, dataset=dataset, step="splits", config_hash="0")
    names = ("train", "validation", "test")
    records.save(
        dataset,
        SplitsRecord(
            dataset=dataset,
            type=kind,
            manifests=dict.fromkeys(names, manifest),
            rows=dict.fromkeys(names, len(frame)),
            stratify_by=None,
            group_by=None,
            seed=0,
            data_hash="d0",
        ),
    )
    common = {"dataset": dataset, "recipe": recipe, "training_key": "0123456789ab"}
    numbers = dict.fromkeys(
        (
            "tokens",
            "trainable_tokens",
            "rows_without_trainable_tokens",
            "truncated_rows",
            "cut_answers",
            "double_bos_rows",
        ),
        0,
    )
    base_hash = content_hash(base)
    records.save(
        cell,
        PlanRecord(
            **common,
            **numbers,
            spec=spec.model_dump(mode="json"),
            base=BaseModelRecord(ref=spec.base_model_ref, family="llama", path=str(base), content_hash=base_hash)
            if spec.base_model_ref
            else None,
            model_dir=str(root / "models" / dataset),
            rows={"train": len(frame)},
            stop_token="<|im_end|>",
            stop_token_trained=True,
            chat_template_hash="c",
            prefix_preserving=True,
            packing_efficiency=1.0,
            failures={},
            steps=10,
            precision="fp32",
            gradient_checkpointing=False,
            memory_bytes=1,
            memory_available=0,
            memory_advice=None,
            seconds=None,
            device="cpu",
            example="",
        ),
    )
    run_id = resources["tracking"].start_run("tiny", cell)
    resources["tracking"].end_run(run_id, "FINISHED")
    records.save(
        cell,
        AdapterRecord(
            **common,
            method=spec.method,
            path=str(tuned),
            content_hash="a",
            steps=10,
            resumed_from=None,
            reused=False,
            first_loss=5.0,
            last_loss=1.0,
            eval_loss=1.2,
            seconds=1,
            tokens_per_second=None,
            peak_memory_bytes=None,
            curve=[],
            weight_change=1.0,
            non_finite_weights=0,
            mlflow_run_id=run_id,
        ),
    )
    records.save(
        cell,
        MergedModelRecord(
            **common,
            path=str(tuned),
            content_hash=content_hash(tuned),
            family="llama",
            parameters=40_000,
            chat_template_hash="c",
            max_logit_difference=0.0,
            top1_agreement=1.0,
            differs_from_base=True,
            reloads=True,
        ),
    )


def check_results(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {e.check_name: e for e in result.get_asset_check_evaluations()}


@pytest.fixture(scope="module")
def evaluated(house: House) -> dict[str, dg.ExecuteInProcessResult]:
    return {dataset: house.run("evaluation", cell) for dataset, cell in house.cells.items()}


def metadata_of(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    (event,) = result.get_asset_materialization_events()
    return dict(event.materialization.metadata)


def test_a_model_that_answers_right_is_registered_with_lineage_and_card(house: House, evaluated: dict) -> None:
    cell = house.cells[GOOD]
    found = check_results(evaluated[GOOD])
    assert {name: e.passed for name, e in found.items()} == {
        "accuracy_gate": True,
        "complete": True,
        "answers_end": True,
        "same_alone": True,
        "questions_matter": True,
        "judge_tells_apart": True,
        "beats_base": True,
        "nothing_forgotten": True,
        "no_regression": True,
        "suite_gates": True,
        "suites_unseen": True,
    }
    assert "1.000 (95 % interval 0.982 to 1.000, n = 205)" in found["accuracy_gate"].description
    record = house.records.load(EvaluationRecord, cell)
    assert record.metric("test", "accuracy").value == 1 and record.metric("test", "accuracy", "base").value < 0.2
    assert record.versus_base["test"]["p"] < 1e-9 and set(record.by_category) == {"toll", "refund"}
    rows = read_jsonl(record.answers)
    assert len(rows) == N and all(r["correct"] and r["got"] and "base_got" in r for r in rows)
    shown = metadata_of(evaluated[GOOD])
    assert "data:image/png;base64," in shown["plot"].value and len(shown["plot"].value) < 140_000
    assert "| refund |" in shown["by_category"].value and shown["accuracy"].value == 1.0
    page = Path(record.report).read_text(encoding="utf-8")
    assert "Gate met" in page and "http" not in page.replace("http-equiv", "")
    run_id = house.records.load(AdapterRecord, cell).mlflow_run_id
    assert house.tracking.run_metrics(run_id)["eval/test/accuracy"] == 1

    done = house.run("registered_model", cell)
    registered = house.records.load(RegisteredModelRecord, cell)
    assert house.tracking.model(f"{registered.name}@staging") == registered
    version = house.tracking.version(registered.ref)
    assert version.state == "staging" and version.tags["state"] == "approved"
    assert version.tags["base"] == "corpus@v1|tiny-base" and version.tags["data_hash"] == "d0"
    card = Path(registered.card).read_text(encoding="utf-8")
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "cc-by-4.0" and front["base_model"] == "corpus@v1|tiny-base"
    assert front["model-index"][0]["results"][0]["metrics"][0] == {"type": "accuracy", "name": "accuracy", "value": 1.0}
    assert "## Limits" in card and "시험 자료" in card
    assert metadata_of(done)["model"].value == registered.ref
    page = metadata_of(done)
    assert page["state when registered"].value == "staging" and "state" not in page
    assert page["registry"].value.startswith(f"[{registered.ref}](http")
    assert f"/#/models/{registered.name}/versions/{registered.version})" in page["registry"].value
    assert page["accuracy"].value == shown["accuracy"].value == 1.0, "Dagster plots numbers over time"
    figures = {name: value.value for name, value in shown.items() if isinstance(value.value, float)}
    assert {"accuracy_low", "accuracy_high", "tuned_accuracy_test", "base_accuracy_test"} <= figures.keys()
    # The report opens where MLflow shows a run's artifacts.
    address = shown["open_report"].value
    run = house.tracking._client.get_run(address.split("/runs/")[1].split("/")[0])
    assert "/artifactPath/evaluation/report.html) at 127.0.0.1:" in address
    assert [a.path for a in house.tracking._client.list_artifacts(run.info.run_id, "evaluation")] == [
        "evaluation/report.html"
    ]

    house.tracking.delete_alias(registered.name, "staging")
    house.run("registered_model", cell)
    assert house.records.load(RegisteredModelRecord, cell) == registered, "the same model is the same version"
    assert house.tracking.version(registered.ref).aliases == (), "what a person decided since is left alone"
    house.tracking.set_alias(registered.name, "staging", registered.version)


def test_a_model_that_misses_the_gate_is_withheld_while_its_run_is_green(house: House, evaluated: dict) -> None:
    result = evaluated[BAD]
    assert result.success
    found = check_results(result)
    assert not found["accuracy_gate"].passed and not found["accuracy_gate"].blocking
    assert found["complete"].passed and not found["beats_base"].passed
    assert found["beats_base"].severity == dg.AssetCheckSeverity.WARN
    description = found["accuracy_gate"].description
    assert "0.000 (95 % interval 0.000 to 0.018, n = 205)" in description and "train longer" in description
    assert "| toll |" in metadata_of(result)["worst"].value

    by_hand = house.run("registered_model", house.cells[BAD], raises=False)
    assert not by_hand.success
    failure = by_hand.failure_data_for_node("registered_model")
    assert "is not registered: accuracy of suite test is 0.000" in failure.user_failure_data.description
    assert house.records.find(RegisteredModelRecord, house.cells[BAD]) is None


def test_automation_registers_only_the_models_that_meet_the_gate(house: House, evaluated: dict) -> None:
    instance = house.instance
    for cell in house.cells.values():
        instance.report_runless_asset_event(dg.AssetMaterialization("merged_model", partition=cell))
    first = dg.evaluate_automation_conditions(
        house.defs(), instance, asset_selection=dg.AssetSelection.assets("registered_model")
    )
    for dataset in (GOOD, BAD):
        house.run("evaluation", house.cells[dataset])
    second = dg.evaluate_automation_conditions(
        house.defs(), instance, asset_selection=dg.AssetSelection.assets("registered_model"), cursor=first.cursor
    )
    wanted = second.get_requested_partitions(dg.AssetKey("registered_model"))
    assert wanted == {house.cells[GOOD]}


def test_an_evaluation_of_other_weights_registers_nothing(house: House, evaluated: dict) -> None:
    cell = house.cells[GOOD]
    record = house.records.load(EvaluationRecord, cell)
    house.records.save(cell, record.model_copy(update={"model_hash": "other"}))
    failed = house.run("registered_model", cell, raises=False)
    house.records.save(cell, record)
    assert (
        "evaluation is of the weights other"
        in failed.failure_data_for_node("registered_model").user_failure_data.description
    )


def test_a_pre_trained_model_has_perplexity_and_no_accuracy(house: House, evaluated: dict) -> None:
    record = house.records.load(EvaluationRecord, house.cells[CORPUS])
    assert {m.name for m in record.metrics} == {"perplexity", "bits_per_byte"}
    perplexity = record.metric("test", "perplexity")
    assert perplexity.n == 60 and perplexity.low <= perplexity.value <= perplexity.high
    found = check_results(evaluated[CORPUS])
    assert found["complete"].passed and not found["accuracy_gate"].passed
    assert "perplexity of suite test" in found["accuracy_gate"].description
    assert "guessing at random has 259" in found["beats_base"].description


def test_the_same_questions_are_not_asked_twice(house: House, evaluated: dict) -> None:
    cache = house.root / "artifacts" / "answers"
    before = {p: p.stat().st_mtime_ns for p in cache.glob("*/output.jsonl")}
    # Model and base on two versions' items each, and one corpus.
    assert len(before) == 5
    again = house.run("evaluation", house.cells[GOOD])
    assert {p: p.stat().st_mtime_ns for p in cache.glob("*/output.jsonl")} == before
    versions = [
        e.materialization.tags["dagster/data_version"]
        for r in (evaluated[GOOD], again)
        for e in r.get_asset_materialization_events()
    ]
    assert versions[0] == versions[1]
    damaged = next(iter(before))
    damaged.write_text(json.dumps({"id": "x"}) + "\n")
    house.run("evaluation", house.cells[GOOD])
    house.run("evaluation", house.cells[BAD])
    house.run("evaluation", house.cells[CORPUS])
    assert '"id": "x"' not in damaged.read_text(), "answers that are not what was written are asked for again"


def test_a_missing_suite_is_named(house: House) -> None:
    cell = house.cells[GOOD]
    plan = house.records.load(PlanRecord, cell)
    spec = plan.spec | {"evaluation": plan.spec["evaluation"] | {"suites": ["free@v1"]}}
    house.records.save(cell, plan.model_copy(update={"spec": spec}))
    failed = house.run("evaluation", cell, raises=False)
    house.records.save(cell, plan)
    assert not failed.success
    assert "'splits' has no result for partition 'free@v1'" in str(failed.failure_data_for_node("evaluation").error)


def test_the_model_in_production_is_asked_the_same_and_a_policy_suite_too(house: House, evaluated: dict) -> None:
    cell, base = house.cells[GOOD], house.root / "base"
    lineage = {"dataset": GOOD, "recipe": "older", "content_hash": content_hash(base), "family": "llama"}
    old = house.tracking.register("tiny-desk", base, None, lineage | {"job_type": "SFT"})
    house.tracking.set_alias("tiny-desk", "production", old)
    policy = house.resources["policy"]
    wanted = policy.evaluation.model_copy(update={"suites": {"SFT": [BAD]}})
    house.resources["policy"] = policy.model_copy(update={"evaluation": wanted})
    before = house.records.load(EvaluationRecord, cell)
    try:
        result = house.run("evaluation", cell)
        record = house.records.load(EvaluationRecord, cell)
        withheld = house.run("registered_model", cell, raises=False)
    finally:
        house.resources["policy"] = policy
        house.tracking.delete_alias("tiny-desk", "production")
        house.records.save(cell, before)
    found = {(d.against, d.suite): d for d in record.differences}
    assert set(found) == {(other, suite) for other in ("base", "production") for suite in ("test", BAD)}
    production = found["production", "test"]
    assert production.ref == f"tiny-desk@{old}" and production.only_tuned > 150 and production.p < 1e-9
    assert record.metric(BAD, "accuracy").value == 0
    assert f"Not worse than tiny-desk@{old}" in check_results(result)["no_regression"].description
    assert "tiny-desk@" in metadata_of(result)["differences"].value
    # The suite asks what the model was trained on: its figures say so wherever they are shown, and it goes no further.
    assert record.leaked == {BAD: 1.0}
    verdict = check_results(result)["suites_unseen"]
    assert not verdict.passed and f"trained on items that it was asked: 100.0% of {BAD}" in verdict.description
    warning = f"⚠ 100.0% of the items of {BAD} stand in training rows"
    assert warning in metadata_of(result)["headline"].value and f"| {BAD} ⚠ |" in metadata_of(result)["figures"].value
    assert warning in Path(record.report).read_text(encoding="utf-8")
    assert not withheld.success and any("trained on items that it was asked" in str(e) for e in withheld.all_events)


def test_nothing_heavy_is_imported_by_the_definitions() -> None:
    import subprocess
    import sys

    heavy = {"torch", "mlflow", "matplotlib", "pandas"}
    code = f"import sys, llmops_assets.evaluation.checks; print({heavy} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ), check=True
    )
    assert done.stdout.strip() == "set()"
