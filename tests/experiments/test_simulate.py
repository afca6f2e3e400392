"""Looked at after every ten users an arm, the confidence sequence keeps its 5 % where Welch's test does not."""

import numpy as np
import pytest

from llmops_assets.experiments import inference
from llmops_assets.experiments.simulate import METHODS, Design, _draw, _rejections, rejection_rates

WELCH_RATINGS, WELCH_USERS, SEQUENCE = METHODS


@pytest.mark.parametrize("expected_n", [200, 1600])
def test_without_a_difference_only_the_sequence_stays_below_five_percent(expected_n: int) -> None:
    rates = rejection_rates(Design(users=800), runs=1000, seed=11, expected_n=expected_n)
    assert rates.peeking[SEQUENCE] <= 0.05
    assert rates.peeking[WELCH_USERS] > 0.2
    assert rates.peeking[WELCH_RATINGS] > 0.5
    # At one look fixed beforehand the test on user means is right, and the one on ratings still is not.
    assert rates.once[WELCH_USERS] == pytest.approx(0.05, abs=0.025)
    assert rates.once[WELCH_RATINGS] > 0.1


def test_skewed_ratings_do_not_break_the_sequence() -> None:
    rates = rejection_rates(Design(users=600, level=4.9, ratings=2), runs=1000, seed=12, expected_n=400)
    assert rates.peeking[SEQUENCE] <= 0.05


def test_a_real_difference_is_found() -> None:
    rates = rejection_rates(Design(users=2000, shift=0.2), runs=100, seed=13, expected_n=400)
    assert rates.peeking[SEQUENCE] >= 0.95


def test_the_simulation_computes_what_the_report_computes() -> None:
    design = Design(users=120, shift=0.5, first=20, every=20)
    rng = np.random.default_rng(14)
    arms = [_draw(rng, 3, design, shift) for shift in (0.0, design.shift)]
    rejected = _rejections(arms, design, expected_n=200)
    for run in range(3):
        for index, n in enumerate(design.looks):
            parts = [inference.ratio(a[run, :n].sum(axis=1), np.full(n, design.ratings)) for a in arms]
            interval = inference.confidence_sequence(
                parts[1].value - parts[0].value, np.hypot(parts[0].se, parts[1].se), int(2 * n), 200
            )
            assert rejected[SEQUENCE][run, index] == (interval.low > 0 or interval.high < 0)
            by_user = [a[run, :n].mean(axis=1) for a in arms]
            assert rejected[WELCH_USERS][run, index] == (inference.welch(*by_user).p < 0.05)
            by_rating = [a[run, :n].ravel() for a in arms]
            assert rejected[WELCH_RATINGS][run, index] == (inference.welch(*by_rating).p < 0.05)
