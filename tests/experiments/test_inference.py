"""The statistics of an A/B test agree with independent computations and keep their promises on simulated data."""

import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets import intervals
from llmops_assets.experiments import inference as inf


def totals(user, phase, arm, total, count) -> inf.UserTotals:
    as_int = [np.asarray(x, dtype=np.int64) for x in (user, phase, arm)]
    as_float = [np.asarray(x, dtype=float) for x in (total, count)]
    return inf.UserTotals(*as_int, *as_float)


def test_with_one_value_a_user_the_ratio_is_the_mean_and_its_usual_standard_error() -> None:
    values = np.random.default_rng(0).normal(3, 1, 50)
    r = inf.ratio(values, np.ones(50))
    assert r.value == pytest.approx(values.mean())
    assert r.se == pytest.approx(scipy.stats.sem(values))


def test_the_variance_of_a_ratio_is_that_of_resampled_users() -> None:
    rng = np.random.default_rng(1)
    count = rng.integers(1, 9, 400).astype(float)
    total = count * rng.normal(3.5, 0.7, 400) + rng.normal(0, 1, 400) * np.sqrt(count)
    draws = rng.integers(0, 400, (4000, 400))
    bootstrap = total[draws].sum(axis=1) / count[draws].sum(axis=1)
    assert inf.ratio(total, count).se == pytest.approx(bootstrap.std(), rel=0.06)


def test_users_without_a_value_do_not_count() -> None:
    assert inf.ratio([4, 10, 0, 0], [1, 2, 0, 0]) == inf.ratio([4, 10], [1, 2])


def test_one_user_is_no_sample() -> None:
    with pytest.raises(ValueError, match="at least two users"):
        inf.ratio([4.0, 0.0], [1.0, 0.0])


def test_in_one_phase_the_variances_of_both_arms_add_up() -> None:
    rng = np.random.default_rng(2)
    arm, count = rng.integers(0, 2, 300), rng.integers(1, 5, 300)
    total = count * rng.normal(3, 1, 300) + arm * 0.3
    d = inf.stratified_difference(totals(np.arange(300), np.ones(300), arm, total, count))
    a, b = (inf.ratio(total[arm == k], count[arm == k]) for k in (0, 1))
    assert d is not None
    assert d.difference == pytest.approx(b.value - a.value)
    assert d.se == pytest.approx(math.sqrt(a.variance + b.variance))
    assert d.users == 300


