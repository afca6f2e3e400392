"""What is compared of requests and training rows: a sample a feature, with the user of each value."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from llmops_assets.drift import texts
from llmops_assets.drift.distances import Sample
from llmops_assets.drift.domain import CategoryGuess
from llmops_assets.drift.window import Window

Kind = Literal["number", "category", "share"]
KINDS: Mapping[str, Kind] = {
    "characters": "number",
    "hangul share": "number",
    "new 3-grams": "number",
    "language": "category",
    "category": "category",
    "toxic question": "share",
    "personal data in question": "share",
    "answer characters": "number",
    "latency": "number",
    "rating": "number",
    "refusal": "share",
    "empty answer": "share",
    "truncated answer": "share",
    "failed request": "share",
    "toxic answer": "share",
    "personal data in answer": "share",
    "rated": "share",
}
"""Every feature by name. Those from `answer characters` on say something of the model, and so of one model only."""
OF_QUESTIONS = frozenset(list(KINDS)[:7])
_FEWEST_CATEGORY_ROWS = 20


@dataclass(frozen=True)
class Measures:
    """How texts are measured: `vocabulary` and `category` are learned from one half of the training questions.

    is_toxic: of a column of texts, which are; category is None where the training data has no two categories.
    """

    vocabulary: set[str]
    is_toxic: Callable[[pl.Series], NDArray[np.bool_]]
    is_refusal: Callable[[str], bool]
    placeholders: Sequence[str] = ()
    category: CategoryGuess | None = None

    @cached_property
    def pattern(self) -> str:
        return texts.placeholder_pattern(self.placeholders).pattern

    @classmethod
    def learned(
        cls,
        questions: Sequence[str],
        categories: Sequence[str | None],
        *,
        is_toxic: Callable[[pl.Series], NDArray[np.bool_]],
        is_refusal: Callable[[str], bool],
        placeholders: Sequence[str] = (),
    ) -> "Measures":
        """What every other training question teaches; the others are the reference (`held_out`)."""
        taught = [(q, c) for q, c in zip(questions[::2], categories[::2], strict=True) if c is not None]
        is_known = len(taught) >= _FEWEST_CATEGORY_ROWS and len({c for _, c in taught}) > 1
        guess = CategoryGuess([q for q, _ in taught], [c for _, c in taught]) if is_known else None
        return cls(texts.vocabulary_of(questions[::2]), is_toxic, is_refusal, placeholders, guess)


def held_out(questions: Sequence[str]) -> list[str]:
    """The training questions that nothing was learned from: measured on its own texts, nothing would be new."""
    return list(questions[1::2])


@dataclass(frozen=True)
class Measured:
    """Samples by feature, and the texts of the questions with the codes of their users."""

    samples: Mapping[str, Sample]
    questions: Sequence[str]
    users: NDArray[np.int64]
    models: frozenset[str] = field(default_factory=frozenset)


def of_questions(questions: Sequence[str], users: NDArray[np.int64], how: Measures) -> Measured:
    """The features of questions alone."""
    series = pl.Series("text", questions, dtype=pl.String)
    values = {
        "characters": _floats(map(len, questions)),
        "hangul share": _floats(map(texts.hangul_share, questions)),
        "new 3-grams": _floats(texts.new_share(text, how.vocabulary) for text in questions),
        "language": _floats(map(texts.language, questions)),
        "toxic question": how.is_toxic(series).astype(float),
        "personal data in question": series.str.contains(how.pattern).to_numpy().astype(float),
    }
    if how.category is not None and questions:
        values["category"] = how.category(questions)
    return Measured({name: Sample(value, users) for name, value in values.items()}, questions, users)


def of_rows(questions: Sequence[str], how: Measures) -> Measured:
    """The features of training questions, each by itself."""
    return of_questions(questions, -1 - np.arange(len(questions)), how)


def of_window(window: Window, how: Measures) -> Measured:
    """The features of requests and their answers; a feature that nothing was measured of is left out.

    Latency is that of answers that the assigned model gave; what the caller did wrong is nobody's failure.
    """
    frame, users = window.frame, window.users
    has_query = frame["query"].is_not_null().to_numpy()
    asked = of_questions(frame["query"].drop_nulls().to_list(), users[has_query], how)
    status = frame["status"].to_numpy()
    good = (status < 400) & frame["response"].is_not_null().to_numpy()
    from_model = frame["source"].fill_null("model").eq("model").to_numpy()
    answers, by = frame["response"].fill_null("").filter(pl.Series(good)), users[good]
    # The text of an answer without consent is not kept: whether it was empty, nobody can say.
    empty = answers.str.strip_chars().str.len_chars().eq(0).to_numpy()
    finish = frame["finish_reason"].filter(pl.Series(good))
    judged = (status < 400) | (status >= 500)
    timed = (status < 400) & from_model
    rated = frame["rating"].is_not_null().to_numpy()
    found = {
        "answer characters": (answers.str.len_chars().to_numpy().astype(float), by),
        "latency": (frame["latency_ms"].to_numpy()[timed].astype(float), users[timed]),
        "rating": (frame["rating"].drop_nulls().to_numpy().astype(float), users[rated]),
        "refusal": (_floats(map(how.is_refusal, answers)), by),
        "empty answer": (empty.astype(float), by),
        "truncated answer": (finish.eq_missing("length").to_numpy().astype(float), by),
        "failed request": ((status[judged] >= 500).astype(float), users[judged]),
        "toxic answer": (how.is_toxic(answers).astype(float), by),
        "personal data in answer": (answers.str.contains(how.pattern).to_numpy().astype(float), by),
        "rated": (rated[status < 400].astype(float), users[status < 400]),
    }
    of_answers = {name: Sample(values, who) for name, (values, who) in found.items() if len(values)}
    return Measured({**asked.samples, **of_answers}, asked.questions, asked.users, frozenset(window.models))


def _floats(values) -> NDArray[np.float64]:
    return np.fromiter(values, dtype=float)
