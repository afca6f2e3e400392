"""The worker as a process: killed, orphaned, stopped, failing; what it may see, and what it leaves behind."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest

from llmops_assets.records.jobs import MemoryEstimate
from llmops_assets.training import folders
from llmops_assets.training.assets import taken_up_again
from resources.gpus import cpu, lease
from resources.run_log import root_message
from resources.trainer import Trainer, TrainerError
from tests.training.conftest import Desk, StandIn, run_here, sft_spec, typed

DEADLINE = 180.0


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come about in {DEADLINE:.0f} s"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def start(job: dict, folder: Path) -> subprocess.Popen:
    """The worker as its own process, without a Trainer around it."""
    files = {name: str(folder / f"{job['task']}.{name}") for name in ("result", "error", "log", "metrics")}
    path = folder / "job.json"
    path.write_text(json.dumps({**job, **files, "locks": str(folder / "locks")}))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    return subprocess.Popen([sys.executable, "-m", "images.train", str(path)], env=environment)


@pytest.fixture(scope="module")
def uninterrupted(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict:
    folder = tmp_path_factory.mktemp("whole")
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS), folder, tiny_base)
    run_here(jobs["plan"], folder)
    facts = run_here(jobs["train"], folder)
    return {"facts": facts, "weights": (folder / "adapter" / "adapter_model.safetensors").read_bytes()}


STEPS = 60


def test_a_killed_training_goes_on_to_the_same_weights(
    desk: Desk, tiny_base: Path, tmp_path: Path, uninterrupted: dict
) -> None:
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=STEPS), tmp_path, tiny_base)
    run_here(jobs["plan"], tmp_path)
    process = start(jobs["train"], tmp_path)
    until(lambda: folders.last_checkpoint(tmp_path / "checkpoints")[0] is not None, "a checkpoint")
    process.kill()
    process.wait()
    assert not (tmp_path / "adapter").exists()
    step = folders.last_checkpoint(tmp_path / "checkpoints")[0]
    assert 0 < step < STEPS

    facts = desk.trainer.run(None, typed(jobs["train"]), work_dir=tmp_path / "work")
    assert facts["resumed_from"] == step
    assert (tmp_path / "adapter" / "adapter_model.safetensors").read_bytes() == uninterrupted["weights"]
    assert facts["curve"] == uninterrupted["facts"]["curve"]
    assert facts["eval_loss"] == uninterrupted["facts"]["eval_loss"]
    shown = json.loads((tmp_path / "work" / "train.live").read_text())
    assert (shown["step"], shown["eval_loss"]) == (STEPS, facts["eval_loss"]), "the last validation is shown too"


def test_an_orphan_saves_a_checkpoint_lets_its_gpu_go_and_ends(desk: Desk, tiny_base: Path, tmp_path: Path) -> None:
    jobs = desk.jobs(sft_spec(f"hf:{tiny_base}", max_steps=5000, num_epochs=1000, save_steps=4000), tmp_path, tiny_base)
    run_here(jobs["plan"], tmp_path)
    script = textwrap.dedent(
        f"""
        from llmops_assets.records.jobs import read_job
        from resources.trainer import Trainer
        job = read_job(open({str(tmp_path / "given.json")!r}).read())
        Trainer(locks={str(tmp_path / "locks")!r}, threads=1).run(None, job, work_dir={str(tmp_path / "work")!r})
        """
    )
    (tmp_path / "given.json").write_text(json.dumps({**jobs["train"], "gpus": 1}))
    environment = {**os.environ, "LLMOPS_SIMULATED_GPUS": "1"}
    parent = subprocess.Popen([sys.executable, "-c", script], env=environment)
    metrics, lock = tmp_path / "work" / "train.metrics", tmp_path / "locks" / "simulated-0.lock"
    until(metrics.exists, "the first step")
    worker = int(lock.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    until(lambda: gone(worker), "the end of the orphan")
    step, path, warnings = folders.last_checkpoint(tmp_path / "checkpoints")
    assert step and step < 4000 and path and not warnings
    assert "gone" in json.loads((tmp_path / "work" / "train.error").read_text())["message"]
    from resources.gpus import discover

    with lease(discover({"LLMOPS_SIMULATED_GPUS": "1"}), tmp_path / "locks", timeout=1.0) as held:
        assert held[0].id == "simulated-0"


def test_a_failure_is_told_in_the_words_of_the_worker(desk: Desk, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="unknown task 'fly'") as caught:
        desk.trainer.run(None, StandIn(task="fly"), work_dir=tmp_path)
    assert "log:" in str(caught.value)
    assert (tmp_path / "fly.json").exists()


def stand_in(tmp_path: Path, body: str) -> str:
    """A program that takes the place of the interpreter that runs the worker: it gets `-m images.train JOB.json`."""
    path = tmp_path / "worker"
    path.write_text(f"#!{sys.executable}\nimport json, os, sys\njob = json.load(open(sys.argv[-1]))\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_the_worker_does_not_see_our_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMOPS_CATALOG_URL", "postgresql://user:secret@host/db")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    python = stand_in(tmp_path, "json.dump(dict(os.environ), open(job['result'], 'w'))")
    environment = Trainer(locks=tmp_path / "locks", python=python).run(None, StandIn(task="look"), work_dir=tmp_path)
    assert "secret" not in json.dumps(environment)
    assert environment["HF_HUB_OFFLINE"] == "1"
    assert environment["LLMOPS_PARENT_PID"] == str(os.getpid())


def test_a_worker_killed_for_memory_is_told_as_such(tmp_path: Path) -> None:
    python = stand_in(tmp_path, "os.kill(os.getpid(), 9)")
    with pytest.raises(TrainerError, match="out of memory"):
        Trainer(locks=tmp_path / "locks", python=python).run(None, StandIn(task="die"), work_dir=tmp_path)


def test_a_killed_worker_is_begun_once_more_and_the_second_kill_is_told_with_the_estimate(tmp_path: Path) -> None:
    body = (
        "tries = os.path.join(os.path.dirname(job['result']), 'tries')\n"
        "open(tries, 'a').write('x')\n"
        "if len(open(tries).read()) <= job['kills']: os.kill(os.getpid(), 9)\n"
        "json.dump({'done': True}, open(job['result'], 'w'))"
    )
    trainer = Trainer(dg.PipesSubprocessClient(), locks=tmp_path / "locks", python=stand_in(tmp_path, body))

    def outcome(kills: int) -> dg.ExecuteInProcessResult:
        work = tmp_path / f"work-{kills}"
        memory = MemoryEstimate(needed=9 << 30, available=4 << 30, advice="less")
        job = StandIn(task="try", kills=kills, memory=memory)

        @dg.asset
        def weights(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            with taken_up_again():
                trainer.run(context, job, work_dir=work)
            return dg.MaterializeResult()

        return dg.materialize([weights], raise_on_error=False)

    assert outcome(1).success
    assert (tmp_path / "work-1" / "tries").read_text() == "xx"
    failed = outcome(9)
    (event,) = failed.get_step_failure_events()
    assert not failed.success and (tmp_path / "work-9" / "tries").read_text() == "xx"
    message = root_message(event.step_failure_data.error)
    assert "reckoned with 9.00 GiB of 4.00 GiB; what would take less: less" in message


def test_live_metrics_arrive_in_order_though_the_sink_fails_at_first(tmp_path: Path) -> None:
    body = (
        "import time\nf = open(job['metrics'], 'a', buffering=1)\n"
        "for i in range(30):\n    f.write(json.dumps({'step': i}) + '\\n'); time.sleep(0.1)\n"
        "json.dump({}, open(job['result'], 'w'))"
    )
    got: list[int] = []
    calls = 0

    def sink(lines: list[dict]) -> None:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ConnectionError("the tracking server is away")
        got.extend(line["step"] for line in lines)

    trainer = Trainer(locks=tmp_path / "locks", python=stand_in(tmp_path, body))
    trainer.run(None, StandIn(task="tell"), work_dir=tmp_path, on_metrics=sink)
    assert got == list(range(30))
    assert calls > 2


def test_without_a_gpu_the_cpu_is_leased_to_everyone(tmp_path: Path) -> None:
    with lease([cpu()], tmp_path) as one, lease([cpu()], tmp_path) as other:
        assert one == other and one[0].kind == "cpu"
