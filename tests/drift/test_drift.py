"""Drift: traffic like the training data and like before raises no alarm, other traffic does."""

import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from llmops_assets.drift import distances, texts
from llmops_assets.drift.compare import BEFORE, TRAINING, Comparison, compare, judged
from llmops_assets.drift.distances import Sample, design_effect, population_stability
from llmops_assets.drift.domain import clustered_auc, separation
from llmops_assets.drift.features import Measures, held_out, of_rows, of_window
from llmops_assets.drift.history import added, last_good
from llmops_assets.drift.report import distributions, over_time, table
from llmops_assets.drift.simulate import Change, training, window
from llmops_assets.drift.window import Window, thinned
from llmops_assets.evaluation.judge import is_refusal
from llmops_assets.plots import png_markdown
from llmops_assets.records.serving import DriftPoint
from llmops_assets.serving.report import questions, ratings, traffic_plot
from llmops_assets.specs.experiment_rules import DriftRules
from llmops_assets.toxicity.scorers import Lexicon

WORDS = ["통행료", "환불", "하이패스", "휴게소", "얼마인가요", "어디", "어떻게", "영업소", "단말기", "분실", "toll"]
RULES = DriftRules()
LEXICON = Lexicon()
START = datetime(2026, 1, 1, tzinfo=UTC)


def sentences(seed: int, count: int, words: list[str] = WORDS) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choice(words) for _ in range(draw.randint(3, 9))) for _ in range(count)]


def measures(rows: Sequence[str], categories: Sequence[str | None] | None = None) -> Measures:
    return Measures.learned(
        rows,
        categories or [None] * len(rows),
        is_toxic=lambda values: (LEXICON.groups(values).list.len() > 0).to_numpy(),
        is_refusal=is_refusal,
        placeholders=["[이름]", "[전화번호]"],
    )


def against_training(traffic: Sequence[str], reference: Sequence[str]) -> list[Comparison]:
    how = measures(reference)
    return judged(compare(of_rows(traffic, how), of_rows(held_out(reference), how), TRAINING, RULES), RULES.alpha)


def weeks(seed: int, change: Change | None = None, users: int = 150) -> list[Comparison]:
    """A week against the one before and against training data."""
    rng = np.random.default_rng(seed)
    rows, categories = training(rng, 600)
    how = measures(rows, categories)
    before, now = (of_window(window(rng, users, one), how) for one in (None, change))
    found = compare(now, of_rows(held_out(rows), how), TRAINING, RULES) + compare(now, before, BEFORE, RULES)
    return judged(found, RULES.alpha)


def drifted(found: Sequence[Comparison]) -> set[str]:
    return {one.feature for one in found if one.drifted}


def with_columns(whole: Window, **columns: pl.Expr) -> Window:
    return Window(whole.since, whole.until, whole.frame.with_columns(**columns))


def test_traffic_like_the_training_data_raises_no_alarm():
    reports = [against_training(sentences(1000 + seed, 50), sentences(seed, 300)) for seed in range(20)]
    # One report in twenty may err; that three do has a chance of 7 %, were there no floors.
    assert sum(bool(drifted(found)) for found in reports) <= 2


def test_stable_weeks_of_users_who_differ_raise_no_alarm():
    assert sum(bool(drifted(weeks(seed))) for seed in range(12)) <= 2


@pytest.mark.parametrize(
    ("traffic", "expected"),
    [
        (sentences(1, 60, ["where", "is", "my", "refund", "please"]), {"hangul share", "new 3-grams", "language"}),
        ([" ".join(sentences(i, 5)) for i in range(60)], {"characters"}),
        (sentences(2, 60, ["주말", "날씨", "맛집", "추천", "영화"]), {"new 3-grams", "embedding"}),
        ([f"[이름] {one}" for one in sentences(3, 60)], {"personal data in question"}),
        ([f"씨발 {one}" for one in sentences(4, 60)], {"toxic question"}),
    ],
)
def test_other_questions_are_noticed(traffic: list[str], expected: set[str]):
    found = against_training(traffic, sentences(0, 300))
    assert expected <= drifted(found)
    assert {row["verdict"] for row in table(found) if row["feature"] in expected} == {"drifted"}
    assert png_markdown(distributions(found), "drift").startswith("![drift](data:image/png;base64,")


