"""The looks at an endpoint's traffic, and which of them is the last good window."""

from collections.abc import Sequence
from datetime import datetime

from llmops_assets.records.serving import DriftPoint

_MOST = 200
"""Looks that a record keeps; of the older ones every other goes, so that plots still begin where they began."""


def last_good(history: Sequence[DriftPoint], before: datetime, *, model: str) -> DriftPoint | None:
    """The newest window that ended before a moment and in which nothing differed, of the same model if there is one.

    A window that shares requests with the one that is judged would make it look like what it is compared with.
    """
    good = [point for point in history if point.until <= before and not point.drifted and point.requests]
    same = [point for point in good if point.model_ref == model]
    return (same or good or [None])[-1]


def added(history: Sequence[DriftPoint], point: DriftPoint) -> list[DriftPoint]:
    """The history with one look more."""
    kept = list(history)
    if len(kept) >= _MOST:
        half = len(kept) // 2
        kept = [*kept[:half:2], *kept[half:]]
    return [*kept, point]
