"""What a training can run on: finds CUDA, Apple MPS or the CPU without torch, and leases GPUs to one process each."""

import fcntl
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

_QUERY = ("nvidia-smi", "--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")

_USAGE = (
    "nvidia-smi",
    "--query-gpu=uuid,name,utilization.gpu,memory.used,temperature.gpu",
    "--format=csv,noheader,nounits",
)


@dataclass(frozen=True)
class Device:
    """A device; `id` is what CUDA_VISIBLE_DEVICES takes (a UUID where known), `memory_bytes` its whole memory."""

    kind: Literal["cuda", "mps", "cpu"]
    id: str
    name: str
    memory_bytes: int


@dataclass(frozen=True)
class GpuType:
    """A GPU as one buys it: its whole memory, and the operations a second that training of this kind reaches on it."""

    memory_bytes: int
    achieved_flops: float


GPU_TYPES = {
    "b200": GpuType(180 << 30, 900e12),
    "h200": GpuType(140 << 30, 400e12),
    "h100": GpuType(80 << 30, 400e12),
    "a100": GpuType(80 << 30, 125e12),
    "l40s": GpuType(45 << 30, 140e12),
    "l40": GpuType(45 << 30, 70e12),
    "a6000": GpuType(48 << 30, 60e12),
    "a10": GpuType(22 << 30, 50e12),
    "4090": GpuType(24 << 30, 65e12),
    "t4": GpuType(15 << 30, 25e12),
}
"""By a part of the name that nvidia-smi gives, the more exact first; about 40 % of the makers' dense bf16 peak."""


DECLARED = "declared-"
"""What the ids of devices begin with that a setting names and nobody here has seen."""


class NoFreeGpu(TimeoutError):
    """All GPUs stayed leased to other processes for as long as we were willing to wait."""


def cpu() -> Device:
    """The processor, with the memory that a container's limit leaves of it."""
    memory = psutil.virtual_memory().total
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text().strip()).isdigit():
        memory = min(memory, int(text))
    return Device("cpu", "cpu", f"{platform.machine()} CPU, {os.cpu_count()} threads", memory)


def _nvidia_smi(query: Sequence[str] = _QUERY) -> str:
    if shutil.which(query[0]) is None:
        return ""
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return answer.stdout if answer.returncode == 0 else ""


def parse_nvidia_smi(text: str) -> list[Device]:
    """Devices in the CSV that `nvidia-smi --query-gpu=index,uuid,name,memory.total` prints (memory in MiB)."""
    devices = []
    for line in filter(None, map(str.strip, text.splitlines())):
        _index, uuid, name, memory = (field.strip() for field in line.split(",", 3))
        # Some boards answer [N/A]; then nothing is known of the memory and nothing is refused because of it.
        size = int(memory) << 20 if memory.isdigit() else 0
        devices.append(Device("cuda", uuid, name, size))
    return devices


@dataclass(frozen=True)
class GpuUsage:
    """What a GPU does at this moment; None for what its driver does not say. `utilisation` is from 0 to 1."""

    id: str
    name: str
    utilisation: float | None
    used_bytes: int | None
    celsius: float | None


