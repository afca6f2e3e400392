"""Shapes in which people record that one of several answers was preferred, each as what was chosen and rejected."""

import json
import re
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import kind_of

Compared = tuple[Any, Any, set[str]]
"""The chosen and the rejected answer as they stand in the row, and the fields that they and the choice are in."""

_TWO_ANSWERS = (
    ("human_ref_A", "human_ref_B"),
    ("response_a", "response_b"),
    ("conversation_a", "conversation_b"),
    ("answer_a", "answer_b"),
    ("output_a", "output_b"),
    ("response_0", "response_1"),
    ("answer_0", "answer_1"),
    ("output_1", "output_2"),
    ("response_1", "response_2"),
    ("response1", "response2"),
    ("output_0", "output_1"),
)
_ORDERED = (("response_j", "response_k"),)
"""Fields of which the first holds the preferred answer by its name (StackExchange)."""

_CHOICES = (
    "winner",
    "preference",
    "preferred",
    "better_response_id",
    "overall_preference",
    "labels",
    "label",
    "choice",
    "preference_strength",
)
_SIGNED = ("preference_strength", "overall_preference")
"""Choices on a scale that is negative where the first answer is better, positive where the second is (HelpSteer)."""
_FLAGS = (("winner_model_a", "winner_model_b"), ("winner_a", "winner_b"))
"""Two columns of which the one of the better answer is 1."""
_SECOND_CHOICE = "safer_response_id"
_LISTS = ("completions", "responses", "generations", "candidates", "answers", "outputs")
_TEXTS = ("response", "text", "completion", "content", "output", "answer")
_SCORES = ("overall_score", "score", "rating", "reward")
_RANKS = ("rank", "ranking")
"""Places of which the first is the best answer's (Nectar)."""
_LIST_SCORES = ("scores", "ratings", "rating", "rewards")
_SCORE_PAIRS = (
    ("score_chosen", "score_rejected"),
    ("chosen_score", "rejected_score"),
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_reward", "rejected_reward"),
    ("chosen_avg_rating", "rejected_avg_rating"),
)
_TIES = re.compile(r"\btie\b|both|equal|same|neither|무승부|동점", re.IGNORECASE)


def compared(row: Mapping[str, Any]) -> Compared | None:
    """The two answers of a row in another shape than chosen and rejected; None where it has none of them.

    RowFault where no answer was preferred, or where nothing says which.
    """
    for first, second in _ORDERED:
        if first in row and second in row:
            return row[first], row[second], {first, second}
    for first, second in _TWO_ANSWERS:
        if first in row and second in row:
            return _of_two(row, first, second)
    name = next((name for name in _LISTS if isinstance(row.get(name), list) and len(row[name]) > 1), None)
    return None if name is None else _of_many(row, name)


def is_ranked(row: Mapping[str, Any]) -> bool:
    """Whether a row has several answers, each of which has a score or a rank."""
    for name in _LISTS:
        answers = row.get(name)
        if isinstance(answers, list) and len(answers) > 1 and (found := _scores(row, name)) is not None:
            return all(score is not None for score in found[0])
    return False


def check_scores(row: Mapping[str, Any]) -> None:
    """RowFault where the scores beside two answers don't say that the chosen one is the better."""
    for better, worse in _SCORE_PAIRS:
        high, low = _number(row.get(better)), _number(row.get(worse))
        if high is None or low is None:
            continue
        if high == low:
            raise RowFault(better, f"both answers have the score {high:g}: none was preferred")
        if high < low:
            raise RowFault(better, f"the chosen answer has the score {high:g} and the rejected one {low:g}")
    margin = _number(row.get("margin"))
    if margin is not None and margin <= 0:
        raise RowFault("margin", f"a margin of {margin:g} says that the chosen answer is not the better one")
    status = row.get("status")
    if isinstance(status, str) and status.strip().lower() == "tie":
        raise RowFault("status", "a tie: none of the two answers was preferred")


