"""How the analysis of a log is shown: as JSON for programs, and as rows of text."""

import math
from typing import Any

import numpy as np
import polars as pl

from llmops_assets.experiments import inference
from llmops_assets.experiments.analysis import Analysis, path
from llmops_assets.experiments.inference import Interval, UserTotals
from llmops_assets.experiments.latency import LEVELS
from llmops_assets.experiments.log_analysis import Comparison, LogAnalysis

SEQUENCE_POINTS = 40


def as_json(found: LogAnalysis) -> dict[str, Any]:
    """Everything that was found, as JSON without NaN or infinities; the top level is the deciding comparison."""
    first = found.deciding
    value: dict[str, Any] = {
        "decision": found.decision.outcome,
        "reason": found.decision.reason,
        "control": found.variants[0],
        "treatment": first.treatment,
        "metric": found.columns["value"],
        "alpha": found.question.alpha,
        "expected_users": first.analysis.plan.expected_users,
        "users_per_arm": first.analysis.plan.min_users,
        "arms": _arms(found),
        **_comparison(found, first),
        "srm": {
            "p": first.analysis.srm_p if found.split_tested else None,
            "p_fixed": first.analysis.srm_fixed_p if found.split_tested else None,
            "log_bayes_factor": found.log_bayes_factor,
            "limit": found.question.srm_p,
            "mismatch": found.split_tested and first.analysis.srm_p < found.question.srm_p,
            "tested": found.split_tested,
        },
        "comparisons": {
            c.treatment: {"decision": c.decision.outcome, "reason": c.decision.reason, **_comparison(found, c)}
            for c in found.comparisons
        },
        "secondary": {
            name: {**_sequence(analysis.rating, analysis.plan.alpha), "p_benjamini_hochberg": p}
            for name, (analysis, p) in found.secondary.items()
        },
        "categories": categories(found),
        "columns": dict(found.columns.names),
        "columns_guessed": list(found.columns.guessed),
        "not_counted": {
            reason: {"rows": n, "first": found.rows.examples[reason]} for reason, n in found.rows.left_out.items()
        },
        "notes": list(found.notes),
    }
    return _finite(value)


