"""How drift is shown: a table of the features, their distributions, and both over time."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from llmops_assets import plots
from llmops_assets.drift.compare import EMBEDDING, Comparison
from llmops_assets.drift.features import KINDS, Measured
from llmops_assets.records.serving import DriftPoint

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_PLOTS = 4
_UNITS = {
    "characters": "characters",
    "hangul share": "share of the letters",
    "new 3-grams": "share of the 3-grams",
    "answer characters": "characters",
    "latency": "ms",
    "rating": "1 to 5",
}


def figures(comparison: Comparison) -> dict[str, float]:
    """The figures of a comparison as a record keeps them."""
    return {**comparison.figures, "exceeds": comparison.exceeds, "p_adjusted": comparison.adjusted}


def table(comparisons: Sequence[Comparison]) -> list[dict[str, str]]:
    """The comparisons as rows of text, those that drifted first."""
    ordered = sorted(comparisons, key=lambda one: (not one.drifted, -one.exceeds))
    return [
        {
            "feature": one.feature,
            "against": one.against,
            "before": _level(one, "reference"),
            "traffic": _level(one, "traffic"),
            "distance": ", ".join(f"{name} {value:.3g}" for name, value in one.figures.items()),
            "over its floor": f"{one.exceeds:.2f}",
            "p (all together)": f"{one.adjusted:.3g}",
            "verdict": "drifted" if one.drifted else "alike",
        }
        for one in ordered
    ]


def levels(measured: Measured) -> dict[str, float]:
    """One number a feature: the median, or the share; a mix of categories has none."""
    return {
        name: float(np.median(sample.values) if KINDS[name] == "number" else sample.values.mean())
        for name, sample in measured.samples.items()
        if KINDS[name] != "category" and len(sample)
    }


def distributions(comparisons: Sequence[Comparison]) -> "Figure | None":
    """The distributions of the four numbers that differ most, before and now; None where there is no number."""
    found = [one for one in comparisons if KINDS.get(one.feature) == "number" and one.reference and one.traffic]
    found = sorted(found, key=lambda one: -one.exceeds)[:_MOST_PLOTS]
    if not found:
        return None
    fig, axes = plots.figure(width=2.8 * max(2, len(found)), height=2.8, columns=len(found))
    for ax, one in zip(np.atleast_1d(axes), found, strict=True):
        left, right = one.reference.values, one.traffic.values
        bins = np.histogram_bin_edges(np.concatenate([left, right]), bins=25)
        for label, values, color in ((one.against, left, plots.PALETTE[0]), ("traffic", right, plots.PALETTE[1])):
            ax.hist(values, bins=bins, weights=np.full(len(values), 1 / len(values)), alpha=0.6, label=label,
                    color=color)  # fmt: skip
        ax.set_title(f"{one.feature}{' (drifted)' if one.drifted else ''}")
        ax.set_xlabel(_UNITS.get(one.feature, ""))
        ax.set_ylabel("share of requests")
        ax.legend(frameon=False)
    return fig


def over_time(history: Sequence[DriftPoint]) -> "Figure | None":
    """Each feature's largest distance over its floor by look, and its level; None before the second look."""
    if len(history) < 2:
        return None
    fig, (left, right) = plots.figure(width=8.4, height=3.2, columns=2)
    at = [point.until for point in history]
    largest = [_by_feature(point) for point in history]
    names = sorted({n for one in largest for n in one}, key=lambda n: -max(one.get(n, 0.0) for one in largest))
    for name, color in zip(names, plots.PALETTE, strict=False):
        left.plot(at, [one.get(name, np.nan) for one in largest], marker="o", markersize=3, label=name, color=color)
    left.axhline(1.0, color=plots.INK, linestyle="--", linewidth=1)
    left.set_title("distance over its floor")
    if names:
        left.legend(frameon=False, fontsize=7)
    shares = [name for name, kind in KINDS.items() if kind == "share" and any(name in p.levels for p in history)]
    moved = sorted(shares, key=lambda n: -np.ptp([p.levels[n] for p in history if n in p.levels]))
    for name, color in zip(moved, plots.PALETTE, strict=False):
        right.plot(at, [p.levels.get(name, np.nan) for p in history], marker="o", markersize=3, label=name, color=color)
    right.set_title("shares of requests")
    if moved:
        right.legend(frameon=False, fontsize=7)
    fig.autofmt_xdate()
    return fig


def _by_feature(point: DriftPoint) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in point.exceeds.items():
        feature = name.partition(" (against")[0]
        found[feature] = max(found.get(feature, 0.0), value)
    return found


def _level(one: Comparison, side: str) -> str:
    if one.feature == EMBEDDING or KINDS[one.feature] == "category":
        return ""
    sample: Any = one.reference if side == "reference" else one.traffic
    value = np.median(sample.values) if KINDS[one.feature] == "number" else sample.values.mean()
    return f"{value:.3g}"
