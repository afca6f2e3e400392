"""Compares two models on what both were asked: figures with intervals, McNemar's test, answers, recipes and data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from llmops_assets.evaluation.metrics import Estimate, bootstrap, mcnemar
from llmops_assets.records.evaluation import EvaluationRecord, Metric


@dataclass(frozen=True)
class ComparedModel:
    """One of the two: its evaluation with the rows of its answers file, its spec, and facts of its data."""

    ref: str
    evaluation: EvaluationRecord
    rows: Sequence[Mapping[str, Any]]
    spec: Mapping[str, Any]
    data: Mapping[str, Any]


@dataclass(frozen=True)
class Paired:
    """A suite: items that both were asked, and who was right; `difference`: the second's accuracy less the first's."""

    suite: str
    items: int
    only_first: int
    only_second: int
    both: int
    neither: int
    p: float
    difference: Estimate


@dataclass(frozen=True)
class Comparison:
    """What two models have and have not in common; `notes` say what could not be compared."""

    first: str
    second: str
    metrics: list[tuple[Metric | None, Metric | None]]
    suites: list[Paired]
    answers: list[dict[str, Any]]
    parameters: list[tuple[str, Any, Any]]
    data: list[tuple[str, Any, Any]]
    notes: list[str] = field(default_factory=list)


def compare(first: ComparedModel, second: ComparedModel) -> Comparison:
    """Compare two models. Nothing is asked again: the answers are those of their evaluations."""
    paired, answers, notes = [], [], []
    suites = list(dict.fromkeys(row["suite"] for row in [*first.rows, *second.rows]))
    for suite in suites:
        one, other = _by_item(first.rows, suite), _by_item(second.rows, suite)
        common = [key for key in one if key in other]
        if not common:
            notes.append(f"suite {suite}: no item was asked of both, so only the figures are side by side")
            continue
        if len(common) < max(len(one), len(other)):
            notes.append(f"suite {suite}: {len(common)} items were asked of both, of {len(one)} and {len(other)}")
        pairs = [(one[key], other[key]) for key in common]
        if all("correct" in row for pair in pairs for row in pair):
            paired.append(_paired(suite, pairs))
            answers += [_answer(a, b) for a, b in pairs if a["got"] != b["got"]]
    # Where only one of the two is right, there is something to read first.
    answers.sort(key=lambda row: row["first_right"] == row["second_right"])
    return Comparison(
        first.ref,
        second.ref,
        _metrics(first.evaluation, second.evaluation),
        paired,
        answers,
        differing(flat(first.spec), flat(second.spec)),
        differing(first.data, second.data),
        notes,
    )


def _by_item(rows: Sequence[Mapping[str, Any]], suite: str) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Rows of a suite by what was asked: two versions of a dataset may give one question two row ids, or one id two."""
    return {(row["prompt"], str(row.get("expected"))): row for row in rows if row["suite"] == suite}


def _paired(suite: str, pairs: Sequence[tuple[Mapping, Mapping]]) -> Paired:
    right = np.array([[bool(one["correct"]), bool(other["correct"])] for one, other in pairs])
    test = mcnemar(right[:, 0].tolist(), right[:, 1].tolist())
    steps = right[:, 1].astype(float) - right[:, 0].astype(float)
    gained = bootstrap(lambda index: float(steps[index].mean()), len(steps))
    return Paired(suite, test.n, test.only_first, test.only_second, test.both, test.neither, test.p, gained)


def _answer(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "suite": one["suite"],
        "category": one.get("category"),
        "prompt": one["prompt"],
        "expected": one.get("expected"),
        "first": one["got"],
        "second": other["got"],
        "first_right": bool(one["correct"]),
        "second_right": bool(other["correct"]),
    }


def _metrics(first: EvaluationRecord, second: EvaluationRecord) -> list[tuple[Metric | None, Metric | None]]:
    names = dict.fromkeys((m.suite, m.name) for record in (first, second) for m in record.metrics if m.model == "tuned")
    return [(first.metric(suite, name), second.metric(suite, name)) for suite, name in names]


def differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """(name, value, value) of what is not the same on both sides; None where one has no such thing."""
    names = dict.fromkeys([*one, *other])
    return [(name, one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)]


def flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as ``hyperparams.lr: 0.001``; what is null is left out."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        path = f"{prefix}{key}"
        if isinstance(inner, Mapping):
            found |= flat(inner, f"{path}.")
        elif inner is not None:
            found[path] = inner
    return found