def _comparison(found: LogAnalysis, comparison: Comparison) -> dict[str, Any]:
    analysis, effect = comparison.analysis, comparison.analysis.rating_effect
    tests = analysis.tests
    return {
        "confidence_sequence": {
            **_sequence(analysis.rating, analysis.plan.alpha),
            "users": effect.users if effect else 0,
            "p_holm": comparison.p,
            "days_left": analysis.days_left,
        },
        "welch": _test(tests, "welch", "t"),
        "mann_whitney": _test(tests, "mann_whitney", "u"),
        "brunner_munzel": _test(tests, "brunner_munzel", "w"),
        "guardrails": {
            g.name: {
                "control": g.control,
                "treatment": g.treatment,
                "delta": g.sequence.difference,
                "lower": g.sequence.low,
                "upper": g.sequence.high,
                "margin": g.margin,
                "non_inferior": g.non_inferior,
                "deteriorated": g.deteriorated,
            }
            for g in analysis.guardrails
        },
        "latency": _latency(found, comparison),
        "cuped": _cuped(analysis),
        "ratio_over_values": {
            "delta": analysis.by_ratings,
            "share_of_ten_heaviest_users": analysis.heaviest_share,
        },
        "movers": {
            "in_both_arms": analysis.inconstant_users,
            "moved_with_phase": analysis.moved_users,
            "share_in_both_arms": analysis.inconstant_share,
        },
        "phases": [
            {
                "phase": found.rows.phases[(s.phase % 2**32) - 1],
                "came_in": found.rows.phases[(s.phase // 2**32 or s.phase % 2**32) - 1],
                "weight": s.weight,
                "users": [s.control.users, s.treatment.users],
                "delta": s.difference,
            }
            for s in (effect.strata if effect else ())
        ],
        "sequence": sequence(found, analysis),
    }


def sequence(found: LogAnalysis, analysis: Analysis) -> list[dict[str, Any]] | None:
    """The sequence as users arrived, with the time of the last of them; None for a log without times."""
    if "at" not in found.rows.has:
        return None
    points = path(analysis, SEQUENCE_POINTS)
    if not points:
        return []
    codes = np.unique(analysis.rating_totals.user)
    return [
        {
            "users": p.n,
            "at": f"{analysis.arrivals[codes[p.n - 1]]}Z",
            "delta": p.difference,
            "lower": p.low,
            "upper": p.high,
            "p_always_valid": p.p,
        }
        for p in points
    ]


def _arms(found: LogAnalysis) -> dict[str, Any]:
    arms: dict[str, Any] = {}
    for comparison in found.comparisons:
        for arm in comparison.analysis.arms:
            arms.setdefault(
                arm.model,
                {
                    "users": arm.users,
                    "users_with_value": arm.rated_users,
                    "response_rate": arm.response_rate,
                    "rows": arm.requests,
                    "values": arm.values,
                    "mean": arm.mean_rating,
                    "sd": arm.sd,
                    "slow_share": arm.slow_share,
                    "failed_share": arm.failed_share,
                },
            )
    return {name: arms[name] for name in found.variants}


def _sequence(interval: Interval | None, alpha: float) -> dict[str, Any]:
    names = ("delta", "se", "lower", "upper", "p_always_valid")
    if interval is None:
        return {**dict.fromkeys(names), "level": 1 - alpha}
    values = (interval.difference, interval.se, interval.low, interval.high, interval.p)
    return {**dict(zip(names, values, strict=True)), "level": 1 - alpha}


def _test(tests: dict[str, Any], name: str, statistic: str) -> dict[str, Any]:
    if name not in tests:
        return {"statistic": None, "p": None}
    values = dict(tests[name])
    return {"statistic": values.pop(statistic), **values}


def _cuped(analysis: Analysis) -> dict[str, Any] | None:
    adjusted, made, raw = analysis.adjusted, analysis.adjustment, analysis.rating
    if adjusted is None or made is None or raw is None:
        return None
    return {
        **_sequence(adjusted, analysis.plan.alpha),
        "theta": made.theta,
        "theta_from": "users of both arms pooled",
        "correlation": made.correlation,
        "users_with_pre_period": made.users,
        "variance_reduction": 1 - adjusted.se**2 / raw.se**2 if raw.se else None,
    }


def _latency(found: LogAnalysis, comparison: Comparison) -> dict[str, Any] | None:
    """Quantiles over users of each user's mean latency, with always-valid intervals and p of their equality."""
    latency = comparison.analysis.latency
    if latency is None:
        return None
    names = (found.variants[0], comparison.treatment)
    shown: dict[str, Any] = {"of": "each user's mean, ms"}
    for at, level in enumerate(LEVELS):
        shown[f"p{round(100 * level)}"] = {
            **{
                name: {"value": q.value, "lower": q.low, "upper": q.high}
                for name, q in ((name, arm[at]) for name, arm in zip(names, latency.arms, strict=True))
                if q is not None
            },
            "p_always_valid": latency.p[at],
        }
    return shown


def categories(found: LogAnalysis) -> dict[str, Any] | None:
    """The difference by category of the request, and averaged over categories by their size (post-stratification).

    Reported only: which categories to look at was not fixed beforehand. The deciding treatment against the control.
    """
    if found.rows.categories is None:
        return None
    names = (found.variants[0], found.deciding.treatment)
    rows = found.rows.categories.filter(pl.col("variant").is_in(names), pl.col("ratings") > 0)
    users = rows.group_by("category", "user", maintain_order=True).agg(
        (pl.col("variant") == names[1]).cast(pl.Int64).first().alias("arm"),
        pl.col("variant").n_unique().alias("arms"),
        (pl.col("total").sum() / pl.col("ratings").sum()).alias("value"),
    )
    users = users.filter(pl.col("arms") == 1)
    kinds = sorted(users["category"].unique().to_list())
    totals = UserTotals(
        np.unique(users["user"].to_numpy(), return_inverse=True)[1],
        np.searchsorted(kinds, users["category"].to_list()),
        users["arm"].to_numpy(),
        users["value"].to_numpy(),
        np.ones(users.height),
    )
    effect = inference.stratified_difference(totals)
    if effect is None:
        return None
    return {
        "by_category": {
            kinds[s.phase]: {
                "users": [s.control.users, s.treatment.users],
                "delta": s.difference,
                "se": math.hypot(s.control.se, s.treatment.se),
            }
            for s in effect.strata
        },
        "post_stratified": {"delta": effect.difference, "se": effect.se},
        "note": "reported only",
    }


def table(found: LogAnalysis) -> list[tuple[str, str]]:
    """The main figures as (figure, text)."""
    first = found.deciding
    rows = [("decision", found.decision.outcome), ("reason", found.decision.reason)]
    for name, arm in _arms(found).items():
        mean = "no value" if arm["mean"] is None else f"mean over users {arm['mean']:.4g}"
        role = "control" if name == found.variants[0] else "treatment"
        rows.append((f"{name} ({role})", f"{arm['users']:,} users, {arm['users_with_value']:,} with a value; {mean}"))
    for c in found.comparisons:
        interval = c.analysis.rating
        if interval is not None:
            reach = f"{1 - c.analysis.plan.alpha:.3g} sequence {interval.low:.4g} to {interval.high:.4g}"
            text = f"{interval.difference:+.4g} ({reach})"
            rows.append((f"{c.treatment} less {found.variants[0]}", f"{text}, always-valid p {interval.p:.3g}"))
    note = "reported only: valid at one look fixed beforehand"
    for name in ("welch", "mann_whitney", "brunner_munzel"):
        test = first.analysis.tests.get(name)
        if test:
            p = "not defined" if test["p"] is None else f"p = {test['p']:.3g}"
            rows.append((name.replace("_", " "), f"{p}; {note}"))
    if (cuped := _cuped(first.analysis)) is not None:
        rows.append(
            (
                "CUPED",
                f"{cuped['delta']:+.4g} ({cuped['lower']:.4g} to {cuped['upper']:.4g}), theta {cuped['theta']:.3g}",
            )
        )
    srm = f"p = {first.analysis.srm_p:.3g} over all looks, {first.analysis.srm_fixed_p:.3g} now"
    rows.append(("split of users", srm if found.split_tested else "not tested"))
    for g in first.analysis.guardrails:
        state = "worse" if g.deteriorated else "within the margin" if g.non_inferior else "open"
        rows.append((g.name.replace("_", " "), f"{g.treatment:.2%} against {g.control:.2%}: {state}"))
    if first.analysis.by_ratings is not None:
        share = f"the ten users with most values gave {first.analysis.heaviest_share or 0:.1%} of them"
        rows.append(("difference over all values", f"{first.analysis.by_ratings:+.4g}; {share}; reported only"))
    if torn := first.analysis.inconstant_users:
        rows.append(("users in both arms", f"{torn:,}, left out"))
    if moved := first.analysis.moved_users:
        rows.append(("users who moved with the phase", f"{moved:,}, left out from then on"))
    for name, (analysis, p) in found.secondary.items():
        if analysis.rating is not None:
            rows.append((name, f"{analysis.rating.difference:+.4g}; p (Benjamini-Hochberg) = {p:.3g}"))
    rows += [(reason, f"{n:,} ({found.rows.examples[reason]})") for reason, n in found.rows.left_out.items()]
    guessed = ", ".join(f"{role}: {found.columns[role]}" for role in found.columns.guessed)
    rows += [("columns guessed", guessed)] if guessed else []
    return rows + [("note", note) for note in found.notes]


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they are null."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
