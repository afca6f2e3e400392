"""Devices are found without torch, and a leased GPU belongs to one living process."""

import multiprocessing
import os
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
    said: list[str] = []
    with lease(GPUS, tmp_path) as one, lease(GPUS, tmp_path) as other:
        assert {one[0].id, other[0].id} == {"GPU-aaaa", "GPU-bbbb"}
        with (
            pytest.raises(NoFreeGpu, match="came free"),
            lease(GPUS, tmp_path, timeout=0.2, poll=0.02, waiting=said.append),
        ):
            pass
    assert len(said) == 1
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
