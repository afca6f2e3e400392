"""What counts for an A/B test, and for whom: windows, late and foreign ratings, phases, failovers, guardrails."""

from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from llmops_assets.experiments.analysis import FAILED, SLOW, Analysis, analyse, path, plan_of
from llmops_assets.experiments.decision import decide
from llmops_assets.experiments.inference import ratio
from llmops_assets.experiments.plan import variants_of
from llmops_assets.experiments.report import ratings_plot
from llmops_assets.experiments.statistics import analyse_statistics
from llmops_assets.specs.policy import load_policy
from resources.catalog import Catalog
from tests.experiments.traffic import CONTROL, START, TREATMENT, plan, routes, spec, traffic

LATER = START + timedelta(hours=40)


def look(exposures: pl.DataFrame, feedback: pl.DataFrame, *, now=LATER, phases=None, **changes) -> Analysis:
    return analyse(exposures, feedback, plan(**changes), phases or {1: routes()}, now)


def test_the_difference_is_that_of_the_means_over_users() -> None:
    exposures, feedback = traffic(300, levels=(3.2, 3.7))
    analysis = look(exposures, feedback)
    joined = feedback.join(exposures.select("request_id", "variant"), on="request_id")
    by_user = joined.group_by("user", "variant").agg(pl.col("rating").mean(), pl.lit(1).alias("n")).sort("user")
    arms = [by_user.filter(pl.col("variant") == v) for v in (0, 1)]
    control, treatment = (ratio(a["rating"].to_numpy(), a["n"].to_numpy()) for a in arms)
    assert analysis.rating is not None
    assert analysis.rating.difference == pytest.approx(treatment.value - control.value)
    assert analysis.rating.se == pytest.approx((control.variance + treatment.variance) ** 0.5)
    assert [a.mean_rating for a in analysis.arms] == pytest.approx([control.value, treatment.value])
    assert analysis.rating.n == sum(a.rated_users for a in analysis.arms)


def test_every_user_counts_once_however_many_ratings_one_gives() -> None:
    exposures, feedback = traffic(400, requests=2)
    plain = look(exposures, feedback)
    fan = exposures.filter(pl.col("variant") == 1).head(1)
    more = pl.concat([fan] * 3000).with_columns(
        request_id=pl.format("fan-{}", pl.int_range(3000)),
        at=pl.col("at") + pl.duration(milliseconds=pl.int_range(3000)),
    )
    praise = more.select("request_id", pl.col("at"), "user", pl.lit(5, dtype=pl.Int64).alias("rating"))
    analysis = look(pl.concat([exposures, more]), pl.concat([feedback, praise.select(feedback.columns)]))
    assert plain.rating is not None and analysis.rating is not None
    # The one user's mean is 5 now: a 200th of what the arm's users say, and no more.
    assert abs(analysis.rating.difference - plain.rating.difference) < 4 / analysis.arms[1].rated_users
    assert analysis.by_ratings > 1 and analysis.heaviest_share > 0.75
    assert decide(analysis).outcome == "continue"


def test_one_fan_promotes_nobody() -> None:
    """Eight hundred users of two equal models, of whom one gives a thousand fives (growthbook#2293)."""
    rng = np.random.default_rng(7)
    users = np.repeat(np.arange(800), 2)
    requests = np.concatenate([users, np.full(1000, 1)])
    at = [START + timedelta(seconds=10 * int(n)) for n in range(len(requests))]
    exposures = pl.DataFrame(
        {
            "request_id": [f"r{n}" for n in range(len(requests))],
            "at": pl.Series(at).cast(pl.Datetime("us", "UTC")),
            "phase": np.ones(len(requests), dtype=np.int64),
            "variant": requests % 2,
            "user": [f"u{u}" for u in requests],
            "status": np.full(len(requests), 200),
            "error": pl.Series([None] * len(requests), dtype=pl.String),
            "latency_ms": np.full(len(requests), 300.0),
        }
    )
    ratings = np.concatenate([rng.integers(1, 6, len(users)), np.full(1000, 5)])
    feedback = exposures.select("request_id", "at", "user").with_columns(rating=pl.Series(ratings, dtype=pl.Int64))
    decision = decide(look(exposures, feedback))
    assert decision.outcome == "continue" and "may still be none" in decision.reason


