"""How long answers take on both arms, as quantiles over users that may be looked at at any time."""

from dataclasses import dataclass

import polars as pl

from llmops_assets.experiments.plan import Plan
from llmops_assets.experiments.quantiles import QuantileInterval, equal_p, interval

LEVELS = (0.5, 0.95)
Quantiles = tuple[QuantileInterval | None, QuantileInterval | None]
"""Of one arm, at each of `LEVELS`."""


@dataclass(frozen=True)
class Latency:
    """Quantiles of both arms at each of `LEVELS`, in ms, and always-valid p of "they are the same in both arms"."""

    arms: tuple[Quantiles, Quantiles]
    p: tuple[float, float]


def latency_of(rows: pl.DataFrame, plan: Plan) -> Latency | None:
    """Quantiles over users of each user's mean latency; None where an arm has no request with a time.

    rows: as `Counted.rows`. A user counts once: the requests of one are no independent draws, and a quantile sequence
    needs such. Reported: the guardrail on slow requests decides.
    """
    timed = rows.filter(pl.col("timed") > 0)
    users = timed.group_by("code").agg(
        pl.col("arm").first(), (pl.col("latency_ms").sum() / pl.col("timed").sum()).alias("mean")
    )
    control, treatment = (users.filter(pl.col("arm") == arm)["mean"].to_numpy() for arm in (0, 1))
    if not len(control) or not len(treatment):
        return None
    expected = max(1.0, plan.expected_users / 2)

    def bounds(values: object) -> Quantiles:
        low, high = (interval(values, level, expected, plan.alpha) for level in LEVELS)
        return low, high

    p = [equal_p(control, treatment, level, expected, plan.alpha) for level in LEVELS]
    return Latency((bounds(control), bounds(treatment)), (p[0], p[1]))
