"""A small desk of questions and answers, and a model of some thousand weights made by the worker itself."""

import json
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import dagster as dg
import polars as pl
import pytest

from llmops_assets.partitions import recipes
from llmops_assets.records.jobs import JOBS, Job, MemoryEstimate, read_job
from llmops_assets.specs.names import training_key
from llmops_assets.specs.training import TrainJobSpec
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.trainer import Trainer

ANSWERS = {
    "통행료": "통행료는 요금소에서 카드로 낼 수 있습니다.",
    "환불": "환불은 사흘 안에 처리됩니다.",
    "휴게소": "다음 휴게소까지 20 km 남았습니다.",
    "lost umbrella": "Ask at the desk of the next rest area.",
    "receipt": "Receipts are kept for a year.",
}
OPENERS = ["안녕하세요,", "저기요,", "Hello,", "급합니다.", ""]
ENDINGS = ["알려 주세요.", "어떻게 하나요?", "please.", "궁금합니다.", "도와주세요."]


def conversations(count: int, seed: int = 0) -> list[list[dict[str, str]]]:
    """`count` short conversations, some of two turns."""
    rng = random.Random(seed)

    def turn() -> list[dict[str, str]]:
        topic = rng.choice(list(ANSWERS))
        question = f"{rng.choice(OPENERS)} {topic} {rng.choice(ENDINGS)}".strip()
        return [{"role": "user", "content": question}, {"role": "assistant", "content": ANSWERS[topic]}]

    return [turn() + (turn() if rng.random() < 0.2 else []) for _ in range(count)]


def chat_frame(messages: list[list[dict[str, str]]]) -> pl.DataFrame:
    return pl.DataFrame({"row_id": [f"row-{i:04d}" for i in range(len(messages))], "messages": messages})


def corpus_frame(count: int, seed: int = 0) -> pl.DataFrame:
    texts = [" ".join(m["content"] for m in c) for c in conversations(count, seed)]
    return pl.DataFrame({"row_id": [f"doc-{i:04d}" for i in range(count)], "text": texts})


def write_splits(store: DatasetStore, dataset: str, frames: dict[str, pl.DataFrame]) -> dict[str, str]:
    """Manifest id by split."""
    place = {"file": pl.lit("rows.jsonl"), "line": pl.int_range(1, pl.len() + 1, dtype=pl.Int64)}
    return {
        split: store.write(frame.with_columns(**place), kind="rows", dataset=dataset, step="splits", config_hash="test")
        for split, frame in frames.items()
    }


def pretrain_spec(**hyperparams: Any) -> dict[str, Any]:
    return {
        "job_type": "PRETRAIN",
        "model_family": "llama",
        "method": "full",
        "hyperparams": {
            "lr": 5e-3,
            "batch_size": 8,
            "num_epochs": 4,
            "max_seq_len": 64,
            "max_steps": 20,
            "save_steps": 10,
            "scheduler": "cosine",
            **hyperparams,
        },
        "resources": {"gpus": 0},
        "output": {"artifact_name": "tiny-base"},
        "architecture": {
            "hidden_size": 32,
            "num_layers": 2,
            "num_heads": 4,
            "num_kv_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 256,
            "initializer_range": 0.05,
        },
        "tokenizer": {"vocab_size": 400},
    }


def sft_spec(base: str, method: str = "lora", **hyperparams: Any) -> dict[str, Any]:
    lora = {"lora_rank": 4, "train_embeddings": True} if method != "full" else {}
    return {
        "job_type": "SFT",
        "model_family": "llama",
        "base_model_ref": base,
        "method": method,
        "hyperparams": {
            "lr": 5e-3,
            "batch_size": 4,
            "num_epochs": 4,
            "max_seq_len": 192,
            "max_steps": 12,
            "save_steps": 4,
            **lora,
            **hyperparams,
        },
        "resources": {"gpus": 0},
        "output": {"artifact_name": "tiny-desk"},
    }


