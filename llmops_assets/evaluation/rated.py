"""Pairs of a good and a bad answer from rows that hold one each, for judging a model that was trained on such rows."""

import random
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

SEED = 0
"""Of which bad answer is put beside a good one of another prompt: the same for every model."""


@dataclass(frozen=True)
class Rated:
    """A row of the test split: one answer to a prompt, and whether it was found good."""

    id: str
    category: str | None
    prompt: list[dict[str, Any]]
    completion: list[dict[str, Any]]
    tools: str | None
    label: bool

    @property
    def asked(self) -> str:
        return "\x1e".join(message["content"] for message in self.prompt)


def rated_of(frame: pl.DataFrame) -> list[Rated]:
    """The rows of a split of type kto."""
    columns = ("row_id", "category", "prompt", "completion", "tools", "label")
    return [Rated(*row) for row in frame.select(columns).iter_rows()]


def matched(rows: Iterable[Rated]) -> list[tuple[Rated, Rated]]:
    """Good and bad answers in twos, each row in one at most, so that the twos are independent of each other.

    Answers to one prompt are put together where there are both; the others at random.
    """
    by_prompt: dict[str, dict[bool, list[Rated]]] = defaultdict(lambda: {True: [], False: []})
    for row in rows:
        by_prompt[row.asked][row.label].append(row)
    pairs: list[tuple[Rated, Rated]] = []
    rest: dict[bool, list[Rated]] = {True: [], False: []}
    for found in by_prompt.values():
        common = min(len(found[True]), len(found[False]))
        pairs += zip(found[True][:common], found[False][:common], strict=True)
        for label in (True, False):
            rest[label] += found[label][common:]
    rng = random.Random(SEED)
    for label in (True, False):
        rng.shuffle(rest[label])
    return [*pairs, *zip(rest[True], rest[False], strict=False)]


def singly(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of a `PreferJob` that ask for each answer of some pairs by itself, behind its own prompt: the chosen ones
    first, then the rejected ones. `rejected_prompt` and `rejected_tools` are those of the second answer."""
    good = [(row["prompt"], row["tools"], row["chosen"]) for row in rows]
    bad = [(row["rejected_prompt"], row["rejected_tools"], row["rejected"]) for row in rows]
    # What is answered is found by its id, so each has one of its own.
    return [
        {"id": f"{number}", "prompt": prompt, "tools": tools, "chosen": answer, "rejected": answer}
        for number, (prompt, tools, answer) in enumerate((*good, *bad))
    ]


def together(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What came of `singly` as if both answers of each pair had been asked for at once."""
    half = len(found) // 2
    return [
        {
            **one,
            "rejected": other["chosen"],
            "rejected_tokens": other["chosen_tokens"],
        }
        for one, other in zip(found[:half], found[half:], strict=True)
    ]
