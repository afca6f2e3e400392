"""Drift: traffic like the training data raises no alarm, other traffic does."""

import random
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from llmops_assets.plots import png_markdown
from llmops_assets.serving.drift import compare, hangul_share, population_stability
from llmops_assets.serving.report import drift_plot, drift_table, questions, ratings, traffic_plot

WORDS = ["통행료", "환불", "하이패스", "휴게소", "얼마인가요", "어디", "어떻게", "영업소", "단말기", "분실", "toll"]


def texts(seed: int, count: int, words: list[str] = WORDS) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(words) for _ in range(draw.randint(3, 9))) for _ in range(count)]


def test_traffic_like_the_training_data_raises_no_alarm():
    alarms = sum(feature.drifted for seed in range(40) for feature in compare(texts(seed, 300), texts(1000 + seed, 50)))
    # 120 comparisons; each of the two distances errs in a few percent of them at most.
    assert alarms <= 6


@pytest.mark.parametrize(
    ("traffic", "drifted"),
    [
        (texts(1, 60, ["where", "is", "my", "refund", "please"]), {"hangul share", "new 3-grams"}),
        ([" ".join(texts(i, 5)) for i in range(60)], {"characters"}),
        (texts(2, 60, ["주말", "날씨", "맛집", "추천", "영화"]), {"new 3-grams"}),
    ],
)
def test_other_traffic_is_seen(traffic: list[str], drifted: set[str]):
    features = compare(texts(0, 300), traffic)
    assert drifted <= {f.name for f in features if f.drifted}
    assert {row["verdict"] for row in drift_table(features) if row["feature"] in drifted} == {"drifted"}
    assert png_markdown(drift_plot(features), "drift").startswith("![drift](data:image/png;base64,")


def test_stability_is_zero_against_itself_and_its_threshold_grows_with_few_rows():
    values = np.random.default_rng(0).normal(size=2000)
    assert population_stability(values, values)[0] == pytest.approx(0, abs=1e-12)
    assert population_stability(values, values)[1] == 0.1
    # χ² of 9 degrees of freedom at .95 is 16.92.
    assert population_stability(values, values[:50])[1] == pytest.approx(16.919 * (1 / 2000 + 1 / 50), rel=1e-4)
    # A constant has no deciles.
    assert population_stability(np.ones(10), np.ones(10)) == (0.0, 0.1)
    assert population_stability(np.ones(100), np.zeros(100))[0] > 1


def test_hangul_is_counted_among_letters_in_every_form():
    assert hangul_share("환불 123!") == 1.0
    assert hangul_share("ㅋㅋ ok") == 0.5
    assert hangul_share("\u1102\u1166") == 1.0
    assert hangul_share("123") == 0.0


def test_too_little_cannot_be_compared():
    with pytest.raises(ValueError, match="too few"):
        compare(["a"] * 10, ["b"])


def test_the_questions_of_each_kind_of_training_data_are_found():
    def turn(role: str, content: str) -> dict[str, str]:
        return {"role": role, "content": content}

    chats = pl.DataFrame(
        {"messages": [[turn("system", "s"), turn("user", "a"), turn("assistant", "b"), turn("user", "c")]]}
    )
    assert questions(chats, "sft_pair") == ["c"]
    assert questions(pl.DataFrame({"prompt": [[turn("user", "p")]]}), "rlhf_pair") == ["p"]
    assert questions(pl.DataFrame({"text": ["t"]}), "pretrain_corpus") == ["t"]
    assert questions(pl.DataFrame({"question": ["q"]}), "rag_qa") == ["q"]
    assert len(questions(pl.DataFrame({"text": ["t"] * 50_000}), "pretrain_corpus")) <= 20_000


def test_the_last_rating_of_a_request_counts():
    assert ratings(pl.DataFrame({"request_id": ["a", "b", "a"], "rating": [1, 4, 5]})) == (2, 4.5)
    assert ratings(pl.DataFrame(schema={"request_id": pl.String, "rating": pl.Int64})) == (0, None)


def test_traffic_is_drawn_with_its_failures():
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    exposures = pl.DataFrame(
        {
            "at": [begin + timedelta(minutes=i) for i in range(5)],
            "status": [200, 200, 502, 200, 429],
            "latency_ms": [10.0, 20.0, 5.0, 30.0, 1.0],
        }
    )
    assert png_markdown(traffic_plot(exposures), "traffic").startswith("![traffic]")
    assert png_markdown(traffic_plot(exposures.filter(pl.col("status") > 500)), "traffic")
