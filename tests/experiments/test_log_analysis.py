"""Any log of an experiment: what counts in it, what is left out and said, and that the platform's own rule decides."""

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from typer.testing import CliRunner

from llmops_assets.cli import app
from llmops_assets.cli.common import err, guard
from llmops_assets.experiments import log_files
from llmops_assets.experiments.inference import welch
from llmops_assets.experiments.log_analysis import Question, analyse_log, analyse_rows
from llmops_assets.experiments.log_columns import LogError
from llmops_assets.experiments.log_report import as_json, table
from tests.experiments.traffic import CONTROL, TREATMENT, traffic

KEYS = {"arms", "welch", "mann_whitney", "brunner_munzel", "confidence_sequence", "srm", "guardrails", "cuped"}


def log(users: int = 600, shift: float = 0.0, seed: int = 0, values: int = 2, **columns) -> pl.DataFrame:
    """A row for each rating of users who come by turns to A and B."""
    rng = np.random.default_rng(seed)
    user = np.repeat(np.arange(users), values)
    level = np.repeat(rng.normal(3.5, 0.6, users), values) + shift * (user % 2) + rng.normal(0, 0.8, len(user))
    frame = {"user": [f"u{u}" for u in user], "variant": np.where(user % 2, "B", "A"), "rating": np.round(level, 3)}
    return pl.DataFrame(frame | columns)


def asked(frame: pl.DataFrame, **question) -> dict:
    found = analyse_rows(frame, Question(**question), Path("log.csv"))
    assert all(isinstance(cell, str) for row in table(found) for cell in row)
    value = as_json(found)
    assert json.loads(json.dumps(value, allow_nan=False)) == value
    return value


