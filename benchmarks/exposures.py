"""How long ten million exposures take to be analysed, and how much memory.

Run it with ``python -m benchmarks.exposures``: it writes the Parquet files, and measures the analysis in a process of
its own.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

START = datetime(2026, 1, 5, tzinfo=UTC)
FILES = 10


def write(folder: Path, rows: int, users: int, seed: int) -> None:
    """`FILES` files of exposures: each user on the arm that a coin gave, one request in three rated."""
    rng = np.random.default_rng(seed)
    arms = rng.integers(0, 2, users)
    own = rng.normal(3.6, 0.8, users)
    for file in range(FILES):
        size = rows // FILES
        user = rng.integers(0, users, size)
        rating = np.clip(np.rint(own[user] + 0.05 * arms[user] + rng.normal(0, 1, size)), 1, 5).astype(np.int64)
        seconds = np.sort(rng.integers(86_400 * file, 86_400 * (file + 1), size))
        pl.DataFrame(
            {
                "at": pl.Series(np.datetime64("2026-01-05T00:00:00", "us") + seconds.astype("timedelta64[s]"))
                .cast(pl.Datetime("us"))
                .dt.replace_time_zone("UTC"),
                "phase": np.ones(size, dtype=np.int64),
                "variant": arms[user],
                "user": pl.Series(user).cast(pl.String).str.zfill(12),
                "status": np.where(rng.random(size) < 0.003, 502, 200),
                "error": pl.Series([None], dtype=pl.String).new_from_index(0, size),
                "latency_ms": rng.lognormal(6, 0.6, size),
                "rating": pl.Series(rating).set(pl.Series(rng.random(size) > 1 / 3), None),
                "query": pl.Series(["a question that no analysis reads, " * 3]).new_from_index(0, size),
            }
        ).write_parquet(folder / f"{file}.parquet")


def measure(folder: Path) -> None:
    """Analyse the files of a folder; prints seconds, the peak in MB, and what came out, as JSON."""
    from llmops_assets.experiments.analysis import analyse_sums, plan_of, shares_by_phase
    from llmops_assets.experiments.decision import decide
    from llmops_assets.experiments.parquet_sums import sums_of_parquet
    from llmops_assets.specs.experiment import ExperimentSpec
    from llmops_assets.specs.policy import load_policy

    begun, used = time.monotonic(), time.process_time()
    spec = ExperimentSpec(name="e", endpoint="e", control="a@1", treatment="b@1", duration_hours=24 * 30)
    plan = plan_of(spec, load_policy().experiments, START)
    phases = {1: [{"model_ref": model, "weight": 50} for model in ("a@1", "b@1")]}
    sums = sums_of_parquet(sorted(folder.glob("*.parquet")), plan, phases)
    added = time.monotonic() - begun
    found = analyse_sums(sums, plan, shares_by_phase(phases, plan), START + timedelta(days=20))
    decision = decide(found)
    status = Path("/proc/self/status").read_text()
    peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
    result = {"seconds": time.monotonic() - begun, "cpu": time.process_time() - used, "added_up": added}
    result |= {"peak_mb": peak, "outcome": decision.outcome}
    print(json.dumps(result | {"requests": sum(arm.requests for arm in found.arms)}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, nargs="*", default=[100_000, 500_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        measure(options.measure)
        return
    print("| exposures | users | seconds | CPU-s | adding up, s | peak MB | decision |")
    print("|---|---|---|---|---|---|---|")
    for users in options.users:
        with tempfile.TemporaryDirectory() as folder:
            write(Path(folder), options.rows, users, options.seed)
            command = [sys.executable, "-m", "benchmarks.exposures", "--measure", folder]
            found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        print(
            f"| {found['requests']:,} | {users:,} | {found['seconds']:.1f} | {found['cpu']:.1f} | "
            f"{found['added_up']:.1f} | {found['peak_mb']:.0f} | {found['outcome']} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
