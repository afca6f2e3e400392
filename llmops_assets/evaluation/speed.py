"""How fast a model answers one question at a time, from the seconds that the worker measured."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from llmops_assets.evaluation.metrics import bootstrap
from llmops_assets.records.evaluation import Metric

SPEED = "speed"
"""Suite under which these figures are recorded: two runs never share them, so they are no part of a result's hash."""


def speed_metrics(latency: Sequence[Mapping[str, Any]]) -> list[Metric]:
    """Median and 95th percentile of the seconds an answer takes, and generated tokens a second, over single requests.

    A row of `latency` is {seconds, tokens}. Intervals are by bootstrap over the requests.
    """
    if not latency:
        return []
    seconds = np.array([row["seconds"] for row in latency], dtype=float)
    tokens = np.array([row["tokens"] for row in latency], dtype=float)
    figures = {
        "latency_p50_seconds": lambda index: float(np.percentile(seconds[index], 50)),
        "latency_p95_seconds": lambda index: float(np.percentile(seconds[index], 95)),
        "tokens_per_second": lambda index: float(tokens[index].sum() / seconds[index].sum()),
    }
    metrics = []
    for name, statistic in figures.items():
        e = bootstrap(statistic, len(seconds))
        metrics.append(Metric(suite=SPEED, name=name, value=e.value, low=e.low, high=e.high, n=e.n))
    return metrics
