"""A day of an endpoint's traffic as one table: its requests with their answers, ratings, corrections and scores."""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache, partial

import polars as pl

from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.traffic.context import masked as masked_context

FOLDER = "traffic"
TEXTS = ("query", "context", "response", "comment", "correction", "error")
NAMES = ("user", "session")
_ADDED: dict[str, type[pl.DataType]] = {"turns": pl.Int64, "context": pl.String}


@dataclass(frozen=True)
class Day:
    """The table of a day, and how many texts had to be masked again: rules are better now than when it was logged."""

    frame: pl.DataFrame
    masked_again: int


def bounds(day: str) -> tuple[datetime, datetime]:
    """The first moment of a day (YYYY-MM-DD, UTC), and that of the next."""
    begin = datetime.combine(date.fromisoformat(day), datetime.min.time(), UTC)
    return begin, begin + timedelta(days=1)


def compact(exposures: pl.DataFrame, feedback: pl.DataFrame, mask: Callable[[str], str]) -> Day:
    """One row a request, oldest first: the columns of the exposures, and of the feedback on it the last of each.

    `rating`, `comment`, `correction` and `scores` are the last that the one who asked gave; `ratings` counts all, and
    `foreign_ratings` those by others. Without consent the texts of a request are left out.
    """
    asked_by = exposures.select("request_id", pl.col("user").alias("asked_by"))
    known = feedback.join(asked_by, on="request_id", how="inner")
    is_own = pl.col("user").is_null() | (pl.col("user") == pl.col("asked_by"))
    counts = known.group_by("request_id").agg(
        pl.len().alias("ratings"), (~is_own).sum().cast(pl.Int64).alias("foreign_ratings")
    )
    last = (
        known.filter(is_own)
        .sort("at", "id")
        .group_by("request_id")
        .agg(*(pl.col(name).drop_nulls().last() for name in ("rating", "comment", "correction", "scores")))
    )
    joined = exposures.join(last, on="request_id", how="left").join(counts, on="request_id", how="left")
    frame = joined.with_columns(
        pl.col("ratings").fill_null(0).cast(pl.Int64),
        pl.col("foreign_ratings").fill_null(0),
        *(pl.when(pl.col("consent").eq_missing(False)).then(None).otherwise(pl.col(c)).alias(c) for c in TEXTS[:-1]),
    ).sort("at", "request_id")
    masked = 0
    # Instructions and earlier turns come with every request of a conversation.
    mask = lru_cache(maxsize=1000)(mask)
    for name in TEXTS:
        before = frame[name]
        again = partial(masked_context, mask=mask) if name == "context" else mask
        after = pl.Series(name, [None if text is None else again(text) for text in before], dtype=pl.String)
        masked += int((before.drop_nulls() != after.drop_nulls()).sum())
        frame = frame.with_columns(after)
    return Day(frame, masked)


def file_of(endpoint: str, day: str) -> tuple[str, str, str]:
    """Where the table of a day lies under the artifact root."""
    return FOLDER, endpoint, f"{day}.parquet"


def write(artifacts: Artifacts, endpoint: str, day: str, frame: pl.DataFrame) -> str:
    """Write the table of a day, sealed where a key is set; its path below the artifact root."""
    buffer = io.BytesIO()
    frame.write_parquet(buffer, compression="zstd")
    artifacts.write_bytes(buffer.getvalue(), *file_of(endpoint, day))
    return "/".join(file_of(endpoint, day))


def read(artifacts: Artifacts, endpoint: str, day: str) -> pl.DataFrame:
    """The table of a day; FileNotFoundError where it was not compacted, or is past its retention."""
    return complete(pl.read_parquet(io.BytesIO(artifacts.read_bytes(*file_of(endpoint, day)))))


def complete(frame: pl.DataFrame) -> pl.DataFrame:
    """A table of traffic with the columns that a release before this one did not keep, null."""
    return frame.with_columns(pl.lit(None, dtype).alias(c) for c, dtype in _ADDED.items() if c not in frame.columns)


def days_of(artifacts: Artifacts, endpoint: str | None = None) -> Iterator[tuple[str, str]]:
    """(endpoint, day) of the tables that are kept, in order."""
    root = artifacts.upath(FOLDER)
    if not root.exists():
        return
    for folder in sorted(root.iterdir()):
        if endpoint is None or folder.name == endpoint:
            yield from sorted((folder.name, path.stem) for path in folder.glob("*.parquet"))


def expire(catalog: Catalog, artifacts: Artifacts, endpoint: str, before: datetime) -> tuple[int, int]:
    """Delete what is older than a moment: rows of the catalog and tables of days; how many of each.

    What a running experiment rests on stays until it is decided, and sums per user stay in any case.
    """
    rows = catalog.expire_traffic(endpoint, before)
    files = 0
    for name, day in list(days_of(artifacts, endpoint)):
        if bounds(day)[1] <= before:
            artifacts.upath(*file_of(name, day)).unlink()
            files += 1
    return rows, files


def scrub(artifacts: Artifacts, is_theirs: Callable[[str], bool], pseudonym: Callable[[str], str]) -> int:
    """Take a person's words out of every table, and their names; how many rows that changed."""
    changed = 0
    for endpoint, day in list(days_of(artifacts)):
        frame = read(artifacts, endpoint, day)
        hit = _theirs(frame, is_theirs)
        if not hit.any():
            continue
        columns = [_without(frame[name], is_theirs, lambda _: None) for name in (*TEXTS, "scores")]
        columns += [_without(frame[name], is_theirs, pseudonym) for name in NAMES]
        write(artifacts, endpoint, day, frame.with_columns(columns))
        changed += int(hit.sum())
    return changed


def count(artifacts: Artifacts, is_theirs: Callable[[str], bool]) -> int:
    """How many rows of all tables hold a person's words."""
    return sum(int(_theirs(read(artifacts, *one), is_theirs).sum()) for one in days_of(artifacts))


def _theirs(frame: pl.DataFrame, is_theirs: Callable[[str], bool]) -> pl.Series:
    found = pl.Series([False] * frame.height, dtype=pl.Boolean)
    for name in (*TEXTS, *NAMES, "scores"):
        found = found | pl.Series([text is not None and is_theirs(text) for text in frame[name]], dtype=pl.Boolean)
    return found


def _without(column: pl.Series, is_theirs: Callable[[str], bool], instead: Callable[[str], str | None]) -> pl.Series:
    values = [instead(text) if text is not None and is_theirs(text) else text for text in column]
    return pl.Series(column.name, values, dtype=pl.String)
