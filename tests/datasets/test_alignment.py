"""Answers that stand in another row than their question are found, and none that stand where they belong."""

import random
from collections.abc import Callable
from itertools import pairwise

import polars as pl
import pytest

from benchmarks.distinct_rows import STEMS
from llmops_assets.datasets import alignment
from llmops_assets.datasets.alignment import MOST_WINDOWS, WINDOW, Moved, answers_belong, moved, windows_of

PLACES = [f"{stem} {number}호" for number in (1, 2, 3, 4, 5, 6, 7) for stem in STEMS]
Pairs = list[tuple[str, str]]


def pairs(count: int = 600, seed: int = 1) -> Pairs:
    """Questions about places in words of their own, each with an answer that names its place."""
    rng = random.Random(seed)
    asked = ("어디에 있나요?", "언제 여나요?", "어떻게 가나요?", "얼마인가요?")
    said = ("정문 옆에 있습니다.", "아침 아홉 시에 엽니다.", "걸어서 십 분 걸립니다.", "만 원입니다.")
    found = []
    for _ in range(count):
        place, topic = rng.choice(PLACES), rng.randrange(4)
        found.append((f"{place} {asked[topic]}", f"{place}은 {said[topic]}"))
    return found


def table(found: Pairs) -> pl.DataFrame:
    rows = {"row_id": [str(n) for n in range(len(found))], "question": [q for q, _ in found]}
    return pl.DataFrame({**rows, "answer": [a for _, a in found]})


def judged(found: Pairs, size: int = 100) -> tuple[list[Moved], int]:
    rows = table(found)
    batches = (rows[start : start + size] for start in range(0, rows.height, size))
    return moved(windows_of(batches, "rag_qa", rows.height))


def answers_moved(found: Pairs, by: int, since: int = 0) -> Pairs:
    answers = [answer for _, answer in found]
    return [(q, answers[(n - by) % len(found)] if n >= since else answers[n]) for n, (q, _) in enumerate(found)]


@pytest.mark.parametrize("by", [-3, -1, 1, 2])
def test_a_column_that_was_moved_is_found_with_how_far_and_where(by: int) -> None:
    found, windows = judged(answers_moved(pairs(), by))
    assert windows == 3 and {one.by for one in found} == {by} and found[0].row == 0
    verdict = answers_belong(found, windows, 0.0)
    assert (
        not verdict.passed
        and f"{abs(by)} row{'s' if abs(by) > 1 else ''} {'above' if by > 0 else 'below'}" in verdict.text
    )
    first = found[0].examples[0]
    place = first["question"].rsplit(" ", 2)[0]
    assert first["the answer that fits"].startswith(place) and not first["its answer"].startswith(place)


def test_what_is_moved_from_some_row_on_is_found_from_there_on() -> None:
    found, windows = judged(answers_moved(pairs(1_024), 1, since=2 * WINDOW))
    assert [one.row for one in found] == [2 * WINDOW, 3 * WINDOW] and windows == 4
    assert answers_belong(found, windows, 0.5).passed


def by_place(found: Pairs) -> Pairs:
    return sorted(found)


def dialogue(found: Pairs) -> Pairs:
    """Turns of one conversation as pairs: each answer is the question of the next row."""
    said = [text for pair in found for text in pair]
    return list(pairwise(said))


def labels(found: Pairs) -> Pairs:
    return [(question, ("긍정", "부정")[n % 2]) for n, (question, _) in enumerate(found)]


def translated(found: Pairs) -> Pairs:
    return [(question, f"The place is open at nine, number {n}.") for n, (question, _) in enumerate(found)]


def shuffled_letters(found: Pairs) -> Pairs:
    """Questions and answers of the same few words, about nothing."""
    rng = random.Random(5)
    words = [word for place in STEMS[:12] for word in place.split()]
    return [(" ".join(rng.choices(words, k=8)), " ".join(rng.choices(words, k=8))) for _ in found]


def of_other_places(found: Pairs) -> Pairs:
    """Answers that are about another place than their question, in no order: other questions fit them by chance."""
    rng = random.Random(7)
    few = PLACES[:4]
    answers = {place: f"{few[(n + 1) % 4]}은 아침 아홉 시에 엽니다." for n, place in enumerate(few)}
    return [(f"{place} 언제 여나요?", answers[place]) for place in rng.choices(few, k=len(found))]


@pytest.mark.parametrize("arranged", [list, by_place, dialogue, labels, translated, shuffled_letters, of_other_places])
def test_answers_that_stand_where_they_belong_are_left_alone(arranged: Callable[[Pairs], Pairs]) -> None:
    found, windows = judged(arranged(pairs()))
    assert found == [] and answers_belong(found, windows, 0.0).passed


def test_a_conversation_is_told_by_its_beginning_without_what_all_have_in_common() -> None:
    system = {"role": "system", "content": "고속도로 안내 창구입니다."}
    rows = [
        {"row_id": str(n), "messages": [system, {"role": "user", "content": q}, {"role": "assistant", "content": a}]}
        for n, (q, a) in enumerate(answers_moved(pairs(300), 1))
    ]
    message = {name: None for name in ("name", "tool_calls", "tool_call_id", "reasoning_content")}
    for row in rows:
        row["messages"] = [message | one for one in row["messages"]]
    found, windows = moved(windows_of([pl.DataFrame(rows)], "sft_pair", len(rows)))
    assert [one.by for one in found] == [1, 1] and windows == 2


def test_of_many_rows_some_stretches_are_looked_at_from_the_first_to_the_last() -> None:
    rows = 3 * WINDOW * MOST_WINDOWS
    one = table([("", "")] * WINDOW)
    looked = [start for start, _ in windows_of((one for _ in range(3 * MOST_WINDOWS)), "rag_qa", rows)]
    assert len(looked) == MOST_WINDOWS and looked[:2] == [0, 3 * WINDOW] and looked[-1] == rows - 3 * WINDOW


def test_few_rows_say_nothing() -> None:
    found, windows = judged(answers_moved(pairs(alignment._LEAST_WINS - 1), 1))
    assert found == [] and windows == 1
