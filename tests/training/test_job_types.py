"""Every job type, by every method, on a tiny model of every family it is for: plan, train, merge and reload."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from llmops_assets.specs.families import verify_family
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.auxiliary_models import pooling_of, verify_reward
from resources import content
from tests.training.conftest import Desk, of_task, run_here, write_splits
from tests.training.job_data import (
    DATASETS,
    FRAMES,
    embedding_frame,
    job_spec,
    make_base,
    preference_frame,
    rag_frame,
    rated_frame,
    scored_frame,
)

SIZES = {"train": 48, "validation": 12, "test": 24}
FAMILIES = ("llama", "mistral", "gemma", "qwen", "bert")


class Bench:
    """The desk's rows for every job type, and a tiny base of every family."""

    def __init__(self, desk: Desk, root: Path, tokenizer: Path) -> None:
        self.desk = desk
        self.manifests = {job: self.splits(job, DATASETS[job], make) for job, make in FRAMES.items()}
        self.manifests["KTO"] = self.splits("KTO", "rated@v1", rated_frame)
        self.manifests["STS"] = self.splits("STS", "scored@v1", scored_frame)
        self.bases = {family: make_base(family, root / family, tokenizer) for family in FAMILIES}

    def splits(self, job: str, dataset: str, make: Any) -> dict[str, str]:
        frames = {split: make(count, seed) for seed, (split, count) in enumerate(SIZES.items())}
        return write_splits(self.desk.store, dataset, frames)

    def jobs(
        self, spec: dict[str, Any], folder: Path, rows: str | None = None, **more: Any
    ) -> dict[str, dict[str, Any]]:
        """The worker's jobs of one training in `folder`, by task."""
        kind = spec["job_type"]
        checked = TrainJobSpec.model_validate({**spec, "dataset_ref": DATASETS[kind]})
        base = self.bases[spec["model_family"]]
        encoder = self.bases["bert"] if kind == "RAG_TUNING" else base
        common = {
            "spec": checked.model_dump(mode="json"),
            "base": {"path": str(base)},
            "plan_dir": str(folder / "plan"),
            "pooling": pooling_of(None, encoder) if checked.embedding else None,
            "precision": "fp32",
            "stop_token": "<|im_end|>",
            **({"retriever": {"path": str(encoder)}} if kind == "RAG_TUNING" else {}),
        }
        train = {
            "checkpoints": str(folder / "checkpoints"),
            "output": str(folder / "adapter"),
            "device": "cpu",
            "gradient_checkpointing": False,
        }
        merge = {"adapter": str(folder / "adapter"), "output": str(folder / "merged")}
        rows = rows or ("KTO" if checked.dataset_type == "kto" else kind)
        plan = {"store": str(self.desk.store.root), "manifests": self.manifests[rows]}
        return {
            "plan": of_task("plan", {**common, **plan, **more}),
            "train": of_task("train", {**common, **train}),
            "merge": of_task("merge", {**common, **merge}),
        }

    def run(self, spec: dict[str, Any], folder: Path, **more: Any) -> dict[str, dict[str, Any]]:
        jobs = self.jobs(spec, folder, **more)
        return {task: run_here(jobs[task], folder) for task in ("plan", "train", "merge")}


