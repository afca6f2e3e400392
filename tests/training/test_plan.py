"""What is decided before a training starts: key, steps, memory, base model, order of the rows."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from images.train.order import LengthGroups
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.base import BaseModelError, Sources, hub_folder, inspect_base, resolve
from llmops_assets.training.fit import on_gpu_type, refusal, settings_within, wrong_type
from llmops_assets.training.memory import Shape, estimate
from llmops_assets.training.plan import (
    MEMORY_SHARE,
    PlanError,
    achieved_flops,
    check_supported,
    plan_memory,
)
from llmops_assets.training.steps import total_steps
from resources.gpus import cpu, parse_nvidia_smi
from tests.training.conftest import sft_spec

LLAMA_8B = Shape(
    hidden=4096, layers=32, heads=32, kv_heads=8, head_dim=128, intermediate=14336, vocabulary=128256, tied=False
)
GIB = 1 << 30


def spec(recipe: dict) -> TrainJobSpec:
    return TrainJobSpec.from_recipe(recipe, "desk@v1")


def test_parameters_are_those_of_the_model(tiny_base: Path) -> None:
    from safetensors import safe_open

    shape = Shape.from_config(json.loads((tiny_base / "config.json").read_text()))
    with safe_open(tiny_base / "model.safetensors", "np") as file:
        assert shape.parameters == sum(file.get_tensor(name).size for name in file.keys())  # noqa: SIM118
    assert LLAMA_8B.parameters == pytest.approx(8.03e9, rel=0.001)
    assert LLAMA_8B.trained("lora", 16, False) == 41_943_040, "what PEFT counts for rank 16 on all linear modules"


def test_methods_need_memory_in_the_order_that_they_promise() -> None:
    full, lora, qlora = (
        estimate(LLAMA_8B, method=m, precision="bf16", batch=1, length=2048, device="cuda")
        for m in ("full", "lora", "qlora")
    )
    assert full.total > 120 * GIB > 40 * GIB > lora.total > 16 * GIB
    assert lora.weights > 2.4 * qlora.weights
    assert full.optimizer > 100 * lora.optimizer == 100 * qlora.optimizer
    light = estimate(LLAMA_8B, method="lora", precision="bf16", batch=8, length=2048, checkpointing=True, device="cuda")
    heavy = estimate(LLAMA_8B, method="lora", precision="bf16", batch=8, length=2048, device="cuda")
    assert light.activations < heavy.activations / 5


def test_activations_are_recomputed_only_where_memory_asks_for_it() -> None:
    job = spec(sft_spec("hf:/models/llama", batch_size=8, max_seq_len=2048))
    wide = plan_memory(LLAMA_8B, job, precision="bf16", device="cuda", available=640 * GIB, length=2048)
    tight = plan_memory(LLAMA_8B, job, precision="bf16", device="cuda", available=80 * GIB, length=2048)
    hopeless = plan_memory(LLAMA_8B, job, precision="bf16", device="cuda", available=8 * GIB, length=2048)
    assert wide.fits and not wide.checkpointing
    assert tight.fits and tight.checkpointing
    assert not hopeless.fits
    assert not list(settings_within(LLAMA_8B, job, precision="bf16", device="cuda", available=4 * GIB, length=2048))


def test_a_refusal_names_settings_that_really_fit() -> None:
    job = spec(sft_spec("hf:/models/llama", batch_size=8, max_seq_len=2048, train_embeddings=False))
    where = {"precision": "bf16", "device": "cuda", "length": 2048}
    small = plan_memory(LLAMA_8B, job, available=20 * GIB, **where)
    assert not small.fits
    text = refusal(small, LLAMA_8B, job, **where)
    found = list(settings_within(LLAMA_8B, job, precision="bf16", device="cuda", available=20 * GIB, length=2048))
    assert found and found[0].words(job, 2048) in text and "gpu_type: " in text
    for setting in found:
        changed = {"batch_size": setting.batch_size, "gradient_accumulation_steps": setting.accumulation}
        changed |= {"max_seq_len": setting.length, "train_embeddings": False}
        other = spec(sft_spec("hf:/models/llama", setting.method, **changed))
        again = plan_memory(LLAMA_8B, other, precision="bf16", device="cuda", available=20 * GIB, length=setting.length)
        assert again.estimate.total == setting.needed <= MEMORY_SHARE * 20 * GIB
        assert setting.batch_size * setting.accumulation == 8


def test_a_gpu_type_is_reckoned_with_wherever_it_is_planned() -> None:
    job = spec({**sft_spec("hf:/models/llama", "full", max_seq_len=2048), "resources": {"gpus": 1, "gpu_type": "h100"}})
    full = on_gpu_type(LLAMA_8B, job, length=2048, tokens=10**6)
    assert full.needed > 80 * GIB and "method: lora" in full.advice
    lora = spec(
        {
            **sft_spec("hf:/models/llama", max_seq_len=2048, train_embeddings=False),
            "resources": {"gpus": 1, "gpu_type": "H100"},
        }
    )
    assert on_gpu_type(LLAMA_8B, lora, length=2048, tokens=10**6).advice is None
    assert on_gpu_type(LLAMA_8B, spec(sft_spec("hf:/models/llama")), length=2048, tokens=10**6) is None
    (h100,) = parse_nvidia_smi("0, GPU-a, NVIDIA H100 80GB HBM3, 81559")
    (a10,) = parse_nvidia_smi("0, GPU-b, NVIDIA A10, 23028")
    assert wrong_type(job, h100) is None
    assert "NVIDIA A10" in wrong_type(job, a10)
    assert achieved_flops(h100) > achieved_flops(a10) > achieved_flops(cpu())


@pytest.mark.parametrize(
    ("rows", "change", "steps"),
    [
        (100, {"batch_size": 8, "num_epochs": 2, "max_steps": None}, 26),
        (100, {"batch_size": 8, "num_epochs": 2, "max_steps": 10}, 10),
        (100, {"batch_size": 8, "gradient_accumulation_steps": 4, "num_epochs": 1, "max_steps": None}, 4),
        (3, {"batch_size": 8, "num_epochs": 0.5, "max_steps": None}, 1),
    ],
)
def test_steps_follow_from_rows_and_batch(rows: int, change: dict, steps: int) -> None:
    assert total_steps(rows, spec(sft_spec("hf:x", **change)).hyperparams) == steps


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trainer": "axolotl"}, "trainer axolotl trains on one GPU"),
        ({"method": "qlora"}, "four-bit weights cannot be sharded"),
        ({"resources": {"gpus": 2, "sharding": "zero3"}}, "zero3 needs DeepSpeed"),
    ],
)
def test_what_several_gpus_cannot_share_is_refused(change: dict[str, Any], reason: str) -> None:
    two = {**sft_spec("hf:x"), "resources": {"gpus": 2}}
    check_supported(spec(two), gpus_found=2)
    with pytest.raises(PlanError, match=reason):
        check_supported(spec({**two, **change}), gpus_found=2)


def test_several_nodes_need_gpus() -> None:
    with pytest.raises(PlanError, match="write nodes: 1"):
        check_supported(spec({**sft_spec("hf:x"), "resources": {"gpus": 1, "nodes": 2}}), gpus_found=0)


def test_batches_hold_rows_of_like_length_and_every_row_once_in_a_fixed_order() -> None:
    lengths = np.random.default_rng(0).integers(8, 256, 1003)
    sampler = LengthGroups(lengths, 16, seed=5)
    order = list(sampler)
    assert sorted(order) == list(range(1003))
    assert order == list(LengthGroups(lengths, 16, seed=5))
    sampler.set_epoch(1)
    assert order != list(sampler)
    padded = sum(16 * lengths[order[i : i + 16]].max() for i in range(0, 1003, 16))
    assert lengths.sum() / padded > 0.95
    starts = [lengths[order[i : i + 16]].mean() for i in range(0, 992, 16)]
    assert abs(np.corrcoef(range(len(starts)), starts)[0, 1]) < 0.3, "long and short batches alternate"


@dataclass
class Entry:
    ref: str
    path: str
    state: str
    content_hash: str | None


def absent(ref: str):
    raise LookupError(ref)


def registered(entry: Entry) -> Sources:
    return Sources(lambda ref: entry, absent, absent)


def test_a_base_must_be_approved_unchanged_and_of_its_family(tiny_base: Path, tmp_path: Path) -> None:
    policy, folder = load_policy(), tmp_path / "model"
    shutil.copytree(tiny_base, folder)
    ref = f"hf:{folder}"
    given = {"family": "llama", "job_type": "SFT", "policy": policy}
    found = inspect_base(ref, "llama", policy)
    entry = Entry(ref, found.path, "approved", found.content_hash)
    base = resolve(ref, **given, sources=registered(entry))
    assert base == found and base.path == str(folder)

    with pytest.raises(BaseModelError, match="is draft, not approved"):
        resolve(ref, **given, sources=registered(Entry(ref, found.path, "draft", found.content_hash)))
    with pytest.raises(BaseModelError, match="is not registered"):
        resolve(ref, **given, sources=Sources(absent, absent, absent))
    with pytest.raises(SpecError, match="qwen"):
        resolve(ref, **{**given, "family": "qwen"}, sources=registered(entry))

    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    with pytest.raises(BaseModelError, match="was changed after it was approved"):
        resolve(ref, **given, sources=registered(entry))


def test_a_hub_model_is_taken_from_the_cache_or_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="hf download org/model"):
        hub_folder("org/model", tmp_path)
    repository = tmp_path / "models--org--model"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc\n")
    (repository / "snapshots" / "abc").mkdir(parents=True)
    (repository / "snapshots" / "abc" / "config.json").write_text("{}")
    assert hub_folder("org/model", tmp_path) == repository / "snapshots" / "abc"


def test_a_sealed_folder_tells_what_was_done_to_it(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"abc")
    assert folders.facts(tmp_path) is None
    assert folders.damage(tmp_path) == "it was never finished"
    folders.seal(tmp_path, {"step": 7})
    assert folders.facts(tmp_path) == {"step": 7}
    (tmp_path / "weights").write_bytes(b"abd")
    assert folders.damage(tmp_path) == "weights is not what was written"
    (tmp_path / "weights").unlink()
    assert folders.damage(tmp_path) == "weights is missing"
    (tmp_path / folders.SEAL).write_text("{")
    assert "cannot be read" in folders.damage(tmp_path)
