"""What happened on one arm of an A/B test."""

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from llmops_assets.experiments.latency import Quantiles
from llmops_assets.experiments.plan import Plan
from llmops_assets.experiments.requests import Beside
from llmops_assets.experiments.user_sums import RATED
from llmops_assets.intervals import wilson


@dataclass(frozen=True)
class Arm:
    """What happened on one arm.

    users: distinct users exposed; closed_users: those whose rating window is over; rated_users: those of them who
    rated; values: what they gave; ratings: how often each rating of the scale was given, the lowest first;
    mean_rating: the mean over users of what each gave on average, sd: the spread between users; shares are of requests,
    latencies quantiles over users of each one's mean, in milliseconds; recent_failed_users: distinct users whom one of
    the last requests failed.
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
    values: int = 0
    sd: float | None = None

    @property
    def response_rate(self) -> float | None:
        """Share of the users with a closed window who rated at least once."""
        return self.rated_users / self.closed_users if self.closed_users else None

    @property
    def response_interval(self) -> tuple[float, float]:
        return wilson(self.rated_users, self.closed_users)


def arm_of(rows: pl.DataFrame, index: int, plan: Plan, beside: Beside, latency: Sequence[Quantiles]) -> Arm:
    """What happened on arm `index` (0 or 1) of rows of `user_sums.Counted` with `closed`; latency: quantiles by arm."""
    own, recent = rows.filter(pl.col("arm") == index), beside.recent[index]
    closed = own.filter(pl.col("closed"))
    rated = closed.filter(pl.col("ratings") > 0)
    means = rated.group_by("code").agg(pl.col("total").sum() / pl.col("ratings").sum())["total"]
    given = {value: int(rated[name].sum()) for value, name in enumerate(RATED, 1)}
    low, high = plan.scale or (1, 0)
    p50, p95 = latency[index]
    return Arm(
        model=(plan.control, plan.treatment)[index],
        users=own["code"].n_unique(),
        closed_users=closed["code"].n_unique(),
        rated_users=rated["code"].n_unique(),
        requests=int(own["requests"].sum()),
        ratings=tuple(given.get(r, 0) for r in range(low, high + 1)),
        mean_rating=means.mean(),
        slow_share=_ratio(own, "slow", "timed"),
        failed_share=_ratio(own, "failed", "counted"),
        recent_failed_share=recent.failed_share,
        recent_requests=recent.requests,
        recent_failed_users=recent.failed_users,
        last_failed=recent.last_failed,
        latency_p50_ms=p50.value if p50 else None,
        latency_p95_ms=p95.value if p95 else None,
        values=int(rated["ratings"].sum()),
        sd=means.std(),
    )


def _ratio(rows: pl.DataFrame, total: str, count: str) -> float | None:
    n = int(rows[count].sum())
    return int(rows[total].sum()) / n if n else None