def test_a_ramp_during_a_better_week_is_no_effect() -> None:
    """Phase 2 has better ratings for everybody and more treatment: pooled it looks like an effect, stratified not."""
    rng = np.random.default_rng(3)
    n = 4000
    phase = np.repeat([1, 2], n // 2)
    arm = (rng.random(n) < np.where(phase == 1, 0.1, 0.9)).astype(int)
    total = rng.normal(3, 1, n) + (phase == 2) * 1.0
    pooled = inf.stratified_difference(totals(np.arange(n), np.ones(n), arm, total, np.ones(n)))
    stratified = inf.stratified_difference(totals(np.arange(n), phase, arm, total, np.ones(n)))
    assert pooled is not None
    assert stratified is not None
    assert pooled.difference / pooled.se > 10
    assert abs(stratified.difference / stratified.se) < 3
    assert [s.phase for s in stratified.strata] == [1, 2]
    assert sum(s.weight for s in stratified.strata) == pytest.approx(1)


def test_a_user_seen_in_two_phases_is_one_cluster() -> None:
    """The same users with the same ratings in a second phase bring no new information."""
    rng = np.random.default_rng(4)
    n = 200
    arm, value = rng.integers(0, 2, n), rng.normal(3, 1, n)
    once = inf.stratified_difference(totals(np.arange(n), np.ones(n), arm, value, np.ones(n)))
    twice = inf.stratified_difference(
        totals(np.tile(np.arange(n), 2), np.repeat([1, 2], n), np.tile(arm, 2), np.tile(value, 2), np.ones(2 * n))
    )
    assert once is not None
    assert twice is not None
    assert twice.se == pytest.approx(once.se)
    assert twice.users == n


def test_a_phase_with_too_few_users_in_an_arm_is_left_out() -> None:
    few = totals(range(6), [1, 1, 1, 1, 2, 2], [0, 0, 1, 1, 0, 1], [3, 4, 4, 5, 1, 5], np.ones(6))
    d = inf.stratified_difference(few)
    assert d is not None
    assert [s.phase for s in d.strata] == [1]
    assert inf.stratified_difference(few, min_users=3) is None


def test_the_sequence_has_the_published_shape() -> None:
    # The boundary of arXiv 2103.06476 with n, ρ written out: √(2(nρ²+1)/(n²ρ²)·ln(√(nρ²+1)/α)), in units of σ.
    n, alpha = 700, 0.05
    rho2 = inf.mixture_rho2(1000, alpha)
    boundary = math.sqrt(2 * (n * rho2 + 1) / (n**2 * rho2) * math.log(math.sqrt(n * rho2 + 1) / alpha))
    assert float(inf.sequence_factor(n, rho2, alpha)) / math.sqrt(n) == pytest.approx(boundary)


def test_the_sequence_is_near_its_tightest_at_the_expected_number() -> None:
    factors = {e: float(inf.sequence_factor(1000, inf.mixture_rho2(e))) for e in (100, 500, 1000, 2000, 10_000)}
    best = min(
        scipy.optimize.minimize_scalar(lambda r: float(inf.sequence_factor(1000, math.exp(r))), bounds=(-12, 0)).fun,
        *factors.values(),
    )
    assert factors[1000] == min(factors.values())
    assert factors[1000] == pytest.approx(best, rel=0.005)


@given(st.floats(-4, 4), st.floats(0.01, 2), st.integers(2, 100_000), st.integers(10, 100_000))
def test_p_falls_below_alpha_exactly_when_the_interval_excludes_zero(
    d: float, se: float, n: int, expected: int
) -> None:
    i = inf.confidence_sequence(d, se, n, expected)
    if abs(i.p - 0.05) > 1e-9:
        assert (i.p < 0.05) == (i.low > 0 or i.high < 0)


def test_no_spread_and_no_difference_proves_nothing() -> None:
    i = inf.confidence_sequence(0.0, 0.0, 500, 500)
    assert i.p == 1
    assert (i.low, i.high) == (0, 0)


@settings(max_examples=50)
@given(st.lists(st.integers(0, 5000), min_size=2, max_size=3))
def test_the_bayes_factor_is_the_ratio_of_its_two_likelihoods(counts: list[int]) -> None:
    shares = np.array([0.5, 0.3, 0.2][: len(counts)])
    shares = shares / shares.sum()
    x = np.array(counts)
    n = int(x.sum())
    intended = scipy.stats.multinomial(n, shares).logpmf(x)
    mixture = scipy.stats.dirichlet_multinomial(100 * shares, n).logpmf(x)
    assert float(inf.srm_log_bayes_factor(x, shares)) == pytest.approx(mixture - intended, abs=1e-6)


def test_right_shares_hardly_ever_look_like_a_mismatch_however_often_one_looks() -> None:
    rng = np.random.default_rng(5)
    alarms = 0
    for _ in range(400):
        arms = (rng.random(3000) < 0.2).astype(np.int64)
        alarms += inf.sequential_srm(arms, np.ones(3000, dtype=np.int64), {1: (0.8, 0.2)}) < 0.05
    assert alarms / 400 <= 0.05


def test_lost_users_of_one_arm_are_found() -> None:
    rng = np.random.default_rng(6)
    arms = (rng.random(4000) < 0.5).astype(np.int64)
    lost = (arms == 1) & (rng.random(4000) < 0.15)
    phases = np.ones(4000, dtype=np.int64)
    assert inf.sequential_srm(arms[~lost], phases[~lost], {1: (0.5, 0.5)}) < 0.001


def test_a_ramp_is_no_mismatch_when_each_phase_keeps_its_own_shares() -> None:
    rng = np.random.default_rng(7)
    phases = np.repeat(np.array([1, 2, 3]), 1000)
    shares = {1: (0.9, 0.1), 2: (0.5, 0.5), 3: (0.0, 1.0)}
    arms = (rng.random(3000) < np.array([shares[p][1] for p in phases])).astype(np.int64)
    assert inf.sequential_srm(arms, phases, shares) > 0.05
    assert inf.sequential_srm(arms, np.ones_like(phases), {1: (0.5, 0.5)}) < 0.001


def test_a_phase_whose_shares_are_unknown_is_refused() -> None:
    with pytest.raises(ValueError, match="phase 2"):
        inf.sequential_srm(np.array([0, 1]), np.array([1, 2]), {1: (0.5, 0.5)})


def test_a_mismatch_once_found_is_not_forgotten_when_the_shares_recover() -> None:
    arms = np.concatenate([np.zeros(200, dtype=np.int64), np.ones(200, dtype=np.int64)])
    assert inf.sequential_srm(arms, np.ones(400, dtype=np.int64), {1: (0.5, 0.5)}) < 0.001


def test_superiority_counts_the_pairs_that_the_treatment_wins() -> None:
    rng = np.random.default_rng(8)
    a, b = rng.integers(1, 6, 60), rng.integers(2, 6, 80)
    pairs = (b[:, None] > a[None, :]).mean() + 0.5 * (b[:, None] == a[None, :]).mean()
    u = inf.mann_whitney(a, b)
    assert u.superiority == pytest.approx(pairs)
    assert u.cliffs_delta == pytest.approx((b[:, None] > a[None, :]).mean() - (b[:, None] < a[None, :]).mean())
    assert inf.brunner_munzel(a, b).superiority == pytest.approx(pairs)


def test_reported_tests_point_towards_the_better_treatment() -> None:
    rng = np.random.default_rng(9)
    a, b = rng.normal(3, 1, 200), rng.normal(3.6, 1.5, 200)
    for result in (inf.welch(a, b), inf.mann_whitney(a, b), inf.brunner_munzel(a, b)):
        assert result.p is not None
        assert result.p < 0.01
    w = inf.welch(a, b)
    assert w.low < b.mean() - a.mean() < w.high
    statistic = inf.brunner_munzel(a, b).statistic
    assert statistic is not None
    assert statistic > 0


def test_tests_without_any_spread_say_so_instead_of_failing() -> None:
    same = np.full(10, 5.0)
    assert inf.welch(same, same).p is None
    assert inf.mann_whitney(same, same).p == 1
    assert inf.brunner_munzel(same, same).p is None
    apart = inf.brunner_munzel(same - 4, same)
    assert (apart.p, apart.superiority) == (None, 1.0)


def test_a_cap_is_fixed_and_finite() -> None:
    assert inf.capped([1, 5, 1e9], 10).tolist() == [1, 5, 10]
    with pytest.raises(ValueError, match="finite"):
        inf.capped([1], math.inf)


def test_the_share_of_nothing_is_unknown() -> None:
    assert intervals.wilson(0, 0) == (0, 1)
    low, high = intervals.wilson(281, 300)
    assert low == pytest.approx(0.903, abs=0.001)
    assert high < 1
