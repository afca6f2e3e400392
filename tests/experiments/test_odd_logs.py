"""Logs as people have them: each gets a decision with its reason, a note, or what is wrong and what to do."""

import gzip
from collections.abc import Callable
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from llmops_assets.experiments import log_files
from llmops_assets.experiments.log_analysis import Question, analyse_log
from llmops_assets.experiments.log_columns import LogError
from llmops_assets.experiments.log_files import read_log
from llmops_assets.experiments.log_report import as_json

USERS = 800
BEGIN, KST = datetime(2026, 1, 5, tzinfo=UTC), timezone(timedelta(hours=9))


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., dict]:
    """What is found in rows that are written as CSV, or in bytes."""

    def analysed(rows: pl.DataFrame | bytes, name: str = "log.csv", **question) -> dict:
        path = tmp_path / name
        if isinstance(rows, bytes):
            path.write_bytes(rows)
        elif name.endswith(".parquet"):
            rows.write_parquet(path)
        else:
            rows.write_csv(path)
        return as_json(analyse_log(path, Question(**question)))

    return analysed


def log(shift: float = 0.5, users: int = USERS, **columns) -> pl.DataFrame:
    """A value of each user, who come by turns."""
    rng, number = np.random.default_rng(0), np.arange(users)
    value = np.round(rng.normal(3.5, 0.8, users) + shift * (number % 2), 2)
    names = {"user": [f"u{n}" for n in number], "variant": np.where(number % 2, "treatment", "control")}
    return pl.DataFrame({**names, "value": value, **columns})


def at(number: int) -> datetime:
    return BEGIN + timedelta(minutes=7 * number)


FORMATS: dict[str, Callable[[datetime], str]] = {
    "with the zone's name": lambda t: f"{t.astimezone(KST):%Y-%m-%d %H:%M:%S} KST",
    "UTC": lambda t: f"{t:%Y-%m-%d %H:%M:%S} UTC",
    "an offset": lambda t: t.astimezone(KST).isoformat(),
    "an offset after a space": lambda t: f"{t.astimezone(KST):%Y-%m-%d %H:%M:%S} +0900",
    "milliseconds": lambda t: str(int(t.timestamp() * 1000)),
    "with slashes": lambda t: f"{t:%Y/%m/%d %H:%M}",
    "with dots": lambda t: f"{t:%Y.%m.%d %H:%M:%S}",
    "of a spreadsheet": lambda t: f"{t:%Y-%m-%d} {'오전' if t.hour < 12 else '오후'} {t:%I:%M:%S}",
    "of a mail": lambda t: f"{t:%a, %d %b %Y %H:%M:%S} GMT",
}


@pytest.mark.parametrize("form", FORMATS)
def test_times_are_read_in_the_formats_that_logs_have(found: Callable[..., dict], form: str) -> None:
    answer = found(log(timestamp=[FORMATS[form](at(n)) for n in range(USERS)]))
    assert answer["sequence"][-1]["at"] == f"{at(USERS - 1):%Y-%m-%dT%H:%M:%S}.000000Z"
    assert (answer["not_counted"], answer["notes"]) == ({}, [])


def test_a_day_without_separators_is_no_second_of_1970(found: Callable[..., dict]) -> None:
    answer = found(log(date=[int(f"{at(n):%Y%m%d}") for n in range(USERS)]))
    assert answer["sequence"][-1]["at"].startswith("2026-01-08") and answer["notes"] == []


def test_times_that_are_hardly_those_of_a_test_are_noted(found: Callable[..., dict]) -> None:
    zones = [FORMATS["an offset" if n % 2 else "with slashes"](at(n)) for n in range(USERS)]
    assert "some times have a zone" in found(log(timestamp=zones))["notes"][0]
    late = [(at(n) + timedelta(days=36500)).isoformat() for n in range(USERS)]
    assert "in the future (2125-12-15" in found(log(timestamp=late))["notes"][0]
    assert "long ago (1970-01-01" in found(log(timestamp=list(range(USERS))))["notes"][0]


