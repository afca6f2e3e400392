"""From the columns of a log to sums by user: what each row says, what it cannot say, and what was left out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import polars as pl

from llmops_assets.experiments.log_columns import Columns, LogError
from llmops_assets.experiments.log_files import line_of
from llmops_assets.experiments.requests import judged
from llmops_assets.experiments.user_sums import UserSums

MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "nil")
"""How a value that is not there is written, without case."""
_TRUTH = {"true": "1", "yes": "1", "y": "1", "false": "0", "no": "0", "n": "0"}
_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%d %H:%M",
    "%Y/%m/%d %H:%M:%S",
    "%Y-%m-%d",
)
MOST_VARIANTS = 20
LARGEST = 1e100


@dataclass(frozen=True)
class Rows:
    """A log as it was understood.

    frame: user, variant, phase, value, and at, pre, failed, slow, latency_ms where it has them; phases: the names of
    the phases, in order; left_out: how many rows did not count, by reason, and `examples` of them.
    """

    frame: pl.DataFrame
    phases: tuple[str, ...]
    has: frozenset[str]
    left_out: Mapping[str, int]
    examples: Mapping[str, str]
    notes: tuple[str, ...] = ()


@dataclass
class _Account:
    """Counts what is left out, with the first row of each kind."""

    path: Path
    left_out: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)

    def note(self, reason: str, index: pl.Series, text: pl.Series | None = None) -> None:
        if not len(index):
            return
        self.left_out[reason] = len(index)
        where = line_of(int(index[0]), self.path)
        self.examples[reason] = where if text is None else f"{where}: {str(text[0])[:60]!r}"


def rows_of(log: pl.DataFrame, columns: Columns, path: Path, slow_ms: float) -> Rows:
    """Understand the rows of a log.

    A row without a user or a variant counts for nothing. One whose value is missing is a user who was there and gave
    none; one whose value is text or infinite is so too, and reported. Raises LogError where a column is not what it
    was taken for.
    """
    account, notes = _Account(path), []
    names = {name: role for role, name in columns.names.items()}
    frame = log.select(columns.names.values()).rename(names).with_row_index("row")
    for role in ("user", "variant"):
        if frame[role].dtype.is_nested():
            raise LogError(f"the column {columns[role]!r} holds lists or objects: the {role} must be one value a row")
    frame = frame.with_columns(pl.col("user", "variant").cast(pl.String).str.strip_chars())
    for role in ("user", "variant"):
        empty = pl.col(role).is_null() | pl.col(role).str.to_lowercase().is_in(MISSING)
        account.note(f"rows without a {role}", frame.filter(empty)["row"])
        frame = frame.filter(~empty)
    if not frame.height:
        raise LogError(f"no row of {path} has both a user ({columns['user']!r}) and a variant ({columns['variant']!r})")
    frame = _without_repeats(frame, account)
    frame = frame.with_columns(_numbers(frame, "value", columns["value"], account))
    if "pre" in frame.columns:
        frame = frame.with_columns(_numbers(frame, "pre", columns["pre"], account))
    if "timestamp" in frame.columns:
        frame = frame.with_columns(_times(frame, columns, account).alias("at")).sort(
            "at", nulls_last=True, maintain_order=True
        )
    frame, phases = _with_phase(frame)
    frame, has = _with_requests(frame, columns, account, slow_ms)
    has |= {role for role in ("pre", "category") if role in frame.columns} | (
        {"at"} if "at" in frame.columns else set()
    )
    return Rows(frame, phases, frozenset(has), account.left_out, account.examples, tuple(notes))


def sums_of(rows: Rows, variants: Sequence[str], value: str = "value") -> UserSums:
    """The rows of some variants as sums by user; `variants` in the order of their arms, the control first."""
    arm = pl.DataFrame(
        {"variant": list(variants), "arm": range(len(variants))}, schema={"variant": pl.String, "arm": pl.Int64}
    )
    frame = rows.frame.join(arm, on="variant", how="inner", maintain_order="left")
    aggregates = [
        pl.len().alias("requests"),
        pl.col(value).count().alias("ratings"),
        pl.col(value).sum().alias("total"),
        (pl.col(value) ** 2).sum().alias("squares"),
    ]
    if "at" in frame.columns:
        aggregates += [pl.col("at").min().alias("first_at"), pl.col("at").max().alias("last_at")]
    if "pre" in frame.columns:
        aggregates += [pl.col("pre").count().alias("pre_values"), pl.col("pre").sum().alias("pre_total")]
    if "failed" in rows.has:
        aggregates += [pl.col("failed").count().alias("counted"), pl.col("failed").sum().alias("failed")]
    if "slow" in rows.has:
        answered = pl.col("slow").is_not_null()
        aggregates += [
            answered.sum().alias("timed"),
            pl.col("slow").sum().alias("slow"),
            pl.col("latency_ms").filter(answered).sum().alias("latency_ms"),
        ]
    return UserSums.of(frame.group_by("user", "phase", "arm", maintain_order=True).agg(aggregates))


def _without_repeats(frame: pl.DataFrame, account: _Account) -> pl.DataFrame:
    """Without rows that were logged twice: the same request, or the same row at the same time."""
    if "request" in frame.columns:
        key, reason = ["request"], "rows of a request that is there later too"
        known = pl.col("request").is_not_null()
    elif "timestamp" in frame.columns:
        key, reason = [c for c in frame.columns if c != "row"], "rows that are there twice"
        known = pl.col("timestamp").is_not_null()
    else:
        # Two equal rows without a time may be two equal ratings.
        return frame
    repeated = frame.filter(known & pl.struct(key).is_duplicated() & ~pl.struct(key).is_last_distinct())
    if not repeated.height:
        return frame
    account.note(reason, repeated["row"])
    return frame.join(repeated.select("row"), on="row", how="anti", maintain_order="left")


def _numbers(frame: pl.DataFrame, role: str, name: str, account: _Account) -> pl.Series:
    column = frame[role]
    if column.dtype.is_nested():
        raise LogError(f"the column {name!r} holds lists or objects: the {role} must be a number")
    if column.dtype.is_temporal():
        raise LogError(f"the column {name!r} holds times: the {role} must be a number (--{role} COLUMN)")
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        text = column.cast(pl.String).str.strip_chars()
        lower = text.str.to_lowercase()
        missing = lower.is_in(MISSING) | text.is_null()
        numbers = lower.replace(_TRUTH).cast(pl.Float64, strict=False)
        unusable = numbers.is_null() & ~missing
        if unusable.sum() and unusable.sum() == (~missing).sum():
            raise LogError(
                f"no value of the column {name!r} is a number; {line_of(int(frame['row'][0]), account.path)} says "
                f"{column[0]!r}: name the column of the {role} with --{role}"
            )
        account.note(f"{_of(role)} that are no number", frame["row"].filter(unusable), text.filter(unusable))
        column = numbers
    numbers = column.cast(pl.Float64).fill_nan(None)
    infinite = numbers.is_infinite().fill_null(False)
    account.note(f"{_of(role)} that are infinite", frame["row"].filter(infinite))
    numbers = numbers.set(infinite, None)
    # Their squares are no longer numbers.
    beyond = (numbers.abs() > LARGEST).fill_null(False)
    account.note(f"{_of(role)} beyond {LARGEST:g}", frame["row"].filter(beyond))
    return numbers.set(beyond, None).alias(role)


def _of(role: str) -> str:
    return {"value": "values", "pre": "values from before"}.get(role, f"values of {role}")


def _times(frame: pl.DataFrame, columns: Columns, account: _Account) -> pl.Series:
    column, name = frame["timestamp"], columns["timestamp"]
    utc = pl.Datetime("us", "UTC")
    if isinstance(column.dtype, pl.Datetime):
        times = column.dt.replace_time_zone("UTC") if column.dtype.time_zone is None else column
        return times.cast(utc)
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    numbers = column.cast(pl.Float64, strict=False)
    if numbers.null_count() == column.null_count():
        return _epochs(numbers).cast(utc)
    text = column.cast(pl.String).str.strip_chars()
    try:
        times = text.str.to_datetime(strict=False, time_zone="UTC", time_unit="us")
    except pl.exceptions.PolarsError:
        times = pl.Series("at", [None] * len(text), utc)
    for form in _FORMATS:
        if times.null_count() == text.null_count():
            break
        more = text.str.to_datetime(form, strict=False, time_zone="UTC", time_unit="us", ambiguous="null")
        times = times.fill_null(more)
    unread = times.is_null() & text.is_not_null() & ~text.str.to_lowercase().is_in(MISSING)
    if unread.sum() == len(text):
        raise LogError(f"no value of the column {name!r} is a time, such as {text[0]!r}: write ISO 8601, or seconds")
    account.note("times that cannot be read", frame["row"].filter(unread), text.filter(unread))
    return times.cast(utc)


def _epochs(numbers: pl.Series) -> pl.Series:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told by their size."""
    largest = numbers.abs().max()
    size = largest if isinstance(largest, int | float) else 0.0
    per_second = next((unit for unit, most in ((1, 1e11), (1e3, 1e14), (1e6, 1e17)) if size < most), 1e9)
    return (numbers / per_second * 1e6).cast(pl.Int64).cast(pl.Datetime("us", "UTC"))


