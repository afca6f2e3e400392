"""Less spread from what was known of a user before: CUPED."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class Adjustment:
    """θ and what it was made from: `mean` of the covariate over all users, `users` who have one, and `correlation`."""

    theta: float
    mean: float
    users: int
    correlation: float

    def apply(self, values: NDArray[np.float64], covariate: NDArray[np.float64]) -> NDArray[np.float64]:
        """y − θ(x − x̄); a user without a covariate (NaN) keeps the value."""
        return values - self.theta * np.nan_to_num(covariate - self.mean, nan=0.0)


def cuped(values: ArrayLike, covariate: ArrayLike) -> Adjustment | None:
    """θ = cov(y, x) / var(x) over the users of both arms pooled, whose covariate is known (Deng et al., WSDM 2013).

    values: a mean for every user; covariate: the same from before the test, NaN where there is none. The covariate was
    there before anybody was assigned, so what is taken away is alike in both arms. None with fewer than two users that
    have one, or where it is the same for all.
    """
    y, x = np.asarray(values, dtype=float), np.asarray(covariate, dtype=float)
    known = np.isfinite(x)
    y, x = y[known], x[known]
    if len(x) < 2 or np.ptp(x) == 0:
        return None
    covariance = np.cov(y, x)
    spread = float(np.sqrt(covariance[0, 0] * covariance[1, 1]))
    return Adjustment(
        theta=float(covariance[0, 1] / covariance[1, 1]),
        mean=float(x.mean()),
        users=len(x),
        correlation=float(covariance[0, 1] / spread) if spread > 0 else 0.0,
    )


def theta_of_sums(n: float, y: float, x: float, xx: float, xy: float) -> float:
    """The same θ from sums over users: Σy, Σx, Σx², Σxy of n users, both arms added up; 0 where x does not vary."""
    spread = xx - x * x / n
    return (xy - x * y / n) / spread if spread > 0 else 0.0
