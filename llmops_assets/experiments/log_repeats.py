"""Finds rows of a log that were logged twice, by a hash of each: eight bytes a row are all that is kept of them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_assets.experiments.log_values import is_there

_SHIFT = 61
_PARTS = 2 ** (64 - _SHIFT)
_TELLING = ("request", "user", "timestamp", "value", "latency", "status")


class Repeats:
    """The hashes of rows, and which of them are there more than once.

    The key of a row is its request, or else all of it where it has a time: two equal rows without one may be two equal
    ratings. Of two million rows that differ, two have the same hash with a chance of one in ten million.
    """

    def __init__(self, roles: Sequence[str]) -> None:
        self.reason, self._exact = "rows that are there twice", list(roles)
        self._named: str | None = "timestamp" if "timestamp" in roles else None
        if "request" in roles:
            self.reason, self._exact, self._named = "rows of a request that is there later too", ["request"], "request"
        # Who, when and which number tell nearly all rows apart, and cost less than all that is there.
        self._quick = [role for role in self._exact if role in _TELLING] or self._exact
        self._hashes: list[NDArray[np.uint64]] = []

    def hashed(self, frame: pl.DataFrame, *, exact: bool = False) -> pl.DataFrame:
        """A piece (its `user` a hash already) with `hash`, null for a row that cannot be told from another.

        Rows that are alike have the same hash; with `exact`, others have another.
        """
        if self._named is None:
            return frame.with_columns(pl.lit(None, pl.UInt64).alias("hash"))
        roles = self._exact if exact else self._quick
        key = pl.lit(0, pl.UInt64)
        for seed, role in enumerate(roles, 1):
            # A seed each: the same value in two columns would take itself out.
            key = key ^ (pl.col(role) if role == "user" else pl.col(role).hash(seed))
        known = frame[self._named].is_not_null()
        if frame[self._named].dtype == pl.String:
            known &= is_there(frame[self._named].str.strip_chars())
        return frame.with_columns(pl.when(known).then(key).alias("hash"))

    def add(self, hashes: pl.Series) -> None:
        """Take note of a piece's hashes."""
        self._hashes.append(hashes.drop_nulls().to_numpy())

    def doubled(self) -> pl.Series:
        """The hashes that are there more than once; what was noted is gone then."""
        found = []
        for part in range(_PARTS):
            # A part at a time: all of them in order would be as many bytes again.
            mine = [hashes[hashes >> np.uint64(_SHIFT) == part] for hashes in self._hashes]
            known = np.sort(np.concatenate(mine)) if mine else np.empty(0, dtype=np.uint64)
            found.append(np.unique(known[1:][known[1:] == known[:-1]]))
        self._hashes = []
        return pl.Series("hash", np.concatenate(found), dtype=pl.UInt64)

    def earlier(self, pieces: Callable[[], Iterable[pl.DataFrame]], doubled: pl.Series) -> pl.DataFrame:
        """The numbers (`row`) of rows that are there later too: as it was in the end, a row counts.

        pieces: gives them anew; doubled: the quick hashes that are there more than once.
        """
        found = [pl.DataFrame(schema={"row": pl.UInt32, "hash": pl.UInt64})]
        for piece in pieces():
            alike = self.hashed(piece).join(doubled.to_frame(), on="hash", how="semi").drop("hash")
            found.append(self.hashed(alike, exact=True).select("row", "hash"))
        rows = pl.concat(found).with_columns(pl.col("row").max().over("hash").alias("last_row"))
        return rows.filter(pl.col("row") < pl.col("last_row")).select("row")
