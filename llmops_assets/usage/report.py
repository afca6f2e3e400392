"""How spending is shown: by day, and improvements with their prices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmops_assets import plots
from llmops_assets.usage.price import Improvement

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def table(found: Sequence[Improvement], currency: str) -> list[dict[str, str]]:
    """Improvements as rows of text."""

    def money(value: float | None) -> str:
        return "no bound" if value is None else f"{value:,.2f}"

    return [
        {
            "experiment": one.experiment,
            "model": one.model_ref,
            "gain (95 %)": f"{one.gain:+.3f} ({one.low:+.3f} to {one.high:+.3f})",
            "candidates": ", ".join(f"{c.cell}: {c.outcome}" for c in one.candidates) or "none",
            f"cost ({currency})": money(one.cost),
            "by point of rating (95 %)": f"{money(one.price)} ({money(one.price_low)} to {money(one.price_high)})",
        }
        for one in found
    ]


def by_day(days: Sequence[dict[str, Any]], improvements: Sequence[Improvement], currency: str) -> "Figure":
    """Tokens and cost by day, and what a point of each improvement cost, with its interval."""
    fig, (left, right) = plots.figure(width=8.4, height=2.8, columns=2)
    ordered = sorted((day for day in days if day["day"]), key=lambda one: one["day"])
    names = [day["day"] for day in ordered]
    left.bar(names, [day["tokens"] for day in ordered], color=plots.PALETTE[0])
    left.set_title("tokens by day")
    left.tick_params(axis="x", rotation=45)
    known = [one for one in improvements if one.price is not None]
    for place, one in enumerate(known):
        price = one.price or 0.0
        below = price - (one.price_low or price)
        above = (one.price_high or price) - price
        right.errorbar([place], [price], yerr=[[below], [above]], fmt="o", capsize=4, color=plots.PALETTE[1])
        if one.price_high is None:
            right.annotate("no upper bound", (place, price), fontsize=7, color=plots.MUTED)
    right.set_xticks(range(len(known)), [one.experiment for one in known])
    right.set_title(f"{currency} by point of rating")
    return fig
