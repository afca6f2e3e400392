"""From the sums of each user to the figures of an A/B test: both arms compared, with all that a decision needs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_assets.experiments import forecast, inference
from llmops_assets.experiments.arms import Arm, arm_of
from llmops_assets.experiments.covariates import Adjustment, cuped
from llmops_assets.experiments.guardrails import Guardrail, guardrails
from llmops_assets.experiments.inference import Interval, Stratified, UserTotals
from llmops_assets.experiments.latency import Latency, latency_of
from llmops_assets.experiments.plan import ARMS, FAILED, SLOW, Plan, Routes, plan_of, shares_by_phase
from llmops_assets.experiments.requests import RECENT_REQUESTS, Beside, sums_of_requests
from llmops_assets.experiments.sequence import path_of
from llmops_assets.experiments.user_sums import Counted, UserSums, counted, phases_of
from llmops_assets.experiments.variance_floor import floored, nothing_varies

__all__ = [
    "ARMS",
    "FAILED",
    "RECENT_REQUESTS",
    "SLOW",
    "Analysis",
    "Arm",
    "Guardrail",
    "Plan",
    "Routes",
    "analyse",
    "analyse_sums",
    "path",
    "plan_of",
    "shares_by_phase",
]

LEAST_USERS = 10
"""Users of each arm that a phase needs to be compared: the sequence is asymptotic, and below that it means nothing."""
HEAVIEST = 10


@dataclass(frozen=True)
class Analysis:
    """Everything that the decision and the report are made of.

    rating: the success metric (the mean over users of what each rated on average, treatment less control) at level α,
    so that every user counts once, however much one rates; rating_harm: the same at the divided level; both None until
    `LEAST_USERS` of each arm in one phase have rated. by_ratings: the difference of the means over all ratings, and
    heaviest_share: the share of them that the ten users gave who rated most; both only reported. adjusted: the same
    metric with what was known of users before taken away (CUPED), reported. srm_p: of the sequential test;
    srm_fixed_p: of the χ² test at this look. tests are those of the largest phase. moved_users: who changed arms with
    the weights, and is left out from then on. arrivals: the time of the first request of each user, by code.
    nothing_varies: all users of each arm rated alike, which no draw of people does; `variance_floor` gives the interval
    a width there, and nobody is promoted on it.
    """

    plan: Plan
    at: datetime
    arms: tuple[Arm, Arm]
    rating: Interval | None
    rating_harm: Interval | None
    rating_effect: Stratified | None
    guardrails: tuple[Guardrail, ...]
    srm_p: float
    tests: dict[str, Any]
    rating_totals: UserTotals
    inconstant_users: int
    other_requests: int
    foreign_ratings: int
    ratings_off_scale: int = 0
    srm_fixed_p: float = 1.0
    by_ratings: float | None = None
    heaviest_share: float | None = None
    moved_users: int = 0
    adjusted: Interval | None = None
    adjustment: Adjustment | None = None
    days_left: float | None = None
    users_by_day: dict[str, tuple[int, int]] = field(default_factory=dict)
    latency: Latency | None = None
    arrivals: NDArray[np.datetime64] = field(default_factory=lambda: np.empty(0, "datetime64[us]"))
    nothing_varies: bool = False

    @property
    def rated_users(self) -> int:
        """Users with a rating in the smaller arm."""
        return min(a.rated_users for a in self.arms)

    @property
    def users(self) -> int:
        """Users exposed in the smaller arm."""
        return min(a.users for a in self.arms)

    @property
    def inconstant_share(self) -> float:
        """Share of users who were assigned both models within one phase; sticky assignment leaves none."""
        users = sum(a.users for a in self.arms) + self.inconstant_users
        return self.inconstant_users / users if users else 0.0

    @property
    def rating_deteriorated(self) -> bool:
        harm = self.rating_harm
        return harm is not None and (harm.high < 0 if self.plan.higher_is_better else harm.low > 0)

    @property
    def rating_better(self) -> bool:
        found = self.rating
        return found is not None and (found.low > 0 if self.plan.higher_is_better else found.high < 0)

    @property
    def too_small_to_matter(self) -> bool:
        """Whether the sequence lies within ± the least effect that matters, where somebody said what that is."""
        least, found = self.plan.minimum_effect, self.rating
        return least is not None and found is not None and -least < found.low and found.high < least


def analyse(
    exposures: pl.DataFrame,
    feedback: pl.DataFrame,
    plan: Plan,
    phases: Mapping[int, Routes],
    now: datetime,
) -> Analysis:
    """Count what happened up to `now` by user, phase and arm, and compare the arms.

    exposures: columns request_id, at, phase, variant, user, status, error, latency_ms; feedback: request_id, at, user,
    rating; phases: the route table of each phase. The arm is the model that the user was assigned, also where another
    one had to answer: leaving out what a model failed to answer would flatter it. Not counted, but reported: requests
    assigned to other models, ratings by another user than the one who asked or off the policy's scale, and users who
    were assigned both models within one phase. Exposures after the end of the plan do not count at all.

    Raises ValueError when an exposure is of a phase that is not in `phases`.
    """
    given = feedback.filter(pl.col("at") <= now)
    sums, beside = sums_of_requests(exposures, given, plan, phases)
    return analyse_sums(sums, plan, shares_by_phase(phases, plan), now, beside)


def analyse_sums(
    sums: UserSums,
    plan: Plan,
    shares: Mapping[int, tuple[float, float]],
    now: datetime,
    beside: Beside | None = None,
    least_users: int = LEAST_USERS,
) -> Analysis:
    """Compare the two arms of `sums`, which were added up to `now`.

    The user is the unit. A user's ratings count once the window after the first exposure is over. shares: the intended
    traffic of (control, treatment) in each phase.
    """
    beside = beside or Beside()
    kept = counted(sums)
    met = kept.rows.filter("first").select("code", "arm", "phase", "first_at")
    first = met.unique("code", keep="first", maintain_order=True)
    drawn = (first["arm"].to_numpy(), first["phase"].to_numpy(), dict(shares))
    began = first.select("code", (pl.col("first_at") + plan.rating_window).alias("closes_at"))
    rows = kept.rows.join(began, on="code", how="left", maintain_order="left")
    # Where nothing says when, nothing is awaited.
    rows = rows.with_columns((pl.col("closes_at") <= now).fill_null(True).alias("closed"))
    kept = Counted(rows, kept.inconstant, kept.movers)
    totals = kept.totals("total", "ratings", closed=pl.col("closed"))
    effect = inference.stratified_difference(totals, least_users)
    effect = None if effect is None else floored(effect, totals, plan.scale)
    summed = kept.totals("total", "ratings", closed=pl.col("closed"), by_user=False)
    by_ratings = inference.stratified_difference(summed, least_users)
    adjusted, adjustment = _adjusted(kept, totals, plan, least_users)
    latencies = latency_of(rows, plan)
    quantiles = latencies.arms if latencies else ((None, None), (None, None))
    arms = (arm_of(rows, 0, plan, beside, quantiles), arm_of(rows, 1, plan, beside, quantiles))
    return Analysis(
        plan=plan,
        at=now,
        arms=arms,
        rating=_sequence(effect, plan, plan.alpha),
        rating_harm=_sequence(effect, plan, plan.deterioration_alpha),
        rating_effect=effect,
        guardrails=guardrails(kept, plan, least_users),
        srm_p=inference.sequential_srm(*drawn),
        tests=_tests(totals, effect, plan.alpha),
        rating_totals=totals,
        inconstant_users=kept.inconstant,
        other_requests=beside.other_requests,
        foreign_ratings=beside.foreign_ratings,
        ratings_off_scale=beside.ratings_off_scale,
        srm_fixed_p=inference.fixed_srm(*drawn),
        by_ratings=by_ratings.difference if by_ratings else None,
        heaviest_share=_heaviest_share(summed),
        moved_users=kept.movers,
        adjusted=adjusted,
        adjustment=adjustment,
        days_left=_days_left(effect, plan, first, now),
        users_by_day=_users_by_day(first),
        arrivals=_arrivals(first),
        latency=latencies,
        nothing_varies=nothing_varies(totals),
    )


def path(analysis: Analysis, points: int = 60) -> list[Interval]:
    """The confidence sequence of the rating as users arrived, at up to `points` numbers of users, the last one now.

    Users come in the order of their first exposure, each with all their counted ratings.
    """
    plan = analysis.plan
    if analysis.rating_effect is None:
        return []
    totals = analysis.rating_totals
    effects = (floored(effect, totals, plan.scale) for effect in path_of(totals, LEAST_USERS, points))
    return [i for i in (_sequence(e, plan, plan.alpha) for e in effects) if i is not None]


def _arrivals(first: pl.DataFrame) -> NDArray[np.datetime64]:
    times = np.full(int(first["code"].max() or 0) + 1, np.datetime64("NaT"), dtype="datetime64[us]")
    times[first["code"].to_numpy()] = first["first_at"].dt.replace_time_zone(None).to_numpy()
    return times


def _heaviest_share(totals: UserTotals) -> float | None:
    """The share of all ratings that the users gave who rated most."""
    if not len(totals):
        return None
    counts = np.bincount(totals.user, weights=totals.count)
    return float(np.sort(counts)[-HEAVIEST:].sum() / counts.sum())


def _sequence(effect: Stratified | None, plan: Plan, alpha: float) -> Interval | None:
    if effect is None:
        return None
    return inference.confidence_sequence(effect.difference, effect.se, effect.users, plan.expected_users, alpha)


def _adjusted(
    kept: Counted, totals: UserTotals, plan: Plan, least_users: int
) -> tuple[Interval | None, Adjustment | None]:
    """CUPED: the same comparison of user means less what the values from before the test explain of them."""
    rows = kept.rows
    if not len(totals) or not int(rows["pre_values"].sum()):
        return None, None
    before = np.full(int(rows["code"].max()) + 1, np.nan)
    known = rows.filter(pl.col("pre_values") > 0).group_by("code").agg(pl.col("pre_total", "pre_values").sum())
    before[known["code"].to_numpy()] = (known["pre_total"] / known["pre_values"]).to_numpy()
    values = totals.total / totals.count
    found = cuped(values, before[totals.user])
    if found is None:
        return None, None
    less = found.apply(values, before[totals.user])
    effect = inference.stratified_difference(
        UserTotals(totals.user, totals.phase, totals.arm, less, np.ones(len(less))), least_users
    )
    return _sequence(effect, plan, plan.alpha), found


def _days_left(effect: Stratified | None, plan: Plan, first: pl.DataFrame, now: datetime) -> float | None:
    """Days until a decision at the present rate and difference, and not beyond the plan's end."""
    start = plan.started_at or first["first_at"].min()
    over = max(0.0, (plan.closes_at - now).total_seconds() / forecast.DAY) if plan.closes_at else None
    if effect is None or not isinstance(start, datetime):
        return over
    until = now if plan.started_at else (first["first_at"].max() or now)
    found = forecast.days_left(
        effect.difference,
        effect.se,
        effect.users,
        seconds=(until - start).total_seconds(),
        expected_users=plan.expected_users,
        alpha=plan.alpha,
        minimum_effect=plan.minimum_effect,
        least_users=2 * plan.min_users,
    )
    return found if over is None else over if found is None else min(found, over)


