"""How long `llmops ab analyze` takes for ten million exposures, and how much memory.

Run it with ``python -m benchmarks.exposures``: it writes a log as Parquet (or, with ``--csv``, as CSV), and measures
the command in a process of its own, from its start to its end.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
from pyarrow import parquet

PIECES = 100
_MEASURED = """
import sys, time
from pathlib import Path
from llmops_assets.cli import app
app(["ab", "analyze", sys.argv[1], "--json"], standalone_mode=False)
peak = int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024
print(time.process_time(), peak, file=sys.stderr)
"""


def pieces(rows: int, users: int, seed: int):
    """A log in pieces: each user on the arm that a coin gave, one request in three rated."""
    rng = np.random.default_rng(seed)
    arms = rng.integers(0, 2, users)
    names = np.array(["control", "treatment"])
    own = rng.normal(3.6, 0.8, users)
    for number in range(PIECES):
        size = rows // PIECES
        user = rng.integers(0, users, size)
        rating = np.clip(np.rint(own[user] + 0.05 * arms[user] + rng.normal(0, 1, size)), 1, 5).astype(np.int64)
        seconds = np.sort(rng.integers(8_640 * number, 8_640 * (number + 1), size)).astype("timedelta64[s]")
        yield pl.DataFrame(
            {
                "at": pl.Series(np.datetime64("2026-01-05T00:00:00", "us") + seconds).dt.replace_time_zone("UTC"),
                "variant": names[arms[user]],
                "user": pl.Series(user).cast(pl.String).str.zfill(12),
                "status": np.where(rng.random(size) < 0.003, 502, 200),
                "latency_ms": rng.lognormal(6, 0.6, size),
                "rating": pl.Series(rating).set(pl.Series(rng.random(size) > 1 / 3), None),
                "query": pl.Series(["a question that no analysis reads, " * 3]).new_from_index(0, size),
            }
        )


def write(path: Path, rows: int, users: int, seed: int) -> None:
    """The log as a file, without more of it in memory than a piece."""
    if path.suffix == ".csv":
        with open(path, "wb") as file:
            for number, piece in enumerate(pieces(rows, users, seed)):
                piece.drop("query").write_csv(file, include_header=not number)
        return
    writer = None
    for piece in pieces(rows, users, seed):
        table = pa.Table.from_batches(piece.to_arrow().to_batches())
        writer = writer or parquet.ParquetWriter(path, table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, nargs="*", default=[100_000, 500_000])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--csv", action="store_true")
    options = parser.parse_args()
    print("| exposures | users | seconds | CPU-s | peak MB | decision |\n|---|---|---|---|---|---|")
    for users in options.users:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / ("log.csv" if options.csv else "log.parquet")
            write(path, options.rows, users, options.seed)
            # What the system writes to the disk later would be measured as well.
            os.sync()
            begun = time.monotonic()
            done = subprocess.run(
                [sys.executable, "-c", _MEASURED, str(path)], check=True, capture_output=True, text=True
            )
            seconds = time.monotonic() - begun
        found = json.loads(done.stdout)
        cpu, peak = map(float, done.stderr.split()[-2:])
        rows = sum(arm["rows"] for arm in found["arms"].values())
        decision = found["decision"]
        print(f"| {rows:,} | {users:,} | {seconds:.1f} | {cpu:.1f} | {peak:.0f} | {decision} |", flush=True)


if __name__ == "__main__":
    main()
