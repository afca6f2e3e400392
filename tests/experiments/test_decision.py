"""The rule: what is decided on which figures, and that a decision stays."""

import json
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from scipy.stats import chisquare

from llmops_assets.experiments.analysis import Analysis, analyse
from llmops_assets.experiments.decision import QUIET_SPLIT_P, Decision, decide, model_for
from llmops_assets.experiments.inference import fixed_srm, sequential_srm
from llmops_assets.experiments.report import (
    figures,
    guardrails_plot,
    ratings_plot,
    sequence_plot,
    table,
    time_plot,
    users_plot,
)
from llmops_assets.experiments.simulate import quiet_split_rates
from llmops_assets.plots import MAX_BYTES, png
from llmops_assets.specs.policy import load_policy
from tests.experiments.traffic import CONTROL, START, TREATMENT, plan, routes, spec, traffic

LATER, OVER = START + timedelta(hours=40), START + timedelta(hours=49, minutes=1)


def look(exposures: pl.DataFrame, feedback: pl.DataFrame, now=LATER, **changes) -> Analysis:
    return analyse(exposures, feedback, plan(**changes), {1: routes()}, now)


def test_a_better_model_that_keeps_its_guardrails_is_promoted() -> None:
    decision = decide(look(*traffic(500, levels=(3.0, 4.0))))
    assert decision.outcome == "promote"
    assert decision.decided_at == LATER
    assert TREATMENT in decision.reason


def test_nothing_is_decided_on_fewer_users_than_planned() -> None:
    decision = decide(look(*traffic(300, levels=(2.0, 4.5))))
    assert decision.outcome == "continue"
    assert "200 each are needed" in decision.reason
    assert decision.decided_at is None


def test_users_whose_window_is_open_are_waited_for() -> None:
    exposures, feedback = traffic(500, levels=(2.0, 4.5), gap=timedelta(seconds=1))
    decision = decide(look(exposures, feedback, now=START + timedelta(minutes=30)))
    assert decision.outcome == "continue"
    assert "500 users still have time to rate" in decision.reason


def test_equal_models_go_on_until_the_end_and_then_the_control_stays() -> None:
    exposures, feedback = traffic(600)
    assert decide(look(exposures, feedback)).outcome == "continue"
    # The last ratings may come until the window of the last user is over.
    before = decide(look(exposures, feedback, now=OVER - timedelta(minutes=2)))
    assert before.outcome == "continue"
    ended = decide(look(exposures, feedback, now=OVER))
    assert ended.outcome == "inconclusive"
    assert f"{CONTROL} stays" in ended.reason


def test_a_test_that_nobody_took_part_in_ends_inconclusive() -> None:
    assert decide(look(*traffic(0), now=OVER)).outcome == "inconclusive"


def test_a_worse_model_is_rolled_back() -> None:
    decision = decide(look(*traffic(500, levels=(4.0, 3.0))))
    assert decision.outcome == "rollback"
    assert "ratings are lower" in decision.reason


def test_a_better_but_slower_model_is_rolled_back() -> None:
    decision = decide(look(*traffic(600, levels=(3.0, 4.0), slow=(0.02, 0.5))))
    assert decision.outcome == "rollback"
    assert "slow requests" in decision.reason


def test_what_holds_a_decision_back_is_named_with_its_interval() -> None:
    decision = decide(look(*traffic(450, levels=(3.6, 3.6)), guardrails={"slow_requests": 0.0001}))
    assert decision.outcome == "continue" and "\n" not in decision.reason
    assert "the difference in ratings may still be none (95% sequence -" in decision.reason
    assert "slow requests: 0.00% against 0.00%, worse by -" in decision.reason
    assert "0.01% is allowed" in decision.reason


def test_a_better_model_waits_while_a_guardrail_is_open() -> None:
    decision = decide(look(*traffic(450, requests=2, levels=(3.0, 4.0)), guardrails={"failed_requests": 0.001}))
    assert decision.outcome == "continue"
    assert "failed requests" in decision.reason


def test_lost_users_make_the_test_invalid_however_good_the_model_looks() -> None:
    exposures, feedback = traffic(1500, requests=2, levels=(3.0, 4.5))
    number = pl.col("user").str.strip_prefix("user-").cast(pl.Int64)
    kept = exposures.filter(~((pl.col("variant") == 1) & (number % 4 == 0)))
    decision = decide(look(kept, feedback))
    assert decision.outcome == "invalid"
    assert "sample ratio mismatch" in decision.reason


def test_a_split_that_is_not_proven_broken_but_not_quiet_promotes_nobody() -> None:
    exposures, feedback = traffic(1600, requests=1, levels=(3.0, 4.5))
    number = pl.col("user").str.strip_prefix("user-").cast(pl.Int64)
    kept = exposures.filter(~((pl.col("variant") == 1) & (number % 6 == 0)))
    analysis = look(kept, feedback)
    assert analysis.srm_p >= analysis.plan.srm_p and analysis.srm_fixed_p < QUIET_SPLIT_P
    decision = decide(analysis)
    assert decision.outcome == "continue"
    assert (
        "the split of users is not quiet enough" in decision.reason and "a promotion asks for 0.05" in decision.reason
    )
    whole = decide(look(exposures, feedback))
    assert whole.outcome == "promote" and "users are split as intended" in whole.reason


