"""Compares two measured sets feature by feature, and says which differ, with the error of all comparisons held."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from llmops_assets.drift import distances
from llmops_assets.drift.distances import Sample
from llmops_assets.drift.domain import MOST_TEXTS, separation
from llmops_assets.drift.features import KINDS, OF_QUESTIONS, Measured
from llmops_assets.experiments.multiplicity import holm
from llmops_assets.specs.experiment_rules import DriftRules

EMBEDDING = "embedding"
_FEWEST_BEFORE = 10
TRAINING, BEFORE = "training data", "last good window"


@dataclass(frozen=True)
class Comparison:
    """One feature of the traffic against one reference.

    figures: its distances by name (PSI, KS, difference, AUC with low and high); exceeds: the largest of them over its
    floor, so that 1 and more is of consequence; p: of all of them together; adjusted: by Holm over the whole report.
    """

    feature: str
    against: str
    reference: Sample | None
    traffic: Sample | None
    figures: dict[str, float]
    exceeds: float
    p: float
    adjusted: float = 1.0
    alpha: float = 0.05

    @property
    def drifted(self) -> bool:
        return self.exceeds > 1 and self.adjusted < self.alpha

    @property
    def name(self) -> str:
        return f"{self.feature} (against the {self.against})"


def compare(traffic: Measured, reference: Measured, against: str, rules: DriftRules) -> list[Comparison]:
    """Every feature that both have enough values of. What says something of the model only where both had the same."""
    found = []
    for name, kind in KINDS.items():
        left, right = reference.samples.get(name), traffic.samples.get(name)
        if left is None or right is None or len(left) < _FEWEST_BEFORE or len(right) < rules.fewest_requests:
            continue
        if name not in OF_QUESTIONS and reference.models != traffic.models:
            continue
        found.append(_compared(name, kind, left, right, against, rules))
    if len(reference.questions) >= _FEWEST_BEFORE and len(traffic.questions) >= rules.fewest_requests:
        found.append(_embedded(traffic, reference, against, rules))
    return found


def judged(comparisons: Iterable[Comparison], alpha: float) -> list[Comparison]:
    """The comparisons of one report with p-values adjusted together: any false alarm has a chance of alpha at most."""
    given = list(comparisons)
    adjusted = holm([one.p for one in given]) if given else []
    return [replace(one, adjusted=float(p), alpha=alpha) for one, p in zip(given, adjusted, strict=True)]


def _compared(name: str, kind: str, left: Sample, right: Sample, against: str, rules: DriftRules) -> Comparison:
    if kind == "share":
        share = distances.shares(left, right)
        figures = {"reference": float(left.values.mean()), "traffic": float(right.values.mean())}
        figures["difference"] = share.value
        return Comparison(name, against, left, right, figures, abs(share.value) / rules.share, share.p)
    if kind == "category":
        index = distances.categories(left, right)
        return Comparison(name, against, left, right, {"psi": index.value}, index.value / rules.psi, index.p)
    index, distance = distances.psi(left, right), distances.ks(left, right)
    figures = {"psi": index.value, "ks": distance.value}
    exceeds = max(index.value / rules.psi, distance.value / rules.ks)
    return Comparison(name, against, left, right, figures, exceeds, min(1.0, 2 * min(index.p, distance.p)))


def _embedded(traffic: Measured, reference: Measured, against: str, rules: DriftRules) -> Comparison:
    sides = [_spread(side, MOST_TEXTS) for side in (reference, traffic)]
    found = separation(sides[0][0], sides[1][0], sides[0][1], sides[1][1])
    figures = {"auc": found.auc, "low": found.low, "high": found.high}
    exceeds = max(0.0, found.auc - 0.5) / (rules.auc - 0.5)
    return Comparison(EMBEDDING, against, None, None, figures, exceeds, found.p)


def _spread(side: Measured, most: int) -> tuple[Sequence[str], np.ndarray]:
    if len(side.questions) <= most:
        return side.questions, side.users
    chosen = np.linspace(0, len(side.questions) - 1, most).astype(int)
    return [side.questions[i] for i in chosen], side.users[chosen]
