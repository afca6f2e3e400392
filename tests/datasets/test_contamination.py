"""Evaluation items that stand in training rows are named with the row; items that only sound alike are not."""

import polars as pl
import pytest

from llmops_assets.datasets import batches, schema, suites
from llmops_assets.datasets.similarity.contamination import Suite, overlap
from resources.dataset_store import DatasetStore

ITEM = "서수원 영업소에서 하이패스 단말기를 잃어버렸을 때 새 단말기를 다시 등록하려면 무엇을 가져가야 하나요?"
FILLER = "통행료 영수증은 누리집에서 언제든지 다시 출력하실 수 있습니다."


def rows(*asked: str) -> batches.Batches:
    values = {
        "row_id": [f"r{i}" for i in range(len(asked))],
        "messages": [
            [{"role": "user", "content": text}, {"role": "assistant", "content": FILLER}] for text in asked
        ],
        "tools": None, "source": None, "category": None, "quality_score": None, "extra": "{}", "file": "train.jsonl",
        "line": list(range(1, len(asked) + 1)),
    }  # fmt: skip
    return batches.of(pl.DataFrame(values, schema=schema.columns_of("sft_pair")))


def found(items: list[str], *asked: str) -> list[tuple]:
    suite = Suite("exam@v1", [f"q{i}" for i in range(len(items))], pl.Series(items))
    return overlap(rows(*asked), "sft_pair", [suite]).found.rows()


def test_an_item_inside_a_longer_row_is_found_whatever_its_signs_case_and_spaces():
    row = "안녕하세요! " + ITEM.replace(" ", "  ").replace("?", " ...") + " 급합니다."
    assert found([ITEM], FILLER, row) == [("exam@v1", "q0", 1.0, "r1", "train.jsonl", 2)]


def test_the_share_of_words_in_common_n_grams_decides():
    words = [f"낱말{i}" for i in range(20)]
    for shared, hit in ((15, True), (13, False)):
        row = " ".join([*words[:shared], "다른", "말"])
        result = found([" ".join(words)], row)
        assert bool(result) == hit
        if hit:
            assert result[0][2] == pytest.approx(shared / 20)


def test_the_same_words_in_another_order_are_another_text():
    assert found([ITEM], " ".join(reversed(ITEM.split()))) == []


def test_a_short_item_must_stand_there_as_a_whole():
    assert [
        hit[1] for hit in found(["환불은 언제 되나요 보통", "환불은 언제 되나요 빨리"], "저 환불은 언제 되나요 보통?")
    ] == ["q0"]


def test_items_of_few_words_are_found_where_they_are_all_that_is_asked():
    short = ["2+2는?", "수도는 어디", "?!"]
    assert [hit[1] for hit in found(short, "2 + 2는", "수도는 어디인가", "안녕 수도는 어디 있나요 지금")] == ["q0"]
    assert [hit[1] for hit in found([*short, ITEM], "?!", "수도는  어디?", ITEM)] == ["q1", "q2", "q3"]
    suite = Suite("exam@v1", [f"q{n}" for n in range(40)], pl.Series([f"{n}의 제곱은?" for n in range(40)]))
    result = overlap(rows(*(f"{n}의 제곱은?" for n in range(30))), "sft_pair", [suite])
    assert (result.judged, result.too_short, result.share("exam@v1")) == ({"exam@v1": 40}, {"exam@v1": 0}, 0.75)


def test_a_short_item_is_found_as_a_line_of_a_document():
    values = {"row_id": ["d"], "text": ["제목\n수도는 어디?\n서울"], "extra": "{}", "file": "c.txt", "line": [1]}
    empty = {"source": None, "category": None, "quality_score": None}
    corpus = batches.of(pl.DataFrame(values | empty, schema=schema.columns_of("pretrain_corpus")))
    suite = Suite("s@v1", ["a", "b"], pl.Series(["수도는 어디?", "수도는"]))
    assert overlap(corpus, "pretrain_corpus", [suite]).found["item"].to_list() == ["a"]


def test_items_without_any_text_are_counted_and_suites_are_told_apart():
    suites = [
        Suite("a@v1", ["x", "y"], pl.Series([" ", ITEM])),
        Suite("b@v1", ["z"], pl.Series([FILLER + " " + ITEM])),
    ]
    result = overlap(rows(FILLER, ITEM), "sft_pair", suites)
    assert (result.judged, result.too_short) == ({"a@v1": 1, "b@v1": 1}, {"a@v1": 1, "b@v1": 0})
    assert result.found.select("suite", "item", "row_id").rows() == [("a@v1", "y", "r1"), ("b@v1", "z", "r1")]
    assert result.share("a@v1") == 1.0


def test_no_suites_and_no_rows_are_no_overlap():
    assert overlap(rows(ITEM), "sft_pair", []).found.height == 0
    assert found([ITEM]) == []


def test_a_system_prompt_that_training_rows_share_is_no_leak_and_a_question_under_it_is(tmp_path):
    system = "당신은 고속도로 고객센터의 상담원입니다. 요금과 휴게소, 단말기에 관한 물음에만 두 문장으로 답합니다. " * 3
    items = ["경차 할인은 얼마나 되고 어디에서 신청하나요?", ITEM]
    asked = pl.DataFrame(
        {
            "row_id": ["q0", "q1"],
            "messages": [
                [
                    {"role": "system", "content": system},
                    {"role": "user", "content": text},
                    {"role": "assistant", "content": "절반입니다."},
                ]
                for text in items
            ],
            "tools": None, "source": None, "category": None,
            "quality_score": None, "extra": "{}", "file": "f", "line": [1, 2],
        },
        schema=schema.columns_of("eval_suite"),
    )  # fmt: skip
    store = DatasetStore(tmp_path)
    manifest = store.write(asked, kind="rows", dataset="exam@v1", step="dataset", config_hash="0")
    suite = suites.read_suite(store, "exam@v1", manifest)
    training = rows(f"{system} 휴게소는 어디인가요?", f"{system} {ITEM}")
    assert overlap(training, "sft_pair", [suite]).found["item"].to_list() == ["q1"]
