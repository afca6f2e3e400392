"""Finds rows of a log that were logged twice, by a hash of each: five bytes a row are all that is kept of them."""

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_assets.experiments.log_values import is_there, tells_the_time

_PARTS = 256
_KEPT = 2**40 - 1
_TELLING = ("request", "user", "timestamp", "value", "latency", "status")


class Repeats:
    """The hashes of rows, and which of them are there more than once.

    The key of a row is its request, or else all of it where it has a time: two equal rows without one, or of one day
    where no more is told, may be two equal ratings. Of two million rows that differ, two have the same hash with a
    chance of one in ten million.
    """

    def __init__(self, roles: Sequence[str]) -> None:
        self.reason, self._exact = "rows that are there twice", list(roles)
        self._named: str | None = "timestamp" if "timestamp" in roles else None
        if "request" in roles:
            self.reason, self._exact, self._named = "rows of a request that is there later too", ["request"], "request"
        # Who, when and which number tell nearly all rows apart, and cost less than all that is there.
        self._quick = [role for role in self._exact if role in _TELLING] or self._exact
        # Of each piece: where each part of it ends, and of its hashes the last four bytes and the one before them.
        self._noted: list[tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint8]]] = []

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
        if self._named == "timestamp":
            known &= tells_the_time(frame[self._named])
        if frame[self._named].dtype == pl.String:
            known &= is_there(frame[self._named].str.strip_chars())
        return frame.with_columns(pl.when(known).then(key).alias("hash"))

    def add(self, hashes: pl.Series) -> None:
        """Take note of a piece's hashes: parted by their first byte, so that only five more have to be kept of each.

        Of ten million rows that differ, two are alike by these six bytes with a chance of one in six.
        """
        whole = hashes.drop_nulls().to_numpy()
        part = (whole >> np.uint64(56)).astype(np.uint8)
        whole = whole[np.argsort(part, kind="stable")]
        ends = np.cumsum(np.bincount(part, minlength=_PARTS))
        low, high = whole.astype(np.uint32), (whole >> np.uint64(32)).astype(np.uint8)
        self._noted.append((ends.astype(np.uint32), low, high))

    def doubled(self) -> pl.Series:
        """Which hashes are there more than once, as `_SHORT` has them; what was noted is gone then."""
        found = []
        for part in range(_PARTS):
            # A part at a time: all of them in order would be as many bytes again.
            mine = [np.empty(0, dtype=np.uint64)]
            for ends, low, high in self._noted:
                rows = slice(ends[part - 1] if part else 0, ends[part])
                mine.append(high[rows].astype(np.uint64) << np.uint64(32) | low[rows])
            known = np.sort(np.concatenate(mine))
            found.append(np.unique(known[1:][known[1:] == known[:-1]]) | np.uint64(part << 40))
        self._noted = []
        return pl.Series("hash", np.concatenate(found), dtype=pl.UInt64)

    def earlier(self, pieces: Callable[[], Iterable[pl.DataFrame]], doubled: pl.Series) -> pl.DataFrame:
        """The numbers (`row`) of rows that are there later too: as it was in the end, a row counts.

        pieces: gives them anew; doubled: the quick hashes that are there more than once.
        """
        found = [pl.DataFrame(schema={"row": pl.UInt32, "hash": pl.UInt64})]
        for piece in pieces():
            alike = self.hashed(piece).with_columns(_SHORT).join(doubled.to_frame(), on="hash", how="semi").drop("hash")
            found.append(self.hashed(alike, exact=True).select("row", "hash"))
        rows = pl.concat(found).with_columns(pl.col("row").max().over("hash").alias("last_row"))
        return rows.filter(pl.col("row") < pl.col("last_row")).select("row")


_SHORT = (pl.col("hash") // 2**56 * 2**40 + (pl.col("hash") & _KEPT)).alias("hash")
"""What is noted of a hash: its first byte and its last five."""
