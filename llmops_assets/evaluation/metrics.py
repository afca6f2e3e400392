"""Scores with their 95 % intervals, and the test that compares two models on the same items."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from llmops_assets import intervals

Z95 = 1.959963984540054  # the 97.5th percentile of the normal distribution


@dataclass(frozen=True)
class Estimate:
    """A figure measured on `n` items, with its 95 % interval where there is one."""

    value: float
    low: float | None
    high: float | None
    n: int


def wilson(right: int, n: int) -> Estimate:
    """A share with its Wilson score interval (Wilson 1927), which stays inside 0..1 and holds for few items too.

    Raises ValueError for no items: there is no accuracy of nothing.
    """
    if n < 1 or not 0 <= right <= n:
        raise ValueError(f"{right} right of {n} is no share: there must be at least one item")
    share = right / n
    return Estimate(share, *intervals.wilson(right, n), n)


def clustered_wilson(right: Sequence[bool], clusters: Sequence[str]) -> Estimate:
    """A share with its interval where items of one cluster (phrasings of one question) are right or wrong together.

    Wilson's interval at the effective sample size n / deff; deff is the variance of the share over clusters
    (linearised, Kish 1965) over that of independent items, at least 1. Where all items agree nothing tells how much
    alike they are, and the clusters count as the items. Without clusters of two or more it is `wilson`.
    """
    n, hits = len(right), sum(map(bool, right))
    _, which = np.unique(np.asarray(clusters, dtype=str), return_inverse=True)
    m = int(which.max()) + 1 if n else 0
    if m == n:
        return wilson(hits, n)
    share = hits / n
    if hits in (0, n) or m == 1:
        effective = float(m)
    else:
        residual = np.bincount(which, weights=np.asarray(right, dtype=float) - share)
        variance = float(np.sum(residual**2)) / n**2 * m / (m - 1)
        effective = n / max(1.0, variance / (share * (1 - share) / n))
    # Multiplied by 1 or 0 at the ends, so that these stay exact.
    return Estimate(share, *intervals.wilson(share * effective, effective), n)


def bootstrap(statistic: Callable[[np.ndarray], float], n: int, *, resamples: int = 500, seed: int = 0) -> Estimate:
    """`statistic` of the indices 0..n-1 with its percentile bootstrap interval (Efron 1979), the items being resampled.

    The same seed gives the same interval.
    """
    if n < 1:
        raise ValueError("there is nothing to resample")
    generator = np.random.default_rng(seed)
    values = [statistic(generator.integers(0, n, n)) for _ in range(resamples)]
    # A diverged model has infinite figures, between which numpy cannot interpolate without a warning.
    with np.errstate(invalid="ignore"):
        low, high = np.percentile(values, [2.5, 97.5])
    return Estimate(float(statistic(np.arange(n))), float(low), float(high), n)


def macro_f1(expected: Sequence[str], predicted: Sequence[str], *, seed: int = 0) -> Estimate:
    """The mean over the expected labels of each label's F1, in 0..1, with its bootstrap interval over the items.

    A prediction that is none of the expected labels counts against the label that it should have been, and makes no
    class of its own (scikit-learn's `f1_score(average="macro", labels=sorted(set(expected)))`).
    """
    if len(expected) != len(predicted) or not expected:
        raise ValueError(f"{len(expected)} expected and {len(predicted)} predicted labels: need as many, and some")
    labels = {label: number for number, label in enumerate(sorted(set(expected)))}
    truth = np.array([labels[e] for e in expected])
    answered = np.array([labels.get(p, len(labels)) for p in predicted])
    right = truth == answered

    def statistic(index: np.ndarray) -> float:
        size = len(labels) + 1
        support = np.bincount(truth[index], minlength=size)[:-1]
        claimed = np.bincount(answered[index], minlength=size)[:-1]
        hits = np.bincount(truth[index][right[index]], minlength=size)[:-1]
        present = support > 0
        return float(np.mean(2 * hits[present] / (support + claimed)[present]))

    return bootstrap(statistic, len(truth), seed=seed)


def perplexity(nll: Sequence[float], tokens: Sequence[int], *, seed: int = 0) -> Estimate:
    """exp of the nats per token over all documents; `nll` in nats and `tokens` are by document.

    The interval resamples documents, since the tokens of one document are not independent.
    """
    return _ratio(nll, tokens, math.exp, seed)


def perplexity_of(nll: float, tokens: int) -> float | None:
    """The perplexity of one document (`nll` in nats); None where it has no token, infinite beyond a float's range."""
    if tokens == 0:
        return None
    try:
        return math.exp(nll / tokens)
    except OverflowError:
        return math.inf


def bits_per_byte(nll: Sequence[float], size: Sequence[int], *, seed: int = 0) -> Estimate:
    """Bits per UTF-8 byte of the text (`size` in bytes), which models of different vocabularies can be compared by."""
    return _ratio(nll, size, lambda nats: nats / math.log(2), seed)


def _ratio(sums: Sequence[float], sizes: Sequence[int], finish: Callable[[float], float], seed: int) -> Estimate:
    numerator, denominator = np.asarray(sums, dtype=float), np.asarray(sizes, dtype=float)
    kept = denominator > 0
    numerator, denominator = numerator[kept], denominator[kept]
    if not len(denominator):
        raise ValueError("no document has a token to score")

    def statistic(index: np.ndarray) -> float:
        ratio = float(numerator[index].sum() / denominator[index].sum())
        try:
            return finish(ratio)
        except OverflowError:
            return math.inf

    return bootstrap(statistic, len(denominator), seed=seed)


@dataclass(frozen=True)
class McNemar:
    """Two models on the same items: how often only one of them was right, and how likely that is by chance.

    `test` says how p was found. `difference` is the first model's share less the second's, with its 95 % interval.
    """

    only_first: int
    only_second: int
    both: int
    neither: int
    p: float
    test: str
    difference: float
    low: float
    high: float

    @property
    def n(self) -> int:
        return self.only_first + self.only_second + self.both + self.neither


EXACT_UP_TO = 1000


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> McNemar:
    """McNemar's two-sided test: exact (binomial) on up to `EXACT_UP_TO` items where the two differ, else chi-squared
    with continuity correction. The interval of the difference is that of Agresti and Min (2005): Wald after half an
    item was added to each cell.
    """
    if len(first) != len(second):
        raise ValueError(f"McNemar's test pairs answers to the same items, but got {len(first)} and {len(second)}")
    pairs = Counter(zip(map(bool, first), map(bool, second), strict=True))
    only_first, only_second = pairs[True, False], pairs[False, True]
    n, k = only_first + only_second, min(only_first, only_second)
    if n <= EXACT_UP_TO:
        # Whole numbers throughout: no rounding in the tail.
        p = 1.0 if n == 0 else min(1.0, 2 * sum(math.comb(n, i) for i in range(k + 1)) / 2**n)
    else:
        # The survival function of chi-squared with one degree of freedom.
        p = math.erfc(math.sqrt((max(0, abs(only_first - only_second) - 1)) ** 2 / n / 2))
    total = len(first)
    difference = (only_first - only_second) / total if total else 0.0
    b, c, size = only_first + 0.5, only_second + 0.5, total + 2.0
    centre = (b - c) / size
    half = Z95 * math.sqrt(max(0.0, b + c - (b - c) ** 2 / size)) / size
    return McNemar(
        only_first,
        only_second,
        pairs[True, True],
        pairs[False, False],
        p,
        "exact" if n <= EXACT_UP_TO else "chi-squared",
        difference,
        max(-1.0, centre - half),
        min(1.0, centre + half),
    )
