"""The statistics of an A/B test: user-level ratios, confidence sequences, sample ratio mismatch, and reported tests.

Two arms are coded 0 (control) and 1 (treatment); a difference is always treatment less control.
"""

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import scipy
from numpy.typing import ArrayLike, NDArray

ALPHA = 0.05


@dataclass(frozen=True)
class Ratio:
    """A ratio of sums over users, with the variance that comes from drawing users."""

    value: float
    variance: float
    users: int
    count: float

    @property
    def se(self) -> float:
        return math.sqrt(self.variance)


@dataclass(frozen=True)
class Interval:
    """A difference with its interval; `z` is the difference over its standard error."""

    difference: float
    se: float
    low: float
    high: float
    p: float
    n: int

    @property
    def z(self) -> float:
        return _z(self.difference, self.se)


@dataclass(frozen=True)
class Stratum:
    """One phase of constant traffic weights: both ratios, their difference and its weight in the whole."""

    phase: int
    control: Ratio
    treatment: Ratio
    weight: float

    @property
    def difference(self) -> float:
        return self.treatment.value - self.control.value


@dataclass(frozen=True)
class Stratified:
    """A difference over phases: its standard error, and the distinct users of both arms that it rests on."""

    difference: float
    se: float
    users: int
    strata: tuple[Stratum, ...]


@dataclass(frozen=True)
class UserTotals:
    """Totals of each user in each phase, as parallel arrays.

    user: integer code of the user, 0…; phase: the phase; arm: 0 or 1; total: sum of the user's values; count: how many.
    """

    user: NDArray[np.int64]
    phase: NDArray[np.int64]
    arm: NDArray[np.int64]
    total: NDArray[np.float64]
    count: NDArray[np.float64]

    def __post_init__(self) -> None:
        sizes = {len(a) for a in (self.user, self.phase, self.arm, self.total, self.count)}
        if len(sizes) != 1:
            raise ValueError(f"the columns of user totals differ in length: {sorted(sizes)}")

    def select(self, keep: NDArray[np.bool_]) -> "UserTotals":
        return UserTotals(self.user[keep], self.phase[keep], self.arm[keep], self.total[keep], self.count[keep])

    def __len__(self) -> int:
        return len(self.user)


def ratio(total: ArrayLike, count: ArrayLike) -> Ratio:
    """R = ΣS/ΣC over users, with Var R = Σ(Sᵢ − R·Cᵢ)² / (n(n−1)·C̄²).

    total (S) and count (C) have one entry per user; users without a value (C = 0) are left out. The user is the unit
    because the user was randomised: the values of one user are not independent draws. Delta method for ratio metrics:
    Deng, Knoblich & Lu, KDD 2018 (arXiv 1803.06336).

    Raises ValueError with fewer than two users that have a value.
    """
    s, c = np.asarray(total, dtype=float), np.asarray(count, dtype=float)
    has = c > 0
    s, c = s[has], c[has]
    n = len(c)
    if n < 2:
        raise ValueError(f"a ratio over users needs at least two users with a value; there are {n}")
    value = s.sum() / c.sum()
    variance = float(((s - value * c) ** 2).sum()) / (n * (n - 1) * c.mean() ** 2)
    return Ratio(float(value), variance, n, float(c.sum()))


def stratified_difference(totals: UserTotals, min_users: int = 2) -> Stratified | None:
    """The treatment's ratio less the control's within each phase, averaged over phases.

    Pooling phases of different traffic weights would mix a change in time into the difference (Simpson's paradox), so
    phases are compared within and averaged with Mantel-Haenszel weights n₀n₁/(n₀+n₁) (Cochran, Biometrics 1954), which
    depend on counts only. The variance sums each user's influence over all phases, so that a user who was there in
    several phases counts as one cluster; with one phase it is Var R₀ + Var R₁ of `ratio`.

    A phase with fewer than `min_users` users with a value in an arm is left out. None when no phase is left.
    """
    totals = totals.select(totals.count > 0)
    parts: list[tuple[NDArray[np.bool_], NDArray[np.bool_], int, Ratio, Ratio, float]] = []
    for phase in np.unique(totals.phase):
        masks = [(totals.phase == phase) & (totals.arm == arm) for arm in (0, 1)]
        if min(int(m.sum()) for m in masks) < max(2, min_users):
            continue
        control, treatment = (ratio(totals.total[m], totals.count[m]) for m in masks)
        weight = control.users * treatment.users / (control.users + treatment.users)
        parts.append((masks[0], masks[1], int(phase), control, treatment, weight))
    if not parts:
        return None
    whole = sum(weight for *_, weight in parts)
    influence = np.zeros(len(totals))
    for control_mask, treatment_mask, _, control, treatment, weight in parts:
        for mask, arm, sign in ((control_mask, control, -1.0), (treatment_mask, treatment, 1.0)):
            residual = (totals.total[mask] - arm.value * totals.count[mask]) / arm.count
            influence[mask] = sign * weight / whole * math.sqrt(arm.users / (arm.users - 1)) * residual
    used = np.logical_or.reduce([m for c, t, *_ in parts for m in (c, t)])
    _, codes = np.unique(totals.user[used], return_inverse=True)
    by_user = np.bincount(codes, weights=influence[used])
    strata = tuple(Stratum(phase, c, t, weight / whole) for _, _, phase, c, t, weight in parts)
    return Stratified(
        difference=sum(s.weight * s.difference for s in strata),
        se=float(np.sqrt((by_user**2).sum())),
        users=len(by_user),
        strata=strata,
    )


