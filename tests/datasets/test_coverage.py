"""Rows that ask too little: one answer in nearly all of them, categories that no test row has."""

import polars as pl
import pytest

from llmops_assets.datasets import schema
from llmops_assets.datasets.coverage import answer_counts, answers_vary, categories_are_tested


def chat(answers: list[str]) -> pl.DataFrame:
    rows = [[{"role": "user", "content": f"{n}?"}, {"role": "assistant", "content": a}] for n, a in enumerate(answers)]
    return pl.DataFrame({"messages": rows}, schema={"messages": schema.MESSAGES})


def test_one_answer_in_nearly_all_rows_is_named() -> None:
    def judged(*answers: str):
        return answers_vary(answer_counts([chat([*answers[:5]]), chat([*answers[5:]])], "sft_pair"), 0.9)

    same = judged(*["네, 알겠습니다."] * 38, "네, 알겠습니다. ", "아니요")
    assert (
        not same.passed
        and "39 of 40 rows (97.5%; 90% are allowed) have the same answer: '네, 알겠습니다.'" in same.text
    )
    assert judged(*["네"] * 30, *[f"답 {n}" for n in range(10)]).passed
    assert judged(*["네"] * 19).passed, "a handful of rows may have one answer by chance"


@pytest.mark.parametrize(
    ("kind", "frame"),
    [
        ("rlhf_pair", chat(["네"] * 30).select(chosen=pl.col("messages").list.tail(1))),
        ("rag_qa", pl.DataFrame({"answer": ["네"] * 30})),
        ("embedding_pair", pl.DataFrame({"positives": [["한 문서"]] * 30})),
    ],
)
def test_rows_of_every_kind_that_has_answers_are_looked_at(kind: str, frame: pl.DataFrame) -> None:
    assert not answers_vary(answer_counts([frame], kind), 0.9).passed


def split(train: list[str | None], test: list[str | None]) -> dict[str, pl.Series]:
    return {"train": pl.Series(train, dtype=pl.String), "test": pl.Series(test, dtype=pl.String)}


def test_a_category_without_a_test_row_is_named() -> None:
    found = categories_are_tested("category", split(["toll"] * 30 + ["refund"] * 4, ["toll"] * 6), 0.01)
    assert not found.passed and "never asked in the test: refund (4 rows); 10.0% of the rows" in found.text
    assert categories_are_tested("category", split(["toll"] * 30 + ["refund"] * 4, ["toll", "refund"]), 0.01).passed
    one = categories_are_tested("category", split(["toll"] * 30 + ["refund"], ["toll"] * 6), 0.01)
    assert one.passed and "refund (1 rows)" in one.text, "it is said, and no reason to hold a version"


def test_a_field_that_no_row_has_is_no_stratum_and_rows_without_one_are_counted() -> None:
    wrong = categories_are_tested("kategorie", split([None] * 20, [None]), 0.01)
    assert not wrong.passed and "No row has a metadata field 'kategorie': correct split.stratify_by" in wrong.text
    assert categories_are_tested("category", split([None] * 20, [None]), 0.01).passed
    half = categories_are_tested("category", split([None] * 10 + ["toll"] * 20, [None, "toll"]), 0.01)
    assert half.passed and "11 rows have no category" in half.text
