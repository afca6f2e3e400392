"""Near duplicates against datasketch and datatrove, on the same invented documents: `python -m benchmarks.duplicates`.

Documents are about 1 kB, every fifth an edited copy of another. Recall is of the planted pairs whose exact Jaccard
similarity over character 5-grams is 0.8 or more (a pair is found when both are in one cluster); precision is the share
of reported pairs that are that similar. CPU seconds of one process each. datatrove runs in an environment of its own:

    python -m venv .engines/datatrove
    .engines/datatrove/bin/pip install datatrove==0.10.1 "xxhash<4" regex tokenizers
"""

import argparse
import json
import resource
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import polars as pl

from benchmarks.datasets import families
from llmops_assets.datasets.similarity import duplicates

ENGINE = Path(".engines/datatrove/bin/python")


def grams(text: str) -> set[str]:
    return {text[start : start + 5] for start in range(max(1, len(text) - 4))}


def planted(documents: list[str]) -> np.ndarray:
    """Pairs (original, copy) that are similar enough; int64 of shape (pairs, 2)."""
    found = []
    for number in range(4, len(documents), 5):
        one, other = grams(documents[number - 1]), grams(documents[number])
        if len(one & other) >= 0.8 * len(one | other):
            found.append((number - 1, number))
    return np.array(found, dtype=np.int64)


def precise(documents: list[str], pairs: np.ndarray, most: int = 20_000) -> float:
    """The share of reported pairs (of a sample) that are similar enough."""
    if len(pairs) > most:
        pairs = pairs[np.random.default_rng(0).choice(len(pairs), most, replace=False)]
    right = 0
    for x, y in pairs:
        one, other = grams(documents[x]), grams(documents[y])
        right += len(one & other) >= 0.8 * len(one | other)
    return right / max(len(pairs), 1)


def recall(truth: np.ndarray, pairs: np.ndarray, size: int) -> float:
    root = duplicates.components(size, pairs)
    return float((root[truth[:, 0]] == root[truth[:, 1]]).mean())


def ours(documents: pl.Series) -> tuple[float, np.ndarray]:
    duplicates.near_pairs(documents[:100], duplicates.Near())  # compiled once per machine, not part of the work
    began = time.process_time()
    pairs, _ = duplicates.near_pairs(duplicates.normalise(documents), duplicates.Near())
    return time.process_time() - began, pairs.astype(np.int64)


def datasketch(documents: list[str]) -> tuple[float, np.ndarray]:
    """`MinHash.bulk` and MinHashLSH, as its documentation shows; cutting the shingles is not counted."""
    from datasketch import MinHash, MinHashLSH

    began, cut = time.process_time(), 0.0
    index, found = MinHashLSH(params=(16, 8), num_perm=128), []
    for start in range(0, len(documents), 10_000):
        before = time.process_time()
        shingles = [[gram.encode() for gram in grams(text)] for text in documents[start : start + 10_000]]
        cut += time.process_time() - before
        for number, sketch in enumerate(MinHash.bulk(shingles, num_perm=128), start):
            found += [(other, number) for other in index.query(sketch)]
            index.insert(number, sketch)
    return time.process_time() - began - cut, np.array(found, dtype=np.int64).reshape(-1, 2)


def datatrove(documents: list[str], python: Path) -> tuple[float, np.ndarray]:
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl", encoding="utf-8") as file:
        file.writelines(json.dumps(text, ensure_ascii=False) + "\n" for text in documents)
        file.flush()
        script = Path(__file__).with_name("datatrove_minhash.py")
        done = subprocess.run([python, script, file.name], capture_output=True, text=True, check=True, timeout=7200)
    summary = json.loads(done.stdout)
    return summary["seconds"], np.array(summary["pairs"], dtype=np.int64).reshape(-1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--datatrove", type=Path, default=ENGINE, help="the interpreter of its environment")
    parser.add_argument("--alone", action="store_true", help="without the others, which take long over a million")
    options = parser.parse_args()
    texts = list(families(options.documents))
    truth = planted(texts)
    size = sum(len(text.encode()) for text in texts)
    print(f"{len(texts):,} documents, {size / 1e6:,.0f} MB, {len(truth):,} planted pairs with J >= 0.8")
    series = pl.Series(texts)
    runs = {"llmops": lambda: ours(series)}
    if not options.alone:
        runs["datasketch bulk + LSH"] = lambda: datasketch(texts)
        if options.datatrove.exists():
            runs["datatrove MinHash, str.split, xxhash32"] = lambda: datatrove(texts, options.datatrove)
        else:
            print(f"datatrove is left out: there is no {options.datatrove} (see --help)")
    first = None
    for name, run in runs.items():
        seconds, pairs = run()
        first = first or seconds
        print(
            f"{name:<42} {seconds:8.1f} CPU-s  {len(texts) / seconds:9,.0f} docs/s  {seconds / first:5.1f}×  "
            f"recall {recall(truth, pairs, len(texts)):.4f}  precision {precise(texts, pairs):.4f}",
            flush=True,
        )
    print(f"peak of this process {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
