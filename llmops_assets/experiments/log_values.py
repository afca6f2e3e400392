"""What the values of a log's columns stand for: numbers and times, and an account of those that stand for none."""

from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

import numpy as np
import polars as pl

from llmops_assets.experiments.log_columns import REQUIRED, Columns, LogError
from llmops_assets.experiments.log_files import line_of

MISSING = ("", "na", "n/a", "nan", "null", "none", "-", "nil")
"""How a value that is not there is written, without case."""
LARGEST = 1e100
_TRUTH = {"true": "1", "yes": "1", "y": "1", "t": "1", "false": "0", "no": "0", "n": "0", "f": "0"}
_FORMATS = (
    "%Y-%m-%dT%H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f%#z",
    "%Y-%m-%d %H:%M:%S%.f %#z",
    "%Y-%m-%dT%H:%M:%S%.f",
    "%Y-%m-%d %H:%M:%S%.f",
    "%Y-%m-%dT%H:%M",
    "%Y-%m-%d %H:%M",
    "%Y-%m-%d",
    "%Y/%m/%d %H:%M:%S%.f",
    "%Y/%m/%d %H:%M",
    "%Y/%m/%d",
    "%Y.%m.%d %H:%M:%S%.f",
    "%Y.%m.%d %H:%M",
    "%Y.%m.%d",
    "%Y-%m-%d %p %I:%M:%S",
    "%Y-%m-%d %p %I:%M",
    "%Y. %m. %d. %p %I:%M:%S",
    "%Y년 %m월 %d일 %H:%M:%S",
    "%Y년 %m월 %d일",
    "%a, %d %b %Y %H:%M:%S %z",
)
_ZONES = {r"\s*(UTC|GMT)$": "+00:00", r"\s*KST$": "+09:00", "오전": "AM", "오후": "PM"}
"""Formats of which none can be taken for another: day and month in numbers alone stand nowhere but after the year.
`_ZONES` is how names of zones and of halves of the day are written there."""
_UTC = pl.Datetime("us", "UTC")
_TIME = r"\d:\d|시|^-?\d{9,}(\.\d*)?$"
_MIDNIGHT = r"(?:^|[\sT])0?0:00(?::00(?:\.0*)?)?\s*(?:Z|UTC|[+-]\d\d:?\d\d)?$|오전 12:00(?::00)?$"
_DATE_LIKE = (19_000_101, 21_001_231)
"""Whole numbers that are dates as YYYYMMDD, and would else be a day in the year 1970."""


@dataclass
class Account:
    """Counts what is left out, with the first row of each kind, and which columns hold nothing of their kind."""

    path: Path
    left_out: dict[str, int] = field(default_factory=dict)
    examples: dict[str, str] = field(default_factory=dict)
    zones: set[bool] = field(default_factory=set)
    """Whether texts that are times have a zone; both where some have."""
    _given: dict[str, tuple[int, int]] = field(default_factory=dict)
    _first: dict[str, tuple[int, str]] = field(default_factory=dict)

    def note(self, reason: str, index: pl.Series, text: pl.Series | None = None) -> None:
        """Add rows that a reason leaves out."""
        if not len(index):
            return
        self.left_out[reason] = self.left_out.get(reason, 0) + len(index)
        where = line_of(int(index[0]), self.path)
        self.examples.setdefault(reason, where if text is None else f"{where}: {str(text[0])[:60]!r}")

    def read(self, role: str, given: int, unread: pl.Series, text: pl.Series) -> None:
        """Add how many values of a role there were, and those that could not be read (rows and texts)."""
        before = self._given.get(role, (0, 0))
        self._given[role] = (before[0] + given, before[1] + len(unread))
        if len(unread):
            self._first.setdefault(role, (int(unread[0]), str(text[0])))

    def refuse(self, columns: Columns) -> None:
        """Raise LogError for a column of which no value could be read: it is not what it was taken for."""
        for role, (given, unread) in self._given.items():
            if not unread or unread < given:
                continue
            row, text = self._first[role]
            if role == "timestamp":
                raise LogError(
                    f"no value of the column {columns[role]!r} is a time, such as {text!r}: write ISO 8601, or seconds"
                )
            advice = f"name the column of the {role} with --{role}"
            if role not in REQUIRED:
                advice += f', leave it out with --{role} ""'
            if any(char.isdigit() for char in text):
                advice += ", or write plain numbers such as 1234.5, without units, percent or thousands separators"
            raise LogError(
                f"no value of the column {columns[role]!r} is a number; {line_of(row, self.path)} says {text!r}: "
                f"{advice}"
            )


def is_there(text: pl.Series) -> pl.Series:
    """Whether texts, which nothing surrounds, say anything."""
    longest = max(map(len, MISSING))
    known = text.is_not_null()
    if not (short := known & (text.str.len_bytes() <= longest)).any():
        return known
    # Only short ones are looked at closer: most users have longer names.
    missing = text.filter(short).str.to_lowercase().is_in(MISSING)
    return known & ~_at(short, missing)


def as_name(column: pl.Series) -> pl.Series:
    """A column of names as text; whole numbers that a missing one beside them has made floats are whole again."""
    if column.dtype.is_float() and (column.is_nan() | (column == column.floor()) | column.is_null()).all():
        column = column.fill_nan(None).cast(pl.Int64, strict=False)
    return column.cast(pl.String).str.strip_chars()


def _at(mask: pl.Series, values: pl.Series) -> pl.Series:
    """`values` where `mask` is true, False elsewhere."""
    found = np.zeros(len(mask), dtype=bool)
    found[mask.to_numpy()] = values.to_numpy()
    return pl.Series(found)


