"""Measures the way of a JSON-lines file into the store against other readers: `python -m benchmarks.ingest`.

Every way runs in a process of its own, one after the other, on one file of made chats: CPU seconds (imports left out),
wall seconds and the highest memory. Ours registers (copies, fingerprints, seals), decodes strictly, checks every rule,
masks personal data by pattern and writes sealed chunks; the others only read, check types where they can, and write
Parquet that is not sealed. `--megabytes 1250` is about a million rows.
"""

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.datasets import personal, sentence


def write_chats(path: Path, size: int, seed: int = 0) -> int:
    """Chat rows of about 1.25 kB as JSON lines until the file has `size` bytes; how many there are."""
    rng, rows, written = random.Random(seed), 0, 0
    pool = [sentence(rng, 20) for _ in range(20_000)]
    with path.open("wb") as file:
        while written < size:
            asked = " ".join(rng.choices(pool, k=2)) + (" " + personal(rng) if rng.random() < 0.05 else "")
            answer = f"{rows}: " + " ".join(rng.choices(pool, k=6))
            turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]
            metadata = {"category": rng.choice("abcdefg"), "source": "made", "id": rows}
            written += file.write(
                json.dumps({"messages": turns, "metadata": metadata}, ensure_ascii=False).encode() + b"\n"
            )
            rows += 1
    return rows


def ours(path: Path, folder: Path) -> Callable[[], int]:
    from llmops_assets.datasets.quality import personal_data
    from llmops_assets.datasets.reading.ingest import ingest
    from llmops_assets.datasets.reading.readers import list_files
    from llmops_assets.datasets.versions.register import register
    from llmops_assets.privacy import pii
    from llmops_assets.specs.dataset import DatasetSpec
    from llmops_assets.specs.policy import load_policy
    from resources.artifacts import Artifacts
    from resources.catalog import Catalog
    from resources.dataset_store import DatasetStore
    from resources.encryption import Keyring, new_key

    keys = Keyring.parse(new_key())
    artifacts, policy = Artifacts(folder / "artifacts", keys), load_policy()
    catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
    store = DatasetStore(artifacts.upath("datasets"), keys)
    spec = DatasetSpec.model_validate(
        {"name": "bench", "version": "v1", "type": "sft_pair", "files": [str(path)], "owner": "o", "description": "d"}
    )
    catalog.open()

    def run() -> int:
        started = time.process_time()
        register(spec, [path], artifacts=artifacts, catalog=catalog, policy=policy, actor="bench")
        spent = {"register": time.process_time() - started, "ingest": 0.0, "mask": 0.0}

        def masked():
            at = time.process_time()
            for batch in ingest(list_files(artifacts.upath("uploads", spec.key)), spec.type, keys=keys):
                read = time.process_time()
                frame = personal_data.mask_rows(batch.rows, spec.type, pii.PATTERNS_ONLY).frame
                spent["ingest"] += read - at
                spent["mask"] += time.process_time() - read
                yield frame
                at = time.process_time()

        version = store.write(masked(), kind="rows", dataset=spec.key, step="dataset", config_hash="0")
        spent["store"] = time.process_time() - started - sum(spent.values())
        print("  " + ", ".join(f"{name} {seconds:.2f}" for name, seconds in spent.items()), file=sys.stderr)
        return store.manifest(version).rows

    return run


def with_polars(path: Path, folder: Path) -> Callable[[], int]:
    import polars as pl

    def run() -> int:
        frame = pl.read_ndjson(path)
        frame.write_parquet(folder / "rows.parquet")
        return frame.height

    return run


def with_pydantic(path: Path, folder: Path) -> Callable[[], int]:
    import polars as pl
    from pydantic import BaseModel, ConfigDict

    class Message(BaseModel):
        model_config = ConfigDict(strict=True)
        role: str
        content: str

    class Row(BaseModel):
        model_config = ConfigDict(strict=True)
        messages: list[Message]
        metadata: dict[str, str | int] = {}

    def run() -> int:
        with open(path, "rb") as file:
            rows = [Row.model_validate_json(line) for line in file]
        pl.DataFrame([row.model_dump() for row in rows]).write_parquet(folder / "rows.parquet")
        return len(rows)

    return run


def with_datasets(path: Path, folder: Path) -> Callable[[], int]:
    from datasets import load_dataset

    def run() -> int:
        rows = load_dataset("json", data_files=str(path), split="train", cache_dir=str(folder / "cache"))
        rows.to_parquet(str(folder / "rows.parquet"))
        return len(rows)

    return run


WAYS: dict[str, tuple[str, Callable[[Path, Path], Callable[[], int]]]] = {
    "ours": ("llmops: registered, checked, masked, sealed", ours),
    "polars": ("polars read_ndjson, Parquet", with_polars),
    "pydantic": ("pydantic strict a line, Parquet", with_pydantic),
    "datasets": ("datasets load_dataset('json'), Parquet", with_datasets),
}


def measure(way: str, path: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        run = WAYS[way][1](path, Path(folder))
        cpu, wall = time.process_time(), time.perf_counter()
        rows = run()
        return {
            "rows": rows,
            "cpu": time.process_time() - cpu,
            "wall": time.perf_counter() - wall,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=list(WAYS))
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.file)))
        return
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "chats.jsonl"
        rows = write_chats(path, options.megabytes * 10**6)
        print(f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB")
        for way in options.ways:
            command = [sys.executable, "-W", "ignore", "-m", "benchmarks.ingest", "--measure", way, "--file", str(path)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=3600)
            found = json.loads(done.stdout.splitlines()[-1])
            assert found["rows"] == rows, (way, found)
            print(
                f"{WAYS[way][0]:<46} {found['cpu']:7.2f} CPU-s {found['wall']:7.1f} s  peak {found['peak']:7,.0f} MB",
                flush=True,
            )


if __name__ == "__main__":
    main()
