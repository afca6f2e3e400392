"""A suite that one answer to all would pass, and a model that gives one, are named."""

from typing import Any

import pytest

from llmops_assets.evaluation import verdicts
from llmops_assets.evaluation.one_answer import one_answers
from llmops_assets.evaluation.suites import Answer, items_of, score
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.specs.suite import SuiteSpec
from tests.evaluation.test_suites import chat_frame


def asked(answers: list[str], said: list[str], extra: list[dict[str, Any]] | None = None, **spec: Any) -> list[Any]:
    more = extra or [{}] * len(answers)
    rows = [(f"r{n}", "c", f"{n}번 문항은?", answer, more[n]) for n, answer in enumerate(answers)]
    items = items_of(chat_frame(rows), "s@v1", spec=SuiteSpec(**spec))
    return score(items, [Answer(i.key, text, 1, "stop") for i, text in zip(items, said, strict=True)])


def record(group: list[Any]) -> EvaluationRecord:
    return EvaluationRecord.model_construct(one_answer=one_answers({"s@v1": group}))


WANTED = [f"답 {n % 5}" for n in range(40)]


def test_a_model_that_says_the_same_to_every_question_is_named_and_left_to_its_gate() -> None:
    found = record(asked(WANTED, ["답 1"] * 40))
    verdict = verdicts.questions_matter(found)
    assert not verdict.passed and "says one and the same to 40 of the 40 items of s@v1: «답 1» (it is right of 8)" in (
        verdict.text
    )
    assert verdicts.suites_ask(found).passed
    for said in (WANTED, ["답 1"] * 30 + WANTED[30:]):
        assert verdicts.questions_matter(record(asked(WANTED, said))).passed
    few = record(asked(WANTED[:10], ["답 1"] * 10))
    assert verdicts.questions_matter(few).passed, "of ten, chance may give all one answer"
    same = record(asked(["거절합니다"] * 40, ["거절합니다"] * 40))
    assert verdicts.questions_matter(same).passed, "what all items want is right to say"


def choices_of(n: int, place: int, letters: bool) -> dict[str, Any]:
    wrong = [f"오답 {n} {k}" for k in range(3)]
    own = [*wrong[:place], f"정답 {n}", *wrong[place:]]
    return {"options": own} if letters else {"choices": own}


@pytest.mark.parametrize("letters", [True, False])
def test_a_suite_whose_right_choice_always_stands_at_one_place_is_no_suite(letters: bool) -> None:
    def found(places: list[int]) -> EvaluationRecord:
        extra = [choices_of(n, place, letters) for n, place in enumerate(places)]
        right = ["ABCD"[place] if letters else f"정답 {n}" for n, place in enumerate(places)]
        judge = {"judge": "multiple_choice"}
        if letters:
            extra = [{"choices": one["options"]} for one in extra]
        return record(asked(right, right, extra, **judge))

    verdict = verdicts.suites_ask(found([1] * 40))
    assert not verdict.passed and "The right choice of 40 of the 40 items of s@v1 is number 2" in verdict.text
    assert verdicts.suites_ask(found([n % 4 for n in range(40)])).passed


def test_labels_that_are_mostly_one_are_no_fault_of_their_order() -> None:
    right = ["네"] * 39 + ["아니요"]
    assert verdicts.suites_ask(record(asked(right, right, judge="multiple_choice"))).passed
