"""Shows a comparison of two models: Markdown for pages, a plot with intervals, and one self-contained HTML file."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from llmops_assets import plots
from llmops_assets.evaluation.report import number, table
from llmops_assets.records.evaluation import Metric
from llmops_assets.registry.compare import Comparison

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Table = tuple[str, tuple[str, ...], list[tuple[str, ...]]]
_CELL = 300
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1f2933}"
    "table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{border:1px solid #e4e7eb;padding:.3rem .6rem;"
    "text-align:left;vertical-align:top}th{background:#f5f7fa}img{max-width:100%}"
)


def headline(found: Comparison) -> str:
    """Which of the two is right more often, suite by suite, and whether that may be chance."""
    lines = []
    for one in found.suites:
        low, high = one.difference.low, one.difference.high
        gap = f"{one.difference.value:+.3f} (95 % interval {low:+.3f} to {high:+.3f})"
        verdict = "beyond chance" if one.p < 0.05 else "may be chance"
        lines.append(
            f"{one.suite}: accuracy of {found.second} less that of {found.first} is {gap} on the same {one.items} "
            f"items; right only with {found.second} {one.only_second}, only with {found.first} {one.only_first} "
            f"(exact McNemar test, p = {one.p:.2g}: {verdict})"
        )
    return "\n".join(lines or ["No suite was asked of both: nothing can be tested."])


def tables(found: Comparison, most: int = 20) -> list[Table]:
    """Everything that differs, as (title, columns, rows)."""
    names = (found.first, found.second)
    shown = found.answers[:most]
    result: list[Table] = [
        (
            "Figures, each with its 95 % interval",
            ("suite", "metric", *names),
            [(*_name(a, b), _figure(a), _figure(b)) for a, b in found.metrics],
        ),
        (
            f"Answers that differ ({len(shown)} of {len(found.answers)})",
            ("suite", "question", "expected", *names),
            [
                (
                    row["suite"],
                    _short(row["prompt"]),
                    _short(row["expected"]),
                    _said(row["first"], row["first_right"]),
                    _said(row["second"], row["second_right"]),
                )
                for row in shown
            ],
        ),
        ("Settings that differ", ("setting", *names), _plain(found.parameters)),
        ("Data that differs", ("fact", *names), _plain(found.data)),
    ]
    return [one for one in result if one[2]]


def markdown(found: Comparison, most: int = 10) -> str:
    """The comparison for the asset's page."""
    parts = [headline(found).replace("\n", "\n\n")]
    parts += [f"**{title}**\n\n{table(columns, rows)}" for title, columns, rows in tables(found, most)]
    return "\n\n".join([*parts, *found.notes])


def page(found: Comparison, picture: str, most: int = 100) -> str:
    """One HTML file that needs no network; `picture` is a data URI."""
    e = html.escape
    parts = [f"<h1>{e(found.first)} and {e(found.second)}</h1>"]
    parts += [f"<p>{e(line)}</p>" for line in [*headline(found).splitlines(), *found.notes]]
    parts.append(f'<img alt="figures with intervals" src="{picture}">')
    for title, columns, rows in tables(found, most):
        head = "".join(f"<th>{e(name)}</th>" for name in columns)
        body = "".join("<tr>" + "".join(f"<td>{e(cell)}</td>" for cell in row) + "</tr>" for row in rows)
        parts.append(f"<h2>{e(title)}</h2><table><tr>{head}</tr>{body}</table>")
    title = e(f"{found.first} and {found.second}")
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def plot(found: Comparison) -> "Figure":
    """The shares (accuracy, F1…) of both models with their 95 % intervals, a row a figure."""
    pairs = [(a, b) for a, b in found.metrics if all(m is None or 0 <= m.value <= 1 for m in (a, b))][:20]
    fig, ax = plots.figure(height=max(1.4, 0.4 * len(pairs) + 0.9))
    for at, pair in enumerate(pairs):
        for side, metric in enumerate(pair):
            if metric is None:
                continue
            error = None
            if metric.low is not None and metric.high is not None:
                error = [[max(0.0, metric.value - metric.low)], [max(0.0, metric.high - metric.value)]]
            ax.errorbar(
                [metric.value],
                [at + 0.16 * (2 * side - 1)],
                xerr=error,
                fmt="o",
                color=plots.PALETTE[side],
                capsize=3,
                markersize=5,
                label=(found.first, found.second)[side] if at == 0 else None,
            )
    ax.set_yticks(range(len(pairs)), [plots.label(" · ".join(_name(a, b))) for a, b in pairs])
    ax.set_ylim(len(pairs) - 0.5, -0.5)
    ax.set_xlim(-0.02, 1.02)
    if pairs:
        ax.legend(loc="lower left", fontsize=8, frameon=False, bbox_to_anchor=(0, 1.0), ncols=2)
    return fig


def as_json(found: Comparison) -> dict[str, Any]:
    """The comparison for programs."""
    return {
        "first": found.first,
        "second": found.second,
        "metrics": [
            {
                "suite": _name(a, b)[0],
                "metric": _name(a, b)[1],
                "first": a.model_dump() if a else None,
                "second": b.model_dump() if b else None,
            }
            for a, b in found.metrics
        ],
        "suites": [{**vars(one), "difference": vars(one.difference)} for one in found.suites],
        "answers": found.answers,
        "parameters": [{"setting": name, "first": a, "second": b} for name, a, b in found.parameters],
        "data": [{"fact": name, "first": a, "second": b} for name, a, b in found.data],
        "notes": found.notes,
    }


def _name(a: Metric | None, b: Metric | None) -> tuple[str, str]:
    metric = a or b
    return (metric.suite, metric.name) if metric else ("", "")


def _figure(metric: Metric | None) -> str:
    if metric is None:
        return "–"
    bounds = f" ({number(metric.low)} to {number(metric.high)})" if metric.low is not None else ""
    return f"{number(metric.value)}{bounds}, n = {metric.n}"


def _plain(rows: Sequence[tuple[str, Any, Any]]) -> list[tuple[str, ...]]:
    return [(name, "–" if a is None else str(a), "–" if b is None else str(b)) for name, a, b in rows]


def _said(text: str, right: bool) -> str:
    return f"{'right' if right else 'wrong'}: {_short(text)}"


def _short(text: object) -> str:
    whole = "" if text is None else str(text)
    return whole if len(whole) <= _CELL else whole[: _CELL - 1] + "…"