def _of_two(row: Mapping[str, Any], first: str, second: str) -> Compared:
    used = {first, second}
    choice = next((name for name in _CHOICES if row.get(name) is not None), None)
    flags = next((pair for pair in _FLAGS if set(pair) <= row.keys()), None)
    if choice is None and flags is not None:
        one, other = (_number(row[name]) for name in flags)
        if {one, other} != {0, 1}:
            raise RowFault(flags[0], "none of the two answers was preferred")
        better, worse = (first, second) if one else (second, first)
        return only_text(row[better], better), only_text(row[worse], worse), used | {*flags}
    if choice is None:
        scores = [name.replace("answer", "score").replace("human_ref", "score") for name in (first, second)]
        one, other = (_number(row.get(name)) for name in scores)
        if one is None or other is None:
            known = ", ".join(_CHOICES[:4])
            raise RowFault("", f"{first} and {second} are two answers, and nothing says which was preferred ({known})")
        if one == other:
            raise RowFault(scores[0], f"both answers have the score {one:g}: none was preferred")
        return (row[first], row[second], used) if one > other else (row[second], row[first], used)
    is_first = _first_won(row[choice], first, second, choice)
    used.add(choice)
    if row.get(_SECOND_CHOICE) is not None and choice != _SECOND_CHOICE:
        if _first_won(row[_SECOND_CHOICE], first, second, _SECOND_CHOICE) != is_first:
            raise RowFault(_SECOND_CHOICE, f"{choice} and {_SECOND_CHOICE} prefer different answers: say which counts")
        used.add(_SECOND_CHOICE)
    return (row[first], row[second], used) if is_first else (row[second], row[first], used)


def _first_won(value: Any, first: str, second: str, field: str) -> bool:
    """Whether a choice names the first of two answers."""
    preferred = str(value).strip().lower()
    if _TIES.search(preferred):
        raise RowFault(field, f"{preferred!r}: none of the two answers was preferred")
    if field in _SIGNED and (strength := _number(value)) is not None:
        if strength == 0:
            raise RowFault(field, "0: none of the two answers was preferred")
        return strength < 0
    # SHP: labels 1 is the first answer, 0 the second.
    if first == "human_ref_A" and preferred in ("0", "1"):
        return preferred == "1"
    for name, won in ((first, True), (second, False)):
        ending = name.lower()[-1]
        if preferred in (name.lower(), ending, f"model_{ending}", f"response_{ending}", f"output_{ending}"):
            return won
    raise RowFault(field, f"{value!r} names neither {first} nor {second}")


def _of_many(row: Mapping[str, Any], name: str) -> Compared:
    """The best and the worst of a list of answers with scores."""
    answers = row[name]
    scores, used = _scores(row, name) or ([None] * len(answers), {name})
    if any(score is None for score in scores):
        raise RowFault(name, f"{len(answers)} answers, and not all have a score: nothing says which was preferred")
    best, worst = scores.index(max(scores)), scores.index(min(scores))
    if scores[best] == scores[worst]:
        raise RowFault(
            name, f"all {len(answers)} answers have the score or rank {abs(scores[best]):g}: none was preferred"
        )
    return _text_in(answers[best], f"{name}[{best}]"), _text_in(answers[worst], f"{name}[{worst}]"), used


def _scores(row: Mapping[str, Any], name: str) -> tuple[list[float | None], set[str]] | None:
    """How good each of a list of answers is, the best the highest, and the fields used; None where nothing says it."""
    answers = row[name]
    beside = next((key for key in _LIST_SCORES if isinstance(row.get(key), list)), None)
    if beside is not None and len(row[beside]) == len(answers):
        return [_number(score) for score in row[beside]], {name, beside}
    beside = next((key for key in (*_RANKS, "ranks") if isinstance(row.get(key), list)), None)
    if beside is not None and len(row[beside]) == len(answers):
        return [_of_rank(rank) for rank in row[beside]], {name, beside}
    if not all(isinstance(answer, Mapping) for answer in answers):
        return None
    for key in _SCORES:
        if all(_number(answer.get(key)) is not None for answer in answers):
            return [_number(answer[key]) for answer in answers], {name}
    for key in _RANKS:
        if all(_number(answer.get(key)) is not None for answer in answers):
            return [_of_rank(answer[key]) for answer in answers], {name}
    return None


def _of_rank(rank: Any) -> float | None:
    number = _number(rank)
    return None if number is None else -number


def only_text(answer: Any, path: str) -> Any:
    """The one text of a list that stands in a text as JSON, as arenas export turns; RowFault for several turns."""
    if not isinstance(answer, str) or answer.lstrip()[:2] not in ('["', "[]"):
        return answer
    try:
        texts = json.loads(answer)
    except ValueError:
        return answer
    if len(texts) != 1 or not isinstance(texts[0], str):
        raise RowFault(path, f"{len(texts)} turns, of which the whole is compared: write both as lists of messages")
    return texts[0]


def _text_in(answer: Any, path: str) -> Any:
    if not isinstance(answer, Mapping) or "role" in answer or "from" in answer:
        return answer
    key = next((key for key in _TEXTS if key in answer), None)
    if key is None:
        raise RowFault(
            path, f"expected an answer with a text, got {kind_of(answer)} with {', '.join(map(str, answer))}"
        )
    return answer[key]


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        return None
