"""The same spec means the same under Axolotl as under our own trainer, and Axolotl really trains it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file

from images.train import axolotl
from images.train.axolotl import render
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources.engines import Engines
from resources.trainer import Trainer, TrainerError
from tests.training.conftest import Desk, run_here, sft_spec, typed

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(1500)


@pytest.fixture(scope="module")
def environments() -> Path:
    engines = Engines(ROOT / Settings(_env_file=None).engines)
    engines.install("axolotl")
    return engines.root


@pytest.fixture(scope="module")
def plan(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planned rows that every training of this module reads."""
    folder = tmp_path_factory.mktemp("planned")
    run_here(desk.jobs(sft_spec("hf:base"), folder, tiny_base)["plan"], folder)
    return folder / "plan"


def job_of(desk: Desk, plan: Path, base: Path, folder: Path, environments: Path, **change: Any) -> dict[str, Any]:
    """The worker's job `train` in `folder`; `change` is of the spec, `hyperparams` one by one."""
    method = change.pop("method", "lora")
    spec = sft_spec("hf:base", method, **change.pop("hyperparams", {})) | {"trainer": "axolotl"} | change
    jobs = desk.jobs(spec, folder, base, engines=str(environments))
    return {**jobs["train"], "plan_dir": str(plan)}


def both(desk: Desk, plan: Path, base: Path, folder: Path, environments: Path, **change: Any) -> dict[str, dict]:
    """Facts of the same spec trained by each trainer."""
    facts = {}
    for name in ("axolotl", "trl"):
        job = job_of(desk, plan, base, folder / name, environments, trainer=name, **change)
        (folder / name).mkdir(parents=True)
        facts[name] = run_here(job, folder / name)
    return facts


