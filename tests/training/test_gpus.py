"""Devices are found without torch, and a leased GPU belongs to one living process."""

import multiprocessing
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from resources.gpus import Device, NoFreeGpu, discover, lease, parse_nvidia_smi

TWO = """0, GPU-aaaa, NVIDIA H100 80GB HBM3, 81559
1, GPU-bbbb, NVIDIA H100 80GB HBM3, 81559
"""
GPUS = parse_nvidia_smi(TWO)


def test_gpus_are_read_from_nvidia_smi() -> None:
    assert GPUS[0] == Device("cuda", "GPU-aaaa", "NVIDIA H100 80GB HBM3", 81559 << 20)
    assert parse_nvidia_smi("0, GPU-c, Jetson, [N/A]\n")[0].memory_bytes == 0


@pytest.mark.parametrize(
    ("allowed", "ids"),
    [(None, ["GPU-aaaa", "GPU-bbbb"]), ("1", ["GPU-bbbb"]), ("GPU-a", ["GPU-aaaa"]), ("1,0", ["GPU-bbbb", "GPU-aaaa"])],
)
def test_only_visible_gpus_count(allowed: str | None, ids: list[str]) -> None:
    environ = {"CUDA_VISIBLE_DEVICES": allowed} if allowed is not None else {}
    assert [d.id for d in discover(environ, lambda: TWO)] == ids


@pytest.mark.parametrize("environ", [{}, {"CUDA_VISIBLE_DEVICES": ""}, {"CUDA_VISIBLE_DEVICES": "7"}])
def test_without_a_visible_gpu_there_is_the_cpu(environ: dict[str, str]) -> None:
    smi = "" if not environ else TWO
    (device,) = discover(environ, lambda: smi, system="Linux")
    assert device.kind == "cpu" and device.memory_bytes > 0


def test_two_leases_never_share_a_gpu_and_a_third_has_to_wait(tmp_path: Path) -> None:
    messages: list[str] = []
    with lease(GPUS, tmp_path) as one, lease(GPUS, tmp_path) as other:
        assert {one[0].id, other[0].id} == {"GPU-aaaa", "GPU-bbbb"}
        with (
            pytest.raises(NoFreeGpu, match="came free"),
            lease(GPUS, tmp_path, timeout=0.2, poll=0.02, waiting=messages.append),
        ):
            pass
    assert len(messages) == 1
    with lease(GPUS, tmp_path, count=2) as both:
        assert len(both) == 2


def test_more_gpus_than_there_are_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="2 found"), lease(GPUS, tmp_path, count=3):
        pass


def _work(folder: Path, log: Path, turns: int) -> None:
    for _ in range(turns):
        with lease(GPUS, folder, poll=0.001) as held, open(log, "a", buffering=1) as file:
            file.write(f"+ {held[0].id}\n")
            time.sleep(0.002)
            file.write(f"- {held[0].id}\n")


def _hold(folder: Path, ready: Path) -> None:
    with lease(GPUS[:1], folder):
        ready.write_text("held")
        signal.pause()


def test_a_killed_process_gives_its_gpu_back(tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    process = multiprocessing.get_context("fork").Process(target=_hold, args=(tmp_path, ready))
    process.start()
    deadline = time.monotonic() + 10
    while not ready.exists() or not ready.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    with lease(GPUS[:1], tmp_path, timeout=5, poll=0.01) as held:
        assert held[0].id == "GPU-aaaa"
    process.join()


def test_under_contention_no_gpu_is_ever_held_twice(tmp_path: Path) -> None:
    log = tmp_path / "log"
    context = multiprocessing.get_context("fork")
    crowd = [context.Process(target=_work, args=(tmp_path, log, 20)) for _ in range(6)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join()
    held: Counter[str] = Counter()
    lines = log.read_text().splitlines()
    assert len(lines) == 2 * 6 * 20
    for line in lines:
        sign, gpu = line.split()
        held[gpu] += 1 if sign == "+" else -1
        assert held[gpu] in (0, 1)


def _tenant(folder: Path, log: Path, turns: int) -> None:
    """Takes a GPU again and again, and writes its name all the while that it holds it."""
    handle = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    for turn in range(turns):
        with lease(GPUS, folder, poll=0.001) as held:
            for _ in range(20):
                os.write(handle, f"{held[0].id} {os.getpid()}.{turn}\n".encode())
                time.sleep(0.0005)


def test_jobs_that_are_killed_and_started_again_never_share_a_gpu(tmp_path: Path) -> None:
    log, kills, started = tmp_path / "log", 0, []
    context = multiprocessing.get_context("fork")
    rng = random.Random(0)

    def start() -> multiprocessing.Process:
        process = context.Process(target=_tenant, args=(tmp_path, log, 200))
        process.start()
        started.append(process)
        return process

    crowd = [start() for _ in range(4)]
    while kills < 40:
        before = log.stat().st_size if log.exists() else 0
        deadline = time.monotonic() + 30
        while not log.exists() or log.stat().st_size < before + 400:
            assert time.monotonic() < deadline, "nobody holds a GPU any more"
            time.sleep(0.0005)
        victim = rng.randrange(len(crowd))
        os.kill(crowd[victim].pid, signal.SIGKILL)
        kills += 1
        crowd[victim] = start()
    for process in crowd:
        os.kill(process.pid, signal.SIGKILL)
    for process in started:
        process.join()
    tenures: dict[str, list[str]] = {}
    for line in log.read_text().splitlines():
        gpu, tenure = line.split()
        history = tenures.setdefault(gpu, [])
        if not history or history[-1] != tenure:
            history.append(tenure)
    assert set(tenures) == {"GPU-aaaa", "GPU-bbbb"}
    for gpu, history in tenures.items():
        # Two that hold a GPU at once would write by turns, and one would come back after the other.
        assert len(history) == len(set(history)) > 20, gpu