def written(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_log_of_the_platform_is_decided_as_the_platform_decides_it() -> None:
    from tests.experiments.test_decision import look

    exposures, feedback = traffic(500, levels=(3.0, 4.0))
    own = look(exposures, feedback)
    rows = exposures.join(feedback.select("request_id", "rating"), on="request_id", how="left")
    rows = rows.select("request_id", "user", "rating", "at", "status", "latency_ms", pl.col("model_ref").alias("model"))
    found = asked(rows, control=CONTROL)
    sequence = found["confidence_sequence"]
    assert own.rating is not None and found["decision"] == "promote" and found["treatment"] == TREATMENT
    shown = [sequence[k] for k in ("delta", "se", "lower", "upper", "p_always_valid")]
    assert shown == pytest.approx([own.rating.difference, own.rating.se, own.rating.low, own.rating.high, own.rating.p])
    assert found["srm"]["p"] == pytest.approx(own.srm_p)
    for g in own.guardrails:
        assert found["guardrails"][g.name]["upper"] == pytest.approx(g.sequence.high)


def test_every_user_counts_once_and_the_ratio_stands_beside() -> None:
    plain = log(400)
    fan = pl.DataFrame({"user": ["u1"] * 3000, "variant": ["B"] * 3000, "rating": [5.0] * 3000})
    found = asked(pl.concat([plain, fan]))
    assert found["decision"] == "continue"
    assert found["ratio_over_values"]["delta"] > 1
    assert found["ratio_over_values"]["share_of_ten_heaviest_users"] > 0.75
    means = plain.group_by("user", "variant").agg(pl.col("rating").mean())
    arms = [means.filter(pl.col("variant") == v)["rating"].to_numpy() for v in "AB"]
    alone = asked(plain)
    assert alone["welch"]["p"] == pytest.approx(welch(*arms).p)


def test_what_cannot_be_counted_is_said_and_counts_for_nothing(tmp_path: Path) -> None:
    rows = [f"u{n},{'AB'[n % 2]},{3 + n % 3}" for n in range(1000)]
    rows += ["u1000,A,five", "u1001,B,inf", "u1002,A,NaN", "u1003,B,", ",A,3", "u1004,,4", "u1005,A,n/a"]
    found = as_json(analyse_log(written(tmp_path / "l.csv", "\n".join(["user,variant,rating", *rows])), Question()))
    assert {reason: v["rows"] for reason, v in found["not_counted"].items()} == {
        "rows without a user": 1,
        "rows without a variant": 1,
        "values that are no number": 1,
        "values that are infinite": 1,
    }
    assert found["not_counted"]["values that are no number"]["first"] == "line 1002: 'five'"
    # Whoever gave no value was there all the same: the split is that of users.
    assert sum(arm["users"] for arm in found["arms"].values()) == 1005
    assert sum(arm["users_with_value"] for arm in found["arms"].values()) == 1000


def test_too_many_rows_that_say_nothing_make_the_comparison_invalid() -> None:
    frame = log(600, shift=1.0).with_columns(pl.col("rating").cast(pl.String))
    spoilt = frame.with_columns(
        pl.when(pl.int_range(pl.len()) % 20 == 0).then(pl.lit("bad")).otherwise("rating").alias("rating")
    )
    assert asked(frame)["decision"] == "promote"
    found = asked(spoilt)
    assert found["decision"] == "invalid" and "'bad'" in found["reason"]


def test_a_user_in_both_arms_is_left_out_and_reported() -> None:
    frame = log(1000)
    torn = pl.DataFrame({"user": ["u1"], "variant": ["A"], "rating": [1.0]})
    found, plain = asked(pl.concat([frame, torn])), asked(frame.filter(pl.col("user") != "u1"))
    assert found["movers"]["in_both_arms"] == 1
    assert found["confidence_sequence"] == plain["confidence_sequence"]
    many = frame.with_columns(
        pl.when(pl.int_range(pl.len()) % 40 == 3).then(pl.lit("A")).otherwise("variant").alias("variant")
    )
    assert asked(many)["decision"] == "invalid"


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("", "empty"),
        ("user,variant,value\n", "no rows"),
        ("user,variant,value\na,A,1\nb,A,2\n", "one arm only, 'A' with 2 users"),
        ("user,variant,value\na,A,1\n", "one arm only"),
        ("a,b,c\n1,2,3\n", "which column is the user and which the variant"),
        ("user,variant,value\na,A,x\nb,B,z\n", "no value of the column 'value' is a number"),
        ("user,variant,value\na,A,1,2\nb,B,2\n", "line 2: 4 fields, and the header has 3"),
        ("user,variant,value,value\na,A,1,2\n", "more than once"),
    ],
)
def test_a_log_that_cannot_be_compared_says_why(tmp_path: Path, rows: str, reason: str) -> None:
    with pytest.raises(LogError, match=reason):
        analyse_log(written(tmp_path / "l.csv", rows), Question())


@pytest.mark.parametrize(
    "values", [[("A", 1.0), ("B", 2.0)], [("A", 3.0)] * 5 + [("B", 3.0)] * 5, [("A", None)] * 4 + [("B", 2.0)] * 4]
)
def test_one_user_an_arm_constant_values_and_an_arm_without_values_are_answered(values: list) -> None:
    frame = pl.DataFrame(
        {
            "user": [str(n) for n in range(len(values))],
            "variant": [v for v, _ in values],
            "value": [x for _, x in values],
        }
    )
    found = asked(frame)
    assert found["decision"] == "continue" and found["reason"]
    assert found.keys() >= KEYS


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp949", "utf-16"])
def test_korean_logs_are_read_in_the_encodings_of_spreadsheets(tmp_path: Path, encoding: str) -> None:
    rows = "\r\n".join(
        ["사용자,그룹,평점", *(f"회원{n},{'대조군' if n % 2 else '새모델'},{1 + n % 5}" for n in range(40))]
    )
    found = as_json(analyse_log(written(tmp_path / "l.csv", rows.encode(encoding)), Question()))
    assert (found["control"], found["treatment"]) == ("대조군", "새모델")
    assert [arm["users"] for arm in found["arms"].values()] == [20, 20]


