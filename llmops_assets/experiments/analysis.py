"""From what the gateway logged to the figures of an A/B test: exposures and ratings, counted by user, phase and arm."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import polars as pl

from llmops_assets.experiments import inference
from llmops_assets.experiments.inference import Interval, Stratified, UserTotals
from llmops_assets.intervals import wilson
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import ExperimentPolicy

Routes = Sequence[Mapping[str, Any]]
"""The route table of one phase: model_ref and weight of each route, in the order that variants are counted in."""
ARMS = ("control", "treatment")
SLOW, FAILED = "slow_requests", "failed_requests"
RECENT_REQUESTS = 50
"""How many of an arm's last requests the circuit breaker looks at."""
LEAST_USERS = 10
"""Users of each arm that a phase needs to be compared: the sequence is asymptotic, and below that it means nothing."""
_BUSY_STATUS = (408, 429)
_CLIENT_LEFT = 499
_PSEUDO_REQUESTS = ((1.0, 1.0), (0.0, 1.0))


@dataclass(frozen=True)
class Plan:
    """What was fixed before the first user came."""

    experiment: str
    control: str
    treatment: str
    started_at: datetime
    ends_at: datetime
    rating_window: timedelta
    min_users: int
    expected_users: int
    alpha: float
    srm_p: float
    slow_ms: float
    margins: Mapping[str, float]
    scale: tuple[int, int] = (1, 5)
    success_metric: str = "user_rating"

    @property
    def closes_at(self) -> datetime:
        """When the last rating that counts can have come in."""
        return self.ends_at + self.rating_window

    @property
    def deterioration_alpha(self) -> float:
        """Level of each two-sided sequence that looks for harm: α/2 one-sided, shared by the rating and the guardrails.

        Schultzberg, Ankargren & Frånberg, arXiv 2402.11609: deterioration is tested on every metric, so the level is
        divided; promotion needs all guardrails at once, so theirs is not.
        """
        return self.alpha / (1 + len(self.margins))


def plan_of(spec: ExperimentSpec, policy: ExperimentPolicy, started_at: datetime) -> Plan:
    """The plan of an experiment: the spec, and the policy where the spec says nothing."""
    margins = {
        name: getattr(policy.guardrails, name).margin if margin is None else margin
        for name, margin in ((SLOW, spec.guardrails.slow_requests), (FAILED, spec.guardrails.failed_requests))
    }
    return Plan(
        experiment=spec.name,
        control=spec.control,
        treatment=spec.treatment,
        started_at=started_at,
        ends_at=started_at + timedelta(hours=spec.duration_hours),
        rating_window=timedelta(hours=spec.rating_window_hours),
        min_users=spec.target_users_per_arm,
        expected_users=spec.expected_users,
        alpha=policy.alpha,
        srm_p=policy.srm_p,
        slow_ms=policy.latency_threshold_ms,
        margins=margins,
        scale=(policy.rating.low, policy.rating.high),
        success_metric=spec.success_metric,
    )


def shares_by_phase(phases: Mapping[int, Routes], plan: Plan) -> dict[int, tuple[float, float]]:
    """Intended traffic of (control, treatment) in each phase, from its route table."""
    return {
        phase: tuple(
            sum(float(r["weight"]) for r in routes if r["model_ref"] == m) for m in (plan.control, plan.treatment)
        )
        for phase, routes in phases.items()
    }


@dataclass(frozen=True)
class Arm:
    """What happened on one arm.

    users: distinct users exposed; closed_users: those whose rating window is over; rated_users: those of them who
    rated; ratings: how often each rating of the scale was given, the lowest first; mean_rating: the mean over users of
    what each gave on average; shares are of requests, times in milliseconds; recent_failed_users: distinct users whom
    one of the last requests failed.
    """

    model: str
    users: int
    closed_users: int
    rated_users: int
    requests: int
    ratings: tuple[int, ...]
    mean_rating: float | None
    slow_share: float | None
    failed_share: float | None
    recent_failed_share: float | None
    recent_requests: int
    recent_failed_users: int
    last_failed: bool
    latency_p50_ms: float | None
    latency_p95_ms: float | None

    @property
    def response_rate(self) -> float | None:
        """Share of the users with a closed window who rated at least once."""
        return self.rated_users / self.closed_users if self.closed_users else None

    @property
    def response_interval(self) -> tuple[float, float]:
        return wilson(self.rated_users, self.closed_users)