@pytest.fixture(scope="module")
def bench(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(desk, tmp_path_factory.mktemp("bases"), tiny_base)


DPO = {"algorithm": "dpo", "ppo_steps": None, "max_new_tokens": None}


@pytest.mark.parametrize(
    ("family", "method", "algorithm"),
    [
        ("llama", "full", "dpo"),
        ("mistral", "lora", "dpo"),
        ("gemma", "qlora", "dpo"),
        ("qwen", "full", "kto"),
        ("llama", "lora", "kto"),
        ("gemma", "qlora", "kto"),
        ("qwen", "full", "rloo"),
        ("gemma", "lora", "rloo"),
        ("llama", "qlora", "rloo"),
        ("mistral", "full", "grpo"),
        ("qwen", "lora", "grpo"),
    ],
)
def test_preferences_train_a_policy_of_every_family(
    bench: Bench, tmp_path: Path, family: str, method: str, algorithm: str
) -> None:
    rlhf = {**DPO, "algorithm": algorithm} if algorithm in ("dpo", "kto") else {"algorithm": algorithm}
    # Enough steps for a reward model to tell a polite answer from a rude one.
    found = bench.run(job_spec("RLHF", family, "hf:x", method, rlhf=rlhf, max_steps=6, lr=1e-2), tmp_path)
    plan, train, merge = found["plan"], found["train"], found["merge"]
    assert plan["stop_token"] == "<|im_end|>" and plan["stop_token_trained"] and plan["prefix_preserving"]
    assert plan["figures"]["same_pairs"] == 0 and plan["rows"]["train"] == 48
    assert train["weight_change"] > 0 and train["non_finite_weights"] == 0
    assert train["figures"]["reward_accuracy"] > 0.8
    assert merge["reloads"] and merge["differs_from_base"]
    assert (merge["max_logit_difference"] or 0.0) < 1e-3
    # What it was held to is its base, to the end; in four bits that is another model, and not compared.
    assert (merge.get("reference_difference", 1.0) < 1e-3) is (method != "qlora"), merge.get("reference_difference")
    # Of all the pairs that are there to judge on, not of those of one batch.
    assert train["figures"]["reward_pairs"] == (plan["rows"].get("validation") or plan["rows"]["train"])
    if algorithm == "kto":
        # A third of the answers are good: one weighs as much as two bad ones.
        figures = plan["figures"]
        assert (figures["desirable"], figures["undesirable"]) == (16, 32)
        assert (figures["desirable_weight"], figures["undesirable_weight"], figures["weight_ratio"]) == (2.0, 1.0, 1.0)
        assert "**desirable**" in plan["example"] and "**undesirable**" in plan["example"]
        assert train["figures"]["chosen_reward"] > train["figures"]["rejected_reward"]
    if algorithm in ("dpo", "kto"):
        assert train["last_loss"] < train["first_loss"]
        return
    assert train["steps"] == 2 and abs(train["figures"]["kl"]) < 1
    assert train["figures"]["reward_last_loss"] < train["figures"]["reward_first_loss"]
    assert train["figures"]["answer_spread"] > 0.5
    reward = tmp_path / "reward"
    verify_reward(json.loads((reward / "config.json").read_text()), load_policy(), "the reward model")
    # The reward model is whole: an adapter it was trained with is in it.
    assert not (reward / "adapter_config.json").exists() and folders.facts(reward)["steps"] == 6


def test_scores_order_the_cosines_of_an_encoder(bench: Bench, tmp_path: Path) -> None:
    spec = job_spec("EMBEDDING", "bert", "hf:x", max_steps=30, num_epochs=10, lr=2e-3, batch_size=16)
    found = bench.run(spec, tmp_path, rows="STS")
    assert found["plan"]["figures"]["scored"] == 48
    # Twelve pairs of the validation split say little of a rank correlation; the loss is of all 48.
    assert found["train"]["last_loss"] < 0.7 * found["train"]["first_loss"]
    assert 0 < found["train"]["figures"]["score_spearman"] <= 1 and found["train"]["figures"]["scored_pairs"] == 12


@pytest.mark.parametrize(
    ("family", "method"),
    [("bert", "full"), ("bert", "lora"), ("bert", "qlora"), ("qwen", "full"), ("qwen", "qlora"), ("mistral", "lora")],
)
def test_an_encoder_of_every_family_is_trained_and_served_with_its_own_pooling(
    bench: Bench, tmp_path: Path, family: str, method: str
) -> None:
    prompts = {"query_prompt": "query: ", "passage_prompt": "passage: "}
    found = bench.run(job_spec("EMBEDDING", family, "hf:x", method, embedding=prompts, max_steps=6), tmp_path)
    train, merge = found["train"], found["merge"]
    # Six steps may not lower the loss; that training does is shown through the graph.
    assert train["weight_change"] > 0 and train["non_finite_weights"] == 0
    assert train["figures"]["cosine_own"] > train["figures"]["cosine_others"]
    assert merge["top1_agreement"] == 1.0 and merge["max_logit_difference"] < 1e-3
    assert merge["differs_from_base"] and merge["reloads"]
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(tmp_path / "merged"), local_files_only=True)
    assert np.allclose(np.linalg.norm(model.encode(["통행료"]), axis=1), 1, atol=1e-5)
    assert model.prompts == {"query": "query: ", "document": "passage: "}
    assert pooling_of(None, tmp_path / "merged") == ("mean" if family == "bert" else "lasttoken")
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    verify_family(load_policy().families, family, config, "EMBEDDING")


@pytest.mark.parametrize(("family", "method"), [("llama", "full"), ("mistral", "lora"), ("qwen", "qlora")])
def test_a_reader_of_every_family_is_trained_with_its_retriever_and_index(
    bench: Bench, tmp_path: Path, family: str, method: str
) -> None:
    found = bench.run(job_spec("RAG_TUNING", family, "hf:x", method, max_seq_len=256, max_steps=4), tmp_path)
    plan, train, merge = found["plan"], found["train"], found["merge"]
    assert plan["cut_answers"] == 0 and plan["figures"]["retriever_rows"] == 48
    assert train["weight_change"] > 0 and train["figures"]["retriever_change"] > 0
    assert (merge["max_logit_difference"] or 0.0) < 1e-3 and merge["reloads"] and merge["differs_from_base"]
    assert merge["figures"]["retriever_top1_agreement"] == 1.0 and merge["figures"]["found_again"] == 1.0
    reader = json.loads((tmp_path / "merged" / "rag.json").read_text())
    index = tmp_path / "merged" / reader["index"]
    assert json.loads((index / "index.json").read_text())["passages"] == merge["figures"]["indexed"]
    assert (tmp_path / "merged" / reader["retriever"] / "modules.json").exists()
    # What a reader is made of is in its hash: another template is another model.
    before = content.content_hash(tmp_path / "merged")
    (tmp_path / "merged" / "rag.json").write_text(json.dumps({**reader, "template": "{question} {context}"}))
    assert content.content_hash(tmp_path / "merged") != before