@pytest.fixture(scope="module")
def lora(
    desk: Desk, plan: Path, tiny_base: Path, environments: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    return both(desk, plan, tiny_base, tmp_path_factory.mktemp("lora"), environments)


def test_the_same_spec_makes_the_same_adapter(lora: dict[str, dict]):
    ours, theirs = (Path(lora[name]["path"]) for name in ("trl", "axolotl"))
    one, other = (json.loads((path / "adapter_config.json").read_text()) for path in (ours, theirs))
    same = ("r", "lora_alpha", "lora_dropout", "modules_to_save", "ensure_weight_tying", "task_type", "bias")
    assert {name: one[name] for name in same} == {name: other[name] for name in same}
    kinds = [{name.split(".")[-1] for name in config["target_modules"]} for config in (one, other)]
    assert kinds[0] == kinds[1]
    shapes = [
        {name: tuple(tensor.shape) for name, tensor in load_file(path / "adapter_model.safetensors").items()}
        for path in (ours, theirs)
    ]
    assert shapes[0] == shapes[1]
    assert lora["trl"]["trained_parameters"] == lora["axolotl"]["trained_parameters"]
    assert lora["trl"]["steps"] == lora["axolotl"]["steps"] == 12


def test_both_learn(lora: dict[str, dict]):
    for facts in lora.values():
        assert facts["last_loss"] < facts["first_loss"]
        assert facts["weight_change"] > 0
        assert facts["non_finite_weights"] == 0
        assert facts["eval_loss"] is not None


def test_both_see_the_same_tokens_under_the_same_mask(
    desk: Desk, plan: Path, tiny_base: Path, environments: Path, tmp_path: Path
):
    # With a learning rate that moves nothing, the loss is that of the base on the rows as each trainer masks them.
    still = {"lr": 1e-12, "max_steps": 1, "num_epochs": 1, "batch_size": 60, "lora_dropout": 0.0}
    facts = both(desk, plan, tiny_base, tmp_path, environments, hyperparams=still)
    assert facts["axolotl"]["first_loss"] == pytest.approx(facts["trl"]["first_loss"], abs=1e-4)
    assert facts["axolotl"]["eval_loss"] == pytest.approx(facts["trl"]["eval_loss"], abs=1e-4)


def test_what_it_trained_is_merged_as_any_other(desk: Desk, lora: dict[str, dict], plan: Path, tiny_base: Path):
    adapter = Path(lora["axolotl"]["path"])
    assert folders.facts(adapter) == lora["axolotl"]
    job = desk.jobs(sft_spec("hf:base"), adapter.parent, tiny_base)["merge"] | {"plan_dir": str(plan)}
    facts = run_here(job, adapter.parent)
    assert facts["reloads"] and facts["differs_from_base"]
    assert facts["max_logit_difference"] < 1e-3
    assert facts["top1_agreement"] == 1.0


@pytest.fixture(scope="module")
def wide_base(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose rows are whole blocks of four-bit weights.

    Of shorter rows bitsandbytes (0.50) on a CPU gives back other values than of the same weights in one row.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("wide")
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny_base, hidden_size=64, head_dim=16, intermediate_size=128)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def others(
    desk: Desk, plan: Path, wide_base: Path, environments: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict]:
    """Facts of a few steps by the other methods."""
    found = {}
    for method in ("qlora", "full"):
        folder = tmp_path_factory.mktemp(method)
        few = {"max_steps": 3, "save_steps": 3}
        job = job_of(desk, plan, wide_base, folder, environments, method=method, hyperparams=few)
        found[method] = run_here(job, folder)
    return found


def test_four_bits_and_all_weights_train_too(others: dict[str, dict]):
    for method, facts in others.items():
        assert facts["steps"] == 3
        assert facts["weight_change"] > 0
        kind = "model.safetensors" if method == "full" else "adapter_model.safetensors"
        assert (Path(facts["path"]) / kind).exists()


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_our_merge_is_that_of_axolotl(
    method: str,
    desk: Desk,
    lora: dict[str, dict],
    others: dict[str, dict],
    plan: Path,
    tiny_base: Path,
    wide_base: Path,
    environments: Path,
    tmp_path: Path,
):
    facts, base = (lora["axolotl"], tiny_base) if method == "lora" else (others["qlora"], wide_base)
    adapter = Path(facts["path"])
    job = desk.jobs(sft_spec("hf:base", method), adapter.parent, base)["merge"]
    run_here({**job, "plan_dir": str(plan), "output": str(tmp_path / "ours")}, adapter.parent)
    engine = environments / "axolotl" / "bin" / "python"
    config = adapter.parent / "work" / "axolotl" / "config.yaml"
    command = [str(engine), "-m", "axolotl.cli.main", "merge-lora", str(config)]
    done = subprocess.run(
        [*command, f"--lora-model-dir={adapter}", f"--output-dir={tmp_path / 'theirs'}"],
        env=axolotl.environment(engine, "cpu"),
        capture_output=True,
        text=True,
        timeout=600,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ours, theirs, before = (
        load_file(folder / "model.safetensors") for folder in (tmp_path / "ours", tmp_path / "theirs" / "merged", base)
    )
    assert ours.keys() == theirs.keys()
    for name, weight in ours.items():
        assert weight.dtype == theirs[name].dtype
        assert float((weight - theirs[name]).abs().max()) < 1e-6, name
    moved = [name for name in ours if not ours[name].equal(before[name])]
    assert any("embed_tokens" in name for name in moved) and any("q_proj" in name for name in moved)


def test_it_stops_with_a_checkpoint_and_goes_on_from_it(
    desk: Desk, plan: Path, tiny_base: Path, environments: Path, tmp_path: Path
):
    long = {"max_steps": 250, "num_epochs": 1000, "save_steps": 250}
    job = job_of(desk, plan, tiny_base, tmp_path, environments, hyperparams=long)
    work = tmp_path / "work"
    work.mkdir()
    files = {name: str(work / f"train.{name}") for name in ("result", "error", "log", "metrics")}
    (work / "train.json").write_text(json.dumps({**job, **files, "locks": str(tmp_path / "locks")}))
    environment = os.environ | Trainer(locks=tmp_path / "locks", threads=1).environment()
    worker = subprocess.Popen([sys.executable, "-m", "images.train", str(work / "train.json")], env=environment)
    deadline = time.monotonic() + 600
    while not Path(files["metrics"]).exists() or '"loss"' not in Path(files["metrics"]).read_text():
        assert worker.poll() is None, Path(files["log"]).read_text()
        assert time.monotonic() < deadline
        time.sleep(0.2)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=120) == 130
    step, _path, _warnings = folders.last_checkpoint(tmp_path / "checkpoints")
    assert step and f"stopped at step {step}" in json.loads(Path(files["error"]).read_text())["message"]
    assert step < 250
    facts = run_here(job, tmp_path)
    assert facts["resumed_from"] == step
    assert facts["steps"] == 250


def test_a_failure_of_it_is_told(desk: Desk, tiny_base: Path, plan: Path, tmp_path: Path, environments: Path):
    (tmp_path / "no-model").mkdir()
    shutil.copy(tiny_base / "config.json", tmp_path / "no-model")
    job = job_of(desk, plan, tmp_path / "no-model", tmp_path, environments, hyperparams={"train_embeddings": False})
    trainer = Trainer(locks=tmp_path / "locks", threads=1)
    with pytest.raises(TrainerError, match=r"axolotl ended with code 1; its log: .*axolotl\.log"):
        trainer.run(None, typed(job), work_dir=tmp_path / "work")


def load(config: dict[str, Any], folder: Path, environments: Path) -> subprocess.CompletedProcess:
    """Read a configuration as `axolotl train` does: plugins, then Axolotl's own schema."""
    engine, path = environments / "axolotl" / "bin" / "python", folder / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    command = [
        str(engine),
        "-c",
        "import sys; from axolotl.cli.config import load_cfg; load_cfg(sys.argv[1])",
        str(path),
    ]
    return subprocess.run(
        command, env=axolotl.environment(engine, "cpu"), capture_output=True, text=True, timeout=600, cwd=folder
    )


def test_a_setting_that_it_does_not_know_is_refused(desk: Desk, tiny_base: Path, tmp_path: Path, environments: Path):
    read = load({**rendered(desk, tiny_base, tmp_path, {}), "learning_rat": 1e-3}, tmp_path, environments)
    assert read.returncode != 0
    assert "axolotl has no setting learning_rat" in read.stderr


BASE_FIELDS: dict[str, Any] = {"target_modules": ["q_proj", "v_proj"], "eval_steps": 4, "warmup_steps": 2}

CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "lr": ({"lr": 1e-3}, "learning_rate"),
    "batch_size": ({"batch_size": 2}, "micro_batch_size"),
    "num_epochs": ({"num_epochs": 3}, "num_epochs"),
    "max_seq_len": ({"max_seq_len": 96}, "sequence_len"),
    "max_steps": ({"max_steps": 5}, "max_steps"),
    "gradient_accumulation_steps": ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps"),
    "warmup_steps": ({"warmup_steps": 3}, "warmup_steps"),
    "warmup_ratio": ({"warmup_steps": None, "warmup_ratio": 0.5}, "warmup_steps"),
    "weight_decay": ({"weight_decay": 0.1}, "weight_decay"),
    "scheduler": ({"scheduler": "cosine"}, "lr_scheduler"),
    "lora_rank": ({"lora_rank": 8}, "lora_r"),
    "lora_alpha": ({"lora_alpha": 64}, "lora_alpha"),
    "lora_dropout": ({"lora_dropout": 0.1}, "lora_dropout"),
    "target_modules": ({"target_modules": "all-linear"}, "lora_target_linear"),
    "train_embeddings": ({"train_embeddings": False}, "lora_modules_to_save"),
    "seed": ({"seed": 7}, "seed"),
    "packing": ({"packing": True}, "sample_packing"),
    "save_steps": ({"save_steps": 8}, "save_steps"),
    "eval_steps": ({"eval_steps": 2}, "eval_steps"),
    "early_stopping": ({"early_stopping": {"patience": 5, "min_delta": 0.5}}, "llmops_min_delta"),
}
"""A change of each field, and the setting of Axolotl that it must reach."""

