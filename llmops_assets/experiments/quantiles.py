"""Quantiles that may be looked at at any time: their intervals, and whether two arms differ in one."""

import math
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Mixture:
    """The two-sided beta-binomial mixture of a count with success probability p, after Howard & Ramdas 2022.

    It bounds how far the share of values below the true quantile may ever be from p. r is chosen for `expected` values
    at level `alpha`, as in confseq's `BetaBinomialMixture` with g = p, h = 1 − p.
    """

    p: float
    expected: float
    alpha: float = 0.05

    def __post_init__(self) -> None:
        if not 0 < self.p < 1:
            raise ValueError(f"a quantile lies between 0 and 1; got {self.p}")
        if self.expected < 1:
            raise ValueError(f"the expected number of values must be at least 1; got {self.expected}")

    @property
    def _r(self) -> float:
        gh = self.p * (1 - self.p)
        rho = gh * self.expected / (2 * math.log(1 / self.alpha) + math.log(1 + 2 * math.log(1 / self.alpha)))
        return max(rho - gh, 1e-3 * gh)

    def log_martingale(self, s: ArrayLike, v: ArrayLike) -> NDArray[np.float64]:
        """ln of the supermartingale at deviation s = (share below − p)·n and variance v = p(1 − p)·n."""
        g, h, r = self.p, 1 - self.p, self._r
        s, v = np.asarray(s, dtype=float), np.asarray(v, dtype=float)
        log_beta = scipy.special.betaln
        return (
            -((v + h * s) / h) * math.log(g)
            - ((v - g * s) / g) * math.log(h)
            + log_beta((r + v - g * s) / g, (r + v + h * s) / h)
            - log_beta(r / g, r / h)
        )

    def of_share(self, share: ArrayLike, n: int) -> NDArray[np.float64]:
        """ln of the supermartingale when that share of n values lies below the true quantile."""
        return self.log_martingale((np.asarray(share, dtype=float) - self.p) * n, self.p * (1 - self.p) * n)


@dataclass(frozen=True)
class QuantileInterval:
    """An empirical quantile of n values with its always-valid interval; an end is infinite where n says too little."""

    p: float
    value: float
    low: float
    high: float
    n: int


def interval(values: ArrayLike, p: float, expected: float, alpha: float = 0.05) -> QuantileInterval | None:
    """The confidence sequence of a quantile at n values: Howard & Ramdas, Bernoulli 2022 (arXiv 1906.09512), Theorem 1.

    values must be independent: one for each user. None without any value.
    """
    ordered = np.sort(np.asarray(values, dtype=float))
    n = len(ordered)
    if not n:
        return None
    mixture = Mixture(p, expected, alpha)
    counts = np.arange(n + 1)
    possible = np.flatnonzero(mixture.of_share(counts / n, n) < math.log(1 / alpha))
    # The true quantile q has as many values below as are possible: it lies between these order statistics.
    least, most = (int(possible[0]), int(possible[-1])) if len(possible) else (0, n)
    return QuantileInterval(
        p,
        float(np.quantile(ordered, p)),
        float(ordered[least - 1]) if least >= 1 else -math.inf,
        float(ordered[most]) if most < n else math.inf,
        n,
    )


def equal_p(control: ArrayLike, treatment: ArrayLike, p: float, expected: float, alpha: float = 0.05) -> float:
    """Always-valid p of "both arms have the same p-quantile": Howard & Ramdas 2022, section 5, as confseq's
    `quantile_ab_p_value`.

    The evidence against a common quantile x is the sum of both arms' supermartingales at x; the p-value takes the x
    that both allow best. expected: values of an arm at which it is tuned.
    """
    mixture = Mixture(p, expected, alpha)
    arms = [np.sort(np.asarray(a, dtype=float)) for a in (control, treatment)]
    if min(len(a) for a in arms) < 1:
        return 1.0
    best = [_allowed_most(mixture, a) for a in arms]
    first, second = (0, 1) if best[0][2] <= best[1][2] else (1, 0)
    begin, end = best[first][2], best[second][1]
    candidates = arms[second][(arms[second] >= begin) & (arms[second] <= end)]
    points = np.unique(np.concatenate([[begin, end], candidates]))
    evidence = sum(_evidence(mixture, a, b, points) for a, b in zip(arms, best, strict=True))
    return float(min(1.0, math.exp(-float(np.min(evidence)))))


def _allowed_most(mixture: Mixture, ordered: NDArray[np.float64]) -> tuple[float, float, float]:
    """The share below at which the arm's supermartingale is least, and the values between which x has that share."""
    n = len(ordered)
    share = scipy.optimize.minimize_scalar(
        lambda a: float(mixture.of_share(a, n)), bounds=(0.0, 1.0), method="bounded", options={"xatol": 1e-9}
    ).x
    low = ordered[min(max(math.ceil(share * n), 1), n) - 1]
    high = ordered[min(math.floor(share * n) + 1, n) - 1]
    return float(share), float(low), float(high)


def _evidence(
    mixture: Mixture, ordered: NDArray[np.float64], best: tuple[float, float, float], x: NDArray[np.float64]
) -> NDArray[np.float64]:
    share, low, high = best
    n = len(ordered)
    below = np.where(x < low, np.searchsorted(ordered, x, "right") / n, share)
    below = np.where(x > high, np.searchsorted(ordered, x, "left") / n, below)
    return mixture.of_share(below, n)
