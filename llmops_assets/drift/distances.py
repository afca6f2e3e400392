"""Distances between two samples, each with the chance of one that large where nothing changed; users are the unit."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Below these, a difference is of no consequence however certain it is: conventions of the field.
PSI_FLOOR = 0.10
KS_FLOOR = 0.10
_BINS = 10
_LEAST_EXPECTED = 5
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """Values (1-D float) with the user of each (integer codes), since requests of one user are alike."""

    values: Floats
    users: NDArray[np.int64]

    @classmethod
    def independent(cls, values: Floats) -> "Sample":
        """Values of which each is by itself, such as rows of a dataset."""
        return cls(values, np.arange(len(values)))

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Distance:
    """A distance, and the p-value of it under "both samples are of one distribution"."""

    value: float
    p: float


def design_effect(indicator: Floats, users: NDArray[np.int64]) -> float:
    """How many times larger the variance of a mean is than with as many independent rows; 1 at least.

    The variance of a ratio over clusters by linearization, with G/(G−1) (Cochran, Sampling Techniques, 1977, §6),
    over that of independent rows (Kish 1965).
    """
    n, mean = len(indicator), float(np.mean(indicator)) if len(indicator) else 0.0
    simple = float(np.var(indicator)) / n if n else 0.0
    _, codes = np.unique(users, return_inverse=True)
    clusters = int(codes.max()) + 1 if n else 0
    if simple == 0 or clusters == n:
        return 1.0
    if clusters < 2:
        return float(n)
    sums = np.bincount(codes, weights=indicator - mean)
    clustered = float(np.sum(sums**2)) / n**2 * clusters / (clusters - 1)
    return max(1.0, clustered / simple)


def population_stability(reference: Floats, traffic: Floats) -> tuple[float, float]:
    """Population stability index over deciles of the reference, and the threshold above which it means something.

    The threshold is the conventional 0.1, or where samples are small what two samples of the same distribution exceed
    with a probability of 5 %: χ²(B−1, .95)·(1/N + 1/M) for B bins (Yurdakul & Naranjo, 2020). Rows are independent.
    """
    from scipy.stats import chi2

    counts = _binned(reference, traffic)
    bins = counts.shape[1]
    if bins < 2:
        return 0.0, PSI_FLOOR
    scale = 1 / len(reference) + 1 / len(traffic)
    return _psi(counts), max(PSI_FLOOR, float(chi2.ppf(0.95, bins - 1)) * scale)


def psi(reference: Sample, traffic: Sample) -> Distance:
    """Population stability index over deciles of the reference.

    PSI / (1/N + 1/M) is χ² with B−1 degrees of freedom where nothing changed (Yurdakul & Naranjo 2020); N and M are
    effective numbers of rows, by the mean design effect of the bins (Rao & Scott, JASA 1981).
    """
    counts = _binned(reference.values, traffic.values)
    if counts.shape[1] < 2:
        return Distance(0.0, 1.0)
    edges = _edges(reference.values)
    place = [np.searchsorted(edges, s.values, side="left") for s in (reference, traffic)]
    effective = [_effective(p, s.users) for p, s in zip(place, (reference, traffic), strict=True)]
    index = _psi(counts)
    return Distance(index, _tail(index / (1 / effective[0] + 1 / effective[1]), counts.shape[1] - 1))


def categories(reference: Sample, traffic: Sample) -> Distance:
    """Population stability index over categories (integer codes), with the p-value of Pearson's χ² of homogeneity.

    Effective numbers of rows as `psi` has them. Categories of which less than five rows would be expected on a side are
    taken together (Cochran, Biometrics 1954): a single rare one would make any index large.
    """
    place = [s.values.astype(int) for s in (reference, traffic)]
    largest = int(max(p.max(initial=0) for p in place)) + 1
    counts = np.stack([np.bincount(p, minlength=largest) for p in place])
    smaller = min(len(p) for p in place) / sum(len(p) for p in place)
    rare = counts.sum(axis=0) * smaller < _LEAST_EXPECTED
    # All rare ones become the first of them.
    merged = np.where(rare, np.argmax(rare), np.arange(largest))
    place = [merged[p] for p in place]
    counts = _used(np.stack([np.bincount(p, minlength=largest) for p in place]))
    if counts.shape[1] < 2:
        return Distance(0.0, 1.0)
    n, m = (_effective(p, s.users) for p, s in zip(place, (reference, traffic), strict=True))
    p, q = (c / c.sum() for c in counts)
    pooled = (n * p + m * q) / (n + m)
    statistic = float(np.sum((p - q) ** 2 / pooled)) / (1 / n + 1 / m)
    return Distance(_psi(counts), _tail(statistic, counts.shape[1] - 1))


def ks(reference: Sample, traffic: Sample) -> Distance:
    """Kolmogorov-Smirnov distance, by Smirnov's asymptotic tail over effective numbers of rows.

    The design effect is the largest of those of the shares below the quartiles of both samples together. With ties the
    tail is an upper bound.
    """
    both = np.sort(np.concatenate([reference.values, traffic.values]))
    below = [np.searchsorted(np.sort(s.values), both, side="right") / len(s) for s in (reference, traffic)]
    distance = float(np.max(np.abs(below[0] - below[1])))
    quartiles = np.quantile(both, (0.25, 0.5, 0.75))
    effective = [
        len(s) / max(design_effect((s.values <= q).astype(float), s.users) for q in quartiles)
        for s in (reference, traffic)
    ]
    return Distance(distance, _smirnov_tail(distance, *effective))


def shares(reference: Sample, traffic: Sample) -> Distance:
    """Difference of two shares (values 0 and 1), traffic less reference, by a χ² test with pooled variance.

    Effective numbers of rows as for the others; half a success and failure is added to each (Agresti & Caffo 2000), so
    that a share of nothing is not taken for certain.
    """
    n, m = (
        len(s) / design_effect(s.values, s.users) if len(np.unique(s.values)) > 1 else _per_user(s)
        for s in (reference, traffic)
    )
    p, q = float(reference.values.mean()), float(traffic.values.mean())
    pooled = (p * n + q * m + 1) / (n + m + 2)
    z = (q - p) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return Distance(q - p, math.erfc(abs(z) / math.sqrt(2)))


def _per_user(sample: Sample) -> float:
    """Rows that count where all are alike: their users, since nobody knows how alike a user's rows are."""
    return float(len(np.unique(sample.users)))


