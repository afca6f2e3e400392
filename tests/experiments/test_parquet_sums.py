"""Exposures in Parquet files give the same analysis as the same exposures in memory, however they are cut."""

from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from llmops_assets.experiments import parquet_sums
from llmops_assets.experiments.analysis import analyse, analyse_sums, shares_by_phase
from llmops_assets.experiments.decision import decide
from llmops_assets.experiments.parquet_sums import sums_of_parquet
from tests.experiments.traffic import START, plan, routes, traffic

NOW = START + timedelta(hours=40)


def files(folder: Path, frame: pl.DataFrame, count: int) -> list[Path]:
    paths = []
    for number in range(count):
        size = -(-frame.height // count)
        path = folder / f"{number}.parquet"
        frame.slice(number * size, size).write_parquet(path)
        paths.append(path)
    return paths


def table(users: int, **changes) -> tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]:
    exposures, feedback = traffic(users, **changes)
    joined = exposures.join(feedback.select("request_id", "rating"), on="request_id", how="left")
    return joined.sort("at", "request_id"), exposures, feedback


@pytest.mark.parametrize(("count", "rows"), [(1, 10_000), (3, 500), (2, 37)])
@pytest.mark.parametrize("merge_rows", [parquet_sums._MERGE_ROWS, 1])
def test_pieces_add_up_to_the_whole(
    tmp_path: Path, count: int, rows: int, merge_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_sums, "_MERGE_ROWS", merge_rows)
    joined, exposures, feedback = table(400, levels=(3.2, 3.9), slow=(0.1, 0.1), failed=(0.02, 0.05))
    chosen, phases = plan(), {1: routes()}
    whole = analyse(exposures, feedback, chosen, phases, NOW)
    sums = sums_of_parquet(files(tmp_path, joined, count), chosen, phases, rows)
    found = analyse_sums(sums, chosen, shares_by_phase(phases, chosen), NOW)
    for one, other in zip(found.arms, whole.arms, strict=True):
        assert (one.users, one.requests, one.rated_users, one.ratings) == (
            other.users, other.requests, other.rated_users, other.ratings,
        )  # fmt: skip
        assert (one.slow_share, one.failed_share) == pytest.approx((other.slow_share, other.failed_share))
    for end in ("difference", "se", "low", "high", "p"):
        assert getattr(found.rating, end) == pytest.approx(getattr(whole.rating, end))
    assert decide(found).outcome == decide(whole).outcome


def test_ratings_after_the_window_do_not_count(tmp_path: Path) -> None:
    joined, *_ = table(40, requests=2)
    late = joined.with_columns(
        pl.when(pl.int_range(pl.len()) % 2 == 1).then(pl.col("at") + timedelta(hours=3)).otherwise("at").alias("at")
    )
    late = late.sort("at")
    first = late.group_by("user").agg(pl.col("at").min().alias("first"))
    counted = late.join(first, on="user").filter(pl.col("at") <= pl.col("first") + timedelta(hours=1))
    sums = sums_of_parquet(files(tmp_path, late, 2), plan(), {1: routes()}, 13)
    assert sums.frame["ratings"].sum() == counted["rating"].count() < late["rating"].count()


def test_files_in_the_wrong_order_and_unknown_phases_are_refused(tmp_path: Path) -> None:
    joined, *_ = table(40)
    paths = files(tmp_path, joined, 2)
    with pytest.raises(ValueError, match="not in the order of their time"):
        sums_of_parquet(paths[::-1], plan(), {1: routes()})
    with pytest.raises(ValueError, match="phase 1, whose route table is not on record"):
        sums_of_parquet(paths, plan(), {2: routes()})
    with pytest.raises(ValueError, match="no file"):
        sums_of_parquet([], plan(), {1: routes()})