@pytest.mark.parametrize(
    ("change", "feature"),
    [
        (Change(words=1.5), "characters"),
        (Change(topic=0.4), "category"),
        (Change(refusals=0.25), "refusal"),
        (Change(latency=1.8), "latency"),
        (Change(rating=-1.5), "rating"),
    ],
)
def test_a_week_that_is_otherwise_is_noticed(change: Change, feature: str):
    assert feature in drifted(weeks(7, change))


def test_one_user_who_asks_all_day_is_no_drift():
    """A thousand questions of one person would otherwise be half of the window."""
    rng = np.random.default_rng(3)
    how = measures(training(rng, 400)[0])
    before, now = window(rng, 150), window(rng, 150).frame
    one = now.head(1).with_columns(query=pl.lit("위치 위치 위치 " * 40), user=pl.lit("loud"))
    loud = pl.concat([one.with_columns(request_id=pl.lit(f"loud-{n}")) for n in range(1000)])
    kept = thinned(pl.concat([now, loud]), RULES.requests_per_user)
    assert kept.filter(pl.col("user") == "loud").height == RULES.requests_per_user
    found = compare(of_window(Window(START, START, kept), how), of_window(before, how), BEFORE, RULES)
    assert drifted(judged(found, RULES.alpha)) == set()


def test_answers_of_another_model_are_not_compared_with_those_before():
    rng = np.random.default_rng(5)
    how = measures(training(rng, 200)[0])
    before, now = window(rng, 60), window(rng, 60, Change(latency=10))
    other = with_columns(now, model_ref=pl.lit("desk@2"))
    assert "latency" in {one.feature for one in compare(of_window(now, how), of_window(before, how), BEFORE, RULES)}
    names = {one.feature for one in compare(of_window(other, how), of_window(before, how), BEFORE, RULES)}
    assert "characters" in names and not names & {"latency", "rating", "refusal", "answer characters"}


@pytest.mark.parametrize("height", [0, 1, RULES.fewest_requests - 1])
def test_a_window_of_little_or_of_nothing_is_compared_with_nothing(height: int):
    rng = np.random.default_rng(6)
    how = measures(training(rng, 200)[0])
    whole = window(rng, 60)
    few = of_window(Window(START, START, whole.frame.head(height)), how)
    assert compare(few, of_window(whole, how), BEFORE, RULES) == []


def test_without_a_rating_an_answer_or_a_text_the_rest_is_compared():
    rng = np.random.default_rng(8)
    how = measures(training(rng, 200)[0])
    whole = window(rng, 80)
    nothing = {"rating": pl.lit(None, dtype=pl.Int64), "query": pl.lit(None, dtype=pl.String)}
    bare = with_columns(whole, **nothing, status=pl.lit(502))
    found = compare(of_window(bare, how), of_window(whole, how), BEFORE, RULES)
    assert {one.feature for one in found} == {"failed request"}
    assert drifted(judged(found, 0.05)) == {"failed request"}


def test_rows_of_a_user_who_always_says_the_same_count_once():
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(50), 8)
    assert design_effect(rng.integers(0, 2, 50).astype(float)[users], users) == pytest.approx(8, rel=0.05)
    assert design_effect(rng.integers(0, 2, 400).astype(float), np.arange(400)) == 1.0
    assert design_effect(np.ones(10), np.zeros(10, dtype=int)) == 1.0
    assert design_effect(np.array([0.0, 1.0, 1.0, 1.0]), np.zeros(4, dtype=int)) == 4.0