def test_before_anyone_came_there_is_nothing_to_say() -> None:
    exposures, feedback = traffic(0)
    analysis = look(exposures, feedback)
    assert analysis.rating is None
    assert analysis.guardrails == ()
    assert analysis.srm_p == 1
    assert [a.users for a in analysis.arms] == [0, 0]
    assert analysis.arms[0].response_rate is None
    assert path(analysis) == []


def test_ratings_count_once_the_window_of_their_user_is_over() -> None:
    exposures, feedback = traffic(60, gap=timedelta(minutes=2))
    now = START + timedelta(hours=1, minutes=60)
    analysis = look(exposures, feedback, now=now)
    # Users arrive every two minutes, so 31 of them (0…60 min) came an hour ago or earlier.
    assert sum(a.closed_users for a in analysis.arms) == 31
    assert sum(a.users for a in analysis.arms) == 60
    assert sum(a.rated_users for a in analysis.arms) <= 31


def test_a_rating_after_the_window_does_not_count() -> None:
    exposures, feedback = traffic(40, response_rate=1.0)
    late = feedback.with_columns(pl.col("at") + timedelta(hours=2))
    assert sum(sum(a.ratings) for a in look(exposures, feedback).arms) == feedback.height
    assert sum(sum(a.ratings) for a in look(exposures, late).arms) == 0


def test_of_several_ratings_of_one_answer_the_last_counts() -> None:
    exposures, feedback = traffic(40, response_rate=1.0)
    changed = feedback.with_columns(pl.lit(5, pl.Int64).alias("rating"), pl.col("at") + timedelta(minutes=5))
    analysis = look(exposures, pl.concat([feedback, changed]))
    assert [a.ratings[:4] for a in analysis.arms] == [(0, 0, 0, 0)] * 2
    assert sum(a.ratings[4] for a in analysis.arms) == feedback.height


def test_a_rating_by_someone_else_is_reported_and_not_counted() -> None:
    exposures, feedback = traffic(40, response_rate=1.0)
    foreign = feedback.with_columns(pl.lit("a-stranger").alias("user"), pl.lit(1, pl.Int64).alias("rating"))
    analysis = look(exposures, pl.concat([feedback, foreign]))
    assert analysis.foreign_ratings == foreign.height
    assert analysis.rating == look(exposures, feedback).rating
    nameless = look(exposures, feedback.with_columns(pl.lit(None, pl.String).alias("user")))
    assert nameless.rating == look(exposures, feedback).rating


def test_what_comes_after_the_end_does_not_count() -> None:
    exposures, feedback = traffic(40)
    after = traffic(40, start=START + timedelta(hours=49), first_user=1000)
    analysis = look(pl.concat([exposures, after[0]]), pl.concat([feedback, after[1]]), now=START + timedelta(days=9))
    assert sum(a.requests for a in analysis.arms) == exposures.height


def test_an_answer_that_another_model_had_to_give_belongs_to_the_arm_that_failed() -> None:
    exposures, feedback = traffic(200)
    treated = pl.col("variant") == 1
    failed_over = exposures.with_columns(
        pl.when(treated).then(pl.lit(CONTROL)).otherwise("model_ref").alias("model_ref"),
        pl.when(treated).then(pl.lit("b-treatment is down; b-control answered instead")).alias("error"),
    )
    analysis = look(failed_over, feedback)
    assert [a.users for a in analysis.arms] == [a.users for a in look(exposures, feedback).arms]
    assert analysis.arms[1].model == TREATMENT
    assert [a.failed_share for a in analysis.arms] == [0, 1]


