"""Simulated experiments: how often each way of deciding is wrong when nothing differs, and right when it does."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import NDArray

from llmops_assets.experiments.decision import QUIET_SPLIT_P
from llmops_assets.experiments.inference import ALPHA, mixture_rho2, sequence_factor, srm_log_bayes_factor


@dataclass(frozen=True)
class Design:
    """One simulated experiment. Ratings are 1-5: a user's level plus noise, rounded.

    users: users of each arm at the end; ratings: ratings a user gives; shift: what the treatment adds to the level
    before rounding; level, user_sd, noise_sd: mean, spread between users and spread within a user, in rating points;
    first, every: users of each arm at the first look, and between looks.
    """

    users: int = 2000
    ratings: int = 4
    shift: float = 0.0
    level: float = 3.6
    user_sd: float = 0.8
    noise_sd: float = 1.0
    first: int = 10
    every: int = 10

    @property
    def looks(self) -> NDArray[np.int64]:
        """Users of each arm at each look."""
        return np.arange(self.first, self.users + 1, self.every)


@dataclass(frozen=True)
class Rates:
    """Share of runs that end "significant", by method: `peeking` at any look, `once` at the last one only."""

    runs: int
    peeking: dict[str, float]
    once: dict[str, float]


METHODS = ("Welch on ratings", "Welch on user means", "confidence sequence")


def rejection_rates(design: Design, *, runs: int, seed: int, expected_n: float, batch: int = 250) -> Rates:
    """Simulate `runs` experiments and count the runs in which each of `METHODS` excludes "no difference" at ALPHA.

    expected_n: users of both arms for which the confidence sequence is tuned. Works through `batch` runs at a time, so
    memory stays at batch × users × ratings numbers.
    """
    rng = np.random.default_rng(seed)
    peeking = dict.fromkeys(METHODS, 0)
    once = dict.fromkeys(METHODS, 0)
    for start in range(0, runs, batch):
        size = min(batch, runs - start)
        arms = [_draw(rng, size, design, shift) for shift in (0.0, design.shift)]
        for method, rejected in _rejections(arms, design, expected_n).items():
            peeking[method] += int(rejected.any(axis=1).sum())
            once[method] += int(rejected[:, -1].sum())
    return Rates(runs, {m: k / runs for m, k in peeking.items()}, {m: k / runs for m, k in once.items()})


@dataclass(frozen=True)
class SplitRates:
    """Shares of runs: `unproven`, in which the split was not proven broken at the first look, and `quiet`, in which it
    was quiet enough for a promotion at some look up to each number of users."""

    unproven: float
    quiet: tuple[float, ...]


def quiet_split_rates(
    lost: float,
    *,
    runs: int,
    users: Sequence[int],
    seed: int,
    first: int = 400,
    every: int = 20,
    broken_p: float = 0.001,
) -> SplitRates:
    """Simulate the split of experiments that lose the share `lost` of the treatment's users before they are logged.

    Looks every `every` users of both arms from `first` on, until the split is proven broken (`broken_p`).
    """
    rng = np.random.default_rng(seed)
    most = max(users)
    looks = np.arange(first, most + 1, every)
    treated = np.cumsum(rng.random((runs, most)) < (1 - lost) / (2 - lost), axis=1)
    counts = np.stack([np.arange(1, most + 1) - treated, treated], axis=-1)
    largest = np.maximum.accumulate(np.maximum(srm_log_bayes_factor(counts, (0.5, 0.5)), 0.0), axis=1)
    sequential = np.exp(-largest)[:, looks - 1]
    at = counts[:, looks - 1]
    fixed = scipy.stats.chi2.sf((at[..., 0] - at[..., 1]) ** 2 / looks, 1)
    quiet = (sequential >= QUIET_SPLIT_P) & (fixed >= QUIET_SPLIT_P)
    reached = np.maximum.accumulate(quiet, axis=1)
    where = np.searchsorted(looks, users, side="right") - 1
    return SplitRates(
        unproven=float((sequential[:, 0] >= broken_p).mean()),
        quiet=tuple(float(share) for share in reached[:, where].mean(axis=0)),
    )


def _draw(rng: np.random.Generator, runs: int, design: Design, shift: float) -> NDArray[np.float32]:
    """Ratings of one arm: (runs, users, ratings)."""
    users = rng.standard_normal((runs, design.users, 1), dtype=np.float32) * np.float32(design.user_sd)
    noise = rng.standard_normal((runs, design.users, design.ratings), dtype=np.float32) * np.float32(design.noise_sd)
    return np.clip(np.rint(np.float32(design.level + shift) + users + noise), 1, 5)


def _rejections(arms: list[NDArray[np.float32]], design: Design, expected_n: float) -> dict[str, NDArray[np.bool_]]:
    """Whether each method rejects, by run and look: (runs, looks)."""
    looks, at = design.looks, design.looks - 1
    per_user = [a.sum(axis=2, dtype=np.float64) for a in arms]
    user_means = [_moments(s / design.ratings, s**2 / design.ratings**2, at, looks) for s in per_user]
    ratings = [
        _moments(s, (a**2).sum(axis=2, dtype=np.float64), at, looks * design.ratings)
        for s, a in zip(per_user, arms, strict=True)
    ]
    # With the same number of ratings from every user, the user-level ratio is the mean of user means.
    (mean_a, var_a), (mean_b, var_b) = user_means
    z = _divide(mean_b - mean_a, np.sqrt((var_a + var_b) / looks))
    factor = sequence_factor(2 * looks, mixture_rho2(expected_n))
    return {
        METHODS[0]: _welch_p(*ratings, looks * design.ratings) < ALPHA,
        METHODS[1]: _welch_p(*user_means, looks) < ALPHA,
        METHODS[2]: np.abs(z) > factor,
    }


def _moments(
    sums: NDArray[np.float64], squares: NDArray[np.float64], at: NDArray[np.int64], n: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and sample variance of the first n values at each look, from running sums."""
    mean = np.cumsum(sums, axis=1)[:, at] / n
    return mean, (np.cumsum(squares, axis=1)[:, at] - n * mean**2) / (n - 1)


def _welch_p(
    control: tuple[NDArray[np.float64], NDArray[np.float64]],
    treatment: tuple[NDArray[np.float64], NDArray[np.float64]],
    n: NDArray[np.int64],
) -> NDArray[np.float64]:
    (mean_a, var_a), (mean_b, var_b) = control, treatment
    a, b = var_a / n, var_b / n
    freedom = _divide((a + b) ** 2, (a**2 + b**2) / (n - 1))
    return 2 * scipy.special.stdtr(np.maximum(freedom, 1), -np.abs(_divide(mean_b - mean_a, np.sqrt(a + b))))


def _divide(numerator: NDArray[np.float64], denominator: NDArray[np.float64]) -> NDArray[np.float64]:
    """0 where the denominator is 0: a run without any spread rejects nothing."""
    return np.divide(numerator, denominator, out=np.zeros_like(numerator), where=denominator > 0)
