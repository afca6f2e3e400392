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
_KEYS = ("user", "phase", "arm")
_TIMES = ("first_at", "last_at")
_MERGE_ROWS = 600_000


def sums_of_parquet(files: Sequence[Path], plan: Plan, phases: Mapping[int, Routes], rows: int = ROWS) -> UserSums:
    """The sums of both arms from files with `COLUMNS` and any others, as days of `traffic` are; no text is read.

    Files in the order of their time, and rows too: a rating (the last that a request got, null for none) counts where
    its request came within the plan's window after the user's first one. Users are kept by a hash of 64 bits. Raises
    ValueError for a phase that is not in `phases`, or for an earlier request of a user than was known when a rating
    was counted.
    """
    arm = pl.lit(None, pl.Int64)
    for phase, variant, number in arms_of(phases, plan).iter_rows():
        is_it = (pl.col("phase") == phase) & (pl.col("variant") == variant)
        arm = pl.when(is_it).then(pl.lit(number, pl.Int64)).otherwise(arm)
    first = pl.DataFrame(schema={"user": pl.UInt64, "first_at": pl.Datetime("us", "UTC")})
    parts: list[pl.DataFrame] = []
    for piece in _pieces(files, rows):
        refuse_unknown_phases(piece["phase"], phases, plan)
        if plan.ends_at is not None:
            piece = piece.filter(pl.col("at") <= plan.ends_at)
        piece = piece.with_columns(pl.col("user").hash(0), arm.alias("arm")).filter(pl.col("arm").is_not_null())
        known = piece.group_by("user").agg(pl.col("at").min().alias("first_at"))
        met = known.join(first, on="user", how="left", suffix="_known")
        if (met["first_at"] < met["first_at_known"]).any():
            raise ValueError("the files are not in the order of their time: sort them, and their rows, by `at`")
        first = pl.concat([first, met.filter(pl.col("first_at_known").is_null()).select("user", "first_at")])
        parts.append(_summed(piece.join(first, on="user", how="left"), plan))
        if sum(part.height for part in parts) > max(_MERGE_ROWS, 3 * parts[0].height):
            parts = [_merged(parts)]
    if not parts:
        raise ValueError("there is no file of exposures to add up")
    rated = list(enumerate(RATED, 1))
    return UserSums.of(
        _merged(parts).with_columns(
            pl.sum_horizontal(RATED).alias("ratings"),
            pl.sum_horizontal(rating * pl.col(name) for rating, name in rated).alias("total"),
            pl.sum_horizontal(rating**2 * pl.col(name) for rating, name in rated).alias("squares"),
        )
    )


def _merged(parts: list[pl.DataFrame]) -> pl.DataFrame:
    summed = pl.exclude(*_KEYS, *_TIMES).sum()
    added = pl.concat(parts).group_by(_KEYS).agg(summed, pl.col("first_at").min(), pl.col("last_at").max())
    # In the order of the parts, beside which it is added up again.
    return added.select(parts[0].columns)


def _pieces(files: Sequence[Path], rows: int) -> Iterator[pl.DataFrame]:
    for file in files:
        scan = pl.scan_parquet(file, low_memory=True).select(COLUMNS)
        count = int(scan.select(pl.len()).collect().item())
        for offset in range(0, count, rows):
            piece = scan.slice(offset, rows).collect()
            yield piece.with_columns(pl.col("at").cast(pl.Datetime("us", "UTC")))


def _summed(piece: pl.DataFrame, plan: Plan) -> pl.DataFrame:
    low, high = plan.scale or (1, 5)
    counts = pl.col("rating").is_between(low, high) & (pl.col("at") <= pl.col("first_at") + plan.rating_window)
    rating = pl.when(counts).then(pl.col("rating"))
    return (
        piece.lazy()
        .with_columns(*judged(plan.slow_ms), rating.alias("rating"))
        .group_by(_KEYS)
        .agg(
            pl.len().cast(pl.Int64).alias("requests"),
            pl.col("failed").count().cast(pl.Int64).alias("counted"),
            pl.col("failed").sum().cast(pl.Int64),
            pl.col("slow").count().cast(pl.Int64).alias("timed"),
            pl.col("slow").sum().cast(pl.Int64),
            pl.when(pl.col("slow").is_not_null()).then(pl.col("latency_ms")).sum().alias("latency_ms"),
            pl.col("at").min().alias("first_at"),
            pl.col("at").max().alias("last_at"),
            *((pl.col("rating") == given).sum().cast(pl.Int64).alias(name) for given, name in enumerate(RATED, 1)),
        )
        .collect()
    )
