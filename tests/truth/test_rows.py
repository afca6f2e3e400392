"""Faults of rows, which are stopped before anything is trained on them."""

from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.chain import chats, sft_spec
from benchmarks.installation import TRAINING, Installation, opened
from tests.truth.conftest import Finished, fault
from tests.truth.faults import SPLIT
from tests.truth.table import Row


@pytest.fixture(scope="module")
def rows_only(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """An installation without a model, whose policy puts a number in the place of numbers."""
    policy = {"datasets.pii.placeholders.PHONE_NUMBER": "010-1234-5678"}
    with opened(tmp_path_factory.mktemp("rows") / "home", policy) as one:
        yield one


def without_answers() -> list[dict[str, Any]]:
    return [row | {"messages": row["messages"][:1]} for row in chats(40)]


def with_a_number() -> list[dict[str, Any]]:
    rows = chats(40)
    rows[0]["messages"][1]["content"] = "담당자 번호는 010-2345-6789 입니다."
    return rows


def of_one_answer(different: int) -> list[dict[str, Any]]:
    rows = chats(60)
    for row in rows[different:]:
        row["messages"][1]["content"] = "네, 알겠습니다."
    return rows


def with_a_lonely_category() -> list[dict[str, Any]]:
    """One question in several words, which stay together: none of them is left for the test."""
    rows = chats(60)
    asked = rows[0]["messages"][0]["content"]
    alike = [[{"role": "user", "content": asked}, {"role": "assistant", "content": f"{n}번 창구"}] for n in range(4)]
    return [*rows[1:], *({"messages": one, "category": "lonely"} for one in alike)]


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        fault("one-answer", of_one_answer(0), {}),
        fault("nearly-one-answer", of_one_answer(4), {}),
        fault("category-never-tested", with_a_lonely_category(), {"split": SPLIT}),
        fault("stratum-that-is-no-field", chats(40), {"split": {"stratify_by": "kategorie"}}),
        fault("no-answers", without_answers(), {}),
        fault("personal-data-left", with_a_number(), {}),
        fault("group-that-is-no-field", chats(40), {"split": {"group_by": "user"}}),
    ],
)
def test_rows_that_must_not_be_trained_on_are_stopped(
    rows_only: Installation, row: Row, rows: list[dict[str, Any]], more: dict[str, Any]
) -> None:
    row.assert_stopped(rows_only.ingest(f"{row.key}@v1", "sft_pair", rows, **more))


def exam(seed: int, count: int = 40) -> list[dict[str, Any]]:
    rows = [row["messages"] for row in chats(count, seed)]
    return [{"question": question["content"], "answer": answer["content"]} for question, answer in rows]


@pytest.mark.fault("suite-in-train")
def test_a_suite_whose_questions_are_trained_is_stopped(rows_only: Installation, row: Row) -> None:
    assert not rows_only.ingest("exam@v1", "eval_suite", exam(9)).failed
    row.assert_stopped(rows_only.ingest("leak@v1", "sft_pair", chats(60, seed=9)))


@pytest.mark.fault("suite-that-came-later")
def test_a_suite_that_is_registered_after_the_rows_stops_the_training(
    one: Installation, finished: Finished, row: Row
) -> None:
    # The rows of the chain's own desk.
    assert not one.ingest("late@v1", "eval_suite", exam(0, 360)).failed
    row.assert_stopped(one.train(sft_spec(finished.chain.base, lr=4e-3), *TRAINING)[1])