def _with_phase(frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """With the phase as a number, in the order in which phases came (in time, else as numbers, else in the log)."""
    if "phase" not in frame.columns:
        return frame.with_columns(pl.lit(1, pl.Int64).alias("phase")), ("1",)
    frame = frame.with_columns(pl.col("phase").cast(pl.String).fill_null("none"))
    names = frame["phase"].unique(maintain_order=True).to_list()
    if "at" not in frame.columns and all(name.lstrip("-").isdigit() for name in names):
        names.sort(key=int)
    numbers = pl.DataFrame(
        {"phase": names, "number": range(1, len(names) + 1)}, schema={"phase": pl.String, "number": pl.Int64}
    )
    joined = frame.join(numbers, on="phase", how="left", maintain_order="left").drop("phase")
    return joined.rename({"number": "phase"}), tuple(names)


def _with_requests(
    frame: pl.DataFrame, columns: Columns, account: _Account, slow_ms: float
) -> tuple[pl.DataFrame, set[str]]:
    """With failed and slow of each request, as far as the log tells."""
    has: set[str] = set()
    if "latency" in frame.columns:
        frame = frame.with_columns(_numbers(frame, "latency", columns["latency"], account).alias("latency_ms"))
        has.add("slow")
    if "status" in frame.columns:
        status = _numbers(frame, "status", columns["status"], account).fill_null(200.0).cast(pl.Int64)
        error = pl.col("error").cast(pl.String) if "error" in frame.columns else pl.lit(None, pl.String)
        error = pl.when(error.str.to_lowercase().is_in(MISSING)).then(None).otherwise(error)
        latency = pl.col("latency_ms") if "slow" in has else pl.lit(None, pl.Float64)
        frame = frame.with_columns(status, error.alias("error"), latency.alias("latency_ms"))
        frame = frame.with_columns(judged(slow_ms))
        has.add("failed")
    elif "failed" in frame.columns:
        failed = _numbers(frame, "failed", columns["failed"], account)
        frame = frame.with_columns((failed != 0).alias("failed"))
        has.add("failed")
    if "slow" in has and "status" not in frame.columns:
        frame = frame.with_columns((pl.col("latency_ms") > slow_ms).alias("slow"))
    return frame, has


def first_time(rows: Rows) -> datetime | None:
    """When the first row of a log was, None where it has no times."""
    if "at" not in rows.has:
        return None
    first = rows.frame["at"].min()
    return first if isinstance(first, datetime) else None
