"""Measures what a small edit of a dataset costs in new bytes: `python -m benchmarks.versions`.

One file of made chats is stored; then it is edited as a person would: rows changed, added and removed in a few places.
Ours is the dataset store at several chunk sizes; beside it, on the same rows, one Parquet file a version (what copying,
git-lfs or DVC keeps), and a Parquet file cut into parts of a fixed number of rows that are kept by their content.
"""

import argparse
import hashlib
import io
import random
import tempfile
import time
from pathlib import Path

import polars as pl
from upath import UPath

from benchmarks.ingest import write_chats
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.versions.diff import diff
from resources import dataset_chunks
from resources.dataset_store import DatasetStore


def edited(path: Path, target: Path, places: int, seed: int = 1) -> None:
    """A copy of a file of JSON lines in which, at each of `places` places, a line was changed, put in or taken out."""
    rng = random.Random(seed)
    lines = path.read_bytes().splitlines(keepends=True)
    for number, at in enumerate(sorted(rng.sample(range(len(lines)), places), reverse=True)):
        changed = lines[at].replace(b'"content": "', b'"content": "Edited. ', 1)
        lines[at : at + 1] = ([changed], [lines[at], changed], [])[number % 3]
    target.write_bytes(b"".join(lines))


def rows_of(path: Path) -> pl.DataFrame:
    return pl.concat([batch.rows for batch in ingest([(path.name, UPath(path))], "sft_pair")])


def parts(frame: pl.DataFrame, size: int) -> dict[str, int]:
    """Bytes by content of a table cut into Parquet files of `size` rows."""
    found = {}
    for part in frame.iter_slices(size):
        buffer = io.BytesIO()
        part.rechunk().write_parquet(buffer, compression="zstd", compression_level=3, statistics=False)
        found[hashlib.sha256(buffer.getvalue()).hexdigest()] = len(buffer.getvalue())
    return found


def show(label: str, total: int, new: int, files: int, seconds: float) -> None:
    print(
        f"{label:<44} {total / 1e6:8.1f} MB in {files:5,} files  edit: {new / 1e6:8.2f} MB new ({new / total:7.2%})"
        f"  {seconds:6.2f} CPU-s to write",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--places", type=int, default=5, help="where the file is edited")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        old, new = folder / "chats-v1.jsonl", folder / "chats-v2.jsonl"
        count = write_chats(old, options.megabytes * 10**6)
        edited(old, new, options.places)
        before, after = rows_of(old), rows_of(new)
        print(f"{count:,} rows, {old.stat().st_size / 1e6:,.0f} MB, edited in {options.places} places")
        kept = dataset_chunks.REACH
        for bits in (7, 8, 9, 10):
            dataset_chunks.REACH = 1 << bits
            store = DatasetStore(folder / f"store-{bits}")
            clock = time.process_time()
            manifests = [
                store.manifest(store.write(f, kind="rows", dataset=f"b@{v}", step="dataset", config_hash="0"))
                for v, f in (("v1", before), ("v2", after))
            ]
            spent = (time.process_time() - clock) / 2
            first, second = ({c.sha256: c.bytes for c in m.chunks} for m in manifests)
            fresh = sum(size for sha256, size in second.items() if sha256 not in first)
            ours = " (ours)" if kept == dataset_chunks.REACH else ""
            label = f"content-defined chunks, about {2 << bits:,} rows{ours}"
            show(label, sum(second.values()), fresh, len(second), spent)
            if ours:
                clock = time.process_time()
                found = diff(store, *manifests)
                summary = f"{found.changed} changed, {found.added} added, {found.removed} removed"
                print(f"{'  llmops dataset diff':<44} {summary} in {time.process_time() - clock:.2f} CPU-s")
        dataset_chunks.REACH = kept
        for label, size in (("one Parquet file a version", 1 << 40), ("Parquet parts of 512 rows each", 512)):
            clock = time.process_time()
            first, second = parts(before, min(size, before.height)), parts(after, min(size, after.height))
            spent = (time.process_time() - clock) / 2
            fresh = sum(n for sha256, n in second.items() if sha256 not in first)
            show(label, sum(second.values()), fresh, len(second), spent)


if __name__ == "__main__":
    main()
