"""Shows an evaluation: the Markdown of the asset's page, a plot with intervals, and one self-contained HTML file."""

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets import plots
from llmops_assets.evaluation.case import ErrorAnalysis
from llmops_assets.evaluation.gate import GateOutcome, interval
from llmops_assets.records.evaluation import EvaluationRecord, Metric

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_CELL = 200
HEADLINES = ("accuracy", "perplexity", "preference_accuracy", "win_rate", "recall_at_10", "ndcg_at_10")
SHARES = ("accuracy", "macro_f1", "preference_accuracy", "win_rate", "recall_at_10", "ndcg_at_10", "mrr_at_10")
"""Figures that lie between 0 and 1."""


def headline(record: EvaluationRecord, gate: GateOutcome) -> str:
    """The one figure that decides, in words, with the same figure of the base."""
    lines = [f"**{'Gate met' if gate.passed else 'Gate not met'}**: {gate.text}"]
    for metric in record.metrics:
        if metric.model == "tuned" and metric.name in HEADLINES:
            base = record.metric(metric.suite, metric.name, "base")
            against = f"; the base {interval(base)}" if base else ""
            lines.append(f"{metric.name} of {metric.suite}: **{interval(metric)}**{against}")
    return "\n\n".join([*lines, *leakage_lines(record)])


def leakage_lines(record: EvaluationRecord) -> list[str]:
    """What a reader must know of each suite that the model was trained on."""
    return [
        f"⚠ {share:.1%} of the items of {suite} stand in training rows: what it scores there says little"
        for suite, share in record.leaked.items()
    ]


def metric_table(record: EvaluationRecord) -> str:
    """The figures of every suite with their intervals; ⚠ marks a suite whose items are in the training rows."""
    return metrics_table(record.metrics, record.leaked)


def metrics_table(metrics: Sequence[Metric], leaked: Collection[str] = ()) -> str:
    """Figures with their intervals; ⚠ marks a suite of `leaked`."""
    return table(
        ("suite", "metric", "model", "value", "95 % interval", "n"),
        [
            (m.suite + (" ⚠" if m.suite in leaked else ""), m.name, m.model, number(m.value), _bounds(m), str(m.n))
            for m in metrics
        ],
    )


def category_table(record: EvaluationRecord) -> str:
    """The headline figure by category, with its interval."""
    metric = next((m.name for m in record.by_category.values()), "accuracy")
    return table(
        ("category", metric, "95 % interval", "n"),
        [(name, number(m.value), _bounds(m), str(m.n)) for name, m in record.by_category.items()],
    )


def versus_base_table(record: EvaluationRecord) -> str:
    """Items that only the model or only its base got right, by suite, and the exact McNemar test of the two."""
    return table(
        ("suite", "only this model right", "only the base right", "both", "neither", "p (exact McNemar)"),
        [
            (suite, *(f"{t[key]:.0f}" for key in ("only_tuned", "only_base", "both", "neither")), f"{t['p']:.2g}")
            for suite, t in record.versus_base.items()
        ],
    )


def differences_table(record: EvaluationRecord) -> str:
    """The model against its base and the one in production, on the same items."""
    columns = (
        "suite",
        "against",
        "difference",
        "95 % interval",
        "only this right",
        "only that",
        "changed",
        "p",
        "test",
    )
    rows = [
        (
            d.suite,
            f"{d.against} {d.ref}",
            f"{d.difference:+.3f}",
            f"{d.low:+.3f} to {d.high:+.3f}",
            str(d.only_tuned),
            str(d.only_other),
            str(d.changed),
            f"{d.p:.2g}",
            d.test,
        )
        for d in record.differences
    ]
    return table(columns, rows)


def worst_table(worst: ErrorAnalysis) -> str:
    """The answers that were furthest from right."""
    return table(worst.columns, [tuple(_short(cell) for cell in row) for row in worst.rows])


def confusion_table(labels: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """How often each label was answered by which; `other` counts answers that are no label."""
    rows = [(label, *map(str, row)) for label, row in zip(labels, counts, strict=True)]
    return table(("expected", *labels, "other"), rows)


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; pipes, line ends and markup inside of cells are made harmless."""
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(_escape(cell) for cell in row) + " |" for row in rows]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """A figure in four digits or so; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.3f}" if abs(value) < 10 else f"{value:,.1f}"