@dataclass(frozen=True)
class Guardrail:
    """A share of bad requests: how much worse the treatment is (treatment less control), and how much worse it may be.

    sequence: at level α, for non-inferiority; harm: at the divided level, for deterioration.
    """

    name: str
    control: float
    treatment: float
    margin: float
    sequence: Interval
    harm: Interval

    @property
    def non_inferior(self) -> bool:
        return self.sequence.high < self.margin

    @property
    def deteriorated(self) -> bool:
        return self.harm.low > 0


@dataclass(frozen=True)
class Analysis:
    """Everything that the decision and the report are made of.

    rating: the success metric (the mean over users of what each rated on average, treatment less control) at level α,
    so that every user counts once, however much one rates; rating_harm: the same at the divided level; both None until
    `LEAST_USERS` of each arm in one phase have rated. by_ratings: the difference of the means over all ratings, and
    heaviest_share: the share of them that the ten users gave who rated most; both only reported. srm_p: of the
    sequential test; srm_fixed_p: of the χ² test at this look. tests are those of the largest phase.
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
        return self.rating_harm is not None and self.rating_harm.high < 0


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

    The user is the unit. A user's ratings count once the window after the first exposure is over, and only those given
    within it; of several ratings of one answer the last counts.

    Raises ValueError when an exposure is of a phase that is not in `phases`.
    """
    in_time = exposures.filter(pl.col("at") <= plan.ends_at)
    exposed = _by_arm(in_time, phases, plan)
    shares = shares_by_phase(phases, plan)
    first = exposed.group_by("user", maintain_order=True).agg(
        pl.col("at").first().alias("first_at"), pl.col("phase").first(), pl.col("arm").first()
    )
    drawn = (first["arm"].to_numpy(), first["phase"].to_numpy(), shares)

    inconstant = (
        exposed.group_by("user", "phase")
        .agg(pl.col("arm").n_unique())
        .filter(pl.col("arm") > 1)
        .select("user")
        .unique()
    )
    users = (
        first.join(inconstant, on="user", how="anti", maintain_order="left")
        .with_row_index("code")
        .with_columns((pl.col("first_at") + plan.rating_window).alias("closes_at"))
    )
    rows = exposed.join(users.select("user", "code", "closes_at"), on="user", how="inner", maintain_order="left")
    in_scale = feedback.filter(pl.col("rating").is_between(*plan.scale))
    rated, foreign = _ratings(rows, in_scale, now)
    by_user = rated.group_by("code", "phase", "arm")
    # A user is one draw of the assignment: a thousand ratings of one must not outweigh a thousand users.
    totals = _totals(by_user.agg(pl.col("rating").mean(), pl.lit(1).alias("count")))
    effect = inference.stratified_difference(totals, LEAST_USERS)
    summed = _totals(by_user.agg(pl.col("rating").sum(), pl.len().alias("count")))
    by_ratings = inference.stratified_difference(summed, LEAST_USERS)
    return Analysis(
        plan=plan,
        at=now,
        arms=tuple(_arm(rows, rated, index, plan, now) for index in range(2)),
        rating=_sequence(effect, plan, plan.alpha),
        rating_harm=_sequence(effect, plan, plan.deterioration_alpha),
        rating_effect=effect,
        guardrails=tuple(_guardrails(rows, plan)),
        srm_p=inference.sequential_srm(*drawn),
        tests=_tests(totals, effect),
        rating_totals=totals,
        inconstant_users=inconstant.height,
        other_requests=in_time.height - exposed.height,
        foreign_ratings=foreign,
        ratings_off_scale=feedback.height - in_scale.height,
        srm_fixed_p=inference.fixed_srm(*drawn),
        by_ratings=by_ratings.difference if by_ratings else None,
        heaviest_share=_heaviest_share(rated),
    )


HEAVIEST = 10