class Desk:
    """A store with the small desk in it, and what is needed to run the worker on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.store = DatasetStore(root / "store")
        self.chat = write_splits(
            self.store,
            "desk@v1",
            {name: chat_frame(conversations(n, i)) for i, (name, n) in enumerate(SIZES.items())},
        )
        self.corpus = write_splits(
            self.store, "corpus@v1", {name: corpus_frame(4 * n, i) for i, (name, n) in enumerate(SIZES.items())}
        )
        self.trainer = Trainer(locks=root / "locks", threads=1)

    def jobs(self, spec: dict[str, Any], folder: Path, base: Path | None = None, **more: Any) -> dict[str, dict]:
        """The worker's jobs of one training in `folder`, by task."""
        dataset = "corpus@v1" if spec["job_type"] == "PRETRAIN" else "desk@v1"
        checked = TrainJobSpec.model_validate({**spec, "dataset_ref": dataset}).model_dump(mode="json")
        common = {"spec": checked, "base": {"path": str(base)} if base else None, "plan_dir": str(folder / "plan")}
        manifests = self.corpus if spec["job_type"] == "PRETRAIN" else self.chat
        train = {
            "task": "train",
            "checkpoints": str(folder / "checkpoints"),
            "output": str(folder / "adapter"),
            "precision": "fp32",
            "device": "cpu",
            "gpus": 0,
            "gradient_checkpointing": False,
            "family_version": "3.0",
            "stop_token": "<|im_end|>",
        }
        merge = {
            "task": "merge",
            "adapter": str(folder / "adapter"),
            "output": str(folder / "merged"),
            "precision": "fp32",
            "stop_token": "<|im_end|>",
        }
        return {
            "plan": of_task("plan", {**common, "store": str(self.store.root), "manifests": manifests, **more}),
            "train": of_task("train", {**common, **train, **more}),
            "merge": of_task("merge", {**common, **merge, **more}),
        }


SIZES = {"train": 60, "validation": 8, "test": 8}


@pytest.fixture(scope="session")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return Desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture(scope="session")
def tiny_base(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model pre-trained from nothing by the worker, in this process."""
    folder = tmp_path_factory.mktemp("base")
    jobs = desk.jobs(pretrain_spec(), folder)
    for task in ("plan", "train"):
        run_here(jobs[task], folder)
    return folder / "adapter"


class StandIn(Job):
    """A job that the worker does not know."""

    module: ClassVar[str] = "images.train"
    kills: int = 0
    memory: MemoryEstimate | None = None


def typed(job: Mapping[str, Any] | Job) -> Job:
    """A job as the worker reads it: what it does not know is refused."""
    return job if isinstance(job, Job) else read_job(json.dumps(job))


def of_task(task: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The job of another task on the same things: those of `values` that it has."""
    return {name: value for name, value in values.items() if name in JOBS[task].model_fields} | {"task": task}


def run_here(job: Mapping[str, Any] | Job, folder: Path, log: Callable[[str], None] | None = None) -> dict[str, Any]:
    """Run a worker task in this process, which has paid for its imports already."""
    job = typed(job)
    import importlib

    import torch

    from images.train.reporter import Reporter

    torch.set_num_threads(1)
    reporter = Reporter({"metrics": str(folder / f"{job.task}.metrics")})
    if log is not None:
        handler = logging.Handler()
        handler.emit = lambda record: log(record.getMessage())
        reporter.log.addHandler(handler)
    return importlib.import_module(f"{job.module}.{job.task}").run(job, reporter)


def add_cell(catalog: Catalog, instance: dg.DagsterInstance, recipe: dict[str, Any], dataset: str) -> str:
    """Keep a recipe, add its partition, and return the key of its cell with `dataset`."""
    spec = TrainJobSpec.from_recipe(recipe, dataset)
    key = spec.recipe_key()
    catalog.add_recipe(key, spec.recipe())
    instance.add_dynamic_partitions(recipes.name, [key])
    return training_key(dataset, key)
