"""Rows worth learning from score high, the others low, and the report changes nothing and shows nobody's data."""

import polars as pl
import psutil
import pytest

from llmops_assets.datasets import clean, schema, texts
from llmops_assets.datasets.quality import page, report, score
from llmops_assets.datasets.similarity import duplicates
from llmops_assets.privacy import pii
from llmops_assets.privacy.names import find_names
from llmops_assets.toxicity import scorers

ASKED = "하이패스 미납 통행료는 어떻게 납부하나요?"
GOOD = "미납 통행료는 누리집이나 가까운 영업소에서 카드로 납부하실 수 있습니다."


def table(*rows: tuple[str, str], categories: list[str | None] | None = None) -> pl.DataFrame:
    values = {
        "row_id": [f"r{i}" for i in range(len(rows))],
        "messages": [
            [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}] for asked, answered in rows
        ],
        "tools": [None] * len(rows),
        "source": [None] * len(rows),
        "category": categories or [None] * len(rows),
        "quality_score": [None] * len(rows),
        "extra": ["{}"] * len(rows),
        "file": ["f.jsonl"] * len(rows),
        "line": list(range(1, len(rows) + 1)),
    }
    return pl.DataFrame(values, schema=schema.columns_of("sft_pair"))


def cleaned(rows: pl.DataFrame, dataset_type: str, **how) -> tuple[clean.Cleaning, pl.DataFrame]:
    work = clean.cleaning(rows, dataset_type, **how)
    return work, pl.concat(list(work.frames()))


def row_score(answered: str, asked: str = ASKED) -> dict[str, float]:
    return score.scores(table((asked, answered)), "sft_pair").row(0, named=True)


@pytest.mark.parametrize(
    "answer",
    [GOOD, "Pay at any office, or online with a card.", "42", "네, 가능합니다.", "- 카드\n- 현금\n- 계좌 이체"],
)
def test_sound_answers_pass(answer):
    assert row_score(answer, "How?" if answer.isascii() else ASKED)["score"] >= 0.3


@pytest.mark.parametrize(
    ("answer", "part"),
    [
        ("ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ", "form"),
        ("네네네네네네네네네네네네네네네네", "diversity"),
        ("..............", "form"),
        (ASKED, "originality"),
        ("가나다 " * 200, "repetition"),
    ],
)
def test_worthless_answers_fail_and_say_why(answer, part):
    judged = row_score(answer)
    assert judged["score"] < 0.3
    assert min(score.PARTS, key=lambda name: judged[name]) == part


def test_an_answer_in_another_script_is_marked_unless_it_was_asked_for():
    english = "You can pay unpaid tolls online or at any office with a card."
    assert row_score(english)["language"] < 1
    assert row_score(english, "영어로 안내해 주세요. 미납 통행료는 어떻게 내나요?")["language"] == 1


@pytest.mark.parametrize("dataset_type", list(schema.CONTENT))
def test_every_type_can_be_scored_and_masked(dataset_type):
    message = [{"role": "user", "content": ASKED}]
    content = {
        "messages": [*message, {"role": "assistant", "content": GOOD}], "text": GOOD, "prompt": message,
        "chosen": [{"role": "assistant", "content": GOOD}], "rejected": [{"role": "assistant", "content": "몰라요."}],
        "question": ASKED, "answer": GOOD, "anchor": ASKED, "positives": [GOOD, "둘째 글"], "negatives": [],
        "completion": [{"role": "assistant", "content": GOOD}], "label": True, "score": None,
    }  # fmt: skip
    columns = schema.columns_of(dataset_type)
    common = {
        "row_id": "r",
        "tools": None,
        "source": None,
        "category": None,
        "quality_score": None,
        "extra": "{}",
        "file": "f",
        "line": 1,
    }
    rows = pl.DataFrame([{name: (content | common)[name] for name in columns}] * 3, schema=columns)
    rows = rows.with_columns(row_id=pl.Series(["r0", "r1", "r2"]))
    assert score.scores(rows, dataset_type)["score"].min() > 0.3
    flat = texts.flat_texts(rows, dataset_type)
    assert texts.with_texts(rows, dataset_type, flat).equals(rows)
    shouted = texts.with_texts(rows, dataset_type, flat.with_columns(pl.col("text") + "!"))
    assert texts.flat_texts(shouted, dataset_type)["text"].to_list() == [text + "!" for text in flat["text"]]
    found = report.analyse(rows, dataset_type)
    assert found.duplicates.exact == 2 and found.chat_faults == {}
    assert report.preview(rows, dataset_type, pii.PATTERNS_ONLY)