def numbers(frame: pl.DataFrame, role: str, name: str, account: Account) -> pl.Series:
    """The column of a role as numbers, null where there is none; what is no number is noted."""
    column = frame[role]
    if column.dtype.is_nested():
        raise LogError(f"the column {name!r} holds lists or objects: the {role} must be a number")
    if column.dtype.is_temporal():
        raise LogError(f"the column {name!r} holds times: the {role} must be a number (--{role} COLUMN)")
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        column = _of_text(frame, role, account)
    found = column.cast(pl.Float64).fill_nan(None)
    infinite = found.is_infinite().fill_null(False)
    account.note(f"{_of(role)} that are infinite", frame["row"].filter(infinite))
    found = found.set(infinite, None)
    # Their squares are no longer numbers.
    beyond = (found.abs() > LARGEST).fill_null(False)
    account.note(f"{_of(role)} beyond {LARGEST:g}", frame["row"].filter(beyond))
    return found.set(beyond, None).alias(role)


def _of_text(frame: pl.DataFrame, role: str, account: Account) -> pl.Series:
    column = frame[role].cast(pl.String)
    plain = column.cast(pl.Float64, strict=False)
    if (plain.is_null() & column.is_not_null()).any():
        text = column.str.strip_chars()
        lower = text.str.to_lowercase()
        plain = lower.replace(_TRUTH).cast(pl.Float64, strict=False)
        missing = lower.is_in(MISSING) | text.is_null()
        unread = plain.is_null() & ~missing
        rows, texts = frame["row"].filter(unread), text.filter(unread)
        account.note(f"{_of(role)} that are no number", rows, texts)
        account.read(role, int((~missing).sum()), rows, texts)
    else:
        account.read(role, len(column) - column.null_count(), frame["row"].clear(), column.clear())
    return plain


def _of(role: str) -> str:
    return {"value": "values", "pre": "values from before"}.get(role, f"values of {role}")


def times(frame: pl.DataFrame, name: str, account: Account) -> pl.Series:
    """The column `timestamp` as times in UTC, null where there is none; a time without a zone is taken for UTC."""
    column = frame["timestamp"]
    if isinstance(column.dtype, pl.Datetime):
        found = column.dt.replace_time_zone("UTC") if column.dtype.time_zone is None else column
        return found.cast(_UTC)
    if column.dtype in (pl.Time, pl.Duration):
        what = "times of day" if column.dtype == pl.Time else "durations"
        raise LogError(
            f"the column {name!r} holds {what}: a timestamp has a date. Name another column with --timestamp, or "
            "rename this one, so that it is not taken for one"
        )
    if column.dtype == pl.Date:
        return column.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
    if column.dtype.is_nested():
        column = column.cast(pl.String, strict=False)
    text = column.cast(pl.String).str.strip_chars()
    given = text.is_not_null() & ~text.str.to_lowercase().is_in(MISSING)
    found = _epochs(column.cast(pl.Float64, strict=False))
    if column.dtype == pl.String and text.str.contains("UTC|GMT|KST|오[전후]").any():
        for written, meant in _ZONES.items():
            text = text.str.replace(written, meant)
    for form in _FORMATS:
        left = given & found.is_null()
        if not left.any():
            break
        # Only what no other format has read: most logs have one.
        unread = pl.select(pl.when(left).then(text)).to_series()
        more = unread.str.to_datetime(form, strict=False, time_zone="UTC", time_unit="us", ambiguous="null")
        account.zones |= {"%#z" in form or "%z" in form} if more.null_count() < len(more) else set()
        found = found.fill_null(more)
    unread = given & found.is_null()
    rows, texts = frame["row"].filter(unread), text.filter(unread)
    account.note("times that cannot be read", rows, texts)
    account.read("timestamp", int(given.sum()), rows, texts)
    return found


def tells_the_time(column: pl.Series) -> pl.Series:
    """Whether values of the column `timestamp` tell more than a day: by a date alone no two rows are told apart."""
    if column.dtype in (pl.Date, pl.Time, pl.Duration) or column.dtype.is_nested():
        return pl.Series([False]).new_from_index(0, len(column))
    if isinstance(column.dtype, pl.Datetime):
        return (column.dt.time() != time()).fill_null(False)
    if column.dtype.is_numeric():
        return (~column.is_between(*_DATE_LIKE)).fill_null(False)
    text = column.cast(pl.String).str.strip_chars()
    return (text.str.contains(_TIME) & ~text.str.contains(_MIDNIGHT)).fill_null(False)


def _epochs(value: pl.Series) -> pl.Series:
    """Seconds, milliseconds, microseconds or nanoseconds since 1970, told by their size; YYYYMMDD is a date."""
    v = pl.col("v")
    size = v.abs()
    per_second = pl.when(size < 1e11).then(1.0).when(size < 1e14).then(1e3).when(size < 1e17).then(1e6).otherwise(1e9)
    is_date = v.is_between(*_DATE_LIKE) & (v == v.floor())
    date = pl.when(is_date).then(v).cast(pl.Int64).cast(pl.String).str.to_datetime("%Y%m%d", strict=False)
    epoch = pl.when(v.is_finite()).then(v / per_second * 1e6).cast(pl.Int64, strict=False).cast(pl.Datetime("us"))
    found = pl.DataFrame({"v": value}).select(at=pl.coalesce(date, epoch))["at"]
    return found.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")
