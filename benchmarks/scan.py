"""How long a scan takes from start to result, beside what importing alone takes: `python -m benchmarks.scan`.

Each is a process of its own, run several times; printed are the fewest CPU-seconds and wall seconds. The first run is
not counted: it compiles what numba keeps on the disk.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.scale import lines

IMPORTS = """
import llmops_assets.cli
from llmops_assets.datasets.reading import scan
from llmops_assets.specs.policy import load_policy
load_policy()
"""


def seconds(command: list[str], runs: int) -> tuple[float, float]:
    """The fewest CPU-seconds and the fewest wall seconds of `runs` processes after the first."""
    cpu, wall = [], []
    for _ in range(runs + 1):
        before, began = os.times(), time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        after = os.times()
        wall.append(time.monotonic() - began)
        cpu.append(after.children_user + after.children_system - before.children_user - before.children_system)
    return min(cpu[1:]), min(wall[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "rows.jsonl"
        path.write_text("".join(f"{line}\n" for line in lines(options.rows)), encoding="utf-8")
        scan = [sys.executable, "-m", "llmops_assets.cli", "dataset", "scan", str(path)]
        for label, command in (
            ("an empty Python", [sys.executable, "-c", ""]),
            ("imports alone", [sys.executable, "-c", IMPORTS]),
            (f"scan of {options.rows:,} rows without names", [*scan, "--no-names"]),
            (f"scan of {options.rows:,} rows", scan),
        ):
            cpu, wall = seconds(command, options.runs)
            print(f"{label:<44} {cpu:6.2f} CPU-s {wall:6.2f} s", flush=True)


if __name__ == "__main__":
    main()