def test_requests_to_a_third_model_are_reported_and_not_counted() -> None:
    table = [*routes(0.4, 0.4), {"backend_id": "b", "model_ref": "other@1", "weight": 0.2}]
    exposures, feedback = traffic(300, table=table)
    analysis = look(exposures, feedback, phases={1: table})
    others = exposures.filter(pl.col("variant") == 2).height
    assert others > 0
    assert analysis.other_requests == others
    assert analysis.srm_p > 0.05


def test_exposures_of_a_phase_that_is_not_on_record_are_refused() -> None:
    exposures, feedback = traffic(10, phase=7)
    with pytest.raises(ValueError, match="phase 7"):
        look(exposures, feedback)


def test_a_ramp_keeps_phases_apart() -> None:
    first = traffic(400, phase=1, table=routes(0.9, 0.1), levels=(3.0, 3.0), seed=1)
    second = traffic(400, phase=2, levels=(4.2, 4.2), seed=2, start=START + timedelta(hours=12), first_user=400)
    exposures, feedback = (pl.concat(pair) for pair in zip(first, second, strict=True))
    analysis = look(exposures, feedback, phases={1: routes(0.9, 0.1), 2: routes()})
    assert analysis.rating is not None
    assert analysis.rating.low < 0 < analysis.rating.high
    assert analysis.srm_p > 0.05
    means = [a.mean_rating for a in analysis.arms]
    # Pooled, the treatment looks much better, only because more of its users came in the better phase.
    assert means[1] - means[0] > 0.3
    assert abs(analysis.rating.difference) < 0.2


def test_the_same_users_in_a_new_phase_are_drawn_once() -> None:
    first, second = traffic(300, phase=1), traffic(300, phase=2, start=START + timedelta(hours=3), seed=3)
    exposures, feedback = (pl.concat(pair) for pair in zip(first, second, strict=True))
    both = look(exposures, feedback, phases={1: routes(), 2: routes()})
    assert both.srm_p == look(*first).srm_p
    assert both.inconstant_users == 0
    assert sum(a.users for a in both.arms) == 300


def test_a_user_assigned_both_models_is_left_out() -> None:
    exposures, feedback = traffic(100)
    torn = (pl.col("user") == "user-5") & pl.col("request_id").str.ends_with("-1")
    analysis = look(
        exposures.with_columns(pl.when(torn).then(1 - pl.col("variant")).otherwise("variant").alias("variant")),
        feedback,
    )
    assert analysis.inconstant_users == 1
    assert sum(a.users for a in analysis.arms) == 99


def test_lost_users_are_a_sample_ratio_mismatch() -> None:
    exposures, feedback = traffic(1500, requests=1)
    number = pl.col("user").str.strip_prefix("user-").cast(pl.Int64)
    kept = exposures.filter(~((pl.col("variant") == 1) & (number % 5 == 0)))
    assert look(exposures, feedback).srm_p > 0.05
    assert look(kept, feedback).srm_p < 0.001


def test_guardrails_are_shares_of_requests_counted_by_user() -> None:
    exposures, feedback = traffic(400, slow=(0.1, 0.4), failed=(0.0, 0.05))
    slow, failed = look(exposures, feedback).guardrails
    assert (slow.name, failed.name) == (SLOW, FAILED)
    answered = exposures.filter(pl.col("status") == 200)
    late = [(answered.filter(pl.col("variant") == v)["latency_ms"] > 2000).mean() for v in (0, 1)]
    assert [slow.control, slow.treatment] == pytest.approx(late)
    assert slow.deteriorated
    assert not slow.non_inferior
    assert failed.control == 0


def test_no_failure_at_all_is_not_taken_for_certainty() -> None:
    """No failed request in 50 says little about a margin of 1 %; none in 2,000 says enough."""
    few, many = look(*traffic(100, requests=1)).guardrails[1], look(*traffic(500, requests=8)).guardrails[1]
    assert (few.control, few.treatment, many.control, many.treatment) == (0, 0, 0, 0)
    assert not few.non_inferior
    assert many.non_inferior
    assert not few.deteriorated


