"""What a spec trains of its base is known from the plan on, and a name that no module has is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from images.train import weights
from images.train.plan import run as plan
from images.train.trained_modules import (
    ModuleError,
    check_adapter,
    check_token_ids,
    embedding_rows,
    modules_of,
    trained_modules,
)
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.inspection import ModelFault
from tests.training.conftest import Desk, run_here, sft_spec


def spec(method: str = "lora", **hyperparams: Any) -> TrainJobSpec:
    return TrainJobSpec.from_recipe(sft_spec("hf:x", method, **hyperparams), "desk@v1")


@pytest.mark.parametrize(
    "hyperparams",
    [
        {},
        {"train_embeddings": False},
        {"target_modules": ["q_proj", "down_proj"]},
        {"target_modules": ["layers.1.self_attn.v_proj"]},
    ],
)
def test_the_plan_counts_the_parameters_that_peft_trains(tiny_base: Path, hyperparams: dict[str, Any]) -> None:
    from peft import get_peft_model

    job = spec(**hyperparams)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    model = get_peft_model(model, weights.lora(job, model))
    trained = {id(p): p.numel() for p in model.parameters() if p.requires_grad}
    lines = trained_modules(job, tiny_base)
    assert sum(line.parameters for line in lines) == sum(trained.values())
    check_adapter(model, job.hyperparams.target_modules)


def test_full_training_counts_every_weight(tiny_base: Path) -> None:
    lines = trained_modules(spec("full"), tiny_base)
    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert sum(line.parameters for line in lines) == sum(p.numel() for p in model.parameters())
    assert {line.how for line in lines} == {"full"}
    assert next(line for line in lines if line.module == "q_proj").layers == 2


def test_a_target_that_is_no_module_is_refused_with_those_that_are(tiny_base: Path) -> None:
    wrong = spec(target_modules=["q_proj", "W_pack", "qproj"])
    with pytest.raises(ModuleError, match=r"no module W_pack, qproj.*It has .*q_proj.*or write all-linear"):
        trained_modules(wrong, tiny_base)


def test_the_plan_of_such_a_spec_is_refused_before_a_row_is_rendered(
    desk: Desk, tiny_base: Path, tmp_path: Path
) -> None:
    jobs = desk.jobs(sft_spec("hf:x", target_modules=["q_proj", "W_pack"]), tmp_path, tiny_base)
    with pytest.raises(ModuleError, match="W_pack"):
        run_here(jobs["plan"], tmp_path)
    assert plan and not list((tmp_path / "plan").glob("*.parquet"))


def test_the_trainer_looks_at_what_peft_made_of_the_names() -> None:
    class Model:
        targeted_module_names = ("model.layers.0.self_attn.q_proj",)

    check_adapter(Model(), ["q_proj"])
    check_adapter(Model(), "all-linear")
    with pytest.raises(ModuleError, match="beside W_pack"):
        check_adapter(Model(), ["q_proj", "W_pack"])


def test_a_token_without_an_embedding_is_named_before_anything_is_trained(
    desk: Desk, tiny_base: Path, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(tiny_base, base)
    tokenizer = AutoTokenizer.from_pretrained(base)
    rows = embedding_rows(modules_of(base))
    tokenizer.add_tokens(["통행료"])
    tokenizer.save_pretrained(base)
    check_token_ids(tokenizer, (rows or 0) - 1, base)
    with pytest.raises(ModuleError, match=rf"token '통행료' \(id {rows}\).*have {rows} rows.*resize_token_embeddings"):
        check_token_ids(tokenizer, rows or 0, base)
    with pytest.raises(ModelFault, match=rf"tokens up to {rows}, and there are {rows} rows of embeddings"):
        run_here(desk.jobs(sft_spec("hf:x"), tmp_path, base)["plan"], tmp_path)
