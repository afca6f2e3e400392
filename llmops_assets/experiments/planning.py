"""How many users and days an A/B test needs, before it starts: the sequential rule simulated, and the fixed horizon."""

import math
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np
import polars as pl

from llmops_assets.experiments.inference import mixture_rho2, sequence_factor
from llmops_assets.experiments.user_sums import RATED

LOOKS = 80
"""Looks of a simulated test, evenly from the first allowed one to the last."""
RUNS = 2000
_DAY = 86_400.0


@dataclass(frozen=True)
class TestDesign:
    """What a test is planned with.

    effect: difference between the arms in the mean over users, in units of the metric; sd: spread between users' means;
    users: users with a value in both arms at its end; share: of the users on the treatment; minimum_effect: ends the
    test once the difference is known to be smaller.
    """

    # The name begins like a test case to pytest.
    __test__ = False
    effect: float
    sd: float
    users: int
    users_per_arm: int = 200
    expected_users: int = 400
    share: float = 0.5
    alpha: float = 0.05
    minimum_effect: float | None = None

    def __post_init__(self) -> None:
        if not self.sd > 0:
            raise ValueError(f"the spread between users must be above 0; got {self.sd:g}")
        if not 0 < self.share < 1:
            raise ValueError(f"the treatment's share of users lies between 0 and 1; got {self.share:g}")
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1; got {self.alpha:g}")
        if self.users < 4:
            raise ValueError(f"a test needs users; got {self.users}")


@dataclass(frozen=True)
class Simulated:
    """Shares of simulated tests by how they ended, and the users that the median test took to be decided.

    found: the sequence excluded "no difference" on the side of the effect; wrong: on the other side; too_small: it lay
    within the minimum effect; median_users is None where fewer than half were decided.
    """

    runs: int
    found: float
    wrong: float
    too_small: float
    median_users: int | None


def fixed_horizon_users(
    effect: float, sd: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5
) -> int:
    """Users of both arms that one t test at one look needs: (z₁₋α/₂ + z_power)² σ² (1/s + 1/(1−s)) / δ² + z²₁₋α/₂ / 2.

    The last term is for the spread that is estimated (Guenther, The American Statistician 1981). It holds for a single
    look that is fixed beforehand.
    """
    if effect == 0:
        raise ValueError("no number of users finds an effect of 0")
    normal = NormalDist()
    level = normal.inv_cdf(1 - alpha / 2)
    z = level + normal.inv_cdf(power)
    users = (z * sd / effect) ** 2 * (1 / share + 1 / (1 - share)) + level**2 / 2
    return math.ceil(users * share) + math.ceil(users * (1 - share))


def simulate(design: TestDesign, *, runs: int = RUNS, seed: int = 1) -> Simulated:
    """Play the rule's sequence `runs` times on users whose means are normal, with a look at `LOOKS` numbers of users.

    Sums of many users' means are normal whatever one user's are, so only sums between looks are drawn. Guardrails and
    the split of users are not played: with both quiet, as in a sound test, they end none.
    """
    first = max(4.0, design.users_per_arm / min(design.share, 1 - design.share))
    looks = np.unique(np.linspace(min(first, design.users), design.users, LOOKS).astype(int))
    arms = np.stack([np.round(looks * (1 - design.share)), np.round(looks * design.share)])
    rng = np.random.default_rng(seed)
    means = []
    for n, mean in zip(arms, (0.0, design.effect), strict=True):
        more = np.diff(n, prepend=0)
        draws = rng.standard_normal((runs, len(looks))) * np.sqrt(more) * design.sd + more * mean
        means.append(np.cumsum(draws, axis=1) / np.maximum(n, 1))
    difference = means[1] - means[0]
    se = design.sd * np.sqrt(1 / np.maximum(arms[0], 1) + 1 / np.maximum(arms[1], 1))
    reach = sequence_factor(looks, mixture_rho2(design.expected_users, design.alpha), design.alpha) * se
    enough = arms.min(axis=0) >= design.users_per_arm
    sign = -1.0 if design.effect < 0 else 1.0
    ends = [(sign * difference > reach) & enough, (sign * difference < -reach) & enough]
    least = design.minimum_effect
    within = np.zeros_like(ends[0]) if least is None else (np.abs(difference) + reach < least) & enough
    ends.append(within)
    at = np.stack([np.where(e.any(axis=1), e.argmax(axis=1), len(looks)) for e in ends])
    winner, when = at.argmin(axis=0), at.min(axis=0)
    decided = when < len(looks)
    shares = [float(((winner == index) & decided).mean()) for index in range(3)]
    middle = int(np.sort(when)[runs // 2])
    return Simulated(runs, *shares, int(looks[middle]) if middle < len(looks) else None)


def smallest_effect(design: TestDesign, power: float = 0.8, *, runs: int = 1000, seed: int = 1) -> float | None:
    """The least effect that the sequential rule finds with that power among the design's users, to 1 %; None where
    even ten times the spread is not found.

    One set of draws serves every effect, so the power grows with the effect and can be bisected.
    """

    def found(effect: float) -> float:
        return simulate(replace(design, effect=effect), runs=runs, seed=seed).found

    low, high = 0.0, 10 * design.sd
    if found(high) < power:
        return None
    while high - low > 0.01 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if found(middle) >= power else (middle, high)
    return high


@dataclass(frozen=True)
class Traffic:
    """What an endpoint's own traffic says: users and raters a day over its `days`, and how raters' means spread."""

    days: float
    users: int
    users_who_rated: int
    mean: float | None
    sd: float | None

    @property
    def raters_per_day(self) -> float | None:
        return self.users_who_rated / self.days if self.days > 0 else None


def traffic_of(statistics: pl.DataFrame) -> Traffic:
    """From the statistics of users (`Catalog.user_statistics`, of experiments and of what came outside them)."""
    if not statistics.height:
        return Traffic(0.0, 0, 0, None, None)
    users = statistics.group_by("user").agg(pl.col(*RATED).sum(), pl.col("first_at").min(), pl.col("last_at").max())
    seconds = (users["last_at"].max() - users["first_at"].min()).total_seconds()
    count = pl.sum_horizontal(RATED)
    total = pl.sum_horizontal(rating * pl.col(name) for rating, name in enumerate(RATED, 1))
    means = users.filter(count > 0).select((total / count).alias("mean"))["mean"]
    return Traffic(seconds / _DAY, users.height, len(means), means.mean(), means.std())
