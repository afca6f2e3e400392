"""Plans: the formula of one look, the sequential rule simulated, and what an endpoint's traffic could show."""

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from llmops_assets.experiments.forecast import days_left, users_until
from llmops_assets.experiments.inference import confidence_sequence
from llmops_assets.experiments.planning import TestDesign, fixed_horizon_users, simulate, smallest_effect, traffic_of
from llmops_assets.experiments.simulate import Design, rejection_rates
from tests.experiments.traffic import START


def test_the_fixed_horizon_is_that_of_spotifys_confidence() -> None:
    """spotify/confidence, tests/samplesize: variance 100, minimum detectable effect .3, power .85: 39,906 users."""
    assert fixed_horizon_users(0.3, 10.0, power=0.85) == 39_906
    with pytest.raises(ValueError, match="effect of 0"):
        fixed_horizon_users(0.0, 1.0)


def test_a_simulated_plan_agrees_with_simulated_ratings() -> None:
    """The plan draws sums of users; `simulate.rejection_rates` draws every rating. Both play the same rule."""
    ratings = Design(users=1000, shift=0.1, first=200, every=20)
    rates = rejection_rates(ratings, runs=400, seed=2, expected_n=400)
    rng = np.random.default_rng(1)
    level = 3.6 + rng.normal(0, 0.8, (40_000, 1)) + rng.normal(0, 1, (40_000, 4))
    means = [np.clip(np.rint(level + shift), 1, 5).mean(axis=1) for shift in (0.0, 0.1)]
    # Rounding and the ends of the scale take a little of the shift, and of the spread.
    plan = simulate(TestDesign(effect=float(means[1].mean() - means[0].mean()), sd=float(means[0].std()), users=2000))
    assert plan.found == pytest.approx(rates.peeking["confidence sequence"], abs=0.08)


def test_looking_all_the_time_keeps_the_level_and_a_small_effect_ends_as_one() -> None:
    null = simulate(TestDesign(effect=0.0, sd=1.0, users=20_000))
    assert null.found + null.wrong <= 0.05
    ended = simulate(TestDesign(effect=0.0, sd=1.0, users=20_000, minimum_effect=0.1))
    assert ended.too_small > 0.9 and ended.median_users < 20_000
    uneven = simulate(TestDesign(effect=0.0, sd=1.0, users=20_000, share=0.1))
    assert uneven.found + uneven.wrong <= 0.05


def test_the_least_effect_is_found_with_the_power_asked_for() -> None:
    design = TestDesign(effect=0.0, sd=1.0, users=4000)
    least = smallest_effect(design, 0.8)
    assert least is not None
    assert simulate(TestDesign(effect=least, sd=1.0, users=4000), seed=9).found == pytest.approx(0.8, abs=0.05)
    assert fixed_horizon_users(least, 1.0) < 4000, "looking at any time costs users"


def test_what_is_left_of_a_test_is_when_its_sequence_excludes_none() -> None:
    n = users_until(0.1, 0.06, 1000, 400, 0.05)
    assert n is not None
    at = confidence_sequence(0.1, 0.06 * (1000 / n) ** 0.5, round(n), 400)
    assert at.low == pytest.approx(0, abs=1e-3)
    found = days_left(
        0.1, 0.06, 1000, seconds=86_400, expected_users=400, alpha=0.05, minimum_effect=None, least_users=400
    )
    assert found == pytest.approx(n / 1000 - 1, rel=1e-3)
    assert users_until(0.0, 0.06, 1000, 400, 0.05) is None
    assert (
        days_left(0.001, 0.06, 1000, seconds=1, expected_users=400, alpha=0.05, minimum_effect=None, least_users=4)
        is None
    )


def test_an_endpoints_traffic_says_who_rates_and_how_they_differ() -> None:
    frame = pl.DataFrame(
        {
            "user": ["a", "a", "b", "c"],
            "first_at": [START, START, START + timedelta(days=1), START],
            "last_at": [START, START, START + timedelta(days=2), START],
            "rated_1": [0, 1, 0, 0],
            "rated_2": [0, 0, 0, 0],
            "rated_3": [1, 0, 0, 0],
            "rated_4": [0, 0, 2, 0],
            "rated_5": [0, 0, 0, 0],
        }
    )
    found = traffic_of(frame)
    assert (found.users, found.users_who_rated, found.days, found.mean) == (3, 2, 2.0, 3.0)
    assert found.sd == pytest.approx(2**0.5) and found.raters_per_day == 1.0
    assert traffic_of(frame.clear()).raters_per_day is None
