"""Near duplicates against datasketch and datatrove, on the same invented documents: `python -m benchmarks.duplicates`.

Documents are about 1 kB, every fifth an edited copy of another. Recall is of the planted pairs whose exact Jaccard
similarity over character 5-grams is 0.8 or more (a pair is found when both are in one cluster); precision is the share
of reported pairs that are that similar. Ours goes the whole way from rows to clusters. Then come rows that are no
duplicates, whatever they share (`benchmarks.distinct_rows`), with an edited copy of every fourth: how many distinct
rows of each kind are lost, and how many copies found. CPU seconds of one process each. datatrove runs in an environment
of its own:

    python -m venv .engines/datatrove
    .engines/datatrove/bin/pip install datatrove==0.10.1 "xxhash<4" regex tokenizers
"""

import argparse
import json
import random
import re
import resource
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import distinct_rows
from benchmarks.datasets import families
from llmops_assets.datasets import schema
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
    rows = pl.DataFrame({"row_id": pl.int_range(len(documents), eager=True).cast(pl.String), "text": documents})
    duplicates.find(rows[:100], "pretrain_corpus")  # compiled once per machine, not part of the work
    began = time.process_time()
    found = duplicates.find(rows, "pretrain_corpus").clusters.filter(~pl.col("kept"))
    spent = time.process_time() - began
    return spent, found.select(pl.col("cluster", "row_id").cast(pl.Int64)).to_numpy()


def edited(row: Any, rng: random.Random) -> Any:
    """A copy with a letter changed in a word of its answer, or of its question where the answer is a word or two."""
    at_turn = 0 if isinstance(row, str) else -1 if len(row[-1]["content"]) > 12 else -2
    text = row if isinstance(row, str) else row[at_turn]["content"]
    places = [match.start() + 1 for match in re.finditer(r"[가-힣]{3,}|[a-z]{4,}", text)]
    at = rng.choice(places[len(places) // 3 :] or places)
    text = text[:at] + rng.choice("갸먀뱌샤챠탸햐얘걔쟤꽤뙈뻬쐐쬬퓨횩갭냉뤄뭬볜쇡웽쥬췌켸튈펼휭") + text[at + 1 :]
    if isinstance(row, str):
        return text
    copy = [dict(turn) for turn in row]
    copy[at_turn]["content"] = text
    return copy


def table(dataset_type: str, rows: list[Any]) -> pl.DataFrame:
    ids = pl.int_range(len(rows), eager=True).cast(pl.String).alias("row_id")
    if dataset_type == "pretrain_corpus":
        return pl.DataFrame({"row_id": ids, "text": rows})
    turns = pl.Series("messages", rows, dtype=schema.MESSAGES)
    return pl.DataFrame({"row_id": ids, "messages": turns, "tools": pl.Series([None] * len(rows), dtype=pl.String)})


def distinct(count: int, seed: int) -> None:
    """Rows that share much and are no duplicates: how many are lost, and how many of the planted copies are found."""
    print(f"{'rows that are alike and say different things':<48} {'rows':>6} {'lost':>6} {'copies':>7} {'found':>6}")
    lost_of_all = 0
    for name, dataset_type, rows in distinct_rows.kinds(seed, count):
        rng = random.Random(seed)
        copies = [(number, edited(rows[number], rng)) for number in range(0, len(rows), 4)]
        whole = table(dataset_type, rows + [copy for _, copy in copies])
        dropped = duplicates.find(whole, dataset_type).clusters.filter(~pl.col("kept"))["row_id"].cast(pl.Int64)
        lost = int((dropped < len(rows)).sum())
        lost_of_all += lost
        alike = [
            len(grams(one) & grams(other)) >= 0.8 * len(grams(one) | grams(other))
            for one, other in ((text_of(rows[number]), text_of(copy)) for number, copy in copies)
        ]
        found = sum(similar and len(rows) + at in set(dropped) for at, similar in enumerate(alike))
        print(f"{name:<48} {len(rows):>6,} {lost:>6,} {sum(alike):>7,} {found:>6,}", flush=True)
    print(f"{'lost in all':<48} {lost_of_all:>13,}")


def text_of(row: Any) -> str:
    return row if isinstance(row, str) else " ".join(turn["content"] for turn in row if turn["role"] != "system")


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
    parser.add_argument("--distinct", type=int, default=400, help="rows of each kind that share much; 0 for none")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.distinct:
        distinct(options.distinct, options.seed)
    texts = list(families(options.documents, options.seed))
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
