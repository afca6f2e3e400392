"""Adds up exposures in Parquet files by user, phase and arm, a piece at a time: what is in memory grows with users."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import polars as pl

from llmops_assets.experiments.plan import Plan, Routes
from llmops_assets.experiments.requests import arms_of, judged, refuse_unknown_phases
from llmops_assets.experiments.user_sums import RATED, UserSums

COLUMNS = ("at", "phase", "variant", "user", "status", "error", "latency_ms", "rating")
ROWS = 250_000
"""Rows in memory at once."""


def sums_of_parquet(files: Sequence[Path], plan: Plan, phases: Mapping[int, Routes], rows: int = ROWS) -> UserSums:
    """The sums of both arms from files with `COLUMNS` and any others, as days of `traffic` are; no text is read.

    Files in the order of their time, and rows too: a rating (the last that a request got, null for none) counts where
    its request came within the plan's window after the user's first one. Users are kept by a hash of 64 bits. Raises
    ValueError for a phase that is not in `phases`, or for an earlier request of a user than was known when a rating
    was counted.
    """
    arms = arms_of(phases, plan)
    total: UserSums | None = None
    first = pl.DataFrame(schema={"user": pl.UInt64, "first_at": pl.Datetime("us", "UTC")})
    for piece in _pieces(files, rows):
        refuse_unknown_phases(piece["phase"], phases, plan)
        if plan.ends_at is not None:
            piece = piece.filter(pl.col("at") <= plan.ends_at)
        piece = piece.with_columns(pl.col("user").hash(0)).join(arms, on=["phase", "variant"], how="inner")
        known = piece.group_by("user").agg(pl.col("at").min().alias("first_at"))
        _refuse_earlier(known, first)
        first = pl.concat([first, known]).group_by("user").agg(pl.col("first_at").min())
        found = UserSums.of(_summed(piece.join(first, on="user", how="left"), plan))
        total = found if total is None else total + found
    if total is None:
        raise ValueError("there is no file of exposures to add up")
    return total


def _pieces(files: Sequence[Path], rows: int) -> Iterator[pl.DataFrame]:
    for file in files:
        scan = pl.scan_parquet(file, low_memory=True).select(COLUMNS)
        count = int(scan.select(pl.len()).collect().item())
        for offset in range(0, count, rows):
            piece = scan.slice(offset, rows).collect()
            yield piece.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


def _refuse_earlier(found: pl.DataFrame, first: pl.DataFrame) -> None:
    both = found.join(first, on="user", how="inner", suffix="_known")
    if (both["first_at"] < both["first_at_known"]).any():
        raise ValueError("the files are not in the order of their time: sort them, and their rows, by `at`")


def _summed(piece: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    low, high = plan.scale or (1, 5)
    counts = pl.col("rating").is_between(low, high) & (pl.col("at") <= pl.col("first_at") + plan.rating_window)
    answered = pl.col("slow").is_not_null()
    rating = pl.col("rating")
    return (
        piece.lazy()
        .with_columns(judged(plan.slow_ms))
        .with_columns(pl.when(counts).then(rating).alias("rating"))
        .group_by("user", "phase", "arm")
        .agg(
            pl.len().alias("requests"),
            pl.col("failed").is_not_null().sum().alias("counted"),
            pl.col("failed").sum(),
            answered.sum().alias("timed"),
            pl.col("slow").sum(),
            pl.when(answered).then(pl.col("latency_ms")).sum().alias("latency_ms"),
            pl.col("at").min().alias("first_at"),
            pl.col("at").max().alias("last_at"),
            rating.count().alias("ratings"),
            rating.sum().cast(pl.Float64).alias("total"),
            (rating**2).sum().cast(pl.Float64).alias("squares"),
            *((rating == given).sum().alias(name) for given, name in enumerate(RATED, 1)),
        )
        .collect()
    )
