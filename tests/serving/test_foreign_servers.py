"""A server of somebody else's is asked twice, and once without a word on sampling: what two answers say of it."""

from dataclasses import dataclass
from itertools import cycle
from typing import Any, cast

import pytest

from llmops_assets.serving import probing
from llmops_assets.serving.parity import answered_again, no_rounding, summary
from llmops_assets.serving.parity_probe import Sample

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


def test_long_answers_that_part_late_may_be_what_else_was_in_the_batch() -> None:
    """As a busy vLLM answers: greedy, and of a thousand tokens hardly ever the same thousand."""
    one = [Answered("", token_ids=tuple(range(200))) for _ in QUESTIONS]
    other = [Answered("", token_ids=(*range(100), 0, *range(101, 200))) for _ in QUESTIONS]
    found = answered_again("replica", one, other, QUESTIONS)
    assert len(found) == 4 and not no_rounding(8, found)


def test_one_answer_that_parts_is_what_rounding_does() -> None:
    assert answered_again("replica", answers("a", "b", "c", "d"), answers("a", "b", "x", "d"), QUESTIONS) == []
    assert answered_again("replica", answers("a", "b", "c", "d"), answers("a", "b", "c", "d"), QUESTIONS) == []


def test_tokens_decide_where_the_engine_tells_them() -> None:
    one = [Answered("같은 말", token_ids=(1, n, 2)) for n in range(4)]
    other = [Answered("같은 말", token_ids=(1, n + 9, 2)) for n in range(4)]
    assert len(answered_again("sampling", one, other, QUESTIONS)) == 4
    assert answered_again("sampling", one, one, QUESTIONS) == []


class Servers:
    """Servers behind one address, in turn; what does not say how to sample is answered by `unsaid`."""

    def __init__(self, *models: str, unsaid: str | None = None) -> None:
        self.models, self.unsaid, self.asked = cycle(models), unsaid, 0

    def complete(self, backend: Any, messages: list[dict[str, Any]], *, greedy: bool = True, **_: Any) -> Answered:
        self.asked += 1
        model = next(self.models) if greedy or self.unsaid is None else self.unsaid
        return Answered(f"{model}: {messages[0]['content']}")


@pytest.mark.parametrize(
    ("servers", "kinds"),
    [
        (Servers("one"), set()),
        (Servers("one", "of before"), {"replica"}),
        (Servers("one", unsaid="sampled"), {"sampling"}),
    ],
)
def test_what_stands_behind_an_address_shows_in_what_it_answers(servers: Servers, kinds: set[str]) -> None:
    conversations = [([{"role": "user", "content": question}], None) for question in QUESTIONS]
    sample = Sample([{"prompt": question} for question in QUESTIONS], conversations, 8)
    backend: Any = object()
    found = probing._of_somebody_else(backend, sample, cast(Any, servers), {"max_tokens": 8})
    assert {one.kind for one in found} == kinds and servers.asked == 12
