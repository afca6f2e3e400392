"""What one evaluation is given and what it gives, whatever the job type."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from llmops_assets.evaluation.answers import Model, Worker
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.specs.evaluation_rules import EvaluationPolicy
from llmops_assets.specs.suite import SuiteSpec
from llmops_assets.specs.training import TrainJobSpec


@dataclass(frozen=True)
class Identity:
    """Which training is evaluated."""

    dataset: str
    recipe: str
    training_key: str


@dataclass(frozen=True)
class Rows:
    """The rows of a test split or of a suite; `type` is that of their dataset.

    `cluster_by` names the metadata field whose equal values belong together (several phrasings of one question).
    """

    type: str
    frame: pl.DataFrame
    spec: SuiteSpec | None = None
    cluster_by: str | None = None


@dataclass(frozen=True)
class Baseline:
    """A model that is asked the same items for comparison: `name` is what its figures are marked with."""

    name: str
    ref: str
    model: Model


@dataclass(frozen=True)
class Case:
    """One evaluation: the model, what it is compared with, what it is asked, and who asks.

    `answers` is where the caller writes the rows, `cache` the folder where answers are kept between runs. `context` is
    Dagster's, or None for a plain child process.
    """

    identity: Identity
    spec: TrainJobSpec
    tuned: Model
    test: Rows
    suites: Mapping[str, Rows]
    answers: Path
    cache: Path
    worker: Worker
    context: Any | None = None
    base: Baseline | None = None
    production: Baseline | None = None
    policy: EvaluationPolicy = field(default_factory=EvaluationPolicy)
    others: Mapping[str, Model] = field(default_factory=dict)
    """Models that this job type is judged with: `reward` (RLHF), `retriever` (RAG_TUNING, the untrained one)."""
    pooling: str | None = None

    @property
    def baselines(self) -> list[Baseline]:
        return [baseline for baseline in (self.base, self.production) if baseline is not None]


@dataclass(frozen=True)
class Changes:
    """Answers that became right or wrong against another model, the ones that became wrong first; up to a number."""

    suite: str
    against: str
    ref: str
    worse: int
    better: int
    rows: list[tuple[str, ...]]
    """(what happened, category, question, expected, the other's answer, this model's answer)"""


@dataclass(frozen=True)
class ErrorAnalysis:
    """The rows that a person should read first.

    `confusions` are wrong answers that are right for something else; `matrix` is (labels, counts) by suite where the
    references are labels; `latency` the seconds of single requests.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    confusions: list[tuple[str, str, int]] = field(default_factory=list)
    matrix: dict[str, tuple[list[str], list[list[int]]]] = field(default_factory=dict)
    changes: list[Changes] = field(default_factory=list)
    latency: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Evaluated:
    """The record, one row an item for the answers file, and what a person should read of them."""

    record: EvaluationRecord
    rows: list[dict[str, Any]]
    errors: ErrorAnalysis


def worker_settings(result: Mapping[str, Any]) -> dict[str, Any]:
    """What the answers of a worker depend on, as it reports them, for the record's `settings`."""
    return {
        **result["settings"],
        "tokens_per_second": round(result["tokens_per_second"], 1),
        "seconds": round(result["seconds"], 2),
    }
