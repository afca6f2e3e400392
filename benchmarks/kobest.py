"""Runs the whole stage on public data that nobody here wrote: `python -m benchmarks.kobest [--data FOLDER]`.

An SFT on KoBEST SentiNeg and BoolQ goes through dataset add, train and evaluation in a home of its own, and its model
is held against two baselines on the published test files: the majority class, and TF-IDF of character 1- to 4-grams
with logistic regression. The model is a Llama of about 1.3 million parameters that is first pre-trained, for a few
hundred steps, on nothing but the texts of the same two training files. It prints what it finds, whatever that is.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from llmops_assets.evaluation.formats import rows_of
from llmops_assets.evaluation.metrics import mcnemar, wilson
from llmops_assets.local.stack import platform
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.specs.names import training_key
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring

TASKS = {"sentineg": "SentiNeg", "boolq": "BoolQ"}
CORPUS, CHAT = "kobest-text@v1", "kobest-sft@v1"

BASE = {
    "job_type": "PRETRAIN",
    "model_family": "llama",
    "dataset_ref": CORPUS,
    "method": "full",
    "hyperparams": {"lr": 3e-3, "batch_size": 16, "num_epochs": 20, "max_seq_len": 256, "scheduler": "cosine"},
    "resources": {"gpus": 0},
    "output": {"artifact_name": "kobest-base"},
    "architecture": {"initializer_range": 0.05, "max_position_embeddings": 512},
    "tokenizer": {"vocab_size": 4000},
}
SFT = {
    "job_type": "SFT",
    "model_family": "llama",
    "dataset_ref": CHAT,
    "method": "full",
    "hyperparams": {
        "lr": 1e-3,
        "batch_size": 16,
        "num_epochs": 20,
        "max_seq_len": 448,
        "scheduler": "cosine",
        "overlong": "drop",
    },
    "resources": {"gpus": 0},
    "output": {"artifact_name": "kobest-tuned"},
    "evaluation": {"suites": [f"kobest-{task}@v1" for task in TASKS], "max_new_tokens": 8, "batch_size": 32},
}


def files_of(data: Path, split: str) -> dict[str, Path]:
    return {task: data / folder / f"{split}.tsv" for task, folder in TASKS.items()}


def training_rows(data: Path) -> list[dict[str, Any]]:
    """The training files as conversations, in the words in which the suites ask."""
    return [
        {**row, "metadata": {"category": f"{task} {row['metadata']['category']}"}}
        for task, path in files_of(data, "train").items()
        for row in rows_of(f"kobest-{task}", path)
    ]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@contextmanager
def home(folder: Path, port: int) -> Iterator[Settings]:
    """A platform of its own in `folder`, on ports from `port` on, and nothing of the user's."""
    os.environ |= {
        "LLMOPS_HOME": str(folder),
        "LLMOPS_DAGSTER_PORT": str(port),
        "LLMOPS_MLFLOW_PORT": str(port + 1),
        "LLMOPS_CONSOLE_PORT": str(port + 3),
        "LLMOPS_GATEWAY_PORT": str(port + 2),
    }
    settings = Settings()
    with platform(settings):
        yield settings


def llmops(*arguments: str, fine: tuple[int, ...] = (0,)) -> None:
    """One command, as a user types it."""
    print("$ llmops", *arguments, flush=True)
    code = subprocess.run([sys.executable, "-m", "llmops_assets.cli", *arguments], check=False).returncode
    if code not in fine:
        raise SystemExit(f"llmops {arguments[0]} ended with {code}")


