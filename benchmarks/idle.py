"""What `llmops up` costs while nobody wants anything: share of a core and proportional memory, by process.

`python -m benchmarks.idle [SECONDS]` starts a platform on a new home with free ports, lets it settle for half a minute,
and measures it over SECONDS (60). Of memory that processes share each is charged its part, as Linux counts it (PSS).
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from llmops_assets.local.stack import REPOSITORY, START_SECONDS, free_port

SETTLE_SECONDS = 30


def main(seconds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="llmops-idle-") as home:
        ports = {f"LLMOPS_{name}_PORT": str(free_port("127.0.0.1")) for name in ("DAGSTER", "MLFLOW", "GATEWAY")}
        with open(Path(home) / "up.log", "w") as log:
            platform = subprocess.Popen(
                [sys.executable, "-m", "llmops_assets.cli", "up"],
                env={**os.environ, "LLMOPS_HOME": home, **ports},
                cwd=REPOSITORY,
                stdout=log,
                stderr=log,
            )
        try:
            _await_state(platform, Path(home))
            time.sleep(SETTLE_SECONDS)
            print(table(measure(platform.pid, seconds), seconds))
        finally:
            platform.send_signal(signal.SIGTERM)
            platform.wait(60)


def _await_state(platform: subprocess.Popen, home: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not (home / "up.json").exists():
        if platform.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"the platform did not start:\n{(home / 'up.log').read_text()}")
        time.sleep(0.2)


def measure(pid: int, seconds: int) -> list[tuple[str, float, float]]:
    """(process, per cent of a core, PSS in MB) of a process and of all below it, the dearest first."""
    root = psutil.Process(pid)
    before = {process: _cpu(process) for process in [root, *root.children(recursive=True)]}
    begun = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begun
    found = []
    for process in [root, *root.children(recursive=True)]:
        try:
            used = _cpu(process) - before.get(process, 0.0)
            found.append((_name(process), 100 * used / elapsed, process.memory_full_info().pss / 1e6))
        except psutil.NoSuchProcess:
            # A helper that lived for a moment: its processor time is its parent's by now.
            continue
    return sorted(found, key=lambda row: -row[1])


def table(rows: list[tuple[str, float, float]], seconds: int) -> str:
    lines = [f"idle over {seconds} s{'':<44}  % of a core    PSS MB"]
    total = ("together", sum(row[1] for row in rows), sum(row[2] for row in rows))
    lines += [f"{name:<60} {cpu:>12.2f} {memory:>9.0f}" for name, cpu, memory in [*rows, total]]
    return "\n".join(lines)


def _cpu(process: psutil.Process) -> float:
    """Processor seconds of a process and of the helpers of its that have ended."""
    times = process.cpu_times()
    return times.user + times.system + times.children_user + times.children_system


def _name(process: psutil.Process) -> str:
    words = [word for word in process.cmdline()[1:] if not word.startswith("-")]
    return " ".join(words)[:58] or process.name()


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 60)