def test_distances_of_independent_rows_are_those_of_scipy():
    from scipy.stats import ks_2samp

    rng = np.random.default_rng(1)
    left, right = rng.normal(size=400), rng.normal(0.2, 1, 300)
    ours = distances.ks(Sample.independent(left), Sample.independent(right))
    theirs = ks_2samp(left, right, method="asymp")
    assert (ours.value, ours.p) == (pytest.approx(theirs.statistic), pytest.approx(theirs.pvalue))
    constant = Sample.independent(np.ones(40))
    assert distances.psi(constant, constant).p == distances.categories(constant, constant).p == 1.0
    assert distances.ks(constant, constant).value == distances.shares(constant, constant).value == 0.0


def test_the_area_and_its_variance_are_those_of_delong():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.55, 0.54, 0.53, 0.52, 0.51, 0.5])
    y = np.array([1, 1, 0, 1, 1, 0, 0, 1, 0, 0])
    wins = (scores[y == 1][:, None] > scores[y == 0][None, :]).astype(float)
    delong = wins.mean(axis=1).var(ddof=1) / 5 + wins.mean(axis=0).var(ddof=1) / 5
    area, variance = clustered_auc(scores, y, np.arange(10))
    assert area == pytest.approx(wins.mean())
    # DeLong divides each side by its own count less one, the sum over clusters by that of all.
    assert variance == pytest.approx(delong * (4 / 5) * (10 / 9))
    assert clustered_auc(np.ones(6), np.array([0, 1, 0, 1, 0, 1]), np.arange(6))[0] == 0.5


def test_texts_of_the_same_kind_are_not_told_apart_and_others_are():
    apart = separation(sentences(0, 100), sentences(1, 100, ["날씨", "맛집", "영화"]), range(100), range(100, 200))
    assert apart.auc > 0.95 and apart.low > 0.9 and apart.p < 1e-6
    alike = separation(sentences(0, 100), sentences(2, 100), range(100), range(100, 200))
    assert alike.low < 0.5 < alike.high or alike.auc < 0.5
    assert separation(["a"] * 40, ["a"] * 40, range(40), range(40)).auc == 0.5


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("환불 되나요", "Hangul"),
        ("how much", "Latin"),
        ("combien coûte", "Latin"),
        ("toll 통행료 fee", "Hangul and Latin"),
        ("料金は", "other"),
        ("сколько стоит", "other"),
        ("123 ?!", "none"),
        ("", "none"),
    ],
)
def test_the_script_of_a_text(text: str, expected: str):
    assert texts.LANGUAGES[texts.language(text)] == expected


def point(day: int, drifted: list[str] | None = None, model: str = "m@1") -> DriftPoint:
    since = START + timedelta(days=day)
    return DriftPoint(
        since=since,
        until=since + timedelta(days=7),
        requests=100,
        drifted=drifted or [],
        exceeds={"latency (against the last good window)": day / 7.0},
        levels={"refusal": 0.01 * day},
        model_ref=model,
    )


def test_the_last_good_window_shares_no_request_with_the_one_that_is_judged():
    history = [point(0), point(1), point(4, ["latency"]), point(8)]
    assert last_good(history, START + timedelta(days=12), model="m@1") == history[1]
    assert last_good(history, START + timedelta(days=3), model="m@1") is None
    of_two = [point(0), point(1, model="m@2")]
    assert last_good(of_two, START + timedelta(days=20), model="m@1") == of_two[0]
    assert last_good(of_two, START + timedelta(days=20), model="m@3") == of_two[1]


def test_a_long_history_keeps_its_beginning_and_is_drawn():
    history: list[DriftPoint] = []
    for day in range(450):
        history = added(history, point(day))
    assert len(history) <= 201
    assert (history[0], history[-1]) == (point(0), point(449))
    assert png_markdown(over_time(history), "over time").startswith("![over time]")
    assert over_time(history[:1]) is None


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
    assert texts.hangul_share("환불 123!") == 1.0
    assert texts.hangul_share("ㅋㅋ ok") == 0.5
    assert texts.hangul_share("\u1102\u1166") == 1.0
    assert texts.hangul_share("123") == 0.0


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