def test_users_in_both_arms_are_the_reason_and_not_the_split_that_they_leave(found: Callable[..., dict]) -> None:
    both = pl.concat([log(), log().with_columns(pl.lit("control").alias("variant"))])
    answer = found(both)
    assert answer["decision"] == "invalid" and "were assigned both models" in answer["reason"]


def test_where_nothing_varies_nothing_is_told(found: Callable[..., dict]) -> None:
    for rows in (log().with_columns(pl.lit(3).alias("value")), log().with_columns(pl.lit("1e2").alias("value"))):
        answer = found(rows)
        assert answer["decision"] == "continue" and "gave the same" in answer["reason"]


@pytest.mark.parametrize("scale", [1e-13, 1e-6, 1e9, 1e30])
def test_what_is_counted_in_small_or_large_units_is_decided_alike(found: Callable[..., dict], scale: float) -> None:
    plain, scaled = found(log()), found(log().with_columns(pl.col("value") * scale), "log.parquet")
    assert plain["decision"] == scaled["decision"] == "promote"
    assert scaled["confidence_sequence"]["lower"] == pytest.approx(scale * plain["confidence_sequence"]["lower"])


def test_a_name_that_is_no_arm_is_named(found: Callable[..., dict]) -> None:
    total = pl.DataFrame({"user": ["합계"], "variant": ["Total"], "value": [2800.0]})
    answer = found(pl.concat([log(), total]))
    assert answer["decision"] == "invalid" and "400 on control, 1 on Total, 400 on treatment" in answer["reason"]


@pytest.mark.parametrize("missing", ["NA", "", "-", "null"])
def test_requests_without_a_name_are_not_one_request(found: Callable[..., dict], missing: str) -> None:
    rows = log().with_columns(pl.lit(missing).alias("request_id"))
    for name in ("log.csv", "log.parquet"):
        assert found(rows, name)["arms"]["control"]["users"] == USERS / 2


def test_whole_numbers_that_became_floats_are_the_names_that_they_were(found: Callable[..., dict]) -> None:
    """As pandas writes a column of numbers in which one is missing."""
    number = pl.int_range(pl.len())
    rows = log().with_columns(number.cast(pl.Float64).alias("user"), (number % 2).cast(pl.Float64).alias("variant"))
    answer = found(rows, "log.parquet", control="0")
    assert (answer["control"], answer["treatment"]) == ("0", "1")


def test_values_from_before_that_differ_by_arm_are_noted(found: Callable[..., dict]) -> None:
    rows = log()
    honest = np.random.default_rng(1).normal(3.5, 0.8, USERS)
    assert found(rows.with_columns(pl.Series("pre", honest)))["notes"] == []
    (note,) = found(rows.with_columns((pl.col("value") - 0.2).alias("pre")))["notes"]
    assert "differ between the arms" in note


@pytest.mark.parametrize("value", ["1,000", "1000원", "12%", "１２"])
def test_numbers_with_more_than_their_digits_are_told_how_to_be_written(found: Callable[..., dict], value: str) -> None:
    with pytest.raises(LogError, match=f"line 2 says '{value}'.*write plain numbers"):
        found(log().with_columns(pl.lit(value).alias("value")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"PK\x03\x04" + bytes(range(256)), "a workbook or an archive: save its sheet as CSV"),
        (gzip.compress(b"user,variant,value\na,A,1\n", mtime=0), "compressed: unpack it first"),
        (b'user,variant,value\na,A,1\n"b,B,2\nc,A,3\n', "line 3: a quotation mark"),
        (b'user,variant,value\na,A,1\n"b,B,2\nc,A,3\n"d,B,2\ne,A,1\nf,B,2\n', "quotation mark"),
        (b"user,variant,value\ra,A,1\rb,A,2\r", "one arm only"),
    ],
)
def test_what_is_no_log_is_told_what_it_is(found: Callable[..., dict], data: bytes, reason: str) -> None:
    with pytest.raises(LogError, match=reason):
        found(data)


