"""How an A/B test is shown: its figures as JSON and as a table, and two pictures."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from llmops_assets import plots
from llmops_assets.experiments.analysis import ARMS, Analysis, path
from llmops_assets.experiments.latency import LEVELS
from llmops_assets.experiments.running import ExperimentStatus
from llmops_assets.experiments.user_sums import phases_of

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
        "days_left": analysis.days_left,
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
            "minimum_effect": plan.minimum_effect,
            "scale": list(plan.scale) if plan.scale else None,
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
                "control": g.control,
                "treatment": g.treatment,
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
                "phase": phases_of(s.phase)[0],
                "came_in": phases_of(s.phase)[1],
                "weight": s.weight,
                "users": [s.control.users, s.treatment.users],
                "difference": s.difference,
            }
            for s in (analysis.rating_effect.strata if analysis.rating_effect else ())
        ],
        "tests": analysis.tests,
        "users_by_day": {day: list(users) for day, users in analysis.users_by_day.items()},
        "latency": _latency(analysis),
        "not_counted": {
            "users_with_both_models": analysis.inconstant_users,
            "users_who_moved_with_the_weights": analysis.moved_users,
            "requests_to_other_models": analysis.other_requests,
            "ratings_by_other_users": analysis.foreign_ratings,
            "ratings_off_the_scale": analysis.ratings_off_scale,
        },
    }


def comparisons(status: ExperimentStatus) -> dict[str, Any]:
    """Of several treatments each one's figures and its own decision, by model."""
    return {
        c.treatment: {
            "decision": c.decision.outcome,
            "reason": c.decision.reason,
            "p_holm": c.p,
            "dropped": c.treatment in status.dropped or c.treatment in status.harmful,
            **figures(c.analysis),
        }
        for c in status.comparisons
    }


def counts(status: ExperimentStatus, what: str) -> dict[str, int]:
    """Users or requests by arm; of several treatments the deciding one is `treatment`, and the others go by model."""
    first = status.deciding
    found = {arm: int(getattr(a, what)) for arm, a in zip(ARMS, first.arms, strict=True)}
    return found | {c.treatment: int(getattr(c.analysis.arms[1], what)) for c in status.comparisons[1:]}


def _latency(analysis: Analysis) -> dict[str, Any] | None:
    """Quantiles over users of each one's mean, with always-valid intervals; an end that is not known is null."""
    latency = analysis.latency
    if latency is None:
        return None
    return {
        f"p{round(100 * level)}": {
            **{
                name: [q.value, *(end if math.isfinite(end) else None for end in (q.low, q.high))]
                for name, q in ((name, arm[at]) for name, arm in zip(ARMS, latency.arms, strict=True))
                if q is not None
            },
            "p_always_valid": latency.p[at],
        }
        for at, level in enumerate(LEVELS)
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
    for at, name in enumerate(("p50", "p95")):
        values = ((a.latency_p50_ms, a.latency_p95_ms)[at] for a in analysis.arms)
        p = f"always-valid p = {analysis.latency.p[at]:.3g}; reported only" if analysis.latency else ""
        rows.append(_row(f"latency {name} over users (ms)", *(_number(v, 0) for v in values), verdict=p))
    if analysis.moved_users:
        moved = f"{analysis.moved_users} left out from the change of weights on"
        rows.append(_row("users who moved with the weights", "", "", verdict=moved))
    if analysis.days_left is not None:
        rows.append(_row("days left, about", "", "", _number(analysis.days_left, 1), "at this rate and difference"))
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


def time_plot(analysis: Analysis) -> "Figure":
    """The difference in ratings with its confidence sequence, over the time in which users came."""
    fig, ax = plots.figure()
    ax.axhline(0, color=plots.INK, linewidth=0.8)
    points = path(analysis)
    codes = np.unique(analysis.rating_totals.user)
    if points and len(analysis.arrivals):
        times = [analysis.arrivals[codes[p.n - 1]] for p in points]
        known = [(time, p) for time, p in zip(times, points, strict=True) if not np.isnat(time)]
        at = np.array([time for time, _ in known])
        low, high = ([getattr(p, end) for _, p in known] for end in ("low", "high"))
        ax.fill_between(at, low, high, color=plots.PALETTE[0], alpha=0.2, linewidth=0)
        ax.plot(at, [p.difference for _, p in known], color=plots.PALETTE[0])
        reach = max((abs(v) for v in (*low[len(low) // 6 :], *high[len(high) // 6 :])), default=1.0)
        ax.set_ylim(-1.1 * min(reach, 4), 1.1 * min(reach, 4))
        fig.autofmt_xdate()
    if (least := analysis.plan.minimum_effect) is not None:
        ax.axhspan(-least, least, color=plots.MUTED, alpha=0.15, label="too small to matter")
        ax.legend(frameon=False)
    ax.set_title("Rating, treatment less control, as users came")
    ax.set_ylabel("difference")
    return fig


def users_plot(analysis: Analysis) -> "Figure":
    """New users of both arms by day (UTC)."""
    fig, ax = plots.figure()
    days = list(analysis.users_by_day)
    place = np.arange(len(days))
    for index, name in enumerate(ARMS):
        counts = [analysis.users_by_day[day][index] for day in days]
        ax.bar(place + (index - 0.5) * 0.4, counts, width=0.38, color=plots.PALETTE[index], label=name)
    every = max(1, len(days) // 8)
    ax.set_xticks(place[::every], days[::every])
    ax.legend(frameon=False)
    ax.set_title("New users by day")
    return fig


def guardrails_plot(analysis: Analysis) -> "Figure":
    """How much worse the treatment is in each guardrail, with its sequence and its margin, in points of a share."""
    fig, ax = plots.figure(height=1.2 + 0.6 * max(1, len(analysis.guardrails)))
    for row, g in enumerate(analysis.guardrails):
        colour = plots.PALETTE[3] if g.deteriorated else plots.PALETTE[2] if g.non_inferior else plots.PALETTE[1]
        ax.plot([100 * g.sequence.low, 100 * g.sequence.high], [row, row], color=colour, linewidth=3)
        ax.plot([100 * g.sequence.difference], [row], "o", color=colour)
        ax.plot([100 * g.margin] * 2, [row - 0.3, row + 0.3], color=plots.INK, linewidth=1.5)
    ax.axvline(0, color=plots.INK, linewidth=0.8)
    ax.set_yticks(range(len(analysis.guardrails)), [g.name.replace("_", " ") for g in analysis.guardrails])
    ax.set_ylim(-0.6, max(0.6, len(analysis.guardrails) - 0.4))
    ax.set_xlabel("percentage points; the upright stroke is the margin")
    ax.set_title("Guardrails, treatment less control")
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
