"""A batch that breaks the loss is named by its rows, whatever is trained: pairs, rewards, policies and encoders."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from images.train.progress import Diverged
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.auxiliary_models import pooling_of
from resources.trainer import TrainerError
from tests.training.conftest import Desk, of_task, run_here, typed, write_splits
from tests.training.job_data import DATASETS, FRAMES, job_spec, make_base

ROWS = 15
SIGN = "≋"
DPO = {"algorithm": "dpo", "ppo_steps": None, "max_new_tokens": None}
KINDS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dpo": ("RLHF", "llama", {"rlhf": DPO}),
    "reward": ("RLHF", "llama", {"rlhf": {"algorithm": "rloo"}}),
    "rloo": ("RLHF", "llama", {"rlhf": {"algorithm": "rloo", "ppo_steps": 30, "num_generations": 4}}),
    "grpo": ("RLHF", "llama", {"rlhf": {"algorithm": "grpo", "ppo_steps": 30, "num_generations": 4}}),
    "embedding": ("EMBEDDING", "bert", {}),
}


def with_sign(frame: pl.DataFrame) -> pl.DataFrame:
    """`frame` with one more row, the only one whose question has the sign."""
    row = frame.row(0, named=True) | {"row_id": "odd-one"}
    if "anchor" in row:
        row["anchor"] = SIGN
    else:
        row["prompt"] = [{"role": "user", "content": SIGN}]
    return pl.concat([frame, pl.DataFrame([row], schema=frame.schema)])


def break_sign(base: Path) -> None:
    """Make the embedding of a token that stands for the sign alone no number, and leave the head as it was."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    texts = [str(row) for make in FRAMES.values() for row in make(ROWS).to_dicts()]
    others = {token for text in texts for token in tokenizer(text, add_special_tokens=False)["input_ids"]}
    alone = next(token for token in tokenizer(SIGN, add_special_tokens=False)["input_ids"] if token not in others)
    config = json.loads((base / "config.json").read_text())
    values = load_file(base / "model.safetensors")
    name = next(n for n in values if n.endswith(("embed_tokens.weight", "word_embeddings.weight")))
    if config.get("tie_word_embeddings") and "embed_tokens" in name:
        # A head that shares the broken embedding would break every row.
        (base / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
        values["lm_head.weight"] = values[name].clone()
    values[name][alone] = float("nan")
    save_file(values, base / "model.safetensors", metadata={"format": "pt"})


@pytest.fixture(scope="module")
def planned(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple]:
    """Gives the job and the folder of a training of each kind, planned, whose base is broken for one row."""
    root = tmp_path_factory.mktemp("broken")

    def plan(name: str) -> tuple[dict[str, Any], Path]:
        kind, family, changes = KINDS[name]
        folder, base = root / name, root / f"{name}-base"
        make_base(family, base, tiny_base)
        frame = with_sign(FRAMES[kind](ROWS))
        manifests = write_splits(desk.store, DATASETS[kind], {"train": frame, "validation": FRAMES[kind](4, 1)})
        spec = job_spec(kind, family, "hf:x", "full", **changes, lr=1e-6, max_steps=None, save_steps=100)
        checked = TrainJobSpec.model_validate({**spec, "dataset_ref": DATASETS[kind]})
        common = {
            "spec": checked.model_dump(mode="json"),
            "base": {"path": str(base)},
            "plan_dir": str(folder / "plan"),
            "pooling": pooling_of(None, base) if checked.embedding else None,
            "precision": "fp32",
            "stop_token": "<|im_end|>",
            "checkpoints": str(folder / "checkpoints"),
            "output": str(folder / "adapter"),
            "device": "cpu",
            "gpus": 0,
            "gradient_checkpointing": False,
        }
        folder.mkdir()
        planned = {**common, "store": str(desk.store.root), "manifests": manifests}
        run_here(of_task("plan", planned), folder)
        # The plan looks at the numbers of its base, and would refuse this one.
        break_sign(base)
        return {**common, "task": "train"}, folder

    return plan


def blamed(message: str) -> set[str]:
    """The rows that a message names as those of the broken batch."""
    listed = message.split("rows of this batch: ")[1].split(". ")[0].splitlines()[0]
    return set(listed.split(", "))


@pytest.mark.parametrize("name", ["reward", "rloo", "grpo", "embedding"])
def test_the_rows_of_the_batch_that_broke_are_named(
    name: str, planned: Callable, tmp_path: Path, tiny_base: Path
) -> None:
    job, folder = planned(name)
    if name in ("rloo", "grpo"):
        from transformers import AutoModelForSequenceClassification

        judge = AutoModelForSequenceClassification.from_pretrained(
            make_base("llama", tmp_path, tiny_base), num_labels=1
        )
        judge.save_pretrained(tmp_path)
        job["reward"] = {"path": str(tmp_path)}
    with pytest.raises(Diverged, match=r"the loss became nan in step \d+") as caught:
        run_here(job, folder)
    batch = 2 if name in ("rloo", "grpo") else 8
    assert "odd-one" in blamed(str(caught.value)) and len(blamed(str(caught.value))) <= batch
    assert not (folder / "adapter").exists()


def test_a_run_on_pairs_ends_with_the_rows_in_its_message(planned: Callable, desk: Desk) -> None:
    job, folder = planned("dpo")
    with pytest.raises(TrainerError, match=r"Diverged: the loss became nan in step \d+") as caught:
        desk.trainer.run(None, typed(job), work_dir=folder / "work")
    assert "odd-one" in blamed(str(caught.value)) and len(blamed(str(caught.value))) <= 8