def test_a_path_with_brackets_is_a_path(found: Callable[..., dict]) -> None:
    for name in ("log [1].csv", "log [1].parquet"):
        assert found(log(), name)["decision"] == "promote"


DAYS: dict[str, Callable[[datetime], object]] = {
    "a date": lambda t: t.date(),
    "a date as text": lambda t: f"{t:%Y-%m-%d}",
    "a date in Korean": lambda t: f"{t:%Y년 %m월 %d일}",
    "a date as a number": lambda t: int(f"{t:%Y%m%d}"),
    "midnight": lambda t: t.replace(hour=0, minute=0),
    "midnight as text": lambda t: f"{t:%Y-%m-%d} 00:00:00",
    "midnight with a zone": lambda t: f"{t:%Y-%m-%d}T00:00:00+09:00",
}


@pytest.mark.parametrize("name", ["log.csv", "log.parquet"])
@pytest.mark.parametrize("form", DAYS)
def test_two_equal_ratings_on_one_day_are_two(found: Callable[..., dict], form: str, name: str) -> None:
    rows = log(at=[DAYS[form](at(n)) for n in range(USERS)]).with_columns(value=pl.lit(4.0))
    told = found(pl.concat([rows, rows]), name)
    assert told["not_counted"] == {}
    assert sum(arm["values"] for arm in told["arms"].values()) == 2 * USERS


def test_a_row_that_is_there_twice_by_the_minute_counts_once(found: Callable[..., dict]) -> None:
    # One of them is at midnight.
    rows = log(at=[f"{at(n):%Y-%m-%d %H:%M}" for n in range(USERS)])
    told = found(pl.concat([rows, rows]))
    assert told["not_counted"]["rows that are there twice"]["rows"] == USERS - 1 - (7 * (USERS - 1) // 1440) // 7


@pytest.mark.parametrize(
    ("column", "what"),
    [
        (pl.Series([time(10, 30)]).new_from_index(0, USERS), "times of day"),
        (pl.Series([timedelta(seconds=3)]).new_from_index(0, USERS), "durations"),
    ],
)
def test_what_tells_no_date_is_no_timestamp(found: Callable[..., dict], column: pl.Series, what: str) -> None:
    with pytest.raises(LogError, match=f"the column 'at' holds {what}"):
        found(log(at=column), "log.parquet")


def test_users_in_two_treatments_are_found_though_those_are_never_compared(found: Callable[..., dict]) -> None:
    """Each treatment alone has sticky users, all of whom had the other one too."""
    rows = log(users=3000).with_columns(variant=pl.Series(["control", "b", "c"] * 1000))
    again = rows.filter(pl.col("variant") == "b").with_columns(variant=pl.lit("c"))
    told = found(pl.concat([rows, again]))
    assert told["decision"] == "invalid"
    assert "assignment is not sticky" in told["reason"] and "1000 users" in told["reason"]
    few = found(pl.concat([rows, again.head(5)]))
    assert few["decision"] != "invalid"
    assert [few["arms"][name]["users"] for name in ("control", "b", "c")] == [1000, 995, 995 + 5]


@pytest.mark.parametrize("group", [2, 10, 25])
def test_row_groups_of_any_size_are_read_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, group: int) -> None:
    """What pandas writes has a million rows in a group: decoded whole it took more memory than all else together."""
    monkeypatch.setattr(log_files, "_PARQUET_ROWS", 3)
    log = pl.DataFrame({"user": [f"u{n}" for n in range(25)], "variant": ["a", "b"] * 12 + ["a"], "rating": range(25)})
    log.write_parquet(tmp_path / "log.parquet", row_group_size=group)
    pieces = list(read_log(tmp_path / "log.parquet").pieces(["rating", "user"]))
    assert max(piece.height for piece in pieces) == 3
    assert pl.concat(pieces).equals(log.select("rating", "user"))