def test_the_same_rows_say_the_same_as_csv_json_lines_and_parquet(tmp_path: Path) -> None:
    frame = log(100).with_columns(pl.lit("2026-03-01T10:00:00Z").alias("timestamp"))
    frame.write_csv(tmp_path / "l.csv", separator=";")
    frame.write_ndjson(tmp_path / "l.jsonl")
    frame.write_parquet(tmp_path / "l.parquet")
    csv, lines, parquet = (
        as_json(analyse_log(tmp_path / f"l.{kind}", Question())) for kind in ("csv", "jsonl", "parquet")
    )
    assert csv == lines == parquet
    with pytest.raises(LogError, match="line 2"):
        analyse_log(written(tmp_path / "bad.jsonl", '{"user": "a"}\n{"user": \n'), Question())


def test_rows_that_were_logged_twice_count_once() -> None:
    timed = log(300).with_columns(pl.int_range(pl.len()).alias("timestamp"))
    again = asked(pl.concat([timed, timed.head(50)]))
    assert again["not_counted"]["rows that are there twice"]["rows"] == 50
    assert again["confidence_sequence"] == asked(timed)["confidence_sequence"]
    # Two equal rows without a time may be two equal ratings.
    assert asked(pl.concat([log(300), log(300).head(50)]))["not_counted"] == {}


def test_several_treatments_share_the_level_by_holm() -> None:
    three = pl.concat(
        [
            log(900, shift=0.0),
            log(1800, shift=0.5, seed=1)
            .filter(pl.col("variant") == "B")
            .with_columns(pl.format("c{}", "user").alias("user"), pl.lit("C").alias("variant")),
        ]
    )
    found = asked(three, split=(1, 1, 2))
    assert (found["decision"], found["treatment"]) == ("promote", "C")
    assert set(found["comparisons"]) == {"B", "C"}
    assert found["comparisons"]["B"]["decision"] == "continue"
    for comparison in found["comparisons"].values():
        sequence = comparison["confidence_sequence"]
        assert sequence["p_holm"] >= sequence["p_always_valid"]
        assert sequence["level"] == 0.975
    p = [c["confidence_sequence"]["p_always_valid"] for c in found["comparisons"].values()]
    assert found["confidence_sequence"]["p_holm"] == pytest.approx(min(1.0, 2 * min(p)))


def test_an_intended_split_is_no_mismatch_and_an_unintended_one_is() -> None:
    nine = log(2000).filter((pl.col("variant") == "A") | (pl.col("user").str.ends_with("1")))
    assert asked(nine)["decision"] == "invalid"
    assert asked(nine, split=(5, 1))["srm"]["mismatch"] is False
    assert asked(nine, split={"B": 0.2, "A": 1.0})["srm"]["p"] > 0.05
    with pytest.raises(LogError, match="--split"):
        asked(nine, split=(1, 1, 1))


def test_a_log_without_times_that_is_sorted_by_arm_is_no_mismatch() -> None:
    found = asked(log(3000, values=1).sort("variant"))
    assert found["srm"]["p"] > 0.9 and found["decision"] == "continue"


def test_a_pre_period_narrows_the_sequence() -> None:
    rng = np.random.default_rng(3)
    before = rng.normal(3.5, 1.0, 1200)
    value = before + rng.normal(0, 0.4, 1200) + 0.1 * (np.arange(1200) % 2)
    frame = pl.DataFrame(
        {
            "user": [str(n) for n in range(1200)],
            "variant": np.where(np.arange(1200) % 2, "B", "A"),
            "value": value,
            "pre": before,
        }
    )
    found = asked(frame)
    cuped = found["cuped"]
    assert cuped["se"] < 0.5 * found["confidence_sequence"]["se"]
    assert cuped["theta"] == pytest.approx(float(np.cov(value, before)[0, 1] / before.var(ddof=1)))
    assert cuped["lower"] < 0.1 < cuped["upper"] and cuped["lower"] > 0
    assert cuped["theta_from"] == "users of both arms pooled"


def test_an_effect_too_small_to_matter_ends_the_test() -> None:
    frame = log(6000)
    assert asked(frame)["decision"] == "continue"
    found = asked(frame, minimum_effect=0.2)
    assert found["decision"] == "no_difference" and "no difference that matters" in found["reason"]
    assert asked(frame, minimum_effect=0.01)["decision"] == "continue"