def test_a_caller_who_left_is_slow_only_when_he_waited_too_long() -> None:
    exposures, feedback = traffic(200)
    left = exposures.with_columns(pl.lit(499, pl.Int64).alias("status"), pl.lit("the client went away").alias("error"))
    early, late = look(left, feedback), look(left.with_columns(pl.lit(5000.0).alias("latency_ms")), feedback)
    assert [a.failed_share for a in (*early.arms, *late.arms)] == [0] * 4
    assert [a.slow_share for a in early.arms] == [None, None]
    assert [a.slow_share for a in late.arms] == [1, 1]


@pytest.mark.parametrize("status", [400, 403, 404, 413, 422])
def test_what_a_caller_did_wrong_is_nobodys_failure(status: int) -> None:
    exposures, feedback = traffic(200, failed=(0.02, 0.02))
    of_callers = exposures.with_columns(
        pl.lit(status, pl.Int64).alias("status"),
        pl.lit("too long for this model").alias("error"),
        pl.concat_str(pl.lit("bad-"), "request_id").alias("request_id"),
    ).filter(pl.col("variant") == 1)
    plain, beside = look(exposures, feedback), look(pl.concat([exposures, of_callers]), feedback)
    assert beside.guardrails == plain.guardrails
    for before, after in zip(plain.arms, beside.arms, strict=True):
        assert after.failed_share == before.failed_share
        assert (after.recent_failed_share, after.recent_requests) == (
            before.recent_failed_share,
            before.recent_requests,
        )
    alone = look(exposures.filter(pl.col("variant") == 0).vstack(of_callers), feedback)
    assert alone.arms[1].failed_share is None and alone.arms[1].requests == of_callers.height
    assert not alone.arms[1].last_failed


def test_a_rating_off_the_policys_scale_is_reported_and_not_counted() -> None:
    exposures, feedback = traffic(80, response_rate=1.0)
    off = feedback.filter(pl.col("rating") > 3).height
    analysis = analyse(exposures, feedback, replace(plan(), scale=(1, 3)), {1: routes()}, LATER)
    assert off and analysis.ratings_off_scale == off
    assert [len(arm.ratings) for arm in analysis.arms] == [3, 3]
    assert sum(sum(arm.ratings) for arm in analysis.arms) == feedback.height - off
    assert ratings_plot(analysis).axes[0].get_xticks().tolist() == [1, 2, 3]


def test_response_rates_are_told_per_arm() -> None:
    analysis = look(*traffic(300, requests=1, response_rate=0.3))
    for arm in analysis.arms:
        low, high = arm.response_interval
        assert arm.response_rate == arm.rated_users / arm.closed_users
        assert low < arm.response_rate < high
        assert 0.2 < arm.response_rate < 0.4


def test_the_path_ends_at_the_present_interval() -> None:
    analysis = look(*traffic(300, levels=(3.2, 3.6)))
    points = path(analysis, points=20)
    assert 10 < len(points) <= 20
    assert points[-1] == analysis.rating
    assert [p.n for p in points] == sorted({p.n for p in points})


def test_a_handful_of_users_is_not_compared() -> None:
    assert look(*traffic(12, response_rate=1.0)).rating is None
    analysis = look(*traffic(30, response_rate=1.0))
    assert path(analysis)[-1] == analysis.rating


