"""How an A/B test is shown: its figures as JSON and as a table, and two pictures."""

from typing import TYPE_CHECKING, Any

import numpy as np

from llmops_assets import plots
from llmops_assets.experiments.analysis import ARMS, Analysis, path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def figures(analysis: Analysis) -> dict[str, Any]:
    """The figures that a decision is made on, as JSON: the main ones flat, the details nested."""
    rating, (control, treatment) = analysis.rating, analysis.arms
    plan = analysis.plan
    return {
        "rating_control": control.mean_rating,
        "rating_treatment": treatment.mean_rating,
        "rating_difference": rating.difference if rating else None,
        "rating_low": rating.low if rating else None,
        "rating_high": rating.high if rating else None,
        "rating_p_always_valid": rating.p if rating else None,
        "rating_difference_over_ratings": analysis.by_ratings,
        "ratings_of_ten_heaviest_users": analysis.heaviest_share,
        "srm_p": analysis.srm_p,
        "srm_fixed_p": analysis.srm_fixed_p,
        "at": analysis.at.isoformat(),
        "plan": {
            "control": plan.control,
            "treatment": plan.treatment,
            "started_at": plan.started_at.isoformat(),
            "ends_at": plan.ends_at.isoformat(),
            "rating_window_hours": plan.rating_window.total_seconds() / 3600,
            "users_per_arm": plan.min_users,
            "expected_users": plan.expected_users,
            "alpha": plan.alpha,
            "srm_p": plan.srm_p,
            "slow_ms": plan.slow_ms,
            "success_metric": plan.success_metric,
            "scale": list(plan.scale),
        },
        "arms": {
            name: {
                "model": arm.model,
                "users": arm.users,
                "users_with_closed_window": arm.closed_users,
                "users_who_rated": arm.rated_users,
                "response_rate": arm.response_rate,
                "requests": arm.requests,
                "ratings": list(arm.ratings),
                "mean_rating": arm.mean_rating,
                "slow_share": arm.slow_share,
                "failed_share": arm.failed_share,
                "latency_p50_ms": arm.latency_p50_ms,
                "latency_p95_ms": arm.latency_p95_ms,
            }
            for name, arm in zip(("control", "treatment"), analysis.arms, strict=True)
        },
        "guardrails": {
            g.name: {
                "difference": g.sequence.difference,
                "low": g.sequence.low,
                "high": g.sequence.high,
                "margin": g.margin,
                "non_inferior": g.non_inferior,
                "deteriorated": g.deteriorated,
            }
            for g in analysis.guardrails
        },
        "phases": [
            {
                "phase": s.phase,
                "weight": s.weight,
                "users": [s.control.users, s.treatment.users],
                "difference": s.difference,
            }
            for s in (analysis.rating_effect.strata if analysis.rating_effect else ())
        ],
        "tests": analysis.tests,
        "not_counted": {
            "users_with_both_models": analysis.inconstant_users,
            "requests_to_other_models": analysis.other_requests,
            "ratings_by_other_users": analysis.foreign_ratings,
            "ratings_off_the_scale": analysis.ratings_off_scale,
        },
    }


