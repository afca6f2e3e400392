"""What new models gained over the one from before: the users who were held out against all the others."""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from llmops_assets.experiments.analysis import Analysis, analyse_sums
from llmops_assets.experiments.plan import Plan
from llmops_assets.experiments.requests import refuse_unknown_phases
from llmops_assets.experiments.user_sums import RATED, UserSums
from llmops_assets.specs.experiment_rules import ExperimentPolicy
from resources.catalog import Catalog


@dataclass(frozen=True)
class Gain:
    """The users who are held out (arm 0, the control) against all others (arm 1), and which models each has had."""

    endpoint: str
    analysis: Analysis
    held_models: tuple[str, ...]
    other_models: tuple[str, ...]


def gain(catalog: Catalog, endpoint: str, policy: ExperimentPolicy, now: datetime) -> Gain | None:
    """What is known of an endpoint's gain over its holdout; None where nobody is held out, or nobody asked since.

    Users who are held out are drawn by the same hash as all others, and keep their model whatever the others get: what
    differs between the two is what the loop has brought, experiments that failed included. Phases are compared within.
    """
    phases = catalog.phases(endpoint)
    held = {phase: [bool(route.get("holdout")) for route in routes] for phase, routes in phases.items()}
    compared = {phase for phase, flags in held.items() if any(flags) and not all(flags)}
    if not compared:
        return None
    names = ["", *(e.name for e in catalog.experiments() if e.endpoint == endpoint)]
    found = [catalog.user_statistics(endpoint=endpoint, experiment=name) for name in names]
    plan = Plan(
        experiment=f"the holdout of {endpoint}",
        control="held out",
        treatment="all others",
        started_at=None,
        ends_at=None,
        rating_window=timedelta(0),
        min_users=policy.users_per_arm,
        expected_users=2 * policy.users_per_arm,
        alpha=policy.alpha,
        srm_p=policy.srm_p,
        slow_ms=policy.latency_threshold_ms,
        scale=(policy.rating.low, policy.rating.high),
    )
    rows = pl.concat(found)
    refuse_unknown_phases(rows["phase"], phases, replace(plan, experiment=endpoint))
    arms = pl.DataFrame(
        [(p, v, int(not flag)) for p in compared for v, flag in enumerate(held[p])],
        schema={"phase": pl.Int64, "variant": pl.Int64, "arm": pl.Int64},
        orient="row",
    )
    rows = rows.join(arms, on=["phase", "variant"], how="inner", maintain_order="left")
    if rows.is_empty():
        return None
    sums = UserSums.of(
        rows.with_columns(
            pl.col("judged").alias("counted"),
            pl.col("latency_sum").alias("latency_ms"),
            pl.sum_horizontal(RATED).alias("ratings"),
            pl.sum_horizontal(rating * pl.col(name) for rating, name in enumerate(RATED, 1)).alias("total"),
        )
    )
    # A user has rows of several experiments and variants: they are one user's.
    added = sums + UserSums(sums.frame.clear())
    shares = {phase: _shares(phases[phase]) for phase in compared}
    models = [
        tuple(sorted({r["model_ref"] for p in compared for r in phases[p] if bool(r.get("holdout")) is flag}))
        for flag in (True, False)
    ]
    return Gain(endpoint, analyse_sums(added, plan, shares, now), *models)


def figures(found: Gain) -> dict[str, Any]:
    """A gain as JSON."""
    held, others = found.analysis.arms
    rating = found.analysis.rating
    return {
        "gain": rating.difference if rating else None,
        "low": rating.low if rating else None,
        "high": rating.high if rating else None,
        "p_always_valid": rating.p if rating else None,
        "users_held_out": held.users,
        "other_users": others.users,
        "rated_held_out": held.rated_users,
        "rated_others": others.rated_users,
        "mean_held_out": held.mean_rating,
        "mean_others": others.mean_rating,
        "models_held_out": list(found.held_models),
        "models_of_others": list(found.other_models),
        "users_who_moved": found.analysis.moved_users,
        "srm_p": found.analysis.srm_p,
    }


def sentence(found: Gain) -> str:
    """A gain in a line, with its interval and what it rests on."""
    held, others = found.analysis.arms
    rating, level = found.analysis.rating, f"{1 - found.analysis.plan.alpha:.0%}"
    who = f"{others.rated_users} users who rated against {held.rated_users} on {', '.join(found.held_models)}"
    if rating is None:
        return f"not known yet: {who}"
    broken = found.analysis.srm_p < found.analysis.plan.srm_p
    doubt = f"; not to be trusted, users are not split as intended (p = {found.analysis.srm_p:.2g})" if broken else ""
    return f"{rating.difference:+.3f} ({level} sequence {rating.low:+.3f} to {rating.high:+.3f}; {who}){doubt}"


def _shares(routes: list[dict[str, Any]]) -> tuple[float, float]:
    held = sum(float(route["weight"]) for route in routes if route.get("holdout"))
    return held, sum(float(route["weight"]) for route in routes) - held
