"""Items from rows, the judges, and the judgement of whole suites."""

import json
import unicodedata

import polars as pl
import pytest

from llmops_assets.evaluation.judge import Judge, is_refusal
from llmops_assets.evaluation.suites import (
    NO_CATEGORY,
    Answer,
    accuracy,
    confusions,
    documents_of,
    items_of,
    prompts_hash,
    score,
    suite_metrics,
    wrong_answers,
)


def chat_frame(rows: list[tuple[str, str | None, str, str, dict]]) -> pl.DataFrame:
    """Canonical chat rows of (id, category, question, answer, metadata)."""
    return pl.DataFrame(
        {
            "row_id": [r[0] for r in rows],
            "source": [None for _ in rows],
            "category": [r[1] for r in rows],
            "quality_score": [None for _ in rows],
            "extra": [json.dumps(r[4], ensure_ascii=False) for r in rows],
            "file": ["desk.jsonl" for _ in rows],
            "line": list(range(1, len(rows) + 1)),
            "messages": [[{"role": "user", "content": r[2]}, {"role": "assistant", "content": r[3]}] for r in rows],
        },
        schema_overrides={"source": pl.String, "category": pl.String, "quality_score": pl.Float64},
    )


ROWS = [
    ("r1", "환불", "환불은요?", "3일 안에 됩니다.", {}),
    ("r2", "환불", "취소는요?", "앱에서 하세요.", {}),
    ("r3", "통행료", "얼마예요?", "1,200원입니다.", {"judge": "number"}),
    ("r4", None, "hi", "hello", {"references": ["hello!", "hi"]}),
]


def test_exact_is_after_nfc_and_strip_and_nothing_else() -> None:
    judge = Judge("exact")
    assert judge.right(unicodedata.normalize("NFD", " 환불됩니다.\n"), ["환불됩니다."])
    assert not judge.right("환불됩니다", ["환불됩니다."])
    assert not judge.right("Yes", ["yes"])


@pytest.mark.parametrize(
    ("kind", "answer", "reference", "right"),
    [
        ("contains", "요금은 1,200원입니다.", "1,200원", True),
        ("contains", "요금은 1,300원입니다.", "1,200원", False),
        ("regex", "약 3일 걸립니다", r"[3-5]일", True),
        ("regex", "약 9일 걸립니다", r"[3-5]일", False),
        ("number", "모두 더해서 1200 원이에요", "1,200원", True),
        ("number", "12원과 13원", "13", True),
        ("number", "모르겠어요", "13", False),
        ("number", "-3.50", "-3.5", True),
    ],
)
def test_judges(kind: str, answer: str, reference: str, right: bool) -> None:
    assert Judge(kind).right(answer, [reference]) is right


