"""A server of somebody else's is asked twice, and once without a word on sampling: what two answers say of it."""

from dataclasses import dataclass

import pytest

from llmops_assets.serving.parity import answered_again, no_rounding, summary

QUESTIONS = [f"질문 {n}" for n in range(4)]


@dataclass(frozen=True)
class Answered:
    text: str
    finish_reason: str | None = "stop"
    prompt_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None


def answers(*texts: str) -> list[Answered]:
    return [Answered(text) for text in texts]


@pytest.mark.parametrize("kind", ["replica", "sampling"])
def test_two_answers_to_most_questions_are_no_rounding_and_named(kind: str) -> None:
    found = answered_again(kind, answers("a", "b", "c", "d"), answers("a", "x", "c", "y"), QUESTIONS)
    assert [one.question for one in found] == ["질문 1", "질문 3"] and {one.kind for one in found} == {kind}
    assert no_rounding(8, found) and f"2 × {kind}: " in summary(8, found)


def test_one_answer_that_parts_is_what_rounding_does() -> None:
    assert answered_again("replica", answers("a", "b", "c", "d"), answers("a", "b", "x", "d"), QUESTIONS) == []
    assert answered_again("replica", answers("a", "b", "c", "d"), answers("a", "b", "c", "d"), QUESTIONS) == []


def test_tokens_decide_where_the_engine_tells_them() -> None:
    one = [Answered("같은 말", token_ids=(1, n, 2)) for n in range(4)]
    other = [Answered("같은 말", token_ids=(1, n + 9, 2)) for n in range(4)]
    assert len(answered_again("sampling", one, other, QUESTIONS)) == 4
    assert answered_again("sampling", one, one, QUESTIONS) == []
