"""Sums under keys are those of a group-by, whatever the pieces, however keys collide, and however many there are."""

import numpy as np
import polars as pl
import pytest

from llmops_assets.experiments.log_repeats import Repeats
from llmops_assets.experiments.sums_by_key import How, SumsByKey

HOW: dict[str, How] = {"name": "first", "n": "sum", "low": "min", "high": "max", "at": "min"}
SCHEMA = {"name": pl.UInt32, "n": pl.Int64, "low": pl.Float64, "high": pl.Float64, "at": pl.Datetime("us", "UTC")}


def rows(keys: np.ndarray, seed: int) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    size = len(keys)
    at = pl.Series(rng.integers(0, 10**15, size)).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame(
        {
            "key": pl.Series(keys, dtype=pl.UInt64),
            "name": pl.Series(keys % 2**31, dtype=pl.UInt32),
            "n": pl.Series(rng.integers(-5, 5, size)).set(pl.Series(rng.random(size) < 0.1), None),
            "low": rng.normal(size=size),
            "high": rng.normal(size=size) - 10,
            "at": at.set(pl.Series(rng.random(size) < 0.5), None),
        }
    )


def expected(log: pl.DataFrame) -> pl.DataFrame:
    return (
        log.group_by("key", maintain_order=True)
        .agg(
            pl.col("name").first(),
            pl.col("n").sum(),
            pl.col("low").min(),
            pl.col("high").max(),
            pl.col("at").min(),
        )
        .drop("key")
    )


@pytest.mark.parametrize(
    "keys",
    [
        lambda rng: rng.integers(0, 50_000, 200_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15),
        # All of them want the same slot.
        lambda rng: rng.integers(0, 300, 2_000).astype(np.uint64) << np.uint64(40),
        # Neighbours, so that each pushes the next one on, around the end of the table.
        lambda rng: (rng.integers(-200, 200, 5_000) + 2**15).astype(np.uint64),
        lambda rng: np.zeros(1_000, dtype=np.uint64),
        lambda rng: np.array([2**64 - 1, 0, 2**64 - 1], dtype=np.uint64),
        # Each is new: the table doubles more than once in one piece.
        lambda rng: rng.permutation(150_000).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15),
    ],
    ids=["spread", "one-slot", "neighbours", "zero", "ends", "all-new"],
)
@pytest.mark.parametrize("size", [70_000, 997])
def test_sums_are_those_of_a_group_by(keys, size):
    log = rows(keys(np.random.default_rng(3)), seed=4)
    sums = SumsByKey(HOW)
    for piece in log.iter_slices(size):
        sums.add(piece)
    assert len(sums) == log["key"].n_unique()
    found = sums.frame(SCHEMA)
    wanted = expected(log)
    # Keys come in the order of their first rows.
    assert found["name"].to_list() == wanted["name"].to_list()
    assert found.equals(wanted.cast(SCHEMA))


def test_hashes_that_are_there_twice_are_found_whatever_their_first_bytes_are():
    rng = np.random.default_rng(5)
    whole = np.unique(rng.integers(0, 2**64, 20_000, dtype=np.uint64))
    twice = rng.choice(whole, 500, replace=False)
    repeats = Repeats(["user", "variant", "value", "timestamp"])
    for piece in np.array_split(rng.permutation(np.concatenate([whole, twice])), 7):
        repeats.add(pl.Series("hash", piece))
    found = repeats.doubled()
    short = {(int(h) >> 56 << 40) | (int(h) & (2**40 - 1)) for h in twice}
    assert set(found.to_list()) == short
    assert not len(Repeats(["user", "variant", "value", "timestamp"]).doubled())


def test_rows_that_differ_where_nothing_is_noted_of_them_all_count():
    class Alike(Repeats):
        """The hashes of any two rows are noted alike."""

        def hashed(self, frame: pl.DataFrame, *, exact: bool = False) -> pl.DataFrame:
            found = super().hashed(frame, exact=exact)
            return found if exact else found.with_columns(pl.lit(1 << 45, pl.UInt64).alias("hash"))

    log = pl.DataFrame(
        {
            "row": pl.Series([0, 1, 2, 3], dtype=pl.UInt32),
            "user": pl.Series([1, 1, 2, 1], dtype=pl.UInt64),
            "request": ["a", "b", "c", "a"],
        }
    )
    repeats = Alike(["user", "request"])
    repeats.add(repeats.hashed(log)["hash"])
    doubled = repeats.doubled()
    assert len(doubled) == 1
    assert repeats.earlier(lambda: iter([log]), doubled)["row"].to_list() == [0]
