"""What a log tells of how its requests ended: whether each failed, and whether it was slow.

A guardrail that is looked at and cannot fail is worse than none. So a latency in seconds is not held against a limit in
milliseconds, a status that is no HTTP status is refused, and a column that says nothing guards nothing (`log_rows`).
"""

import re

import polars as pl

from llmops_assets.experiments.breaker import CLIENT_LEFT
from llmops_assets.experiments.log_columns import Columns, LogError
from llmops_assets.experiments.log_values import MISSING, Account, numbers
from llmops_assets.experiments.requests import judged as outcome_of

MILLISECONDS = {"ms": 1.0, "s": 1e3, "us": 1e-3, "ns": 1e-6}
"""What one of each unit of time is, in milliseconds."""
_UNITS = {
    "ms": r"ms|msecs?|millis|milli_?seconds?|밀리초",
    "us": r"us|µs|micros|micro_?seconds?|마이크로초",
    "ns": r"ns|nanos|nano_?seconds?|나노초",
    "s": r"s|secs?|seconds?|초",
}
_HARDLY_MS = (60, 600_000)
"""Where almost all latencies lie below or above these, they are hardly milliseconds: a model that answers in less than
60 ms, or in more than ten minutes."""
_ALMOST_ALL = 0.95
_WORDS = {
    **dict.fromkeys(("ok", "success", "succeeded", "successful", "complete", "completed", "done", "finished"), "200"),
    **dict.fromkeys(("성공", "정상", "완료"), "200"),
    **dict.fromkeys(("error", "errored", "fail", "failed", "failure", "timeout", "timed out", "exception"), "500"),
    **dict.fromkeys(("실패", "오류", "에러", "시간초과", "시간 초과"), "500"),
    **dict.fromkeys(("cancelled", "canceled", "aborted", "취소"), str(CLIENT_LEFT)),
}  # fmt: skip
_NO_ERROR = ("false", "0", "0.0", "no", "f", "n", "{}", "[]")
_HTTP = (100, 599)


class Outcomes:
    """Reads how requests ended from the pieces of a log, and refuses columns that are not what they were taken for."""

    def __init__(self, columns: Columns, account: Account, slow_ms: float, latency_unit: str | None) -> None:
        self._columns, self._account, self._slow_ms = columns, account, slow_ms
        self._unit = latency_unit
        if latency_unit is None and (name := columns.get("latency")) is not None:
            self._unit = unit_in(name)
        self._latencies, self._short, self._long = 0, 0, 0
        self._statuses, self._foreign, self._example = 0, 0, 0.0

    def judged(self, frame: pl.DataFrame) -> pl.DataFrame:
        """A piece with `failed`, `slow` and `latency_ms` as far as it tells; null in a row that tells nothing."""
        if "latency" in frame.columns:
            frame = frame.with_columns(self._latency(frame))
        late = pl.col("latency_ms") if "latency" in frame.columns else pl.lit(None, pl.Float64)
        frame = frame.with_columns(late.alias("latency_ms"), (late > self._slow_ms).alias("slow"))
        if "status" in frame.columns:
            # A row that has an error and no status never got as far as a status.
            status, error = self._status(frame), _error(frame)
            status = status.set(status.is_null() & error.is_not_null(), 500)
            failed, slow = outcome_of(self._slow_ms)
            frame = frame.with_columns(status.alias("status"), error.alias("error"))
            return frame.with_columns(
                failed, pl.when(status.is_null()).then(pl.col("slow")).otherwise(slow).alias("slow")
            )
        if "failed" in frame.columns:
            failed = numbers(frame, "failed", self._columns["failed"], self._account)
            return frame.with_columns((failed != 0).alias("failed"))
        if "error" in frame.columns:
            return frame.with_columns(_error(frame).is_not_null().alias("failed"))
        return frame

    def refuse(self) -> None:
        """Raise LogError for latencies in a unit that nobody named, and for a status that is not HTTP's."""
        if self._statuses and self._foreign > (1 - _ALMOST_ALL) * self._statuses:
            raise LogError(
                f"the column {self._columns['status']!r} says {self._example:g}, which is no HTTP status (100 to 599): "
                "no request would ever count as failed. Name a column that is true where a request failed with "
                '--failed COLUMN, or leave this one out with --status ""'
            )
        if self._unit is not None or not self._latencies:
            return
        for count, side, limit in ((self._short, "below", _HARDLY_MS[0]), (self._long, "above", _HARDLY_MS[1])):
            if count >= _ALMOST_ALL * self._latencies:
                raise LogError(
                    f"{count / self._latencies:.0%} of the values of {self._columns['latency']!r} are {side} "
                    f"{limit:,}, so they are hardly milliseconds, and requests count as slow above "
                    f"{self._slow_ms:,.0f} ms: say their unit with --latency-unit ({', '.join(MILLISECONDS)}), or "
                    'leave the column out with --latency ""'
                )

    def _latency(self, frame: pl.DataFrame) -> pl.Series:
        column = frame["latency"]
        if isinstance(column.dtype, pl.Duration):
            return (column.dt.total_microseconds() / 1000).alias("latency_ms")
        found = numbers(frame, "latency", self._columns["latency"], self._account)
        if self._unit is not None:
            return (found * MILLISECONDS[self._unit]).alias("latency_ms")
        self._latencies += len(found) - found.null_count()
        self._short += int((found < _HARDLY_MS[0]).sum())
        self._long += int((found > _HARDLY_MS[1]).sum())
        return found.alias("latency_ms")

    def _status(self, frame: pl.DataFrame) -> pl.Series:
        if frame["status"].dtype == pl.String:
            text = frame["status"].str.strip_chars().str.to_lowercase()
            # As "200 OK" says it.
            code = text.str.extract(r"^([1-5]\d\d)\b", 1)
            frame = frame.with_columns(code.fill_null(text.replace(_WORDS)).alias("status"))
        found = numbers(frame, "status", self._columns["status"], self._account)
        foreign = ~found.is_between(*_HTTP)
        self._statuses += len(found) - found.null_count()
        if foreign.any():
            self._foreign += int(foreign.sum())
            self._example = float(found.filter(foreign.fill_null(False))[0])
        return found.cast(pl.Int64)


def _error(frame: pl.DataFrame) -> pl.Series:
    """What went wrong in each row, null where nothing did."""
    if "error" not in frame.columns:
        return pl.Series("error", [None], dtype=pl.String).new_from_index(0, frame.height)
    text = frame["error"].cast(pl.String).str.strip_chars()
    return text.set(text.str.to_lowercase().is_in((*MISSING, *_NO_ERROR)), None).alias("error")


def unit_in(name: str) -> str | None:
    """The unit of time that a column's name ends with (`latency_ms`, `latencyMs`, `지연(초)`), None for none."""
    plain = re.sub(r"(?<=[a-z])(?=[A-Z][a-z]*$)", "_", name)
    for unit, written in _UNITS.items():
        if re.search(rf"(?:[_\s\-.(\[/]|(?<=[가-힣]))(?:{written})[)\]\s]*$", plain, re.IGNORECASE):
            return unit
    return None
