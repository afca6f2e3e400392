"""From the statistics that the catalog keeps of each user to the sums of both arms: no request is read again."""

from collections.abc import Mapping
from datetime import datetime

import polars as pl

from llmops_assets.experiments.analysis import Analysis, analyse_sums
from llmops_assets.experiments.plan import Plan, Routes, shares_by_phase
from llmops_assets.experiments.requests import Beside, Recent, arms_of, judged, refuse_unknown_phases
from llmops_assets.experiments.user_sums import OTHER, RATED, UserSums


def analyse_statistics(
    statistics: pl.DataFrame,
    last: Mapping[str, pl.DataFrame],
    plan: Plan,
    phases: Mapping[int, Routes],
    now: datetime,
) -> Analysis:
    """Compare the arms by what the catalog has added up for each user, as `analysis.analyse` does from requests.

    statistics: `Catalog.user_statistics`; last: the last requests that count of each model, oldest first
    (`Catalog.last_requests`). Raises ValueError when something is of a phase that is not in `phases`.
    """
    refuse_unknown_phases(statistics["phase"], phases, plan)
    rows = statistics.join(arms_of(phases, plan), on=["phase", "variant"], how="inner", maintain_order="left")
    compared = rows.filter(pl.col("arm") < OTHER)
    low, high = plan.scale or (1, 5)
    on_scale = {rating: name for rating, name in enumerate(RATED, 1) if low <= rating <= high}
    off_scale = [name for name in RATED if name not in on_scale.values()]
    sums = rows.with_columns(
        pl.col("judged").alias("counted"),
        pl.col("latency_sum").alias("latency_ms"),
        pl.sum_horizontal(on_scale.values()).alias("ratings"),
        pl.sum_horizontal(rating * pl.col(name) for rating, name in on_scale.items()).alias("total"),
        pl.sum_horizontal(rating**2 * pl.col(name) for rating, name in on_scale.items()).alias("squares"),
        *(pl.lit(0).alias(name) for name in off_scale),
    )
    # Two routes of one model are one arm.
    added = UserSums.of(sums) + UserSums.of(sums.clear())
    beside = Beside(
        recent=(_recent(last.get(plan.control), plan), _recent(last.get(plan.treatment), plan)),
        other_requests=int(statistics["requests"].sum()) - int(compared["requests"].sum()),
        foreign_ratings=int(compared["foreign_ratings"].sum()),
        ratings_off_scale=int(compared.select(pl.sum_horizontal(off_scale).sum()).item()) if off_scale else 0,
    )
    return analyse_sums(added, plan, shares_by_phase(phases, plan), now, beside)


def _recent(last: pl.DataFrame | None, plan: Plan) -> Recent:
    return Recent() if last is None else Recent.of(last.with_columns(judged(plan.slow_ms)))
