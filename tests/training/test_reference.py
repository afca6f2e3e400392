"""What a policy is held to is its base, whatever became of the two: measured at the end, compared at the merge."""

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

from images.train.probe import logits_of, mean_loss, probes, reference_in_memory
from llmops_assets.records.training import MergedModelRecord
from llmops_assets.training import merge_verdicts
from llmops_assets.verdict import Verdict

ROWS = pl.DataFrame({"row_id": ["a", "b"], "prompt": [[1, 5, 9], [1, 7]], "chosen": [[11, 2], [13, 17, 2]],
                     "rejected": [[3, 2], [4, 2]]})  # fmt: skip


@pytest.fixture
def base() -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    return LlamaForCausalLM(LlamaConfig(vocab_size=40, initializer_range=0.3, **shape)).eval()


def moved(model: Any) -> Any:
    """The model after some training."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def held(model: Any, reference: Any, base: Any, folder: Path) -> Verdict:
    ROWS.write_parquet(folder / "train.parquet")
    trainer = SimpleNamespace(
        model=model,
        ref_model=reference,
        accelerator=SimpleNamespace(unwrap_model=lambda one: one),
        args=SimpleNamespace(world_size=1),
    )
    found = reference_in_memory(trainer, folder)
    asked = probes(folder)
    away = abs(mean_loss(logits_of(base, asked), asked) - found["reference_loss"]) if found else None
    return merge_verdicts.reference_kept(MergedModelRecord.model_construct(reference_difference=away), "fp32")


def test_a_copy_of_the_base_is_what_full_weights_are_held_to(base: Any, tmp_path: Path) -> None:
    policy = moved(copy.deepcopy(base))
    verdict = held(policy, base, base, tmp_path)
    assert verdict.passed and "the reference it was held to is its base" in verdict.text


def test_a_reference_that_was_taken_of_the_policy_is_named(base: Any, tmp_path: Path) -> None:
    policy = moved(copy.deepcopy(base))
    verdict = held(policy, copy.deepcopy(policy), base, tmp_path)
    assert not verdict.passed and "held to another model than its base" in verdict.text


def test_the_base_below_an_adapter_is_what_it_is_held_to_also_where_it_was_merged(base: Any, tmp_path: Path) -> None:
    untouched = copy.deepcopy(base)
    policy = moved(get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])))
    assert held(policy, None, untouched, tmp_path).passed
    policy.merge_adapter()
    assert held(policy, None, untouched, tmp_path).passed, "it is taken out again for the reference"


def test_an_adapter_that_became_part_of_the_base_below_another_is_named(base: Any, tmp_path: Path) -> None:
    untouched = copy.deepcopy(base)
    first = moved(get_peft_model(base, LoraConfig(r=2, target_modules=["q_proj", "v_proj"])))
    second = get_peft_model(first.merge_and_unload(), LoraConfig(r=2, target_modules=["q_proj"]))
    assert not held(moved(second), None, untouched, tmp_path).passed


def test_what_has_no_reference_is_not_compared(base: Any, tmp_path: Path) -> None:
    verdict = held(moved(copy.deepcopy(base)), None, base, tmp_path)
    assert verdict.passed and "no reference" in verdict.text