def mixture_rho2(expected_n: float, alpha: float = ALPHA) -> float:
    """ρ² that makes the confidence sequence tightest at `expected_n` users.

    ρ² = (−2 ln α + ln(1 − 2 ln α)) / N*: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, arXiv 2103.06476.
    """
    if expected_n <= 0:
        raise ValueError(f"the expected number of users must be above 0; got {expected_n}")
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1; got {alpha}")
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / expected_n


def sequence_factor(n: ArrayLike, rho2: float, alpha: float = ALPHA) -> NDArray[np.float64]:
    """How many standard errors the confidence sequence reaches at n users, to each side.

    k = √(2(a+1)/a · ln(√(a+1)/α)) with a = nρ²: Waudby-Smith et al., arXiv 2103.06476, in units of the standard error.
    It is the boundary of the normal-mixture mSPRT (Johari et al., Operations Research 2022).
    """
    a = np.asarray(n, dtype=float) * rho2
    return np.sqrt(2 * (a + 1) / a * np.log(np.sqrt(a + 1) / alpha))


def always_valid_p(z: ArrayLike, n: ArrayLike, rho2: float) -> NDArray[np.float64]:
    """p = min(1, √(a+1)·exp(−a z²/(2(a+1)))), a = nρ²: the p-value dual to `sequence_factor`, valid at every look.

    Johari, Koomen, Pekelis & Walsh, Operations Research 2022 (arXiv 1512.04922), with the normal mixture.
    """
    a = np.asarray(n, dtype=float) * rho2
    return np.minimum(1.0, np.sqrt(a + 1) * np.exp(-a * np.asarray(z, dtype=float) ** 2 / (2 * (a + 1))))


def confidence_sequence(difference: float, se: float, n: int, expected_n: float, alpha: float = ALPHA) -> Interval:
    """The 1 − α confidence sequence of a difference at n users of both arms.

    It covers the true difference at all looks at once with probability 1 − α (asymptotically), so it may be looked at
    after every user. `expected_n` is the number of users of both arms at which the decision is expected; it must be
    chosen before the data are seen.
    """
    if n < 1:
        raise ValueError(f"a confidence sequence needs at least one user; got {n}")
    rho2 = mixture_rho2(expected_n, alpha)
    reach = float(sequence_factor(n, rho2, alpha)) * se
    p = float(always_valid_p(_z(difference, se), n, rho2))
    return Interval(difference, se, difference - reach, difference + reach, p, n)


def srm_log_bayes_factor(
    counts: ArrayLike, shares: ArrayLike, concentration: float = 100.0, prior: ArrayLike | None = None
) -> NDArray[np.float64]:
    """ln BF of "the shares are not the intended ones" against "they are", for counts of users per arm.

    ln BF = lnΓ(Σα) − lnΓ(Σα+n) + Σ[lnΓ(αᵢ+xᵢ) − lnΓ(αᵢ)] − Σ xᵢ ln θᵢ, with αᵢ = concentration·θᵢ: Lindon & Malek,
    NeurIPS 2022 (arXiv 2011.03567), the Dirichlet-multinomial mixture. counts: (…, arms); the result has shape (…).
    prior: α itself, where it is not proportional to the shares.
    """
    x, theta = np.asarray(counts, dtype=float), np.asarray(shares, dtype=float)
    if np.any(theta <= 0):
        raise ValueError(f"an arm without traffic has no place in a sample ratio test; the shares are {theta.tolist()}")
    theta = theta / theta.sum()
    alpha = concentration * theta if prior is None else np.asarray(prior, dtype=float)
    gammaln = scipy.special.gammaln
    n = x.sum(axis=-1)
    return (
        gammaln(alpha.sum())
        - gammaln(alpha.sum() + n)
        + (gammaln(alpha + x) - gammaln(alpha)).sum(axis=-1)
        - (x * np.log(theta)).sum(axis=-1)
    )


def sequential_srm(
    arms: NDArray[np.int64], phases: NDArray[np.int64], shares: Mapping[int, tuple[float, ...]]
) -> float:
    """p of a sample ratio mismatch, valid at every look: the running minimum of min(1, 1/BF).

    arms and phases: one entry per user, in the order of their first exposure, and taken from it: a user who comes back
    was drawn once. shares: intended traffic of every arm, the control first, by phase; a phase with only one arm says
    nothing. Bayes factors of successive phases multiply, because each is a martingale that starts at 1.
    """
    log_factor, largest = 0.0, 0.0
    for phase in np.unique(phases):
        if int(phase) not in shares:
            raise ValueError(f"the intended traffic of phase {int(phase)} is not known; known are {sorted(shares)}")
        intended = shares[int(phase)]
        if min(intended) <= 0:
            continue
        arm = arms[phases == phase]
        counts = np.stack([np.cumsum(arm == index) for index in range(len(intended))], axis=-1)
        path = log_factor + srm_log_bayes_factor(counts, intended)
        largest = max(largest, float(path.max()))
        log_factor = float(path[-1])
    return math.exp(-largest)