DECIDED_BEFORE = {
    "precision": "the plan turns it into the precision of the device, which the job carries",
    "overlong": "the plan leaves the rows out that it names",
}


def rendered(desk: Desk, model: Path, folder: Path, hyperparams: dict[str, Any], **job: Any) -> dict[str, Any]:
    jobs = desk.jobs(sft_spec("hf:base", **{**BASE_FIELDS, **hyperparams}), folder, model)
    spec = TrainJobSpec.model_validate(jobs["train"]["spec"])
    return render(spec, typed({**jobs["train"], **job}), folder / "work", 60, evaluated=True)


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_of_the_spec_reaches_axolotl(field: str, desk: Desk, tiny_base: Path, tmp_path: Path):
    change, setting = CHANGES[field]
    plain = rendered(desk, tiny_base, tmp_path, {})
    assert rendered(desk, tiny_base, tmp_path, change).get(setting) != plain.get(setting)


def test_no_field_is_left_out():
    assert set(CHANGES) | set(DECIDED_BEFORE) == set(TrainJobSpec.model_fields["hyperparams"].annotation.model_fields)


@pytest.mark.parametrize(
    ("change", "setting"),
    [
        ({"precision": "bf16"}, "bf16"),
        ({"device": "cuda"}, "lora_mlp_kernel"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing"),
        ({"base": {"path": "elsewhere"}}, "base_model"),
        ({"checkpoints": "elsewhere"}, "output_dir"),
    ],
)
def test_what_the_plan_decided_reaches_axolotl(
    change: dict[str, Any], setting: str, desk: Desk, tiny_base: Path, tmp_path: Path
):
    cuda = {"device": "cuda"} if setting == "bf16" else {}
    base = {"train_embeddings": False} if setting == "base_model" else {}
    plain = rendered(desk, tiny_base, tmp_path, base, **cuda)
    assert rendered(desk, tiny_base, tmp_path, base, **cuda, **change).get(setting) != plain.get(setting)


def test_a_method_is_rendered_as_what_it_is(desk: Desk, tiny_base: Path, tmp_path: Path):
    found = {}
    for method in ("lora", "qlora", "full"):
        jobs = desk.jobs(sft_spec("hf:base", method), tmp_path, tiny_base)
        job = typed(jobs["train"])
        found[method] = render(job.spec, job, tmp_path, 60, evaluated=False)
    assert (found["lora"]["adapter"], found["lora"]["load_in_4bit"]) == ("lora", False)
    assert (found["qlora"]["adapter"], found["qlora"]["load_in_4bit"]) == ("qlora", True)
    assert "adapter" not in found["full"]
    assert found["full"]["eval_strategy"] == "no"


def test_axolotl_takes_what_is_rendered_with_every_field_set(
    desk: Desk, tiny_base: Path, tmp_path: Path, environments: Path
):
    everything = {name: value for change, _ in CHANGES.values() for name, value in change.items()}
    everything |= {"eval_steps": 2, "warmup_steps": None, "packing": True}
    read = load(rendered(desk, tiny_base, tmp_path, everything), tmp_path, environments)
    assert read.returncode == 0, read.stderr[-3000:]
