"""What is kept of each user in an A/B test: sums by user, phase and arm that add up wherever the requests lie."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_assets.experiments.inference import UserTotals

KEYS = ("user", "phase", "arm")
RATED = tuple(f"rated_{rating}" for rating in range(1, 6))
SUMS: Mapping[str, type[pl.DataType]] = {
    "requests": pl.Int64,
    "counted": pl.Int64,
    "failed": pl.Int64,
    "timed": pl.Int64,
    "slow": pl.Int64,
    "latency_ms": pl.Float64,
    "ratings": pl.Int64,
    "total": pl.Float64,
    "squares": pl.Float64,
    "pre_values": pl.Int64,
    "pre_total": pl.Float64,
    **dict.fromkeys(RATED, pl.Int64),
}
"""Columns that add up. counted: requests less those that the caller got wrong; timed: answered in a time that tells
something, of which `slow` were over the limit and which took `latency_ms` together; ratings, total, squares: how many
values counted, their sum and sum of squares; pre_*: the values from before the test; rated_*: how often
each rating was given, where the values are ratings."""
OTHER = 2
"""The arm of what is neither the control nor the treatment of a comparison: another treatment of the same test."""
_COHORT = 2**32


@dataclass(frozen=True)
class UserSums:
    """A row for each user × phase × arm: `KEYS`, `SUMS`, and first_at and last_at, the times of the requests.

    arm is 0 for the control and 1… for treatments (in a comparison 1, and OTHER for those beside it). Two of them add
    up to what one over both would have been.
    """

    frame: pl.DataFrame

    @classmethod
    def of(cls, frame: pl.DataFrame) -> "UserSums":
        """From a frame with `KEYS` and any of the other columns; what is missing is 0, or an unknown time."""
        times = [c for c in ("first_at", "last_at") if c in frame.columns]
        columns = [pl.col("user"), pl.col("phase").cast(pl.Int64), pl.col("arm").cast(pl.Int64)]
        columns += [
            (pl.col(name).fill_null(0).cast(dtype) if name in frame.columns else pl.lit(0, dtype).alias(name))
            for name, dtype in SUMS.items()
        ]
        columns += [
            (
                pl.col(name).cast(pl.Datetime("us", "UTC")) if name in times else pl.lit(None, pl.Datetime("us", "UTC"))
            ).alias(name)
            for name in ("first_at", "last_at")
        ]
        return cls(frame.select(columns))

    def __add__(self, other: "UserSums") -> "UserSums":
        return UserSums(
            pl.concat([self.frame, other.frame])
            .group_by(KEYS, maintain_order=True)
            .agg(pl.col(*SUMS).sum(), pl.col("first_at").min(), pl.col("last_at").max())
            .select(self.frame.columns)
        )

    def arms(self, control: int, treatment: int) -> "UserSums":
        """The rows of two arms, as arm 0 and 1; those of any other are kept as arm `OTHER`."""
        if set(self.frame["arm"].unique()) <= {control, treatment} and (control, treatment) == (0, 1):
            return self
        arm = pl.col("arm").replace_strict({control: 0, treatment: 1}, default=OTHER, return_dtype=pl.Int64)
        return UserSums(self.frame.with_columns(arm.alias("arm")))


@dataclass(frozen=True)
class Counted:
    """The rows of two arms that count for their comparison, and who was left out.

    rows: as `UserSums.frame`, with `code` (users in the order of their first request), `stratum` and `first` (whether
    it is the user's first row). inconstant: users assigned both arms within one phase, left out altogether; movers:
    users whose arm changed with the phase, left out from that phase on.
    """

    rows: pl.DataFrame
    inconstant: int
    movers: int

    @cached_property
    def _codes(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        code, stratum, arm = (self.rows[c].cast(pl.Int64).to_numpy() for c in ("code", "stratum", "arm"))
        return code, stratum, arm

    def totals(self, value: str, count: str, *, closed: pl.Expr | None = None, by_user: bool = True) -> UserTotals:
        """Totals of a sum over a count: each user's mean counts once, or with `by_user` False each value does.

        Rows without a value, and those that `closed` is not true for, are left out.
        """
        keep = (self.rows[count] > 0).to_numpy()
        if closed is not None:
            keep &= self.rows.select(closed.fill_null(False)).to_series().to_numpy()
        code, stratum, arm = (c[keep] for c in self._codes)
        total, n = (self.rows[c].cast(pl.Float64).to_numpy()[keep] for c in (value, count))
        if by_user:
            return UserTotals(code, stratum, arm, total / n, np.ones(len(n)))
        return UserTotals(code, stratum, arm, total, n)


def counted(sums: UserSums) -> Counted:
    """Which rows of arm 0 and 1 may be compared, and in which stratum.

    A user who meets two arms within one phase, be one of them a third, was not assigned by a rule. A user whose arm
    changed with the weights brings the other model along (carry-over): from there on the rows are left out. Who was
    there before a change of weights differs from who came after it, and in shares that differ by arm, so the stratum is
    the phase and the phase of the user's first request.
    """
    rows = sums.frame
    if _has_times(sums) and not rows["first_at"].is_sorted():
        rows = rows.sort("first_at", nulls_last=False, maintain_order=True)
    user = rows["user"]
    compared = pl.col("arm") < OTHER
    if user.n_unique() == rows.height:
        # One row a user: nobody can have moved.
        stratum = pl.col("phase").alias("stratum")
        rows = rows.filter(compared)
        return Counted(rows.with_row_index("code").with_columns(stratum, pl.lit(True).alias("first")), 0, 0)
    doubled = rows.group_by("user", "phase").agg(pl.col("arm").n_unique().alias("arms"))
    inconstant = doubled.filter(pl.col("arms") > 1).select("user").unique()
    mine = rows.filter(compared).select("user")
    rows = rows.join(inconstant, on="user", how="anti", maintain_order="left")
    ordered = rows.sort("phase", maintain_order=True)
    home = ordered.group_by("user", maintain_order=True).agg(
        pl.col("arm").first().alias("home"), pl.col("phase").first().alias("cohort")
    )
    left = (
        rows.join(home, on="user", how="left", maintain_order="left")
        .filter(pl.col("arm") != pl.col("home"))
        .group_by("user")
        .agg(pl.col("phase").min().alias("moved_in"))
    )
    codes = rows.filter(compared).select("user").unique(maintain_order=True).with_row_index("code")
    rows = (
        rows.filter(compared)
        .join(left, on="user", how="left", maintain_order="left")
        .filter(pl.col("moved_in").is_null() | (pl.col("phase") < pl.col("moved_in")))
        .join(home.select("user", "cohort"), on="user", how="left", maintain_order="left")
        .join(codes, on="user", how="left", maintain_order="left")
        .with_columns(
            pl.when(pl.col("cohort") == pl.col("phase"))
            .then(pl.col("phase"))
            .otherwise(pl.col("phase") + _COHORT * pl.col("cohort"))
            .alias("stratum"),
            (pl.col("cohort") == pl.col("phase")).alias("first"),
        )
    )
    found = (left_out.join(mine, on="user", how="semi").height for left_out in (inconstant, left))
    return Counted(rows, *found)


def phases_of(stratum: int) -> tuple[int, int]:
    """The phase of a stratum, and the phase in which its users came first."""
    return stratum % _COHORT, stratum // _COHORT or stratum % _COHORT


def _has_times(sums: UserSums) -> bool:
    return sums.frame["first_at"].null_count() < sums.frame.height
