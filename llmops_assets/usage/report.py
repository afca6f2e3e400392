"""How spending is shown: by day, and improvements with their prices."""

from collections.abc import Sequence
from datetime import date
from typing import TYPE_CHECKING, Any

from llmops_assets import plots
from llmops_assets.usage.price import Improvement

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST_NAME = 28


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
    from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
    from matplotlib.ticker import EngFormatter

    fig, (left, right) = plots.figure(width=8.4, height=2.8, columns=2)
    ordered = sorted((day for day in days if day["day"]), key=lambda one: one["day"])
    # As dates: each day's name beside the other is read by nobody after some weeks.
    left.bar(
        [date.fromisoformat(one["day"]) for one in ordered], [one["tokens"] for one in ordered], color=plots.PALETTE[0]
    )
    locator = AutoDateLocator(maxticks=8)
    left.xaxis.set_major_locator(locator)
    left.xaxis.set_major_formatter(ConciseDateFormatter(locator))
    left.yaxis.set_major_formatter(EngFormatter())
    left.set_title("tokens by day (UTC)")
    known = [one for one in improvements if one.price is not None]
    for place, one in enumerate(known):
        price = one.price or 0.0
        below = price - (one.price_low or price)
        above = (one.price_high or price) - price
        right.errorbar([price], [place], xerr=[[below], [above]], fmt="o", capsize=4, color=plots.PALETTE[1])
        if one.price_high is None:
            right.annotate(
                "no upper bound", (price, place), (6, 4), textcoords="offset points", fontsize=7, color=plots.MUTED
            )
    right.set_yticks(range(len(known)), [_short(one.experiment) for one in known], fontsize=7)
    right.invert_yaxis()
    right.set_title(f"{currency} by point of rating")
    return fig


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
