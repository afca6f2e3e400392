"""Preferences, encoders and readers through the graph, from the plan to the registry, and what stops each of them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest

from llmops_assets.evaluation import assets as evaluation_assets
from llmops_assets.evaluation import checks as evaluation_checks
from llmops_assets.partitions import dataset_versions
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.registry import assets as registry_assets
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.training import assets, checks
from llmops_assets.training.base import inspect_base
from resources import content
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.engines import Engines
from resources.records import Records
from resources.tracking import Tracking
from resources.trainer import Trainer
from tests.training.conftest import Desk, add_cell, run_here, write_splits
from tests.training.job_data import DATASETS, FRAMES, job_spec, make_base, rated_frame

SIZES = {"train": 96, "validation": 24, "test": 40}
NAMES = ("training_plan", "adapter", "merged_model", "evaluation", "registered_model")


class Here(Trainer):
    """The worker in this process, which has paid for its imports; as a process it is tested beside."""

    def run(self, context: Any, job: Any, *, work_dir: Path | str, on_metrics: Any = None) -> dict[str, Any]:
        work_dir = Path(work_dir)
        work_dir.mkdir(parents=True, exist_ok=True)
        return run_here(job, work_dir)


class House:
    """One installation whose dataset stages are done, with an approved base for each kind of job."""

    def __init__(self, root: Path, instance: dg.DagsterInstance, store: DatasetStore, tokenizer: Path) -> None:
        self.instance = instance
        catalog, self.records = Catalog(f"sqlite:///{root}/catalog.db"), Records(root / "records")
        policy = load_policy()
        small = {job: gate.model_copy(update={"n_at_least": 20, "at_least": 0.0}) for job, gate in policy.gates.items()}
        gates = {**policy.gates, **{job: gate for job, gate in small.items() if gate.at_most is None}}
        self.policy = policy.model_copy(update={"gates": gates})
        self.resources = {
            "settings": Settings(home=root, _env_file=None),
            "records": self.records,
            "store": store,
            "artifacts": Artifacts(root / "artifacts"),
            "catalog": catalog,
            "policy": self.policy,
            "tracking": Tracking(f"sqlite:///{root}/mlflow.db"),
            "trainer": Here(locks=root / "locks"),
            "engines": Engines(root / "engines"),
        }
        self.refs = {
            family: self.register(make_base(family, root / family, tokenizer), family) for family in ("qwen", "bert")
        }
        for job, make in FRAMES.items():
            frames = {split: make(count, seed).pipe(_common) for seed, (split, count) in enumerate(SIZES.items())}
            self.add(DATASETS[job], {v: k for k, v in TYPES.items()}[job], write_splits(store, DATASETS[job], frames))

    def register(self, folder: Path, family: str) -> str:
        catalog, ref = self.resources["catalog"], f"hf:{folder}"
        found = inspect_base(ref, family, self.policy)
        catalog.register_base(ref, family=family, path=ref, content_hash=found.content_hash, license="test")
        catalog.approve_base(ref, "a person")
        return ref

    def add(self, key: str, kind: str, manifests: dict[str, str]) -> None:
        name, version = key.split("@")
        entry = {"name": name, "version": version, "type": kind, "files": ["x.jsonl"], "owner": "team:tests"}
        self.resources["catalog"].register_dataset(DatasetSpec.model_validate({**entry, "description": "a test"}), "0")
        common = {"stratify_by": None, "group_by": None, "seed": 0, "data_hash": f"hash-of-{key}"}
        self.records.save(key, SplitsRecord(dataset=key, type=kind, manifests=manifests, rows=dict(SIZES), **common))
        self.instance.add_dynamic_partitions(dataset_versions.name, [key])

    def request(self, recipe: dict[str, Any], dataset: str) -> str:
        return add_cell(self.resources["catalog"], self.instance, recipe, dataset)

    def run(self, cell: str, *names: str, raises: bool = True) -> dg.ExecuteInProcessResult:
        upstream = [dg.AssetSpec("splits", partitions_def=dataset_versions)]
        modules = [assets, evaluation_assets, registry_assets]
        defs = dg.Definitions(
            assets=[*upstream, *dg.load_assets_from_modules(modules)],
            asset_checks=dg.load_asset_checks_from_modules([checks, evaluation_checks]),
            jobs=[dg.define_asset_job("cell", selection=dg.AssetSelection.assets(*(names or NAMES)))],
            resources=self.resources,
        )
        return defs.resolve_job_def("cell").execute_in_process(
            instance=self.instance, partition_key=cell, raise_on_error=raises
        )


TYPES = {"rlhf_pair": "RLHF", "embedding_pair": "EMBEDDING", "rag_qa": "RAG_TUNING"}


def _common(frame: pl.DataFrame) -> pl.DataFrame:
    """The columns that every ingested row has."""
    nothing = pl.lit(None, pl.String)
    return frame.with_columns(
        source=nothing, category=nothing, quality_score=pl.lit(None, pl.Float64), extra=nothing, file=nothing, line=1
    )


@pytest.fixture(scope="module")
def house(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    root = tmp_path_factory.mktemp("job-house")
    with dg.instance_for_test(temp_dir=str(root)) as instance:
        yield House(root, instance, desk.store, tiny_base)


def failed(result: dg.ExecuteInProcessResult) -> dict[str, str]:
    return {e.check_name: e.description or "" for e in result.get_asset_check_evaluations() if not e.passed}


RL = {"ppo_steps": 3, "max_new_tokens": 8, "reward_lr": 1e-2}


@pytest.fixture(scope="module")
def aligned(house: House) -> str:
    """A policy that was optimised against a reward model of its own, through the graph."""
    spec = job_spec("RLHF", "qwen", house.refs["qwen"], "lora", rlhf=RL, max_steps=10, lr=1e-3)
    spec["evaluation"] = {"max_new_tokens": 8}
    cell = house.request(spec, DATASETS["RLHF"])
    result = house.run(cell)
    # Twenty steps of a random model make no better one than its base: nothing else may be wrong.
    assert set(failed(result)) <= {"beats_base"}
    return cell


def test_a_policy_is_judged_by_its_reward_model_and_duels_with_its_base(house: House, aligned: str) -> None:
    record, plan = house.records.load(EvaluationRecord, aligned), house.records.load(PlanRecord, aligned)
    assert record.metric("test", "preference_accuracy").value > 0.8
    assert record.metric("test", "win_rate").n == SIZES["test"]
    paired = record.versus_base["test"]
    assert paired["only_tuned"] + paired["only_base"] + paired["both"] + paired["neither"] == SIZES["test"]
    assert plan.steps == 3 and plan.figures["pairs"] == SIZES["train"]
    registered = house.records.load(RegisteredModelRecord, aligned)
    assert registered.job_type == "RLHF"
    adapter = house.records.load(AdapterRecord, aligned)
    assert adapter.curve[-1].kl is not None and adapter.figures["answer_spread"] > 0.5
    metrics = house.resources["tracking"].run_metrics(adapter.mlflow_run_id)
    assert metrics["eval/test/preference_accuracy"] > 0.8


def test_another_policy_is_trained_against_the_reward_model_of_an_earlier_one(house: House, aligned: str) -> None:
    spec = job_spec(
        "RLHF", "qwen", house.refs["qwen"], "lora", rlhf={**RL, "reward_lr": None, "reward_model_ref": aligned}
    )
    cell = house.request(spec, DATASETS["RLHF"])
    assert house.run(cell, "training_plan", "adapter").success
    plan, first = house.records.load(PlanRecord, cell), house.records.load(PlanRecord, aligned)
    reward = Path(first.model_dir) / "reward"
    assert plan.auxiliary_models["reward"].path == str(reward)
    assert plan.auxiliary_models["reward"].content_hash == content.content_hash(reward)
    assert not (Path(plan.model_dir) / "reward").exists()
    # The same by name: registered from its folder, and refused where it is no reward model.
    named = house.register(reward, "qwen")
    also = house.request({**spec, "rlhf": {**spec["rlhf"], "reward_model_ref": named}}, DATASETS["RLHF"])
    assert house.run(also, "training_plan").success
    for ref, reason in ((house.refs["qwen"], "is no reward model"), ("pairs@v1|nowhere", "is not there")):
        wrong = house.request({**spec, "rlhf": {**spec["rlhf"], "reward_model_ref": ref}}, DATASETS["RLHF"])
        result = house.run(wrong, "training_plan", raises=False)
        assert not result.success and reason in _why(result, "training_plan")


def test_dpo_is_judged_by_the_models_own_preference(house: House) -> None:
    dpo = {"algorithm": "dpo", "ppo_steps": None, "max_new_tokens": None}
    spec = job_spec("RLHF", "qwen", house.refs["qwen"], "full", rlhf=dpo, max_steps=6, lr=3e-3)
    cell = house.request(spec, DATASETS["RLHF"])
    assert set(failed(house.run(cell))) <= {"beats_base"}
    record = house.records.load(EvaluationRecord, cell)
    assert record.metric("test", "preference_accuracy").value > 0.9
    assert record.metric("test", "likelihood_accuracy", "base") is not None


def test_kto_is_judged_by_good_and_bad_answers_put_together(house: House) -> None:
    frames = {split: rated_frame(count, seed).pipe(_common) for seed, (split, count) in enumerate(SIZES.items())}
    house.add("rated@v1", "kto", write_splits(house.resources["store"], "rated@v1", frames))
    kto = {"algorithm": "kto", "ppo_steps": None, "max_new_tokens": None}
    spec = job_spec("RLHF", "qwen", house.refs["qwen"], "full", rlhf=kto, max_steps=12, lr=1e-2)
    cell = house.request(spec, "rated@v1")
    result = house.run(cell, raises=False)
    # 40 rows of the test split make 14 twos: too few for the gate, enough to be judged.
    assert set(failed(result)) <= {"beats_base", "enough_items", "accuracy_gate", "gate"}, failed(result)
    record = house.records.load(EvaluationRecord, cell)
    assert record.metric("test", "preference_accuracy").value > 0.9 and record.items["test"] == 14
    plan = house.records.load(PlanRecord, cell)
    assert plan.figures["desirable"] == 32 and plan.figures["desirable_weight"] == 2.0


def test_an_encoder_finds_more_than_the_untrained_one_and_is_registered(house: House) -> None:
    spec = job_spec("EMBEDDING", "bert", house.refs["bert"], max_steps=60, num_epochs=10, lr=2e-3)
    cell = house.request(spec, DATASETS["EMBEDDING"])
    assert set(failed(house.run(cell))) <= {"beats_base"}
    record = house.records.load(EvaluationRecord, cell)
    tuned, base = (record.metric("test", "recall_at_10", model).value for model in ("tuned", "base"))
    assert tuned > base + 0.2
    assert record.metric("test", "mrr_at_10").low < record.metric("test", "mrr_at_10").value
    assert house.records.load(MergedModelRecord, cell).figures["pooling"] == "mean"
    card = Path(house.records.load(RegisteredModelRecord, cell).card).read_text()
    assert "SentenceTransformer" in card and "sentence-similarity" in card

    # What it was pooled by stays with it: a training that goes on from it may choose no other.
    other = job_spec("EMBEDDING", "bert", cell, max_steps=2, embedding={"pooling": "cls"})
    result = house.run(house.request(other, DATASETS["EMBEDDING"]), "training_plan", raises=False)
    assert "was trained with mean pooling" in _why(result, "training_plan")


def test_a_reader_is_asked_with_what_its_retriever_finds_and_with_what_it_should_have(house: House) -> None:
    rag = {"retriever_model_ref": house.refs["bert"]}
    spec = job_spec("RAG_TUNING", "qwen", house.refs["qwen"], "lora", rag=rag, max_seq_len=256, max_steps=6)
    spec["evaluation"] = {"max_new_tokens": 8}
    cell = house.request(spec, DATASETS["RAG_TUNING"])
    # A reader of six steps says nothing, which ends the run where it should, after the evaluation.
    assert set(failed(house.run(cell, raises=False))) <= {"answers_end", "beats_base", "complete"}
    record = house.records.load(EvaluationRecord, cell)
    assert record.metric("test", "accuracy").n == record.metric("gold", "accuracy").n == SIZES["test"]
    assert record.metric("test", "groundedness").n == record.metric("gold", "groundedness").n == SIZES["test"]
    for model in ("tuned", "base"):
        assert 0 <= record.metric("retrieval", "recall_at_10", model).value <= 1
    folder = Path(house.records.load(MergedModelRecord, cell).path)
    assert {"rag.json", "retriever", "index", "model.safetensors"} <= {path.name for path in folder.iterdir()}
    wrong = {**spec, "rag": {**spec["rag"], "retriever_model_ref": "hf:/nowhere"}}
    result = house.run(house.request(wrong, DATASETS["RAG_TUNING"]), "training_plan", raises=False)
    assert "is not registered" in _why(result, "training_plan")


def test_data_that_teaches_nothing_stops_each_training_before_it_starts(house: House) -> None:
    store: DatasetStore = house.resources["store"]
    pairs = FRAMES["RLHF"](24).pipe(_common)
    anchors = FRAMES["EMBEDDING"](24).pipe(_common)
    reading = FRAMES["RAG_TUNING"](24).pipe(_common)
    cases = [
        ("RLHF", "same@v1", pairs.with_columns(rejected=pairs["chosen"]), {"rlhf": {}}, "pairs_differ"),
        (
            "EMBEDDING",
            "against@v1",
            anchors.with_columns(negatives=anchors["positives"]),
            {},
            "no_contradictions",
        ),
        (
            "RAG_TUNING",
            "long@v1",
            reading,
            {"rag": {"retriever_model_ref": house.refs["bert"]}, "max_seq_len": 48},
            "prompts_have_room",
        ),
    ]
    kinds = {job: kind for kind, job in TYPES.items()}
    for job, dataset, frame, changes, check in cases:
        house.add(dataset, kinds[job], write_splits(store, dataset, {split: frame for split in SIZES}))
        family = "bert" if job == "EMBEDDING" else "qwen"
        cell = house.request(job_spec(job, family, house.refs[family], **changes), dataset)
        result = house.run(cell, "training_plan", "adapter", raises=False)
        assert not result.success and check in failed(result)
        assert house.records.find(AdapterRecord, cell) is None


def _why(result: dg.ExecuteInProcessResult, step: str) -> str:
    event = next(e for e in result.all_events if e.is_step_failure and e.step_key.startswith(step))
    return str(event.step_failure_data.error.to_string()) + str(event.step_failure_data.user_failure_data)