def test_offensive_words_are_flagged_with_the_group_they_offend():
    flagged = scorers.Lexicon().groups(
        pl.Series(["이런 병신 같은", "맘충이라니", "시발점이 어디인가요", "고맙습니다", "shiitake"])
    )
    assert flagged.to_list() == [["insult"], ["women"], [], [], []]


def test_the_report_finds_everything_once_and_shows_no_personal_data():
    rows = table(
        (ASKED, GOOD),
        (ASKED, GOOD),
        (ASKED, "납부는 은행에서만 됩니다. 다른 방법은 없습니다."),
        ("저는 홍길동입니다. 연락처는 010-1234-5678입니다. 환불은 언제 되나요?", "영업일 기준 사흘 안에 환불됩니다."),
        categories=["toll", "toll", "toll", None],
    )
    before = rows.clone()
    found = report.analyse(rows, "sft_pair", personal=pii.Detector(names=find_names))
    assert rows.equals(before)
    assert (found.pii, found.pii_rows) == ({"PERSON": 1, "PHONE_NUMBER": 1}, 1)
    assert (found.duplicates.exact, found.duplicates.near) == (1, 0)
    assert found.conflicting_rows == 3
    assert found.categories == {"toll": 3, "(none)": 1}
    personal = found.findings.filter(pl.col("kind") == "pii")
    assert personal["row_id"].unique().to_list() == ["r3"]
    assert personal["sample"][0].startswith("저는 [이름]입니다. 연락처는 [전화번호]입니다.")
    text = page.html("desk@v1", "sft_pair", found)
    for shown in (text, str(found.worst), str(found.cluster_samples), str(found.findings.to_dicts())):
        assert "홍길동" not in shown and "010-1234-5678" not in shown
    assert "<svg" in text and "http" not in text and "<script" not in text


def test_the_worst_rows_do_not_keep_their_batches_in_memory():
    memory = psutil.Process().memory_info
    before, size, held = memory().rss, 0, []
    for number in range(30):
        texts_of_batch = pl.select(pl.int_range(8_192).cast(pl.String) + f" {number} " + "가" * 400).to_series()
        size += texts_of_batch.str.len_bytes().sum()
        held.append(report._copied(texts_of_batch, list(range(0, 8_192, 500))))
    assert memory().rss - before < 0.5 * size


def test_cleaning_accounts_for_every_row():
    rows = table(
        (ASKED, GOOD),
        (ASKED, GOOD),
        (ASKED + " 빨리요", "ㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋㅋ"),
        ("제 번호는 010-1111-2222입니다. 환불 언제 되죠?", "사흘 안에 됩니다. 조금만 기다려 주세요."),
        ("제 번호는 010-3333-4444입니다. 환불 언제 되죠?", "사흘 안에 됩니다. 조금만 기다려 주세요."),
    )
    result, frame = cleaned(
        rows,
        "sft_pair",
        clusters=duplicates.find(rows, "sft_pair").clusters,
        scores=score.scores(rows, "sft_pair"),
        lowest_score=0.3,
        personal=pii.PATTERNS_ONLY,
    )
    assert frame["row_id"].to_list() == ["r0", "r3"]
    assert sorted(result.dropped.select("row_id", "reason").rows()) == [
        ("r1", "exact duplicate"), ("r2", "low score"), ("r4", "duplicate after masking"),
    ]  # fmt: skip
    assert frame["messages"][1].to_list()[0]["content"] == "제 번호는 [전화번호]입니다. 환불 언제 되죠?"
    assert frame["quality_score"].null_count() == 0


def test_a_cluster_whose_first_row_is_poor_keeps_the_next():
    rows = table((ASKED, GOOD), (ASKED + "요", GOOD)).with_columns(quality_score=pl.Series([0.1, None]))
    clusters = duplicates.find(rows, "sft_pair").clusters
    assert clusters.height == 2
    _, frame = cleaned(
        rows,
        "sft_pair",
        clusters=clusters,
        scores=score.scores(rows, "sft_pair"),
        lowest_score=0.3,
        personal=pii.PATTERNS_ONLY,
    )
    assert frame["row_id"].to_list() == ["r1"]


def test_an_evaluation_suite_is_masked_but_loses_no_row():
    rows = table((ASKED, GOOD), (ASKED, GOOD), ("제 메일은 a@example.com이에요", "ㅋㅋ"))
    result, frame = cleaned(
        rows,
        "eval_suite",
        clusters=duplicates.find(rows, "eval_suite").clusters,
        scores=score.scores(rows, "eval_suite"),
        lowest_score=0.3,
        personal=pii.PATTERNS_ONLY,
    )
    assert frame.height == 3 and result.dropped.height == 0
    assert result.masked == {"EMAIL_ADDRESS": 1}