def _heaviest_share(rated: pl.DataFrame) -> float | None:
    """The share of all ratings that the users gave who rated most."""
    if not rated.height:
        return None
    return float(rated.group_by("code").len()["len"].top_k(HEAVIEST).sum()) / rated.height


def path(analysis: Analysis, points: int = 60) -> list[Interval]:
    """The confidence sequence of the rating as users arrived, at up to `points` numbers of users, the last one now.

    Users come in the order of their first exposure, each with all their counted ratings.
    """
    totals, plan = analysis.rating_totals, analysis.plan
    codes = np.unique(totals.user)
    if analysis.rating_effect is None:
        return []
    ends = np.unique(np.linspace(2 * LEAST_USERS, len(codes), points, dtype=int))
    effects = (inference.stratified_difference(totals.select(totals.user <= codes[n - 1]), LEAST_USERS) for n in ends)
    intervals = (_sequence(effect, plan, plan.alpha) for effect in effects)
    return [i for i in intervals if i is not None]


def _by_arm(exposures: pl.DataFrame, phases: Mapping[int, Routes], plan: Plan) -> pl.DataFrame:
    """Exposures of both arms, oldest first, with arm (0, 1), failed and slow, None where the request tells neither."""
    if unknown := sorted(set(exposures["phase"].unique()) - set(phases)):
        raise ValueError(
            f"experiment {plan.experiment!r} has exposures of phase {unknown[0]}, whose route table is not on record; "
            f"known are {sorted(phases)}"
        )
    arms = pl.DataFrame(
        [
            (phase, variant, (plan.control, plan.treatment).index(route["model_ref"]))
            for phase, routes in phases.items()
            for variant, route in enumerate(routes)
            if route["model_ref"] in (plan.control, plan.treatment)
        ],
        schema={"phase": pl.Int64, "variant": pl.Int64, "arm": pl.Int64},
        orient="row",
    )
    status, late = pl.col("status"), pl.col("latency_ms") > plan.slow_ms
    # An error beside a good status: the answer broke off, or another backend had to give it.
    failed = (status >= 500) | status.is_in(_BUSY_STATUS) | (pl.col("error").is_not_null() & (status < 400))
    # What the caller did wrong (400, 404) is nobody's failure, and no success either.
    is_callers_fault = (status >= 400) & (status < _CLIENT_LEFT) & ~status.is_in(_BUSY_STATUS)
    # A caller who left before the answer was slow to come tells nothing; one who left after that was too slow for.
    timed = ~failed & ((status < 400) | ((status == _CLIENT_LEFT) & late))
    return (
        exposures.join(arms, on=["phase", "variant"], how="inner")
        .with_columns(
            pl.when(~is_callers_fault).then(failed).alias("failed"),
            pl.when(timed).then(late).otherwise(None).alias("slow"),
        )
        .sort("at", "request_id")
    )


def _ratings(rows: pl.DataFrame, feedback: pl.DataFrame, now: datetime) -> tuple[pl.DataFrame, int]:
    """The ratings that count (code, phase, arm, rating), and how many came from another user than the one who asked."""
    known = feedback.select("request_id", pl.col("at").alias("rated_at"), pl.col("user").alias("rater"), "rating").join(
        rows.select("request_id", "user", "code", "phase", "arm", "closes_at"), on="request_id", how="inner"
    )
    own = pl.col("rater").is_null() | (pl.col("rater") == pl.col("user"))
    counted = (
        known.filter(own, pl.col("rated_at") <= pl.col("closes_at"), pl.col("closes_at") <= now)
        .sort("rated_at", maintain_order=True)
        .unique("request_id", keep="last", maintain_order=True)
    )
    return counted.select("code", "phase", "arm", "rating"), known.filter(~own).height


def _totals(groups: pl.DataFrame, value: str = "rating") -> UserTotals:
    """groups: columns code, phase, arm, `value` (summed) and count."""
    ordered = groups.sort("code", "phase", "arm")
    return UserTotals(
        *(ordered[c].cast(pl.Int64).to_numpy() for c in ("code", "phase", "arm")),
        *(ordered[c].cast(pl.Float64).to_numpy() for c in (value, "count")),
    )