def _users_by_day(first: pl.DataFrame) -> dict[str, tuple[int, int]]:
    """New users of each arm on each day (UTC)."""
    known = first.filter(pl.col("first_at").is_not_null())
    days = known.group_by(pl.col("first_at").dt.date().alias("day")).agg(
        *((pl.col("arm") == arm).sum().alias(str(arm)) for arm in range(2))
    )
    return {str(day): (int(a), int(b)) for day, a, b in days.sort("day").iter_rows()}


def _tests(totals: UserTotals, effect: Stratified | None, alpha: float) -> dict[str, Any]:
    """The reported tests on user means within the phase that has most users; empty before there is one."""
    if effect is None:
        return {}
    stratum = max(effect.strata, key=lambda s: s.weight).phase
    means = totals.total / totals.count
    arms = [means[(totals.phase == stratum) & (totals.arm == arm)] for arm in range(2)]
    welch, mann_whitney = inference.welch(*arms, alpha), inference.mann_whitney(*arms)
    brunner_munzel = inference.brunner_munzel(*arms)
    return {
        "phase": phases_of(stratum)[0],
        "users": [len(a) for a in arms],
        "welch": {
            "t": welch.statistic,
            "p": welch.p,
            "difference": welch.difference,
            "low": welch.low,
            "high": welch.high,
        },
        "mann_whitney": {
            "u": mann_whitney.statistic,
            "p": mann_whitney.p,
            "superiority": mann_whitney.superiority,
            "cliffs_delta": mann_whitney.cliffs_delta,
        },
        "brunner_munzel": {"w": brunner_munzel.statistic, "p": brunner_munzel.p},
    }
