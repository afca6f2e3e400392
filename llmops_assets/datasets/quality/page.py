"""The quality report as one HTML file that needs no other: charts drawn in SVG, samples masked, nothing fetched."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from llmops_assets.datasets.quality import score
from llmops_assets.datasets.quality.findings import samples
from llmops_assets.datasets.quality.report import Report

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BINS = 36
BARS = 12


@dataclass(frozen=True)
class Histogram:
    """Bars of a distribution: `bars` are heights from 0 to 1 with a text each, `marks` positions from 0 to 1."""

    bars: list[tuple[float, str]]
    marks: list[tuple[float, str]]
    low: str
    high: str


def histogram(values: np.ndarray, *, low: float | None = None, high: float | None = None, digits: int = 0) -> Histogram:
    """How `values` are distributed; what is beyond the 99.5th percentile is counted in the last bar."""
    if not len(values):
        return Histogram([], [], "", "")
    low = float(values.min()) if low is None else low
    high = float(np.quantile(values, 0.995)) if high is None else high
    high = high if high > low else low + 1.0
    bins = BINS if digits or high - low >= BINS else max(1, int(high - low) + 1)
    counts, edges = np.histogram(np.clip(values, low, high), bins=bins, range=(low, high))
    most = max(int(counts.max()), 1)
    beyond = float(values.max()) > high
    bars = []
    for number, count in enumerate(counts.tolist()):
        upper = "more" if beyond and number == len(counts) - 1 else f"{edges[number + 1]:,.{digits}f}"
        bars.append((count / most, f"{edges[number]:,.{digits}f} to {upper}: {count:,} rows"))
    marks = []
    for share, name in ((0.5, "median"), (0.95, "p95")):
        at = float(np.quantile(values, share))
        if at <= high:
            marks.append(((at - low) / (high - low), f"{name} {at:,.{digits}f}"))
    return Histogram(bars, marks, f"{low:,.{digits}f}", f"{high:,.{digits}f}{'+' if beyond else ''}")


@dataclass(frozen=True)
class Bar:
    """One bar of a chart: its count, its share of the total, and the text beside it."""

    name: str
    count: float
    share: float
    text: str


def bars(counts: dict[str, float], *, total: float | None = None) -> list[Bar]:
    """The largest counts first, as bars; what is beyond `BARS` of them is one bar."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ordered[:BARS]
    if len(ordered) > BARS:
        shown.append((f"{len(ordered) - BARS:,} more", sum(count for _, count in ordered[BARS:])))
    most = max((count for _, count in shown), default=0) or 1
    return [
        Bar(name, count, count / most, f"{count:,}" + (f" · {count / total:.1%}" if total else ""))
        for name, count in shown
    ]


def html(
    title: str,
    dataset_type: str,
    report: Report,
    *,
    quarantine: pl.DataFrame | None = None,
    dropped: dict[str, int] | None = None,
    kept: int | None = None,
    note: str = "",
) -> str:
    """The report as one file. `quarantine` are the refused rows; `dropped` (by reason) and `kept` what cleaning did."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["n"] = lambda value: f"{value:,}"
    refused: list[dict[str, Any]] = []
    reasons: dict[str, float] = {}
    if quarantine is not None and quarantine.height:
        refused = quarantine.head(20).select("file", "line", "field", "reason").to_dicts()
        reasons = dict(quarantine.group_by("reason").len().sort("len", descending=True).head(8).iter_rows())
    parts = {
        part: (mean, int((report.scores[part] < 0.3).sum()), score.PART_MEANINGS[part])
        for part, mean in report.score_parts.items()
    }
    steps = []
    if kept is not None:
        refused_rows = 0 if quarantine is None else quarantine.height
        total = max(report.rows + refused_rows, 1)
        for name, count in (("refused", refused_rows), *(dropped or {}).items(), ("kept", kept)):
            if count:
                steps.append((name, count, count / total))
    return environment.get_template("report.html").render(
        title=title,
        type=dataset_type,
        note=note,
        report=report,
        quarantined=0 if quarantine is None else quarantine.height,
        refused=refused,
        reasons=bars(reasons),
        steps=steps,
        histograms={
            "Characters a row": histogram(report.chars),
            f"Tokens a row ({report.tokens_counted_by})": histogram(report.tokens),
            "Quality score": histogram(report.scores["score"].to_numpy(), low=0.0, high=1.0, digits=2),
        },
        categories=bars(dict(report.categories), total=report.rows),
        pii=bars(dict(report.pii)),
        toxic=bars(dict(report.toxic)),
        parts=parts,
        samples=samples(report.findings),
    )


def figures(report: Report) -> dict[str, "Figure"]:
    """The same pictures for the Dagster UI, by name."""
    from llmops_assets import plots

    shown = {
        "lengths": plots.histogram(report.chars, "Characters a row", "characters"),
        "tokens": plots.histogram(report.tokens, f"Tokens a row ({report.tokens_counted_by})", "tokens"),
        "categories": plots.bars(dict(report.categories), "Rows by category", "rows"),
        "scores": plots.histogram(report.scores["score"].to_numpy(), "Quality score", "score"),
    }
    if report.pii:
        shown["pii"] = plots.bars(dict(report.pii), "Personal data by type", "spans")
    return shown