def table(analysis: Analysis) -> list[dict[str, str]]:
    """The figures as rows of text (figure, control, treatment, treatment less control, verdict)."""
    control, treatment = analysis.arms
    rating, plan = analysis.rating, analysis.plan
    level = f"{1 - plan.alpha:.0%}"
    rows = [
        _row("model", control.model, treatment.model),
        _row(
            "users",
            control.users,
            treatment.users,
            verdict=f"sample ratio p = {analysis.srm_p:.3g} over all looks, {analysis.srm_fixed_p:.3g} now",
        ),
        _row("requests", control.requests, treatment.requests),
        _row(
            "users who rated",
            *(f"{a.rated_users} of {a.closed_users} ({_percent(a.response_rate)})" for a in analysis.arms),
            verdict=f"{plan.min_users} an arm are needed",
        ),
        _row(
            "mean rating",
            *(_number(a.mean_rating) for a in analysis.arms),
            f"{rating.difference:+.3f} ({level} sequence {rating.low:+.3f} to {rating.high:+.3f})" if rating else "",
            f"always-valid p = {rating.p:.3g}" if rating else "",
        ),
    ]
    if analysis.by_ratings is not None:
        heavy = f"the ten users who rated most gave {_percent(analysis.heaviest_share)} of them; reported only"
        rows.append(_row("mean over all ratings", "", "", f"{analysis.by_ratings:+.3f}", heavy))
    for g in analysis.guardrails:
        verdict = "worse" if g.deteriorated else "within the margin" if g.non_inferior else "open"
        rows.append(
            _row(
                g.name.replace("_", " "),
                _percent(g.control),
                _percent(g.treatment),
                f"{g.sequence.difference:+.2%} ({level} sequence {g.sequence.low:+.2%} to {g.sequence.high:+.2%})",
                f"{verdict}; {g.margin:.2%} is allowed",
            )
        )
    rows.append(_row("latency p50 (ms)", *(_number(a.latency_p50_ms, 0) for a in analysis.arms)))
    rows.append(_row("latency p95 (ms)", *(_number(a.latency_p95_ms, 0) for a in analysis.arms)))
    if tests := analysis.tests:
        note = "reported only: valid at one look fixed beforehand"
        welch, mann_whitney, brunner = tests["welch"], tests["mann_whitney"], tests["brunner_munzel"]
        interval = f"{welch['difference']:+.3f} ({level} interval {welch['low']:+.3f} to {welch['high']:+.3f})"
        rows.append(_row("Welch's t on user means", "", "", interval, f"p = {_p(welch['p'])}; {note}"))
        superiority = (
            f"P(superiority) = {mann_whitney['superiority']:.3f}, Cliff's delta = {mann_whitney['cliffs_delta']:+.3f}"
        )
        rows.append(_row("Mann-Whitney U", "", "", superiority, f"p = {_p(mann_whitney['p'])}; {note}"))
        rows.append(_row("Brunner-Munzel", "", "", "", f"p = {_p(brunner['p'])}; {note}"))
    return rows


def sequence_plot(analysis: Analysis) -> "Figure":
    """The difference in ratings with its confidence sequence, as users arrived."""
    fig, ax = plots.figure()
    points = path(analysis)
    ax.axhline(0, color=plots.INK, linewidth=0.8)
    if points:
        n = np.array([p.n for p in points])
        ax.fill_between(
            n, [p.low for p in points], [p.high for p in points], color=plots.PALETTE[0], alpha=0.2, linewidth=0
        )
        ax.plot(n, [p.difference for p in points], color=plots.PALETTE[0])
        # The first intervals are wider than the scale of ratings and would flatten the rest.
        reach = max(abs(v) for p in points[len(points) // 6 :] for v in (p.low, p.high))
        ax.set_ylim(-1.1 * min(reach, 4), 1.1 * min(reach, 4))
    least = 2 * analysis.plan.min_users
    ax.axvline(least, color=plots.MUTED, linestyle="--", linewidth=1, label=f"no decision before ({least:,} users)")
    ax.legend(frameon=False)
    ax.set_title(f"Rating, treatment less control, with its {1 - analysis.plan.alpha:.0%} confidence sequence")
    ax.set_xlabel("users who rated, both arms")
    ax.set_ylabel("difference")
    return fig


def ratings_plot(analysis: Analysis) -> "Figure":
    """How often each rating was given on each arm, as shares."""
    fig, ax = plots.figure()
    low, high = analysis.plan.scale
    scale = np.arange(low, high + 1)
    for index, (name, arm) in enumerate(zip(ARMS, analysis.arms, strict=True)):
        counts = np.array(arm.ratings, dtype=float)
        shares = counts / counts.sum() if counts.sum() else counts
        ax.bar(
            scale + (index - 0.5) * 0.38,
            shares,
            width=0.36,
            color=plots.PALETTE[index],
            label=f"{name}: {plots.label(arm.model)} ({int(counts.sum()):,} ratings)",
        )
    ax.set_xticks(scale)
    # Room for the legend above the highest bar.
    ax.set_ylim(0, 1.35 * max(ax.dataLim.y1, 0.1))
    ax.legend(frameon=False, loc="upper left")
    ax.set_title("Ratings by arm")
    ax.set_xlabel("rating")
    ax.set_ylabel("share of ratings")
    return fig


def _row(figure: str, control: Any, treatment: Any, difference: str = "", verdict: str = "") -> dict[str, str]:
    return {
        "figure": figure,
        "control": str(control),
        "treatment": str(treatment),
        "treatment less control": difference,
        "verdict": verdict,
    }


def _number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _p(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.3g}"