def usage(query: Callable[[], str] | None = None) -> list[GpuUsage]:
    """The GPUs of this machine and what each does now; empty where nvidia-smi is not there, or does not answer."""
    text = query() if query is not None else _nvidia_smi(_USAGE)
    found: list[GpuUsage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        uuid, name, busy, memory, heat = (field.strip() for field in line.split(",", 4))
        percent, mebibytes, celsius = (float(part) if _is_number(part) else None for part in (busy, memory, heat))
        used = None if mebibytes is None else int(mebibytes) << 20
        found.append(GpuUsage(uuid, name, None if percent is None else percent / 100, used, celsius))
    return found


def _is_number(text: str) -> bool:
    return text.replace(".", "", 1).isdigit()


def visible(devices: Sequence[Device], allowed: str | None) -> list[Device]:
    """`devices` that CUDA_VISIBLE_DEVICES (indices, UUIDs or UUID prefixes) leaves visible; None allows all."""
    if allowed is None:
        return list(devices)
    chosen: list[Device] = []
    for entry in filter(None, map(str.strip, allowed.split(","))):
        if entry.isdigit():
            chosen += [devices[int(entry)]] if int(entry) < len(devices) else []
        else:
            chosen += [device for device in devices if device.id.startswith(entry)]
    return chosen


def discover(
    environ: Mapping[str, str] = os.environ, query: Callable[[], str] = _nvidia_smi, system: str | None = None
) -> list[Device]:
    """GPUs that this process may use, else Apple's, else the CPU; never empty.

    `environ` is read for CUDA_VISIBLE_DEVICES and for LLMOPS_SIMULATED_GPUS, the number of devices to pretend (for
    tests of the lease: they train on the CPU).
    """
    if simulated := int(environ.get("LLMOPS_SIMULATED_GPUS") or 0):
        return [Device("cuda", f"simulated-{i}", "simulated GPU", cpu().memory_bytes) for i in range(simulated)]
    if gpus := visible(parse_nvidia_smi(query()), environ.get("CUDA_VISIBLE_DEVICES")):
        return gpus
    if (system or platform.system()) == "Darwin" and platform.machine() == "arm64":
        return [Device("mps", "mps", "Apple GPU", psutil.virtual_memory().total)]
    return [cpu()]


def declared(text: str) -> list[Device]:
    """The GPUs that `text` names (`4xh100`), for a platform that trains on machines other than its own.

    Raises ValueError for a text of another form or a type that is not in `GPU_TYPES`.
    """
    count, _, name = text.strip().lower().partition("x")
    if not count.isdigit() or not int(count) or name not in GPU_TYPES:
        raise ValueError(f"{text!r} names no GPUs: write a number and a type, as in 4xh100 ({', '.join(GPU_TYPES)})")
    return [Device("cuda", f"{DECLARED}{i}", name, GPU_TYPES[name].memory_bytes) for i in range(int(count))]


@contextmanager
def lease(
    devices: Sequence[Device],
    folder: Path,
    *,
    count: int = 1,
    timeout: float | None = None,
    waiting: Callable[[str], None] = lambda message: None,
    poll: float = 0.5,
) -> Iterator[list[Device]]:
    """Hold `count` of `devices` for the body; no other process that leases from `folder` gets one of them meanwhile.

    The lease is a `flock` on a file per device. The kernel drops it when the process ends, however it ends, so it must
    be taken inside the process that uses the GPU, before CUDA is initialised. The CPU and MPS are shared: no lock.
    Raises NoFreeGpu after `timeout` seconds (None waits for ever) and ValueError when there are fewer than `count`.
    """
    gpus = [device for device in devices if device.kind == "cuda"]
    if not gpus:
        yield list(devices[:1])
        return
    if count > len(gpus):
        raise ValueError(f"{count} GPUs are asked for and {len(gpus)} found: lower resources.gpus")
    folder.mkdir(parents=True, exist_ok=True)
    deadline = None if timeout is None else time.monotonic() + timeout
    announced = False
    while True:
        with ExitStack() as stack:
            # All or none: holding one GPU while waiting for a second could lock two jobs against each other.
            held: list[Device] = []
            for gpu in gpus:
                if len(held) < count and _try_lock(folder / f"{gpu.id}.lock", stack):
                    held.append(gpu)
            if len(held) == count:
                yield held
                return
        if deadline is not None and time.monotonic() > deadline:
            raise NoFreeGpu(f"no {count} of {len(gpus)} GPUs came free in {timeout:.0f} s: see who holds {folder}")
        if not announced:
            waiting(f"waiting for {count} of {len(gpus)} GPUs: all are leased to other trainings")
            announced = True
        time.sleep(poll)


def lock_handles() -> list[int]:
    """File descriptors of the leases that this process holds; a child that is given them holds the devices with it."""
    return list(_handles)


_handles: list[int] = []


def _try_lock(path: Path, stack: ExitStack) -> bool:
    # Opened without truncation: the file names the holder, and a failed attempt must not wipe that.
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    stack.callback(os.close, handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    _handles.append(handle)
    stack.callback(_handles.remove, handle)
    return True