def test_lower_is_better_for_costs() -> None:
    assert asked(log(1000, shift=-0.5), higher_is_better=False)["decision"] == "promote"
    assert asked(log(1000, shift=0.5), higher_is_better=False)["decision"] == "rollback"


def test_the_sequence_over_time_ends_at_the_present_interval() -> None:
    timed = log(400, shift=0.3, values=1).with_columns(
        (1_760_000_000 + 600 * pl.int_range(pl.len())).alias("timestamp")
    )
    found = asked(timed)
    points = found["sequence"]
    assert [p["users"] for p in points] == sorted(p["users"] for p in points)
    assert points[-1]["lower"] == found["confidence_sequence"]["lower"]
    assert points[-1]["at"].startswith("2025-10-12")
    assert asked(log(400))["sequence"] is None


def test_users_who_move_with_the_phase_are_left_out_from_then_on() -> None:
    """A ramp from 90:10 to 50:50 moves users; what they bring along from the control is not the treatment's."""
    rng = np.random.default_rng(5)
    place = rng.random(4000)
    rows = []
    for phase, edge in ((1, 0.9), (2, 0.5)):
        for user in range(4000):
            arm = "B" if place[user] >= edge else "A"
            # Who had met A before rates B two points lower, and B is no different from A.
            moved = phase == 2 and arm == "B" and place[user] < 0.9
            rows.append((f"u{user}", arm, phase, float(rng.normal(3.5 - 2 * moved, 1.0))))
    frame = pl.DataFrame(rows, schema=["user", "variant", "phase", "value"], orient="row")
    found = asked(frame)
    assert found["movers"]["moved_with_phase"] == int(((place >= 0.5) & (place < 0.9)).sum())
    sequence = found["confidence_sequence"]
    assert sequence["lower"] < 0 < sequence["upper"] and found["decision"] == "continue"
    assert [p["came_in"] for p in found["phases"]] == ["1", "1"]


def test_secondary_columns_and_categories_are_reported() -> None:
    frame = log(800, values=1)
    frame = frame.with_columns(
        pl.col("rating").alias("clicks") + (pl.col("variant") == "B"),
        (pl.col("rating") * 0).alias("zero"),
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("toll")).otherwise(pl.lit("card")).alias("category"),
    )
    found = asked(frame, secondary=("clicks", "zero"))
    assert (
        found["secondary"]["clicks"]["p_benjamini_hochberg"] < 1e-6 < found["secondary"]["zero"]["p_benjamini_hochberg"]
    )
    kinds = found["categories"]["by_category"]
    assert set(kinds) == {"toll", "card"}
    assert sum(sum(k["users"]) for k in kinds.values()) == 800
    assert found["categories"]["post_stratified"]["delta"] == pytest.approx(
        found["confidence_sequence"]["delta"], abs=0.02
    )


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("user", [[1], [2]]),
        ("rating", [[1.0], [2.0]]),
        ("rating", ["좋아요", "별로"]),
        ("timestamp", ["yesterday", "today"]),
        ("variant", [str(n) for n in range(40)]),
    ],
)
def test_a_column_that_is_not_what_it_was_taken_for_is_named(column: str, values: list) -> None:
    frame = log(20).with_columns(pl.Series(column, (values * 40)[:40], strict=False))
    with pytest.raises(LogError, match=column):
        asked(frame)


def test_numbers_too_large_to_square_are_said_and_counted_for_nothing() -> None:
    frame = log(400).with_columns(pl.when(pl.int_range(pl.len()) == 7).then(1e300).otherwise("rating").alias("rating"))
    found = asked(frame)
    assert found["not_counted"]["values beyond 1e+100"]["rows"] == 1 and found["decision"] == "continue"


