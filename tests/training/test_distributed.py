"""Two processes that share a training make the weights that one would have made."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from images.train import distributed
from images.train.distributed import LaunchError
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources.trainer import Trainer
from tests.training.conftest import Desk, run_here, sft_spec


def job_of(desk: Desk, folder: Path, base: Path, method: str, processes: int, **hyperparams: Any) -> dict[str, Any]:
    """The worker's job `train`, planned: `processes` share twelve rows a step, which divide the sixty evenly."""
    folder.mkdir(parents=True, exist_ok=True)
    spec = sft_spec("hf:base", method, batch_size=12 // processes, **hyperparams)
    spec["resources"] = {"gpus": processes, **({"sharding": "fsdp"} if processes > 1 else {})}
    # Half precision is the default where GPUs are asked for; what is compared here is exact.
    spec["hyperparams"]["precision"] = "fp32"
    jobs = desk.jobs(spec, folder, base)
    if not (folder / "plan").exists():
        run_here(jobs["plan"], folder)
    return {**jobs["train"], "gpus": processes}


def weights_of(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter" / name)


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, atol=2e-5, rtol=1e-3, msg=lambda text, n=name: f"{n}: {text}")


def test_an_adapter_trained_in_shards_is_that_of_one_process(desk: Desk, tiny_base: Path, tmp_path: Path):
    lines: list[str] = []
    alone = run_here(job_of(desk, tmp_path / "one", tiny_base, "lora", 1), tmp_path / "one")
    shared = run_here(job_of(desk, tmp_path / "two", tiny_base, "lora", 2), tmp_path / "two", lines.append)
    assert any("2 processes share this training (fsdp)" in line for line in lines)
    assert_same(*(weights_of(tmp_path / name, "adapter_model.safetensors") for name in ("one", "two")))
    for figure in ("first_loss", "last_loss", "weight_change"):
        assert shared[figure] == pytest.approx(alone[figure], rel=1e-3), figure
    # The eight rows of the validation fill other batches, whose means are averaged.
    assert shared["eval_loss"] == pytest.approx(alone["eval_loss"], rel=2e-2)
    assert shared["steps"] == alone["steps"] == 12
    assert shared["trained_parameters"] == alone["trained_parameters"]


def test_shards_that_were_stopped_go_on_together_and_end_as_one_process_does(
    desk: Desk, tiny_base: Path, tmp_path: Path
):
    long = {"max_steps": 200, "num_epochs": 100, "save_steps": 200}
    run_here(job_of(desk, tmp_path / "one", tiny_base, "full", 1, **long), tmp_path / "one")
    folder = tmp_path / "two"
    job = job_of(desk, folder, tiny_base, "full", 2, **long)
    work = folder / "work"
    work.mkdir()
    files = {name: str(work / f"train.{name}") for name in ("result", "error", "log", "metrics")}
    (work / "train.json").write_text(json.dumps({**job, **files, "locks": str(tmp_path / "locks")}))
    environment = os.environ | Trainer(locks=tmp_path / "locks", threads=1).environment()
    worker = subprocess.Popen([sys.executable, "-m", "images.train", str(work / "train.json")], env=environment)
    deadline = time.monotonic() + 300
    while not Path(files["metrics"]).exists() or '"loss"' not in Path(files["metrics"]).read_text():
        assert worker.poll() is None, (work / "ranks.log").read_text()[-3000:]
        assert time.monotonic() < deadline
        time.sleep(0.1)
    worker.send_signal(signal.SIGINT)
    assert worker.wait(timeout=120) == 130
    step, checkpoint, _warnings = folders.last_checkpoint(folder / "checkpoints")
    assert step and step < 200
    assert folders.damage(checkpoint) is None
    assert f"stopped at step {step} of 200" in json.loads(Path(files["error"]).read_text())["message"]
    facts = run_here(job, folder)
    assert facts["resumed_from"] == step
    assert facts["steps"] == 200
    assert_same(*(weights_of(tmp_path / name, "model.safetensors") for name in ("one", "two")))


def test_a_process_that_fails_fails_the_training_and_says_why(desk: Desk, tiny_base: Path, tmp_path: Path):
    job = job_of(desk, tmp_path, tiny_base, "lora", 2)
    # The plan would refuse it.
    job["spec"]["hyperparams"]["target_modules"] = ["no_such_module"]
    with pytest.raises(LaunchError, match=r"(?s)process \d: \w+: No modules were targeted.*ranks\.log"):
        run_here(job, tmp_path)
    assert folders.facts(tmp_path / "adapter") is None


def test_one_node_needs_no_address():
    line = distributed.command("/models/key/work/ranks.json", gpus=4, nodes=1, environ={})
    assert line[line.index("--nproc_per_node") + 1] == "4"
    assert "--standalone" in line
    assert line[-3:] == ["-m", "images.train.rank", "/models/key/work/ranks.json"]


def test_several_nodes_meet_at_the_first():
    environ = {distributed.RENDEZVOUS: "node-a:29500", distributed.NODE_RANK: "1"}
    line = distributed.command("/models/key/work/ranks.json", gpus=8, nodes=2, environ=environ)
    options = dict(zip(line[3:-3:2], line[4:-3:2], strict=False))
    assert options["--nnodes"] == "2"
    assert options["--node_rank"] == "1"
    assert options["--rdzv_endpoint"] == "node-a:29500"
    # Trainings that meet at the same address do not mix.
    assert options["--rdzv_id"] == "key"


def test_several_nodes_without_an_address_are_told_what_is_missing():
    with pytest.raises(LaunchError, match=r"LLMOPS_RENDEZVOUS .* and LLMOPS_NODE_RANK \(0 to 2\)"):
        distributed.command("job.json", gpus=8, nodes=3, environ={})


def on_gpus(gpus: int, sharding: str | None = None) -> TrainJob:
    spec = TrainJobSpec.from_recipe({**sft_spec("hf:x"), "resources": {"gpus": gpus, "sharding": sharding}}, "desk@v1")
    folders_of = dict.fromkeys(("plan_dir", "checkpoints", "output"), "x")
    return TrainJob(spec=spec, gpus=gpus, device="cuda", precision="fp32", **folders_of)


@pytest.mark.parametrize(
    ("sharding", "expected"),
    [
        (None, {"fsdp": True}),
        ("fsdp", {"fsdp": True}),
        ("ddp", {"ddp_find_unused_parameters": False}),
        ("zero2", {"deepspeed": distributed.deepspeed_config(2)}),
        ("zero3", {"deepspeed": distributed.deepspeed_config(3)}),
    ],
)
def test_each_way_to_share_is_told_to_the_trainer(sharding: str | None, expected: dict[str, Any]):
    arguments = distributed.arguments(on_gpus(2, sharding))
    assert {name: arguments[name] for name in expected} == expected
    assert ("fsdp" in arguments) == (sharding in (None, "fsdp"))


def test_one_process_is_told_nothing():
    assert distributed.arguments(on_gpus(1)) == {}
