"""From requests and ratings, as the gateway logs them, to sums by user: which of them count, and on which arm."""

from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from llmops_assets.experiments import breaker
from llmops_assets.experiments.plan import Plan, Routes, takes_part
from llmops_assets.experiments.user_sums import OTHER, RATED, UserSums

RECENT_REQUESTS = breaker.LAST_REQUESTS


@dataclass(frozen=True)
class Recent:
    """The last requests of one arm, as the circuit breaker sees them."""

    requests: int = 0
    failed_share: float | None = None
    failed_users: int = 0
    last_failed: bool = False

    @classmethod
    def of(cls, rows: pl.DataFrame) -> "Recent":
        """From requests of one arm with `user` and `failed`, oldest first."""
        last = rows.filter(pl.col("failed").is_not_null()).tail(RECENT_REQUESTS)
        share = last["failed"].cast(pl.Float64).mean()
        return cls(
            requests=last.height,
            failed_share=share if isinstance(share, float) else None,
            failed_users=last.filter(pl.col("failed"))["user"].n_unique(),
            last_failed=bool(last["failed"].tail(1).any()),
        )


@dataclass(frozen=True)
class Beside:
    """What is known of a test beside its sums: by arm the last requests, and what did not count."""

    recent: tuple[Recent, Recent] = (Recent(), Recent())
    other_requests: int = 0
    foreign_ratings: int = 0
    ratings_off_scale: int = 0


def judged(slow_ms: float) -> list[pl.Expr]:
    """`failed` and `slow` of a request from status, error and latency_ms; null where it tells neither."""
    status, late = pl.col("status"), pl.col("latency_ms") > slow_ms
    # An error beside a good status: the answer broke off, or another backend had to give it.
    failed = (status >= 500) | status.is_in(breaker.BUSY_STATUS) | (pl.col("error").is_not_null() & (status < 400))
    # What the caller did wrong (400, 404) is nobody's failure, and no success either.
    is_callers_fault = (status >= 400) & (status < breaker.CLIENT_LEFT) & ~status.is_in(breaker.BUSY_STATUS)
    # A caller who left before the answer was slow to come tells nothing; one who left after that was too slow for.
    timed = ~failed & ((status < 400) | ((status == breaker.CLIENT_LEFT) & late))
    return [
        pl.when(~is_callers_fault).then(failed).alias("failed"),
        pl.when(timed).then(late).otherwise(None).alias("slow"),
    ]


def sums_of_requests(
    exposures: pl.DataFrame, feedback: pl.DataFrame, plan: Plan, phases: Mapping[int, Routes]
) -> tuple[UserSums, Beside]:
    """Sums by user, phase and arm of the requests in the plan's time, and what is known beside them.

    A rating counts when it was given within the window after the user's first request; of several of one answer the
    last does. Raises ValueError when an exposure is of a phase that is not in `phases`.
    """
    in_time = exposures if plan.ends_at is None else exposures.filter(pl.col("at") <= plan.ends_at)
    rows = _by_arm(in_time, phases, plan)
    first = rows.group_by("user").agg((pl.col("at").min() + plan.rating_window).alias("closes_at"))
    rows = rows.join(first, on="user", how="left", maintain_order="left")
    on_scale = feedback if plan.scale is None else feedback.filter(pl.col("rating").is_between(*plan.scale))
    rated, foreign = _ratings(rows, on_scale)
    answered = pl.col("slow").is_not_null()
    requests = rows.group_by("user", "phase", "arm", maintain_order=True).agg(
        pl.len().alias("requests"),
        pl.col("failed").is_not_null().sum().alias("counted"),
        pl.col("failed").sum(),
        answered.sum().alias("timed"),
        pl.col("slow").sum(),
        pl.col("latency_ms").filter(answered).sum(),
        pl.col("at").min().alias("first_at"),
        pl.col("at").max().alias("last_at"),
    )
    values = rated.group_by("user", "phase", "arm").agg(
        pl.len().alias("ratings"),
        pl.col("rating").sum().alias("total"),
        (pl.col("rating") ** 2).sum().alias("squares"),
        *((pl.col("rating") == given).sum().alias(name) for given, name in enumerate(RATED, 1)),
    )
    joined = requests.join(values, on=["user", "phase", "arm"], how="left", maintain_order="left")
    arms = [rows.filter(pl.col("arm") == arm) for arm in range(2)]
    return UserSums.of(joined), Beside(
        recent=(Recent.of(arms[0]), Recent.of(arms[1])),
        other_requests=in_time.height - rows.filter(pl.col("arm") < OTHER).height,
        foreign_ratings=foreign,
        ratings_off_scale=feedback.height - on_scale.height,
    )


def refuse_unknown_phases(found: pl.Series, phases: Mapping[int, Routes], plan: Plan) -> None:
    """Raise ValueError for a phase without a route table: nobody could say which arm its variants are."""
    if unknown := sorted(set(found.unique()) - set(phases)):
        raise ValueError(
            f"experiment {plan.experiment!r} has exposures of phase {unknown[0]}, whose route table is not on record; "
            f"known are {sorted(phases)}"
        )


def arms_of(phases: Mapping[int, Routes], plan: Plan) -> pl.DataFrame:
    """The arm of each phase and variant whose model takes part: 0, 1, or OTHER for another treatment's."""
    models = (plan.control, plan.treatment)
    return pl.DataFrame(
        [
            (phase, variant, next((arm for arm, model in enumerate(models) if takes_part(route, model)), OTHER))
            for phase, routes in phases.items()
            for variant, route in enumerate(routes)
        ],
        schema={"phase": pl.Int64, "variant": pl.Int64, "arm": pl.Int64},
        orient="row",
    )


def _by_arm(exposures: pl.DataFrame, phases: Mapping[int, Routes], plan: Plan) -> pl.DataFrame:
    """Exposures, oldest first, with arm (0, 1 or OTHER), failed and slow, None where the request tells neither."""
    refuse_unknown_phases(exposures["phase"], phases, plan)
    arms = arms_of(phases, plan)
    return (
        exposures.join(arms, on=["phase", "variant"], how="inner")
        .with_columns(judged(plan.slow_ms))
        .sort("at", "request_id")
    )


def _ratings(rows: pl.DataFrame, feedback: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """The ratings given in time (user, phase, arm, rating), and how many came from another user than who asked."""
    known = feedback.select("request_id", pl.col("at").alias("rated_at"), pl.col("user").alias("rater"), "rating").join(
        rows.select("request_id", "user", "phase", "arm", "closes_at"), on="request_id", how="inner"
    )
    own = pl.col("rater").is_null() | (pl.col("rater") == pl.col("user"))
    counted = (
        known.filter(own, pl.col("rated_at") <= pl.col("closes_at"))
        .sort("rated_at", maintain_order=True)
        .unique("request_id", keep="last", maintain_order=True)
    )
    return counted.select("user", "phase", "arm", "rating"), known.filter(~own, pl.col("arm") < OTHER).height
