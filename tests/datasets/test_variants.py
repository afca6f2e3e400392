"""A question with words added is another row, and stays in the split of the one that it was."""

import random

import polars as pl
import pytest

from benchmarks import distinct_rows
from benchmarks.chain import chats
from benchmarks.duplicates import table
from llmops_assets.datasets.similarity import duplicates, variants
from llmops_assets.datasets.split import SPLITS, across_splits, assign, together

ADDED = [
    "급합니다", "혹시 지금", "어제 친구와 함께 다녀온 뒤로", "정말로", "서울에 사는 직장인인데요", "부탁드립니다",
    "안녕하세요", "다시 한번 여쭙니다", "please help me now", "지난주에 말씀드린 대로", "3월 5일에", "안",
]  # fmt: skip


def questions(*texts: str) -> pl.DataFrame:
    return table("sft_pair", [distinct_rows.chat(text, f"{number}번입니다.") for number, text in enumerate(texts)])


def together_of(rows: pl.DataFrame, dataset_type: str = "sft_pair") -> set[frozenset[str]]:
    found = variants.find(rows, dataset_type).group_by("variants").agg("row_id")
    return {frozenset(ids) for ids in found["row_id"].to_list()}


def test_words_added_anywhere_make_variants_and_no_duplicates():
    rng = random.Random(3)
    asked = [row["messages"][0]["content"] for row in chats(400, 77)]
    more = []
    for text in asked:
        words = text.split()
        words.insert(rng.randrange(len(words) + 1), rng.choice(ADDED))
        more.append(" ".join(words))
    rows = questions(*asked, *more)
    assert duplicates.find(rows, "sft_pair").near <= 0.35 * len(asked), "but for words of politeness they are two rows"
    found = dict(variants.find(rows, "sft_pair").iter_rows())
    held = [found.get(str(n)) == found.get(str(n + 400)) == str(n) for n in range(400)]
    assert sum(held) >= 398


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("환불은 어떻게 하나요?", "어제 산 물건인데 환불은 어떻게 하나요?"),
        ("환불은 어떻게 하나요?", "안녕하세요, 환불은 꼭 어떻게 하나요? 부탁드립니다"),
        ("단말기 등록 방법 알려줘", "새로 산 단말기 등록 방법 좀 자세히 알려줘"),
        ("How do I reset my password?", "How do I reset my password on the mobile app, please?"),
        ("통행료 영수증은 어디에서 받나요", "통행료 영수증을 어디에서 받나요 그리고 언제까지 되나요"),
        ("환불이 되나요", "환불이 안 되나요"),
    ],
)  # fmt: skip
def test_what_was_asked_is_asked_still(one: str, other: str):
    assert together_of(questions(one, other, "휴게소는 어디에 있나요")) == {frozenset({"0", "1"})}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("카드 환불은 어떻게 하나요?", "현금 환불은 어떻게 하나요?"),
        ("환불", "어제 산 물건을 잃어버렸는데 환불"),
        ("3월 5일 예약을 취소하려면 어떻게 하나요", "3월 6일 예약을 취소하려면 어떻게 하나요"),
        ("식물원에 가려면 몇 번 버스를 타나요", "동물원에 가려면 몇 번 버스를 타나요"),
        ("서울에서 부산으로 가는 표가 있나요", "부산에서 서울로 가는 표가 있나요"),
        ("분류하세요 긍정 부정 중립 가운데 하나로 답하세요 기록 배송이 너무 늦어서 화가 났습니다 다시는 안 삽니다",
         "분류하세요 긍정 부정 중립 가운데 하나로 답하세요 기록 포장이 튼튼해서 마음에 들었습니다 또 사겠습니다"),
    ],
)  # fmt: skip
def test_another_question_is_no_variant(one: str, other: str):
    assert together_of(questions(one, other)) == set()


def test_rows_that_share_much_and_ask_different_things_stay_apart():
    apart = {"a conversation cut after each answer", "one question with many answers", "possible and impossible"}
    for name, dataset_type, rows in distinct_rows.kinds(5, 120):
        found = together_of(table(dataset_type, rows), dataset_type)
        assert name in apart or not found, name
        if name == "a conversation cut after each answer":
            # What was said up to the fifth answer stands in the rows of the sixth to the ninth.
            assert {frozenset(map(str, range(n, n + 5))) for n in range(0, 120, 5)} == found


def test_a_document_with_a_paragraph_more_is_a_variant():
    rng = random.Random(1)
    documents = [distinct_rows.prose(rng, 12) for _ in range(40)]
    longer = [f"{text}\n{distinct_rows.prose(rng, 5)}" for text in documents[:20]]
    found = together_of(table("pretrain_corpus", [*documents, *longer]), "pretrain_corpus")
    right = {frozenset({str(n), str(n + 40)}) for n in range(20)}
    assert found <= right and len(found) >= 18


def test_variants_are_of_one_split_and_a_division_that_parts_them_names_a_pair():
    rows = questions(*(text for one in chats(100, 5) for text in _with_more(one["messages"][0]["content"])))
    rows = rows.with_columns(
        category=pl.lit("a"), extra=pl.lit("{}"), file=pl.lit("desk.jsonl"), line=pl.int_range(1, pl.len() + 1)
    )
    none, alike = duplicates.find(rows, "sft_pair").clusters, variants.find(rows, "sft_pair")
    assert none.height == 0 and alike["variants"].n_unique() == 100
    order = {name: number for number, name in enumerate(SPLITS)}

    def judged(split: pl.Series):
        by_split = rows.with_columns(split=split).sort(pl.col("split").replace_strict(order), maintain_order=True)
        of = lambda columns=None: iter([by_split.drop("split") if columns is None else by_split.select(columns)])  # noqa: E731
        return across_splits(of, none, alike, by_split["split"], "sft_pair")

    found = judged(assign(rows, "sft_pair", clusters=none))
    assert not found.verdict.passed and "differ by words added" in found.verdict.text
    pair = found.pairs[0]
    assert pair["split"] != pair["other_split"] and pair["where"].startswith("desk.jsonl:")
    short, long = sorted((pair["text"], pair["other_text"]), key=len)
    assert set(short.split()) < set(long.split()) and repr(pair["text"]) in found.verdict.text
    divided = assign(rows, "sft_pair", clusters=together(none, alike))
    assert judged(divided).verdict.passed and set(divided) == set(SPLITS)


def _with_more(text: str) -> tuple[str, str]:
    return text, f"지난주에 말씀드린 대로 {text} 궁금해서요"


def test_a_question_of_many_rows_costs_one_comparison_and_they_are_all_together():
    rows = questions(*["통행료 영수증은 어디에서 받나요"] * 3000, "어제 통행료 영수증은 어디에서 받나요")
    (found,) = together_of(rows)
    assert len(found) == 3001
    assert variants.find(rows[:0], "sft_pair").height == 0