def fixed_srm(arms: NDArray[np.int64], phases: NDArray[np.int64], shares: Mapping[int, tuple[float, ...]]) -> float:
    """p of Pearson's χ² test of the split as it is now; arguments as of `sequential_srm`.

    Each treatment has a degree of freedom in each phase. At one look it has more power than the sequential test, which
    pays for every look. Under repeated looks it errs more often than its level, on the side that here only waits: a
    clean split is found quiet at the next look.
    """
    statistic, freedom = 0.0, 0
    for phase in np.unique(phases):
        intended = shares[int(phase)]
        if min(intended) <= 0:
            continue
        arm = arms[phases == phase]
        expected = len(arm) * np.asarray(intended) / sum(intended)
        found = np.array([(arm == index).sum() for index in range(len(intended))])
        statistic += float(((found - expected) ** 2 / expected).sum())
        freedom += len(intended) - 1
    return float(scipy.stats.chi2.sf(statistic, freedom)) if freedom else 1.0


@dataclass(frozen=True)
class TestResult:
    """A test that is reported beside the deciding sequence: valid at one look fixed beforehand, not under peeking."""

    # The name begins like a test case to pytest.
    __test__ = False
    statistic: float | None
    p: float | None


@dataclass(frozen=True)
class WelchResult(TestResult):
    """Welch's t test: the difference of the means, treatment less control, with its interval."""

    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class SuperiorityResult(TestResult):
    """superiority: P(treatment value > control value) + half of P(equal); cliffs_delta = 2·superiority − 1."""

    superiority: float
    cliffs_delta: float


def welch(control: ArrayLike, treatment: ArrayLike, alpha: float = ALPHA) -> WelchResult:
    """Welch's t-test of the means with its 1 − α interval (Welch, Biometrika 1947). Without any variance p is None."""
    a, b = _sample(control), _sample(treatment)
    difference = float(b.mean() - a.mean())
    if a.std() == 0 and b.std() == 0:
        return WelchResult(None, None, difference, difference, difference)
    result = scipy.stats.ttest_ind(b, a, equal_var=False)
    interval = result.confidence_interval(1 - alpha)
    return WelchResult(
        float(result.statistic), float(result.pvalue), difference, float(interval.low), float(interval.high)
    )


def mann_whitney(control: ArrayLike, treatment: ArrayLike) -> SuperiorityResult:
    """Mann-Whitney U of the treatment, with P(superiority) = U/(n₀n₁) and Cliff's δ = 2P − 1.

    Mann & Whitney, Ann. Math. Stat. 1947; Cliff, Psychological Bulletin 1993. Ties by the normal approximation.
    """
    a, b = _sample(control), _sample(treatment)
    result = scipy.stats.mannwhitneyu(b, a, alternative="two-sided", method="asymptotic")
    superiority = float(result.statistic) / (len(a) * len(b))
    # All values equal leave the approximation without variance: nothing speaks for a difference.
    p = 1.0 if math.isnan(result.pvalue) else float(result.pvalue)
    return SuperiorityResult(float(result.statistic), p, superiority, 2 * superiority - 1)


def brunner_munzel(control: ArrayLike, treatment: ArrayLike) -> SuperiorityResult:
    """Brunner-Munzel test of P(superiority) = ½, which allows for unequal spreads (Biometrical Journal 2000).

    statistic is positive when the treatment tends to be higher. It and p are None when the arms do not overlap at all
    or do not vary, where the statistic is not defined.
    """
    a, b = _sample(control), _sample(treatment)
    superiority = mann_whitney(a, b).superiority
    with warnings.catch_warnings(), np.errstate(divide="ignore", invalid="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)
        result = scipy.stats.brunnermunzel(a, b)
    if not (math.isfinite(result.statistic) and math.isfinite(result.pvalue)):
        return SuperiorityResult(None, None, superiority, 2 * superiority - 1)
    return SuperiorityResult(float(result.statistic), float(result.pvalue), superiority, 2 * superiority - 1)


def capped(values: ArrayLike, cap: float) -> NDArray[np.float64]:
    """Values limited to `cap`, which is fixed before the data are seen.

    A mean with heavy tails converges too slowly for a normal approximation; a cap taken from the data (a quantile)
    would move with them and bias the comparison.
    """
    if not math.isfinite(cap):
        raise ValueError(f"a cap must be a finite number; got {cap}")
    return np.minimum(np.asarray(values, dtype=float), cap)


def _z(difference: float, se: float) -> float:
    if difference == 0:
        return 0.0
    return difference / se if se > 0 else math.copysign(math.inf, difference)


def _sample(values: ArrayLike) -> NDArray[np.float64]:
    sample = np.asarray(values, dtype=float)
    if len(sample) < 2:
        raise ValueError(f"a test needs at least two values in each arm; there are {len(sample)}")
    return sample
