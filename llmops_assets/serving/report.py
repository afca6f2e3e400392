"""What the pages of an endpoint show: figures and a plot of its traffic."""

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from llmops_assets import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_MOST_REFERENCE_ROWS = 20_000


def questions(rows: pl.DataFrame, type: str) -> list[str]:
    """What a model was asked in its training: the last user message of a conversation, or what stands for it.

    `rows` are canonical rows of that dataset type. At most 20,000, spread evenly over the rows.
    """
    return questions_with_category(rows, type)[0]


def questions_with_category(rows: pl.DataFrame, type: str) -> tuple[list[str], list[str | None]]:
    """As `questions`, each with the category of its row, None where the row has none."""
    if rows.height > _MOST_REFERENCE_ROWS:
        rows = rows.gather_every(rows.height // _MOST_REFERENCE_ROWS + 1)
    category = rows["category"] if "category" in rows.columns else pl.Series([None] * rows.height, dtype=pl.String)
    column = {"pretrain_corpus": "text", "rag_qa": "question", "embedding_pair": "anchor"}.get(type)
    if column is not None:
        return rows[column].to_list(), category.to_list()
    turns = pl.col("messages" if "messages" in rows.columns else "prompt")
    asked = turns.list.eval(
        pl.element().struct.field("content").filter(pl.element().struct.field("role") == "user")
    ).list.last()
    found = rows.select(asked.alias("asked")).with_columns(category.alias("category")).drop_nulls("asked")
    return found["asked"].to_list(), found["category"].to_list()


def ratings(feedback: pl.DataFrame) -> tuple[int, float | None]:
    """How many ratings there are, the last one of each request counting, and their mean."""
    last = feedback.group_by("request_id", maintain_order=True).last()
    mean = last["rating"].mean() if last.height else None
    return last.height, None if mean is None else float(mean)


def traffic_plot(exposures: pl.DataFrame) -> "Figure":
    """Requests over time by outcome, and the latency of those that were answered."""
    fig, (left, right) = plots.figure(width=8.4, height=2.8, columns=2)
    seconds = exposures["at"].dt.epoch("s").to_numpy().astype(float)
    minutes = (seconds - seconds.min()) / 60
    good = (exposures["status"] < 400).to_numpy()
    bins = np.linspace(0, max(1.0, float(minutes.max())), 31)
    left.hist([minutes[good], minutes[~good]], bins=bins, stacked=True, color=[plots.PALETTE[0], plots.PALETTE[3]],
              label=["answered", "failed"])  # fmt: skip
    left.set_title("requests")
    left.set_xlabel(f"minutes since {exposures['at'].min():%Y-%m-%d %H:%M} UTC")
    left.legend(frameon=False)
    latency = exposures["latency_ms"].to_numpy()[good]
    if latency.size:
        right.hist(latency, bins=40, color=plots.PALETTE[0])
        for q, style in ((50, "-"), (95, "--")):
            at = float(np.percentile(latency, q))
            right.axvline(at, color=plots.PALETTE[1], linestyle=style, linewidth=1.2, label=f"p{q} = {at:,.0f} ms")
        right.legend(frameon=False)
    right.set_title("latency")
    right.set_xlabel("milliseconds")
    return fig
