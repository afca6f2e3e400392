"""DPO by Axolotl is that of our own trainer: the same pairs, order and losses, and every field of the spec."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from images.train.axolotl import AxolotlError, render
from llmops_assets.specs.jobs import SAMPLING_DEFAULTS, RlhfBlock
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training.plan import PlanError, check_supported
from tests.training.conftest import Desk, of_task, run_here, typed, write_splits
from tests.training.job_data import DATASETS, job_spec, preference_frame
from tests.training.test_axolotl import BASE_FIELDS, CHANGES, environments, load  # noqa: F401  a fixture
from tests.training.test_named_rows import DPO, blamed, planned  # noqa: F401  a fixture

pytestmark = pytest.mark.timeout(1500)


def spec(**changes: Any) -> dict[str, Any]:
    rlhf = {**DPO, **changes.pop("rlhf", {})}
    return job_spec("RLHF", "llama", "hf:x", "lora", rlhf=rlhf, **changes) | {"trainer": "axolotl"}


def job_of(folder: Path, base: Path, plan: Path, data: dict[str, Any]) -> dict[str, Any]:
    """The worker's job `train` in `folder`, on the pairs planned in `plan`."""
    checked = TrainJobSpec.model_validate({**data, "dataset_ref": DATASETS["RLHF"]})
    return {
        "task": "train",
        "spec": checked.model_dump(mode="json"),
        "base": {"path": str(base)},
        "plan_dir": str(plan),
        "checkpoints": str(folder / "checkpoints"),
        "output": str(folder / "adapter"),
        "precision": "fp32",
        "device": "cpu",
        "gpus": 0,
        "gradient_checkpointing": False,
        "stop_token": "<|im_end|>",
    }


@pytest.fixture(scope="module")
def plan(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    splits = {"train": preference_frame(48), "validation": preference_frame(8, 1)}
    job = job_of(folder, tiny_base, folder / "plan", spec())
    manifests = write_splits(desk.store, DATASETS["RLHF"], splits)
    run_here(of_task("plan", {**job, "store": str(desk.store.root), "manifests": manifests}), folder)
    return folder / "plan"


def test_both_trainers_make_the_same_policy_of_the_same_pairs(
    plan: Path,
    tiny_base: Path,
    tmp_path: Path,
    environments: Path,  # noqa: F811
):
    few = {"max_steps": 6, "save_steps": 6, "num_epochs": 2, "lr": 1e-2, "warmup_steps": 1}
    facts = {}
    for name in ("axolotl", "trl"):
        folder = tmp_path / name
        folder.mkdir()
        job = job_of(folder, tiny_base, plan, spec(**few) | {"trainer": name})
        facts[name] = run_here({**job, "engines": str(environments)}, folder)
    ours, theirs = facts["trl"], facts["axolotl"]
    # Before it moved, the policy is its own reference: every pair is a coin toss.
    assert ours["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert theirs["first_loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert ours["last_loss"] < 0.95 * math.log(2)
    curves = [{p["step"]: p["loss"] for p in found["curve"] if "loss" in p} for found in (ours, theirs)]
    assert list(curves[0]) == list(curves[1]) == [1, 2, 3, 4, 5, 6]
    assert list(curves[1].values()) == pytest.approx(list(curves[0].values()), rel=1e-3)
    assert theirs["eval_loss"] == pytest.approx(ours["eval_loss"], rel=1e-3)
    # What the policy was held to is measured where this project's own code trains; Axolotl does not say it.
    assert ours["figures"].pop("reference_loss") > 0
    assert theirs["figures"] == pytest.approx(ours["figures"], rel=1e-2)
    assert theirs["trained_parameters"] == ours["trained_parameters"]
    assert theirs["weight_change"] == pytest.approx(ours["weight_change"], rel=1e-2)


def test_the_rows_of_a_broken_batch_are_named_there_too(planned: Callable, environments: Path):  # noqa: F811
    job, folder = planned("dpo")
    job["spec"]["trainer"] = "axolotl"
    with pytest.raises(AxolotlError, match=r"the loss became nan in step \d+") as caught:
        run_here({**job, "engines": str(environments)}, folder)
    assert "odd-one" in blamed(str(caught.value)) and len(blamed(str(caught.value))) <= 8


def rendered(folder: Path, model: Path, change: dict[str, Any], rlhf: dict[str, Any] | None = None) -> dict[str, Any]:
    settings = {**BASE_FIELDS, "lora_rank": 4, "save_steps": 4, **change}
    job = job_of(folder, model, folder / "plan", spec(**settings, rlhf=rlhf or {}))
    return render(TrainJobSpec.model_validate(job["spec"]), typed(job), folder / "work", 48, evaluated=True)


WITHOUT_PAIRS = {"packing"}
"""Refused by the spec for pairs."""


@pytest.mark.parametrize("field", sorted(set(CHANGES) - WITHOUT_PAIRS))
def test_every_hyperparameter_reaches_axolotl(field: str, tiny_base: Path, tmp_path: Path):
    change, setting = CHANGES[field]
    base = {"train_embeddings": True} if field == "train_embeddings" else {}
    # Steps and warm-up follow from the rows only where the spec does not say them.
    free = {"max_steps": None}
    plain, changed = (rendered(tmp_path, tiny_base, {**free, **base, **part}) for part in ({}, change))
    assert changed.get(setting) != plain.get(setting)


def test_every_field_of_the_preferences_reaches_axolotl_or_is_refused(tiny_base: Path, tmp_path: Path):
    plain, other = (rendered(tmp_path, tiny_base, {}, {"kl_coeff": beta}) for beta in (0.05, 0.3))
    assert (plain["rl"], plain["rl_beta"], other["rl_beta"]) == ("dpo", 0.05, 0.3)
    sampled = {"algorithm": "rloo", "ppo_steps": 2, "max_new_tokens": 8}
    with pytest.raises(AxolotlError, match="algorithm: dpo"):
        rendered(tmp_path, tiny_base, {"eval_steps": None}, sampled)
    for value in ("rloo", "grpo"):
        job = spec(rlhf={**sampled, "algorithm": value}) | {"dataset_ref": "pairs@v1"}
        with pytest.raises(PlanError, match=f"RLHF with algorithm dpo here, not RLHF with algorithm {value}"):
            check_supported(TrainJobSpec.model_validate(job))
    check_supported(TrainJobSpec.model_validate(spec() | {"dataset_ref": "pairs@v1"}))
    refused = {"ppo_steps": 5, "reward_model_ref": "hf:x", "reward_lr": 0.1, **SAMPLING_DEFAULTS}
    for name, value in refused.items():
        with pytest.raises(ValueError, match="has no effect with algorithm dpo"):
            rendered(tmp_path, tiny_base, {}, {name: value})
    of_kto = {"desirable_weight", "undesirable_weight"}
    assert {"kl_coeff", "algorithm", *refused, *of_kto} == set(RlhfBlock.model_fields)


def test_axolotl_takes_what_is_rendered(tiny_base: Path, tmp_path: Path, environments: Path):  # noqa: F811
    read = load(rendered(tmp_path, tiny_base, {"train_embeddings": True}), tmp_path, environments)
    assert read.returncode == 0, read.stderr[-3000:]