def _effective(place: NDArray[np.int64], users: NDArray[np.int64]) -> float:
    """Rows over the mean design effect of their categories, weighted as Rao & Scott's first-order correction is."""
    total, weights = 0.0, 0.0
    for category in np.unique(place):
        hit = (place == category).astype(float)
        weight = 1 - float(hit.mean())
        total += weight * design_effect(hit, users)
        weights += weight
    return len(place) / max(1.0, total / weights) if weights else len(place)


def _edges(reference: Floats) -> Floats:
    deciles, times = np.unique(np.quantile(reference, np.linspace(0, 1, _BINS + 1)[1:-1]), return_counts=True)
    # A value that fills several deciles is a bin of its own, closed on both sides.
    return np.union1d(deciles, np.nextafter(deciles[times > 1], -np.inf))


def _binned(reference: Floats, traffic: Floats) -> NDArray[np.int64]:
    edges = _edges(reference)
    place = [np.searchsorted(edges, values, side="left") for values in (reference, traffic)]
    return _used(np.stack([np.bincount(p, minlength=len(edges) + 1) for p in place]))


def _used(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return counts[:, counts.sum(axis=0) > 0]


def _psi(counts: NDArray[np.int64]) -> float:
    bins = counts.shape[1]
    # Half a row in each bin: an empty one would make the index infinite.
    p, q = ((c + 0.5) / (c.sum() + 0.5 * bins) for c in counts)
    return float(np.sum((q - p) * np.log(q / p)))


def _tail(statistic: float, freedom: int) -> float:
    from scipy.stats import chi2

    return float(chi2.sf(statistic, freedom))


def _smirnov_tail(distance: float, n: float, m: float) -> float:
    from scipy.stats import kstwo

    return float(kstwo.sf(distance, max(1, round(n * m / (n + m)))))