def test_776_users_against_660_are_promoted_by_no_look() -> None:
    arms = np.random.default_rng(0).permutation(np.repeat([0, 1], [776, 660]))
    phases, shares = np.ones(len(arms), dtype=np.int64), {1: (0.5, 0.5)}
    assert fixed_srm(arms, phases, shares) == pytest.approx(chisquare([776, 660]).pvalue)
    assert fixed_srm(arms, phases, shares) < QUIET_SPLIT_P
    assert sequential_srm(arms, phases, shares) > load_policy().experiments.srm_p


def test_hardly_any_clean_split_waits_and_a_broken_one_mostly_does() -> None:
    clean, broken = (quiet_split_rates(lost, runs=400, users=(400, 1000), seed=3) for lost in (0.0, 0.3))
    assert clean.quiet[0] > 0.9 and clean.quiet[1] > 0.96
    assert broken.quiet[1] < 0.1 < 0.6 < broken.unproven


def test_one_users_failures_trip_no_breaker() -> None:
    exposures, feedback = traffic(40)
    one = exposures.filter(pl.col("variant") == 1).tail(1)
    failing = pl.concat([one] * 40).with_columns(
        request_id=pl.format("f-{}", pl.int_range(40)),
        status=pl.lit(502, dtype=pl.Int64),
        at=pl.col("at") + pl.duration(seconds=pl.int_range(40)),
    )
    assert decide(look(pl.concat([exposures, failing]), feedback)).outcome == "continue"


def test_users_who_get_both_models_make_the_test_invalid() -> None:
    exposures, feedback = traffic(500, levels=(3.0, 4.0))
    torn = pl.col("request_id").str.contains("-[0-9]*7-1$")
    flipped = exposures.with_columns(pl.when(torn).then(1 - pl.col("variant")).otherwise("variant").alias("variant"))
    decision = decide(look(flipped, feedback))
    assert decision.outcome == "invalid"
    assert "not sticky" in decision.reason


def test_the_breaker_trips_long_before_the_planned_users() -> None:
    decision = decide(look(*traffic(40, failed=(0.0, 0.9))))
    assert decision.outcome == "rollback"
    assert "last" in decision.reason


def test_the_breaker_stays_when_everything_fails_alike() -> None:
    assert decide(look(*traffic(40, failed=(0.9, 0.9)))).outcome == "continue"


def test_a_treatment_without_a_healthy_backend_is_rolled_back_once_a_request_has_failed() -> None:
    healthy, failing = look(*traffic(4)), look(*traffic(4, failed=(0.0, 1.0)))
    assert decide(healthy, treatment_has_backend=False).outcome == "continue"
    assert decide(failing).outcome == "continue"
    assert decide(failing, treatment_has_backend=False).outcome == "rollback"


@pytest.mark.parametrize("outcome", ["promote", "rollback", "inconclusive", "invalid"])
def test_a_final_decision_is_never_taken_back(outcome) -> None:
    before = Decision(outcome, "as it was", START)
    assert decide(look(*traffic(500, levels=(4.0, 3.0))), before) == before


def test_a_test_that_goes_on_can_still_be_decided() -> None:
    before = Decision("continue", "too early")
    assert decide(look(*traffic(500, levels=(3.0, 4.0))), before).outcome == "promote"


def test_a_promotion_gives_the_endpoint_to_the_treatment() -> None:
    assert model_for(Decision("promote", "better", LATER), spec()) == TREATMENT


@pytest.mark.parametrize("outcome", ["rollback", "inconclusive", "invalid"])
def test_every_other_end_gives_the_endpoint_back_to_the_control(outcome) -> None:
    assert model_for(Decision(outcome, "so", LATER), spec()) == CONTROL


def test_nothing_moves_while_the_test_goes_on_or_where_people_promote_by_hand() -> None:
    assert model_for(Decision("continue", "too early"), spec()) is None
    assert model_for(Decision("promote", "better", LATER), spec(auto_promote=False)) is None
    assert model_for(Decision("rollback", "harm", LATER), spec(auto_promote=False)) == CONTROL


@pytest.mark.parametrize("users", [0, 3, 500])
def test_a_report_can_be_written_and_drawn_at_any_time(users: int) -> None:
    analysis = look(*traffic(users, levels=(3.0, 4.0)))
    told = figures(analysis)
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert all(isinstance(cell, str) for row in table(analysis) for cell in row.values())
    for draw in (sequence_plot, ratings_plot, time_plot, users_plot, guardrails_plot):
        figure = draw(analysis)
        assert 1000 < len(png(figure)) < MAX_BYTES


def test_a_difference_too_small_to_matter_ends_the_test_with_the_control() -> None:
    exposures, feedback = traffic(1500)
    decision = decide(look(exposures, feedback, minimum_effect=0.4))
    assert decision.outcome == "no_difference" and "lies within ± 0.4" in decision.reason
    assert model_for(decision, spec()) == CONTROL
    assert decide(look(exposures, feedback)).outcome == "continue"
    assert decide(look(exposures, feedback, minimum_effect=0.02)).outcome == "continue"
    # A difference that is known to be there wins over one that is known to be small.
    assert decide(look(*traffic(1500, levels=(3.2, 3.7)), minimum_effect=2.0)).outcome == "promote"


def test_a_tests_end_is_foretold() -> None:
    analysis = look(*traffic(800, levels=(3.5, 3.6)))
    assert analysis.days_left is not None and analysis.days_left <= (OVER - LATER).total_seconds() / 86_400
    assert any(row["figure"] == "days left, about" for row in table(analysis))
    assert figures(analysis)["days_left"] == analysis.days_left
