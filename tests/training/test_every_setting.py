"""Every field of a training's spec is acted upon: nothing that a user may write does nothing."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from pydantic import BaseModel

from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.rules import check_against_policy
from llmops_assets.specs.training import Hyperparams, TrainJobSpec
from llmops_assets.training.plan import effective_precision
from resources.worker_code import OURS, ROOT
from tests.training.conftest import pretrain_spec, sft_spec

CHANGES: dict[str, Any] = {
    "lr": 1e-4,
    "batch_size": 8,
    "num_epochs": 1,
    "max_steps": 7,
    "gradient_accumulation_steps": 3,
    "warmup_steps": 5,
    "warmup_ratio": 0.5,
    "weight_decay": 0.1,
    "scheduler": "cosine",
    "lora_rank": 8,
    "lora_alpha": 3.0,
    "lora_dropout": 0.1,
    "target_modules": ["q_proj"],
    "train_embeddings": False,
    "precision": "bf16",
    "seed": 7,
    "packing": True,
    "save_steps": 2,
    "eval_steps": 2,
    "early_stopping": {"patience": 1, "min_delta": 0.5},
}
"""Another value of each hyperparameter than that of the spec of the tests."""
OF_THE_PLAN = {"max_seq_len", "overlong"}
"""What decides which rows are planned, and how they are cut: tests/training/test_tasks.py shows that they do."""


def blocks(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """The model of a spec, and those of its blocks."""
    yield model
    todo = [field.annotation for field in model.model_fields.values()]
    while todo:
        annotation = todo.pop()
        todo += get_args(annotation)
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield from blocks(annotation)


def read_by_the_code() -> set[str]:
    """Every attribute that the code reads outside of the specs themselves."""
    paths = [path for name in OURS for path in (ROOT / name).rglob("*.py") if "specs" not in path.parts]
    trees = (ast.parse(path.read_text(encoding="utf-8")) for path in paths)
    return {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}


def test_every_field_is_read_where_something_is_done() -> None:
    read, dead = read_by_the_code(), []
    for model in set(blocks(TrainJobSpec)):
        for name, field in model.model_fields.items():
            one_value = get_origin(field.annotation) is Literal and len(get_args(field.annotation)) == 1
            # Of a field with one value every other is refused, which is to act upon it.
            if name not in read and not one_value:
                dead.append(f"{model.__name__}.{name}")
    assert dead == []


@pytest.fixture(scope="module")
def effect(tiny_base: Path) -> Any:
    """Gives what the trainer, the adapter and the callbacks are told for a spec with other hyperparameters."""
    from transformers import AutoModelForCausalLM

    from images.train import sft, weights

    model = AutoModelForCausalLM.from_pretrained(tiny_base)

    def effect_of(**hyperparams: Any) -> str:
        values = {"max_steps": None, "warmup_steps": None, **hyperparams}
        spec = TrainJobSpec.from_recipe(sft_spec("hf:x", **values), "desk@v1")
        job = TrainJob(
            spec=spec,
            plan_dir="p",
            checkpoints="c",
            output="o",
            device="cpu",
            precision=effective_precision(spec.hyperparams.precision or "fp32", "cuda"),
            gpus=0,
        )
        arguments = sft.sft_arguments(spec, job, 100, evaluated=True)
        return repr((arguments, weights.lora(spec, model).to_dict(), spec.hyperparams.early_stopping))

    return effect_of


@pytest.mark.parametrize("name", sorted(set(Hyperparams.model_fields) - OF_THE_PLAN))
def test_every_hyperparameter_reaches_the_trainer(effect: Any, name: str) -> None:
    assert effect(**{name: CHANGES[name]}) != effect()


DEAD = {
    "hyperparams.packing": (pretrain_spec(packing=True), pretrain_spec()),
    "hyperparams.precision": (sft_spec("hf:x", precision="bf16"), sft_spec("hf:x", precision="fp32")),
    "evaluation.judge": (
        {**pretrain_spec(), "evaluation": {"judge": "contains"}},
        {**sft_spec("hf:x"), "evaluation": {"judge": "contains"}},
    ),
    "evaluation.encoder": (
        {**sft_spec("hf:x"), "evaluation": {"encoder": "e", "metrics": ["chrf"]}},
        {**sft_spec("hf:x"), "evaluation": {"encoder": "e", "metrics": ["bertscore"]}},
    ),
    "hyperparams.eval_steps": (sft_spec("hf:x", eval_steps=50), sft_spec("hf:x", eval_steps=5)),
}


@pytest.mark.parametrize("field", sorted(DEAD))
def test_a_setting_without_effect_is_refused_when_it_is_asked_for(field: str) -> None:
    dead, alive = (TrainJobSpec.from_recipe(recipe, "desk@v1") for recipe in DEAD[field])
    policy = load_policy()
    assert [fault.field for fault in check_against_policy(dead, policy)] == [field]
    assert check_against_policy(alive, policy) == []


def test_reasoning_and_the_control_tokens_of_a_corpus_change_what_is_trained() -> None:
    plain = TrainJobSpec.from_recipe(sft_spec("hf:x"), "desk@v1")
    without = TrainJobSpec.from_recipe({**sft_spec("hf:x"), "reasoning": "drop"}, "desk@v1")
    assert plain.weights_recipe() != without.weights_recipe()
    assert "reasoning" not in plain.recipe(), "what is left out changes no recipe of before"