def test_statistics_of_users_say_what_the_requests_say(tmp_path) -> None:
    """The platform's own path: sums that the catalog keeps, against the same analysis of every request."""
    catalog = Catalog(f"sqlite:///{tmp_path}/catalog.db")
    exposures, feedback = traffic(300, levels=(3.0, 3.6), slow=(0.05, 0.1), failed=(0.01, 0.1))
    catalog.create_experiment(spec())
    # The experiment began just now by the catalog's clock.
    shift = catalog.experiment("base-or-tuned").started_at - START
    exposures, feedback = (frame.with_columns(pl.col("at") + shift) for frame in (exposures, feedback))
    catalog.add_traffic(exposures.to_dicts(), feedback.to_dicts())
    phases, now = {1: routes()}, LATER + shift
    design = plan_of(spec(), load_policy().experiments, START + shift)
    statistics = catalog.user_statistics(endpoint="desk", experiment="base-or-tuned", slow_ms=design.slow_ms)
    last = {m: catalog.last_requests("desk", "base-or-tuned", variants_of(m, phases), 50) for m in (CONTROL, TREATMENT)}
    own = analyse(exposures, feedback, design, phases, now)
    found = analyse_statistics(statistics, last, design, phases, now)
    for mine, other in zip(found.arms, own.arms, strict=True):
        assert mine.ratings == other.ratings
        figures = [{k: v for k, v in vars(arm).items() if k != "ratings"} for arm in (mine, other)]
        assert figures[0] == pytest.approx(figures[1])
    assert found.rating is not None and own.rating is not None
    assert vars(found.rating) == pytest.approx(vars(own.rating))
    for mine, other in zip(found.guardrails, own.guardrails, strict=True):
        assert vars(mine.sequence) == pytest.approx(vars(other.sequence))
    assert (found.srm_p, found.by_ratings) == pytest.approx((own.srm_p, own.by_ratings))
    assert found.tests["welch"] == pytest.approx(own.tests["welch"])
    assert min(a.slow_share for a in found.arms) > 0 and found.arms[1].recent_failed_users > 0


def test_a_small_arm_reads_no_worse_for_being_small() -> None:
    """At 90:10, equal shares of failures: pseudo-requests in the estimate read as +.44 points of 1,000 requests."""
    table = routes(0.9, 0.1)
    exposures, feedback = traffic(1000, requests=1, table=table)
    failed = look(exposures, feedback, phases={1: table}).guardrails[1]
    assert failed.sequence.difference == 0 and failed.sequence.se > 0
    assert failed.sequence.low < 0 < failed.sequence.high


def test_one_users_failures_are_one_users() -> None:
    exposures, feedback = traffic(400, requests=2)
    one = exposures.filter(pl.col("variant") == 1).head(1)
    failing = pl.concat([one] * 2000).with_columns(
        request_id=pl.format("f-{}", pl.int_range(2000)), status=pl.lit(502, dtype=pl.Int64)
    )
    analysis = look(pl.concat([exposures, failing]), feedback)
    failed = analysis.guardrails[1]
    assert analysis.arms[1].failed_share > 0.7, "of the requests"
    assert failed.sequence.difference < 0.01 and not failed.deteriorated, "of the users"


def test_who_moves_with_the_weights_is_left_out_from_then_on() -> None:
    """Carry-over, simulated: whoever had met the control first rates the treatment down, which is no different."""
    first = traffic(600, phase=1, table=routes(0.9, 0.1), seed=1)
    second = traffic(600, phase=2, seed=2, start=START + timedelta(hours=12))
    exposures, feedback = (pl.concat(pair) for pair in zip(first, second, strict=True))
    before = set(first[0].filter(pl.col("variant") == 0)["user"])
    after = second[0].filter(pl.col("variant") == 1)["user"].unique()
    movers = [user for user in after if user in before]
    soured = feedback.with_columns(
        pl.when(pl.col("request_id").str.starts_with("r-2-") & pl.col("user").is_in(movers))
        .then(1)
        .otherwise("rating")
        .alias("rating")
    )
    phases = {1: routes(0.9, 0.1), 2: routes()}
    analysis = look(exposures, soured, phases=phases)
    assert analysis.moved_users == len(movers) > 200
    assert analysis.rating is not None and analysis.rating.low < 0 < analysis.rating.high
    assert analysis.inconstant_users == 0 and decide(analysis).outcome == "continue"
    # Rows of the first phase stay: there they had met one model only.
    assert analysis.rating_effect.strata[0].control.users > 400
