"""Users who all said the same: the interval has a width, and what does not vary at all promotes nobody."""

import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llmops_assets.experiments.analysis import analyse
from llmops_assets.experiments.decision import decide
from llmops_assets.experiments.inference import Stratified, UserTotals, confidence_sequence, stratified_difference
from llmops_assets.experiments.log_analysis import Question, analyse_rows
from llmops_assets.experiments.variance_floor import floored, nothing_varies
from tests.experiments.test_decision import LATER
from tests.experiments.traffic import plan, routes, traffic


def totals(*arms: list[float]) -> UserTotals:
    values = np.concatenate([np.asarray(arm, dtype=float) for arm in arms])
    arm = np.repeat([0, 1], [len(a) for a in arms])
    return UserTotals(np.arange(len(values)), np.ones(len(values), dtype=int), arm, values, np.ones(len(values)))


def effect(found: UserTotals, scale: tuple[int, int] | None = (1, 5)) -> Stratified:
    return floored(stratified_difference(found), found, scale)


def test_an_arm_that_never_varied_may_hide_three_users_in_n_at_the_far_end() -> None:
    """q = 3/200 (rule of three), R = 4 at a mean of 5 and 3 at a mean of 4: se² = q(1 − q)(R₀² + R₁²)/n."""
    found = effect(totals([4.0] * 200, [5.0] * 200))
    q = 3 / 200
    assert found.se == pytest.approx(math.sqrt(q * (1 - q) * (3**2 + 4**2) / 200))
    assert found.difference == 1.0


def test_ordinary_ratings_keep_their_variance_to_the_last_digit() -> None:
    rng = np.random.default_rng(3)
    found = totals(*(np.clip(np.rint(rng.normal(3.6, 1, 300)), 1, 5) for _ in range(2)))
    assert effect(found) == stratified_difference(found)
    # Without a scale nobody knows what was possible: an arm that varies at all is left as it is.
    rare = totals([0.0] * 199 + [1.0], [0.0] * 198 + [1.0] * 2)
    assert effect(rare, None) == stratified_difference(rare)


def test_one_user_of_another_mind_does_not_switch_the_floor_off() -> None:
    constant, almost = effect(totals([4.0] * 200, [5.0] * 200)), effect(totals([4.0] * 200, [5.0] * 199 + [4.0]))
    assert almost.se > 0.9 * constant.se


@pytest.mark.parametrize("levels", [(3, 4), (4, 5), (1, 5), (4, 3)])
def test_scripted_ratings_have_an_interval_and_promote_nobody(levels: tuple[int, int]) -> None:
    exposures, feedback = traffic(600, requests=1)
    arm = exposures.select("request_id", "variant")
    same = feedback.join(arm, on="request_id", how="left").with_columns(
        pl.when(pl.col("variant") == 1).then(levels[1]).otherwise(levels[0]).cast(pl.Int64).alias("rating")
    )
    analysis = analyse(exposures, same.drop("variant"), plan(), {1: routes()}, LATER)
    assert analysis.rated_users > 200 and analysis.nothing_varies
    assert analysis.rating.high - analysis.rating.low > 0.1
    decision = decide(analysis)
    if levels[1] > levels[0]:
        assert decision.outcome == "continue"
        assert "people differ" in decision.reason
    else:
        # Whom a model seems to harm is not left with it until somebody has found out.
        assert decision.outcome == "rollback"


def test_constant_values_of_any_log_promote_nobody() -> None:
    frame = pl.DataFrame(
        {"user": [str(n) for n in range(1000)], "variant": ["a", "b"] * 500, "value": [0.10, 0.11] * 500}
    )
    found = analyse_rows(frame, Question(), Path("log.csv"))
    assert found.decision.outcome == "continue" and "people differ" in found.decision.reason
    rating = found.deciding.analysis.rating
    assert rating.se > 0 and rating.low < rating.difference < rating.high


def test_nothing_varies_needs_both_arms_alike() -> None:
    assert nothing_varies(totals([3.0] * 5, [4.0] * 5)) and nothing_varies(totals([3.0] * 5, [3.0] * 5))
    assert not nothing_varies(totals([3.0] * 5, [4.0] * 4 + [5.0]))
    assert not nothing_varies(totals([], [4.0] * 4))


def test_a_rare_bad_rating_that_only_one_arm_met_yet_is_no_proof() -> None:
    """4 of 200 users of the control rated 1, none of the treatment: without the floor at N* = 400 this looks harmless
    on one arm only; with it the interval holds 0."""
    found = totals([5.0] * 196 + [1.0] * 4, [5.0] * 200)
    bare, held = stratified_difference(found), effect(found)
    assert held.se > bare.se
    interval = confidence_sequence(held.difference, held.se, held.users, 400)
    assert interval.low < 0 < interval.high