def _sequence(effect: Stratified | None, plan: Plan, alpha: float) -> Interval | None:
    if effect is None:
        return None
    return inference.confidence_sequence(effect.difference, effect.se, effect.users, plan.expected_users, alpha)


def _guardrails(rows: pl.DataFrame, plan: Plan) -> Iterable[Guardrail]:
    for name, column in ((SLOW, "slow"), (FAILED, "failed")):
        groups = (
            rows.filter(pl.col(column).is_not_null())
            .group_by("code", "phase", "arm")
            .agg(pl.col(column).sum(), pl.len().alias("count"))
        )
        effect = inference.stratified_difference(_with_pseudo_requests(_totals(groups, column)), LEAST_USERS)
        if effect is None:
            continue
        sequence = _sequence(effect, plan, plan.alpha)
        harm = _sequence(effect, plan, plan.deterioration_alpha)
        control, treatment = (
            float(rows.filter(pl.col("arm") == arm)[column].cast(pl.Float64).mean() or 0.0) for arm in range(2)
        )
        yield Guardrail(name, control, treatment, plan.margins[name], sequence, harm)


def _with_pseudo_requests(totals: UserTotals) -> UserTotals:
    """One bad and one good request more in each arm of each phase, each by a user of its own.

    Without them an arm that has had no bad request would have no variance, and none in 200 would count as never. Two
    pseudo-observations an arm are the correction of Agresti & Caffo (The American Statistician 2000) for a difference
    of proportions.
    """
    cells = np.unique(np.stack([totals.phase, totals.arm], axis=1), axis=0)
    if not len(cells):
        return totals
    phase, arm = np.repeat(cells, len(_PSEUDO_REQUESTS), axis=0).T
    total, count = np.tile(np.array(_PSEUDO_REQUESTS), (len(cells), 1)).T
    user = totals.user.max() + 1 + np.arange(len(phase))
    return UserTotals(
        np.concatenate([totals.user, user]),
        np.concatenate([totals.phase, phase]),
        np.concatenate([totals.arm, arm]),
        np.concatenate([totals.total, total]),
        np.concatenate([totals.count, count]),
    )


def _tests(totals: UserTotals, effect: Stratified | None) -> dict[str, Any]:
    """The reported tests on user means within the phase that has most users; empty before there is one."""
    if effect is None:
        return {}
    phase = max(effect.strata, key=lambda s: s.weight).phase
    means = totals.total / totals.count
    arms = [means[(totals.phase == phase) & (totals.arm == arm)] for arm in range(2)]
    welch, mann_whitney = inference.welch(*arms), inference.mann_whitney(*arms)
    brunner_munzel = inference.brunner_munzel(*arms)
    return {
        "phase": phase,
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


def _arm(rows: pl.DataFrame, rated: pl.DataFrame, index: int, plan: Plan, now: datetime) -> Arm:
    own, ratings = rows.filter(pl.col("arm") == index), rated.filter(pl.col("arm") == index)
    last = own.filter(pl.col("failed").is_not_null()).tail(RECENT_REQUESTS)
    recent = last["failed"]
    answered = own.filter(pl.col("slow").is_not_null())["latency_ms"]
    counts = dict(ratings["rating"].value_counts().iter_rows())
    return Arm(
        model=(plan.control, plan.treatment)[index],
        users=own["code"].n_unique(),
        closed_users=own.filter(pl.col("closes_at") <= now)["code"].n_unique(),
        rated_users=ratings["code"].n_unique(),
        requests=own.height,
        ratings=tuple(int(counts.get(r, 0)) for r in range(plan.scale[0], plan.scale[1] + 1)),
        mean_rating=ratings.group_by("code").agg(pl.col("rating").mean())["rating"].mean(),
        slow_share=own["slow"].cast(pl.Float64).mean(),
        failed_share=own["failed"].cast(pl.Float64).mean(),
        recent_failed_share=recent.cast(pl.Float64).mean(),
        recent_requests=len(recent),
        recent_failed_users=last.filter(pl.col("failed"))["code"].n_unique(),
        last_failed=bool(recent.tail(1).any()),
        latency_p50_ms=answered.quantile(0.5, "linear"),
        latency_p95_ms=answered.quantile(0.95, "linear"),
    )