def test_a_policy_that_was_cut_off_keeps_its_reward_model_and_ends_with_the_same_weights(
    bench: Bench, tmp_path: Path
) -> None:
    spec = job_spec("RLHF", "qwen", "hf:x", "lora", rlhf={"ppo_steps": 4}, save_steps=2)
    bench.run(spec, tmp_path)
    whole = (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes()
    import shutil

    shutil.rmtree(tmp_path / "adapter")
    shutil.rmtree(tmp_path / "checkpoints" / "checkpoint-4")
    again = run_here(bench.jobs(spec, tmp_path)["train"], tmp_path)
    assert again["resumed_from"] == 2
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == whole
    metrics = [json.loads(line) for line in (tmp_path / "train.metrics").read_text().splitlines()]
    assert {line.get("phase") for line in metrics} == {None, "reward model"}


def test_pairs_that_teach_nothing_are_counted_and_named(bench: Bench, tmp_path: Path) -> None:
    frame = preference_frame(6)
    same = frame.with_columns(rejected=frame["chosen"])
    long = frame.with_columns(
        prompt=pl.Series([[{"role": "user", "content": "길다 " * 200}]] * 6), row_id=frame["row_id"] + "-long"
    )
    manifests = write_splits(bench.desk.store, "odd-pairs@v1", {"train": same.vstack(long), "validation": frame})
    jobs = bench.jobs(job_spec("RLHF", "qwen", "hf:x"), tmp_path, manifests=manifests)
    facts = run_here(jobs["plan"], tmp_path)
    assert facts["figures"]["same_pairs"] == 6 and facts["failures"]["same_pairs"] == same["row_id"].to_list()
    assert facts["rows_without_trainable_tokens"] == facts["figures"]["prompts_without_room"] == 6


def test_a_negative_that_belongs_to_its_anchor_is_found_and_never_trained(bench: Bench, tmp_path: Path) -> None:
    frame = embedding_frame(12)
    wrong = frame.head(2).with_columns(negatives=frame.head(2)["positives"], row_id=pl.Series(["wrong-1", "wrong-2"]))
    manifests = write_splits(bench.desk.store, "odd@v1", {"train": frame.vstack(wrong), "validation": frame})
    jobs = bench.jobs(job_spec("EMBEDDING", "bert", "hf:x"), tmp_path, manifests=manifests)
    facts = run_here(jobs["plan"], tmp_path)
    assert facts["figures"]["contradictions"] == 2 and facts["failures"]["contradicted"] == ["wrong-1", "wrong-2"]
    rows = pl.read_parquet(tmp_path / "plan" / "train.parquet")
    assert not any(set(n) & set(k) for n, k in rows.select("negative_keys", "known").iter_rows())

    from images.train.encoder import allowed

    # Two rows of one passage are no negatives of each other.
    mask = allowed([7, 8, 7, 9], [[7], [8], [7, 9]])
    assert mask.tolist() == [[True, True, False, True], [True, True, True, True], [False, True, True, False]]


def test_prompts_that_are_cut_are_told_before_a_reader_is_trained(bench: Bench, tmp_path: Path) -> None:
    frame = rag_frame(8)
    bare = frame.with_columns(positives=pl.Series([[]] * 7 + [["한 문서"]], dtype=pl.List(pl.String)))
    manifests = write_splits(bench.desk.store, "cut@v1", {"train": bare, "validation": frame, "test": frame})
    spec = job_spec("RAG_TUNING", "qwen", "hf:x", max_seq_len=64)
    facts = run_here(bench.jobs(spec, tmp_path, manifests=manifests)["plan"], tmp_path)
    assert facts["truncated_rows"] == 8 and facts["figures"]["questions_without_passage"] == 7


def test_equal_vectors_find_nothing() -> None:
    from images.ask.retrieve import ranks

    assert ranks(np.array([0.9, 0.5, 0.7, 0.1]), [0, 1]) == [1, 3]
    assert ranks(np.array([0.5, 0.5, 0.5, 0.5]), [2]) == [4]