def half_late(users: int = USERS) -> np.ndarray:
    """Latencies of which the treatment's are slow in one request of five, in milliseconds."""
    number = np.arange(users)
    return np.where((number % 2 == 1) & (number % 5 == 0), 4000, 900.0)


@pytest.mark.parametrize("name", ["latency_s", "response_time (s)", "durationSeconds", "응답시간(초)", "응답시간 초"])
def test_seconds_are_not_held_against_a_limit_in_milliseconds(found: Callable[..., dict], name: str) -> None:
    """2.3 s is slow, and 2.3 is far below 2,000: a guardrail that cannot fail promotes whatever is slow."""
    rows = log().with_columns(pl.Series(name, half_late() / 1000))
    assert found(rows, columns={"latency": name})["guardrails"]["slow_requests"]["treatment"] == pytest.approx(0.2)


@pytest.mark.parametrize("factor", [1e-3, 1e3, 1e6])
def test_a_latency_in_an_unknown_unit_is_asked_for(found: Callable[..., dict], factor: float) -> None:
    rows = log(latency=half_late() * factor)
    with pytest.raises(LogError, match=r"hardly milliseconds.*--latency-unit"):
        found(rows)
    unit = {1e-3: "s", 1e3: "us", 1e6: "ns"}[factor]
    assert found(rows, latency_unit=unit)["guardrails"]["slow_requests"]["treatment"] == pytest.approx(0.2)
    assert "slow_requests" not in found(rows, columns={"latency": ""})["guardrails"]


def test_a_duration_has_its_unit(found: Callable[..., dict]) -> None:
    took = pl.Series("latency", half_late() * 1000).cast(pl.Int64).cast(pl.Duration("us"))
    rows = log().with_columns(took)
    assert found(rows, "log.parquet")["guardrails"]["slow_requests"]["treatment"] == pytest.approx(0.2)


def failing(words: tuple[object, object]) -> list:
    """What is written of the treatment's requests where one in ten of its users fails, and of the others."""
    return [words[0] if n % 2 and n % 10 == 1 else words[1] for n in range(USERS)]


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("status", ("timeout", "OK")),
        ("status", ("실패", "성공")),
        ("status", ("503 Service Unavailable", "200 OK")),
        ("failed", (True, False)),
        ("error", ("CUDA out of memory", None)),
        ("is_error", ("yes", "no")),
        ("error", (True, False)),
    ],
)
def test_failures_are_found_however_they_are_written(found: Callable[..., dict], column: str, words: tuple) -> None:
    answer = found(log().with_columns(pl.Series(column, failing(words))), "log.parquet")
    assert answer["guardrails"]["failed_requests"]["treatment"] == pytest.approx(0.2)


def test_a_status_that_is_not_of_http_guards_nothing_and_is_refused(found: Callable[..., dict]) -> None:
    rows = log(status=failing((1, 0)))
    with pytest.raises(LogError, match=r"says [01], which is no HTTP status.*--failed"):
        found(rows)
    assert found(rows, columns={"failed": "status"})["guardrails"]["failed_requests"]["treatment"] == pytest.approx(0.2)


def test_a_column_that_says_nothing_guards_nothing(found: Callable[..., dict]) -> None:
    empty = pl.Series([None] * USERS, dtype=pl.Int64)
    rows = log().with_columns(empty.alias("status"), pl.Series("latency_ms", half_late()))
    answer = found(rows, "log.parquet")
    assert answer["guardrails"].keys() == {"slow_requests"}
    assert answer["notes"] == ["'status' says nothing in any row: which requests failed is not compared"]
    with pytest.raises(LogError, match=r"does not tell of failed_requests, for which a margin was given"):
        found(rows, "log.parquet", needed=["failed_requests"])


def test_an_arm_whose_failures_were_not_logged_is_not_one_without_failures(found: Callable[..., dict]) -> None:
    status = [200 if n % 2 == 0 else None for n in range(USERS)]
    answer = found(log().with_columns(pl.Series("status", status)), "log.parquet")
    assert answer["decision"] == "continue" and "says nothing of treatment" in answer["notes"][0]
