"""Plots for the Dagster UI: small PNG pictures inside Markdown, in one look."""

import base64
import io
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, MUTED, GRID = "#1f2933", "#7b8794", "#e4e7eb"
PALETTE = ("#2f6f9f", "#d9822b", "#3f8f5f", "#b0413e", "#7a5ea8", "#8a7a3f")
_HANGUL_FONTS = ("Noto Sans CJK KR", "Noto Sans KR", "NanumGothic", "Malgun Gothic", "Apple SD Gothic Neo", "UnDotum")
MAX_BYTES = 100_000


@cache
def hangul_font() -> str | None:
    """A font on this machine that has Hangul, or None."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((name for name in _HANGUL_FONTS if name in installed), None)


def figure(width: float = 6.4, height: float = 3.0, columns: int = 1) -> tuple["Figure", Any]:
    """A figure of `width` × `height` inches and its axes (an array of them when `columns` > 1)."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    families = [f for f in (hangul_font(), "DejaVu Sans") if f]
    style = {
        "font.family": families,
        "font.size": 9,
        "text.color": INK,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.titlesize": 10,
        "axes.titleweight": "bold",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "axes.unicode_minus": False,
    }
    with rc_context(style):
        fig = Figure(figsize=(width, height), layout="constrained")
        axes = fig.subplots(1, columns)
    return fig, axes


def label(text: str) -> str:
    """`text` where a font of this machine can draw it, else its ASCII part: no picture full of boxes."""
    if hangul_font() or text.isascii():
        return text
    ascii_part = text.encode("ascii", "ignore").decode().strip(" -_/()")
    return ascii_part or "".join(f"\\u{ord(c):x}" for c in text[:3])


def png(fig: "Figure", dpi: int = 110) -> bytes:
    """`fig` as PNG, at a lower resolution where it would not fit an event of the Dagster log."""
    while True:
        buffer = io.BytesIO()
        fig.savefig(buffer, format="png", dpi=dpi, facecolor="white")
        if buffer.tell() <= MAX_BYTES or dpi <= 40:
            return buffer.getvalue()
        dpi = int(dpi * 0.75)


def data_uri(fig: "Figure") -> str:
    """A figure as a PNG in a data URI."""
    return "data:image/png;base64," + base64.b64encode(png(fig)).decode()


def png_markdown(fig: "Figure", alt: str) -> str:
    """Markdown that shows `fig`, for `MetadataValue.md`."""
    return f"![{alt}]({data_uri(fig)})"


def histogram(values: Any, title: str, xlabel: str, *, bins: int = 40) -> "Figure":
    """How `values` (1-D, finite) are distributed, with their median and 95th percentile."""
    import numpy as np

    fig, ax = figure()
    values = np.asarray(values, dtype=float)
    if values.size:
        ax.hist(values, bins=bins, color=PALETTE[0])
        for q, style in ((50, "-"), (95, "--")):
            at = float(np.percentile(values, q))
            ax.axvline(at, color=PALETTE[1], linestyle=style, linewidth=1.2, label=f"p{q} = {at:,.4g}")
        ax.legend(frameon=False)
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    ax.set_ylabel("rows")
    return fig


def bars(counts: dict[str, float], title: str, xlabel: str, *, most: int = 15) -> "Figure":
    """Horizontal bars, the largest first; what is beyond `most` is summed up in one bar."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    shown = ordered[:most]
    if len(ordered) > most:
        shown.append((f"({len(ordered) - most} more)", sum(v for _, v in ordered[most:])))
    fig, ax = figure(height=max(1.4, 0.24 * len(shown) + 0.8))
    names = [label(name) for name, _ in shown]
    ax.barh(range(len(shown)), [v for _, v in shown], color=PALETTE[0])
    ax.set_yticks(range(len(shown)), names)
    ax.invert_yaxis()
    for i, (_, v) in enumerate(shown):
        ax.text(v, i, f" {v:,.4g}", va="center", fontsize=8, color=INK)
    ax.grid(axis="y", visible=False)
    ax.set_title(title)
    ax.set_xlabel(xlabel)
    return fig