def through_the_stage(data: Path, work: Path, steps: tuple[int, int]) -> str:
    """Register, train and evaluate; the partition of the evaluation."""
    rows = training_rows(data)
    texts = [{"text": row["messages"][0]["content"], "metadata": row["metadata"]} for row in rows]
    corpus, chat = write(work / "text.jsonl", texts), write(work / "sft.jsonl", rows)
    licence = ("--license", "cc-by-sa-4.0")
    llmops("dataset", "add", CORPUS, str(corpus), "--type", "pretrain_corpus", *licence, "--wait")
    llmops("dataset", "add", CHAT, str(chat), "--type", "sft_pair", *licence, "--wait")
    for task, path in files_of(data, "test").items():
        llmops("suite", "add", f"kobest-{task}@v1", str(path), "--format", f"kobest-{task}", *licence, "--wait")
    base = BASE | {"hyperparams": BASE["hyperparams"] | {"max_steps": steps[0]}}
    key = TrainJobSpec.model_validate(base).recipe_key()
    sft = SFT | {
        "base_model_ref": training_key(CORPUS, key),
        "hyperparams": SFT["hyperparams"] | {"max_steps": steps[1]},
    }
    for name, spec in (("base", base), ("sft", sft)):
        (work / f"{name}.yaml").write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
        # Withheld (3) is a result like any other here.
        llmops("train", str(work / f"{name}.yaml"), "--wait", fine=(0, 3))
    return training_key(CHAT, TrainJobSpec.model_validate(sft).recipe_key())


def majority(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> list[str]:
    """The commonest answer of the training rows, for every question."""
    answers = [row["messages"][-1]["content"] for row in train]
    return [max(sorted(set(answers)), key=answers.count)] * len(test)


def tfidf(train: list[dict[str, Any]], test: list[dict[str, Any]]) -> list[str]:
    """What a linear model of character n-grams answers."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    model = make_pipeline(
        TfidfVectorizer(analyzer="char_wb", ngram_range=(1, 4), min_df=2, sublinear_tf=True),
        LogisticRegression(max_iter=1000),
    )
    model.fit([r["messages"][0]["content"] for r in train], [r["messages"][-1]["content"] for r in train])
    return list(model.predict([r["messages"][0]["content"] for r in test]))


def table(record: EvaluationRecord, data: Path) -> list[tuple[str, ...]]:
    """A line a task and way of answering: right of how many, the interval, and McNemar's p against the tuned model."""
    rows = [json.loads(line) for line in Path(record.answers).read_bytes().splitlines()]
    lines = []
    for task in TASKS:
        train, test = (rows_of(f"kobest-{task}", files_of(data, split)[task]) for split in ("train", "test"))
        wanted = [row["messages"][-1]["content"] for row in test]
        mine = [row for row in rows if row["suite"] == f"kobest-{task}@v1"]
        if [row["expected"] for row in mine] != wanted:
            raise RuntimeError(f"the suite kobest-{task}@v1 does not hold the rows of its file in their order")
        tuned = [row["correct"] for row in mine]
        ways = {
            "majority class": [a == b for a, b in zip(majority(train, test), wanted, strict=True)],
            "TF-IDF + logistic regression": [a == b for a, b in zip(tfidf(train, test), wanted, strict=True)],
            "base model": [row.get("base_correct", False) for row in mine],
            "tuned model": tuned,
        }
        for name, right in ways.items():
            e, p = wilson(sum(right), len(right)), mcnemar(tuned, right).p
            against = "" if name == "tuned model" else f"{p:.2g}"
            lines.append((task, name, f"{e.value:.3f}", f"{e.low:.3f} to {e.high:.3f}", str(e.n), against))
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(__file__).parents[2] / "shared" / "data" / "kobest")
    parser.add_argument("--steps", type=int, nargs=2, default=(200, 300), metavar=("PRETRAIN", "SFT"))
    parser.add_argument("--port", type=int, default=3170, help="first of three ports on loopback")
    parser.add_argument("--home", type=Path, help="keep the run here; left out, it is thrown away")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kobest-") as temporary:
        work = options.home or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        with home(work / "home", options.port) as settings:
            cell = through_the_stage(options.data, work, tuple(options.steps))
            record = Wiring(settings).records.load(EvaluationRecord, cell)
        own = record.metric("test", "accuracy")
        print(f"\n{cell}: {options.steps[0]} steps of pre-training, {options.steps[1]} of SFT")
        print(f"own test split, generated: {own.value:.3f} ({own.low:.3f} to {own.high:.3f}, n = {own.n})")
        print(f"report: {record.report}\n")
        for line in [("task", "who", "right", "95 % interval", "n", "p against tuned"), *table(record, options.data)]:
            print(f"{line[0]:<9} {line[1]:<29} {line[2]:>6}  {line[3]:<16} {line[4]:>5}  {line[5]}")


if __name__ == "__main__":
    main()
