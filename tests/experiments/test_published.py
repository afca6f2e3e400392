"""Numbers that other projects' tests and manuals state for the same formulas, each with its source."""

import math

import numpy as np
import pytest

from llmops_assets.experiments import inference as inf
from llmops_assets.experiments import quantiles
from llmops_assets.experiments.covariates import cuped, theta_of_sums
from llmops_assets.experiments.multiplicity import benjamini_hochberg, holm


def with_moments(n: int, total: float, squares: float) -> np.ndarray:
    """n numbers with that sum and sum of squares."""
    mean = total / n
    raw = np.linspace(-1, 1, n)
    raw -= raw.mean()
    return mean + raw * math.sqrt((squares - n * mean**2) / float((raw**2).sum()))


def test_scipy_manual_brunner_munzel() -> None:
    """docs.scipy.org, stats.brunnermunzel, Examples: pain scores of two groups."""
    x1 = [1, 2, 1, 1, 1, 1, 1, 1, 1, 1, 2, 4, 1, 1]
    x2 = [3, 3, 4, 3, 1, 2, 3, 1, 1, 5, 4]
    found = inf.brunner_munzel(x1, x2)
    assert (found.statistic, found.p) == pytest.approx((3.1374674823029505, 0.0057862086661515377))


def test_scipy_manual_mann_whitney() -> None:
    """docs.scipy.org, stats.mannwhitneyu, Examples: age at diagnosis, asymptotic p with continuity correction."""
    males, females = [19, 22, 16, 29, 24], [20, 11, 17, 12]
    found = inf.mann_whitney(females, males)
    assert (found.statistic, found.p) == pytest.approx((17.0, 0.11134688653314041))
    assert found.superiority == 17 / 20


def test_r_manual_welch() -> None:
    """R, ?t.test: `t.test(extra ~ group, data = sleep)` prints t = -1.8608, p = 0.07939, (-3.3654832, 0.2054832)."""
    group_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
    group_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]
    found = inf.welch(group_2, group_1)
    assert (found.statistic, found.p) == pytest.approx((-1.8608, 0.07939), abs=5e-5)
    assert (found.low, found.high) == pytest.approx((-3.3654832, 0.2054832), abs=1e-7)


def test_confseq_two_sided_normal_mixture() -> None:
    """gostevehoward/confseq, test/uniform_boundaries_unittest.cpp: v_opt = v = 100, alpha .05."""
    rho2 = inf.mixture_rho2(100)
    assert 1 / rho2 == pytest.approx(12.60056, abs=1e-5)
    assert 10 * inf.sequence_factor(100, rho2) == pytest.approx(30.35209, abs=1e-5)
    # The log mixture at s = 10 is −ln p of z = 1.
    a = 100 * rho2
    assert -0.5 * math.log(a + 1) + a / (2 * (a + 1)) == pytest.approx(-0.6510052, abs=1e-5)
    assert inf.always_valid_p(1.0, 100, rho2) == 1.0


def test_confseq_beta_binomial_mixture() -> None:
    """The same file: the two-sided beta-binomial log mixture at s = 10, v = 100 for v_opt = 100, g = .2, h = .8."""
    mixture = quantiles.Mixture(0.2, 100 / 0.16)
    assert mixture.log_martingale(10, 100) == pytest.approx(-0.6941012, abs=1e-5)


@pytest.mark.parametrize(
    ("p", "shift", "expected"), [(0.5, 70, 0.814704), (0.5, 85, 0.0838055), (0.5, 100, 0.0054947), (0.9, 55, 0.0340463)]
)
def test_confseq_quantile_test(p: float, shift: int, expected: float) -> None:
    """The same file, QuantileABTest: 1…1000 against the same shifted, t_opt = 100."""
    values = np.arange(1, 1001)
    assert quantiles.equal_p(values, values + shift, p, 100) == pytest.approx(expected, abs=1e-5)


def test_ssrm_log_bayes_factors() -> None:
    """optimizely/ssrm, ssrm_test/test_ssrm_test.py: rows of counts, shares (.4, .4, .2), a flat Dirichlet prior."""
    counts = np.cumsum([(20, 17, 9), (18, 21, 8), (4, 6, 4), (18, 19, 11)], axis=0)
    found = inf.srm_log_bayes_factor(counts, (0.4, 0.4, 0.2), prior=(1, 1, 1))
    assert found == pytest.approx([-2.950561, -3.681901, -3.860658, -4.183814], abs=1e-6)