@pytest.mark.parametrize(
    ("kind", "references", "message"),
    [
        ("exact", [], "at least one reference"),
        ("contains", [" "], "none of them empty"),
        ("regex", ["("], "no regular expression"),
        ("number", ["없음"], "no number"),
    ],
)
def test_a_reference_that_cannot_be_judged_by_is_refused(kind: str, references: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Judge(kind).check(references)


def test_a_refusal_is_one_only_where_the_reference_is_none() -> None:
    assert is_refusal("죄송하지만 도와드릴 수 없습니다.", ["3일 안에 됩니다."])
    assert is_refusal("I'm sorry, but I can't help with that.", ["Within 3 days."])
    assert not is_refusal("그 차로는 이용할 수 없습니다.", ["네"])
    assert not is_refusal("전화로는 알려드릴 수 없습니다.", ["전화로는 알려 드릴 수 없습니다."])
    assert not is_refusal("환불해 드렸습니다. 죄송합니다.", ["환불됩니다."])


def test_items_keep_category_judge_and_further_references() -> None:
    items = items_of(chat_frame(ROWS), "test")
    assert [i.key for i in items] == ["test/r1", "test/r2", "test/r3", "test/r4"]
    assert items[2].judge.kind == "number" and items[3].references == ("hello", "hello!", "hi")
    assert items[3].category == NO_CATEGORY and items[0].question == "환불은요?"
    assert all(m["role"] != "assistant" for i in items for m in i.messages)


def test_rows_that_cannot_be_asked_are_named_all_at_once() -> None:
    broken = chat_frame([("a", None, "q", "", {}), ("b", None, "q", "x", {"judge": "oracle"}), ROWS[0]])
    with pytest.raises(ValueError, match=r"2 rows of suite s .*desk\.jsonl:1: .*desk\.jsonl:2: judge 'oracle'"):
        items_of(broken, "s")
    with pytest.raises(ValueError, match="no rows"):
        items_of(chat_frame(ROWS).clear(), "s")


def test_an_item_without_an_answer_is_wrong_and_stays_in_n() -> None:
    items = items_of(chat_frame(ROWS), "test")
    scored = score(items, [Answer("test/r1", "3일 안에 됩니다. ", 5, "stop"), Answer("test/r3", "1200", 2, "stop")])
    assert [s.state for s in scored] == ["right", "lost", "right", "lost"]
    assert accuracy(scored).n == 4 and accuracy(scored).value == 0.5


def test_empty_truncated_and_refused_are_told_apart() -> None:
    items = items_of(chat_frame(ROWS), "test")
    scored = score(
        items,
        [
            Answer("test/r1", " \n", 1, "stop"),
            Answer("test/r2", "앱에서 하세", 16, "length"),
            Answer("test/r3", "", 0, "prompt_too_long"),
            Answer("test/r4", "I cannot help you", 4, "stop"),
        ],
    )
    assert [s.state for s in scored] == ["empty", "truncated", "prompt too long", "refused"]
    assert [s.empty for s in scored] == [True, False, True, False]


def test_foreign_and_double_answers_are_errors() -> None:
    items = items_of(chat_frame(ROWS), "test")
    with pytest.raises(ValueError, match="answered twice"):
        score(items, [Answer("test/r1", "a", 1, "stop")] * 2)
    with pytest.raises(ValueError, match="no item of the suite"):
        score(items, [Answer("other/r1", "a", 1, "stop")])


def test_macro_f1_only_where_the_references_are_labels() -> None:
    rows = [(f"r{n}", "c", f"q{n}", ["네", "아니요"][n % 2], {}) for n in range(20)]
    items = items_of(chat_frame(rows), "yesno@v1")
    scored = score(items, [Answer(i.key, "네", 1, "stop") for i in items])
    by_name = {x.name: x for x in suite_metrics(scored, "yesno@v1", "tuned")}
    assert by_name["accuracy"].value == 0.5
    assert by_name["macro_f1"].value == pytest.approx((2 / 3 + 0) / 2)
    free = score(items_of(chat_frame(ROWS), "test"), [])
    assert [x.name for x in suite_metrics(free, "test", "tuned")] == ["accuracy"]
    assert confusions(scored) == [("아니요", "네", 10)]


def test_wrong_answers_come_from_every_category() -> None:
    rows = [(f"a{n}", "many", f"q{n}", "x", {}) for n in range(30)] + [("b", "few", "q", "x", {})]
    wrong = wrong_answers(score(items_of(chat_frame(rows), "test"), []), most=5)
    assert len(wrong) == 5 and {s.item.category for s in wrong} == {"many", "few"}


def test_the_hash_of_prompts_ignores_order_and_references() -> None:
    items = items_of(chat_frame(ROWS), "test")
    other = items_of(chat_frame([(*ROWS[0][:3], "다른 답", {}), *ROWS[1:]]), "test")
    assert prompts_hash(items) == prompts_hash(items[::-1]) == prompts_hash(other)
    assert prompts_hash(items) != prompts_hash(items[:3])
    assert prompts_hash(items) != prompts_hash(items_of(chat_frame(ROWS), "again"))


def test_documents() -> None:
    frame = pl.DataFrame(
        {"row_id": ["a"], "category": [None], "text": ["가나다"]}, schema_overrides={"category": pl.String}
    )
    assert documents_of(frame, "test")[0].category == NO_CATEGORY
    with pytest.raises(ValueError, match="no documents"):
        documents_of(frame.clear(), "test")
