"""The requests of an endpoint in a span of time: of its compacted days, and from the catalog where one is not yet."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_assets.traffic import days
from resources.artifacts import Artifacts
from resources.catalog import Catalog

COLUMNS = ("request_id", "at", "model_ref", "user", "query", "response", "status", "source", "latency_ms",
           "finish_reason", "rating")  # fmt: skip
MOST_REQUESTS = 5000


@dataclass(frozen=True)
class Window:
    """Requests from `since` until before `until`, oldest first; `users` are codes of their users."""

    since: datetime
    until: datetime
    frame: pl.DataFrame

    @property
    def users(self) -> NDArray[np.int64]:
        return self.frame["user"].hash(0).to_numpy().astype(np.int64)

    @property
    def models(self) -> set[str]:
        return set(self.frame["model_ref"].to_list())


def read(
    catalog: Catalog,
    artifacts: Artifacts,
    endpoint: str,
    since: datetime,
    until: datetime,
    *,
    per_user: int,
    is_whole: Callable[[str], bool],
) -> Window:
    """The requests of a window: of one user `per_user` at most, 5,000 in all, spread over it.

    One who asks all day would else be what the traffic is like; a window is compared with another as long. is_whole:
    of a day (YYYY-MM-DD), whether it was over when it was compacted: the catalog has the others.
    """
    compacted = {day for _, day in days.days_of(artifacts, endpoint)}
    parts = []
    day = since.date()
    while day <= until.date():
        begin, end = days.bounds(day.isoformat())
        if day.isoformat() in compacted and is_whole(day.isoformat()):
            frame = days.read(artifacts, endpoint, day.isoformat())
        else:
            frame = days.compact(
                catalog.exposures(endpoint=endpoint, since=begin, until=end),
                catalog.feedback(endpoint=endpoint, exposed_since=begin, exposed_until=end),
                str,
            ).frame
        parts.append(frame.select(COLUMNS))
        day += timedelta(days=1)
    frame = pl.concat(parts).filter(pl.col("at") >= since, pl.col("at") < until).sort("at", "request_id")
    return Window(since, until, thinned(frame, per_user))


def thinned(frame: pl.DataFrame, per_user: int) -> pl.DataFrame:
    """At most `per_user` rows of each user and 5,000 in all, chosen by their ids, in the order that they had."""
    ranked = frame.with_columns(pl.col("request_id").hash(1).rank("ordinal").over("user").alias("of_user"))
    kept = ranked.filter(pl.col("of_user") <= per_user).drop("of_user")
    if kept.height <= MOST_REQUESTS:
        return kept
    chosen = kept["request_id"].hash(2).rank("ordinal") <= MOST_REQUESTS
    return kept.filter(chosen)