def plot(record: EvaluationRecord, gate: GateOutcome) -> "Figure":
    """The headline figure of each suite and category with its 95 % interval, the base beside it, and the gate."""
    name = gate.metric.name if gate.metric else next(m.name for m in record.metrics)
    suites = [m for m in record.metrics if m.name == name and m.model == "tuned"]
    bars = [(f"all of {m.suite}", m, record.metric(m.suite, name, "base")) for m in suites]
    if len(record.by_category) <= 25:
        bars += [(category, m, None) for category, m in record.by_category.items() if m.name == name]
    fig, ax = plots.figure(height=max(1.6, 0.28 * len(bars) + 0.9))
    for at, (label, metric, base) in enumerate(bars):
        colour = plots.PALETTE[0] if label.startswith("all of ") else plots.MUTED
        low, high = metric.low, metric.high
        error = [[max(0.0, metric.value - low)], [max(0.0, high - metric.value)]] if low is not None else None
        legend = "this model" if at == 0 else None
        ax.errorbar([metric.value], [at], xerr=error, fmt="o", color=colour, capsize=3, markersize=5, label=legend)
        if base is not None:
            ax.plot([base.value], [at], "x", color=plots.PALETTE[1], label="base" if at == 0 else None)
    ax.set_yticks(range(len(bars)), [plots.label(label) for label, _, _ in bars])
    ax.invert_yaxis()
    if bound := gate.bound:
        ax.axvline(bound, color=plots.PALETTE[3], linestyle="--", linewidth=1, label=f"gate {bound:g}")
    if name in SHARES:
        ax.set_xlim(-0.02, 1.02)
    ax.set_xlabel(f"{name}, with its 95 % interval")
    ax.legend(frameon=False, fontsize=8, loc="best")
    return fig


def latency_plot(seconds: Sequence[float]) -> "Figure":
    """How long single requests took."""
    return plots.histogram(seconds, "Latency of one request at a time", "seconds", bins=min(20, max(5, len(seconds))))


def html(title: str, record: EvaluationRecord, gate: GateOutcome, worst: ErrorAnalysis, picture: str) -> str:
    """The whole report as one HTML file that loads nothing; `picture` is a data URI."""
    from jinja2 import Environment, StrictUndefined

    template = (Path(__file__).with_name("report.html")).read_text(encoding="utf-8")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.from_string(template).render(
        title=title,
        record=record,
        gate=gate,
        plot=picture,
        plot_alt="the headline figure by suite and category, with intervals",
        number=number,
        category_metric=next((m.name for m in record.by_category.values()), "accuracy"),
        confusions=worst.confusions,
        matrices=worst.matrix,
        changes=worst.changes,
        latency=plots.data_uri(latency_plot(worst.latency)) if worst.latency else None,
        counts=outcome_counts(record),
        worst=worst.rows,
        worst_title=worst.title,
        worst_columns=worst.columns,
        leaked=leakage_lines(record),
    )


def outcome_counts(record: EvaluationRecord) -> list[tuple[str, int]]:
    """What the answers are that are none, or not whole: counted apart, and wrong unless the judge found them right."""
    counts = [
        ("empty", record.empty_answers),
        ("cut by the length limit", record.length_truncated),
        ("refusals", record.refusals),
    ]
    if "llm" in " ".join(record.judges.values()):
        counts += [("verdicts that turned with the order", record.position_flips), ("no verdict", record.unjudged)]
    return counts


def headline_figures(record: EvaluationRecord, gate: GateOutcome) -> dict[str, float]:
    """The figures that a reader compares over time, by a name that Dagster plots them under.

    The gate's figure stands under its own name, with the ends of its interval; then those of the model and of what it
    is compared with, on each suite.
    """
    found: dict[str, float | None] = {}
    for metric in record.metrics:
        where = re.sub(r"[^A-Za-z0-9]+", "_", f"{metric.model} {metric.name} {metric.suite}").strip("_")
        found[where] = metric.value
    if gate.metric is not None:
        name = gate.metric.name
        found |= {name: gate.metric.value, f"{name}_low": gate.metric.low, f"{name}_high": gate.metric.high}
    return {name: value for name, value in found.items() if value is not None and math.isfinite(value)}


def tracked(record: EvaluationRecord) -> list[tuple[str, float]]:
    """Names and values for the MLflow run; MLflow allows no ``@`` in a name."""
    values: list[tuple[str, float]] = []
    for metric in record.metrics:
        prefix = "eval" if metric.model == "tuned" else "eval_base"
        name = f"{prefix}/{metric.suite.replace('@', ':')}/{metric.name}"
        values.append((name, metric.value))
        values += [
            (f"{name}_{end}", value) for end, value in (("low", metric.low), ("high", metric.high)) if value is not None
        ]
    for key in ("empty_answers", "length_truncated", "refusals"):
        values.append((f"eval/{key}", float(getattr(record, key))))
    return values


def _bounds(metric: Metric) -> str:
    return f"{number(metric.low)} to {number(metric.high)}" if metric.low is not None else "–"


def _short(text: Any) -> str:
    text = str(text)
    return text if len(text) <= _CELL else text[: _CELL - 1] + "…"


def _escape(text: str) -> str:
    for sign, safe in (("\\", "\\\\"), ("|", "\\|"), ("<", "&lt;"), ("*", "\\*"), ("_", "\\_"), ("`", "\\`")):
        text = text.replace(sign, safe)
    return " ⏎ ".join(text.split("\n"))