def test_growthbook_difference_of_means_from_sums() -> None:
    """growthbook/growthbook, packages/stats/tests/frequentist/test_tests.py, sequential, absolute: Δ and its SE."""
    a, b = with_moments(3000, 1396.87, 52377.9767), with_moments(3461, 2422.7, 134698.29)
    control, treatment = (inf.ratio(v, np.ones(len(v))) for v in (a, b))
    assert treatment.value - control.value == pytest.approx(0.23437667, abs=1e-8)
    assert math.hypot(control.se, treatment.se) == pytest.approx(0.12983081, abs=1e-7)


def test_growthbook_ratio_metric() -> None:
    """The same file: ratios of (270, 510) and (300, 500) with their cross products; .529412, .6 and p .610663."""

    def sample(n, y, yy, x, xx, xy):
        # Two columns with the given sums, squares and product: a Cholesky factor on orthonormal directions.
        spread = np.array([[yy - y * y / n, xy - x * y / n], [xy - x * y / n, xx - x * x / n]])
        base = np.stack([np.cos(2 * np.pi * np.arange(n) / n), np.sin(2 * np.pi * np.arange(n) / n)]) * math.sqrt(2 / n)
        values, vectors = np.linalg.eigh(spread)
        assert (values > 0).all(), "these sums are of no sample"
        return (vectors * np.sqrt(values)) @ base + np.array([[y / n], [x / n]])

    def delta_variance(n, y, yy, x, xx, xy):
        mean_y, mean_x, r = y / n, x / n, y / x
        var_y, var_x, cov = (
            (yy - n * mean_y**2) / (n - 1),
            (xx - n * mean_x**2) / (n - 1),
            (xy - n * mean_y * mean_x) / (n - 1),
        )
        return (var_y - 2 * r * cov + r * r * var_x) / (mean_x**2 * n)

    arms = [(100, 270, 848.79, 510, 810, -900), (120, 300, 869, 500, 800, -905)]
    with pytest.raises(AssertionError, match="no sample"):
        # GrowthBook's denominators have Σx² < (Σx)²/n: they are figures for a formula, and no users'.
        sample(*arms[0])
    variances = [delta_variance(*arm) for arm in arms]
    a, b = 270 / 510, 300 / 500
    assert (a, b) == pytest.approx((0.529412, 0.6), abs=1e-6)
    relative = (b - a) / a
    se = math.sqrt(variances[1] / a**2 + variances[0] * b**2 / a**4)
    assert relative == pytest.approx(0.133333, abs=1e-6)
    # Their t test has Welch's degrees of freedom, of more than a hundred here: the normal one is near.
    assert math.erfc(relative / se / math.sqrt(2)) == pytest.approx(0.610663, abs=2e-3)
    # Our ratio over users is that variance, where the sums are of a sample.
    y, x = sample(50, 120.0, 330.0, 100.0, 220.0, 250.0)
    assert inf.ratio(y, x).variance == pytest.approx(delta_variance(50, 120.0, 330.0, 100.0, 220.0, 250.0))


def test_growthbook_cuped() -> None:
    """The same folder: theta pooled over both arms, and the relative effect −.281707 with it."""
    theta = theta_of_sums(6001, 300 + 222, 210 + 120, 415 + 405, -20 - 10)
    a, b = 300 / 3001 - theta * 210 / 3001, 222 / 3000 - theta * 120 / 3000
    assert (b - a) / (300 / 3001) == pytest.approx(-0.281707, abs=1e-6)
    found = cuped([2, 1, 5, 3], [0.3, 0.5, 0.9, 22])
    assert found is not None and found.theta == pytest.approx(0.01864, abs=1e-5)


def test_r_p_adjust() -> None:
    """R, `p.adjust(c(0.01, 0.02, 0.03, 0.04), method)`: holm .04 .06 .06 .06; BH .04 four times."""
    p = [0.01, 0.02, 0.03, 0.04]
    assert holm(p) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert benjamini_hochberg(p) == pytest.approx([0.04] * 4)
    assert holm([0.5, 0.01, 0.9]) == pytest.approx([1.0, 0.03, 1.0])


def test_the_interval_of_a_quantile_holds_at_every_look() -> None:
    """Howard & Ramdas: of 300 runs looked at after every 20 values, at most 5 % ever exclude the true median."""
    rng = np.random.default_rng(4)
    missed = 0
    for _ in range(300):
        values = rng.exponential(size=600)
        bounds = (quantiles.interval(values[:n], 0.5, 300) for n in range(20, 601, 20))
        missed += any(not b.low <= math.log(2) <= b.high for b in bounds if b is not None)
    assert missed / 300 <= 0.05