def test_the_command_prints_json_and_its_exit_code_says_what_failed(tmp_path: Path) -> None:
    log(60).write_csv(tmp_path / "l.csv")
    result = CliRunner().invoke(app, ["ab", "analyze", str(tmp_path / "l.csv"), "--metric", "rating", "--json"])
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    assert found.keys() >= KEYS | {"decision", "reason"}
    assert found["confidence_sequence"].keys() >= {"delta", "se", "lower", "upper", "p_always_valid"}
    for arguments, why in (
        (["nowhere.csv"], "there is no file"),
        ([str(tmp_path / "l.csv"), "--control", "C"], "no variant 'C'"),
        ([str(tmp_path / "l.csv"), "--split", "a:b"], "'a' is no number"),
        ([str(tmp_path / "l.csv"), "--alpha", "2"], "alpha must lie between 0 and 1"),
        ([str(tmp_path / "l.csv"), "--margin", "speed=0.1"], "no guardrail 'speed'"),
        ([str(tmp_path)], "is a folder"),
    ):
        with err.capture() as printed:
            code = guard(lambda arguments=arguments: app(["ab", "analyze", *arguments], standalone_mode=False))
        assert code == 1 and why in printed.get()


@pytest.mark.parametrize("seed", range(3))
def test_one_fan_of_a_real_shape_decides_nothing(seed: int) -> None:
    frame = log(800, seed=seed)
    fan = pl.DataFrame({"user": ["u1"] * 1000, "variant": ["B"] * 1000, "rating": [5.0] * 1000})
    assert asked(pl.concat([frame, fan]))["decision"] == "continue"


def test_arms_whose_names_differ_by_case_alone_are_pointed_out() -> None:
    names = ["control", "Control", "treatment"]
    frame = pl.DataFrame(
        {
            "user": [f"u{n}" for n in range(90)],
            "variant": [names[n % 3] for n in range(90)],
            "value": [float(n % 5) for n in range(90)],
        }
    )
    assert any("'Control' and 'control' differ by case alone" in note for note in asked(frame)["notes"])
    assert not any("by case" in note for note in asked(frame.filter(pl.col("variant") != "Control"))["notes"])


@pytest.mark.parametrize("rows", [7, 250, 10_000])
def test_pieces_add_up_to_the_whole(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the rows are cut, and also where the same row comes in two pieces, or a request again."""
    exposures, feedback = traffic(150, levels=(3.2, 3.9), slow=(0.1, 0.1), failed=(0.02, 0.05))
    log_ = exposures.join(feedback.select("request_id", "rating"), on="request_id", how="left").sort("at")
    log_ = log_.select("user", "rating", "at", "status", "latency_ms", pl.col("model_ref").alias("model"))
    log_ = log_.with_columns(
        pl.when(pl.int_range(pl.len()) % 3 == 0).then(pl.lit("toll")).otherwise(pl.lit("card")).alias("category"),
        (pl.col("at") > pl.col("at").median()).cast(pl.String).alias("phase"),
    )
    doubled = pl.concat([log_, log_.head(40)])
    whole = asked(doubled, control=CONTROL, secondary=("latency_ms",))
    assert whole["not_counted"]["rows that are there twice"] == {"rows": 40, "first": "line 2"}
    monkeypatch.setattr(log_files, "ROWS", rows)
    doubled.write_parquet(tmp_path / "log.csv", row_group_size=100)
    doubled.write_csv(tmp_path / "text.csv")
    question = Question(control=CONTROL, secondary=("latency_ms",))
    for name in ("log.csv", "text.csv"):
        found = as_json(analyse_log(tmp_path / name, question))
        assert close(found, whole)


def close(one: object, other: object) -> bool:
    """Whether two answers are the same but for the order in which sums were added up."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(close, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return one == pytest.approx(other, rel=1e-6, abs=1e-9)
    return one == other


def test_a_row_that_is_too_long_is_named_although_its_columns_are_not_asked_for(tmp_path: Path) -> None:
    rows = [f"u{n},{'AB'[n % 2]},{n % 5}" for n in range(600)] + ["u1,A,3,4"]
    with pytest.raises(LogError, match="line 602: 4 fields, and the header has 3"):
        analyse_log(written(tmp_path / "l.csv", "\n".join(["user,variant,rating", *rows])), Question())
