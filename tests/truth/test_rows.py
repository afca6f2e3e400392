"""Faults of rows, which are stopped before anything is trained on them."""

import html
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.chain import chats, questions, sft_spec
from benchmarks.distinct_rows import STEMS
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


def with_answers(make: Callable[[str, int], str]) -> list[dict[str, Any]]:
    """Rows whose answers are what a tool made of them."""
    rows = chats(60)
    for number, row in enumerate(rows):
        row["messages"][1]["content"] = make(row["messages"][1]["content"], number)
    return rows


def echoing(make: Callable[[str, str], str]) -> list[dict[str, Any]]:
    """Rows whose answers are made of the question and the answer."""
    rows = chats(60)
    for row in rows:
        asked, said = row["messages"]
        said["content"] = make(asked["content"], said["content"])
    return rows


def exported(answer: str, number: int) -> str:
    """The answer with what was said after it, in a column of 64 characters."""
    return " ".join([answer, *(question for question, _ in questions(3, seed=number))])[:64]


def with_answers_moved() -> list[dict[str, Any]]:
    """Rows of which the column of the answers lost its first value."""
    places = [f"{stem} {number}번" for number in (1, 2, 3) for stem in STEMS[:20]]
    asked = [f"{place} 창구는 언제 여나요?" for place in places]
    said = [f"{place} 창구는 아침 {7 + n % 4}시에 열고 그 옆 문은 닫혀 있습니다." for n, place in enumerate(places)]
    pairs = zip(asked, [*said[1:], said[0]], strict=True)
    return [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}
        for question, answer in pairs
    ]


def told_twice() -> list[dict[str, Any]]:
    """Conversations of one turn, each of which is the second turn of a longer one, too."""
    rows = chats(80)
    pairs = zip(rows[:40], rows[40:], strict=True)
    longer = [more | {"messages": more["messages"] + row["messages"]} for row, more in pairs]
    return [*rows[:40], *longer]


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
        fault("answers-missing", with_answers(lambda text, n: text if n % 5 else "nan"), {}),
        fault("answers-misread", with_answers(lambda text, n: text.encode().decode("latin-1")), {}),
        fault("answers-lost-letters", with_answers(lambda text, n: text.encode("ascii", "replace").decode()), {}),
        fault("answers-cut-by-an-export", with_answers(exported), {}),
        fault("answers-cut-with-dots", with_answers(lambda text, n: f"{exported(text, n)}..."), {}),
        fault("answers-misread-korean", with_answers(lambda text, n: text.encode("euc-kr").decode("latin-1")), {}),
        fault("answers-escaped", with_answers(lambda text, n: json.dumps(text)[1:-1]), {}),
        fault("answers-with-entities", with_answers(lambda text, n: html.escape(f'"{text}"')), {}),
        fault("answers-of-one-line", with_answers(lambda text, n: text.replace(" ", "\\n")), {}),
        fault("answers-quoted", with_answers(lambda text, n: f'"{text}"'), {}),
        fault("answers-with-a-speaker", with_answers(lambda text, n: f"Assistant: {text}"), {}),
        fault("answers-are-row-numbers", with_answers(lambda text, n: str(n + 1)), {}),
        fault("answers-behind-their-questions", echoing(lambda asked, said: f"{asked}\n{said}"), {}),
        fault("answers-are-questions", echoing(lambda asked, said: asked), {}),
        fault("answers-moved", with_answers_moved(), {}),
        fault("turn-of-a-conversation", told_twice(), {"split": SPLIT}),
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


@pytest.mark.fault("suite-spaced-otherwise")
def test_a_suite_whose_questions_are_trained_in_another_spacing_is_stopped(rows_only: Installation, row: Row) -> None:
    spaced = [item | {"question": item["question"].replace(" ", "")} for item in exam(11)]
    assert not rows_only.ingest("spaced@v1", "eval_suite", spaced).failed
    row.assert_stopped(rows_only.ingest("leak@v2", "sft_pair", chats(60, seed=11)))


@pytest.mark.fault("suite-that-came-later")
def test_a_suite_that_is_registered_after_the_rows_stops_the_training(
    one: Installation, finished: Finished, row: Row
) -> None:
    # The rows of the chain's own desk.
    assert not one.ingest("late@v1", "eval_suite", exam(0, 360)).failed
    row.assert_stopped(one.train(sft_spec(finished.chain.base, lr=4e-3), *TRAINING)[1])
