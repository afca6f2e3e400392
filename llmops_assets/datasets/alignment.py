"""Judges whether answers stand in the rows of their questions, or one column of a table was moved against another."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from statistics import median

import polars as pl

from llmops_assets.datasets import texts
from llmops_assets.datasets.coverage import SHOWN
from llmops_assets.verdict import Verdict

WINDOW = 256
"""Rows that are judged together: a column may be moved from some row on, or back again behind another."""
MOST_WINDOWS = 64
"""Windows of a version that are looked at, spread evenly: what is moved is moved for more than a few rows."""
MOVES = (-3, -2, -1, 1, 2, 3)
"""How many rows further down an answer is looked for."""
_READ = 300
"""Characters of a text that are compared: enough to tell what it is about."""
_LEAST_ALIKE, _BETTER = 0.1, 2.0
"""A question and an answer have something to do with each other from this share of common pairs of letters on, and
clearly more than two others from this many times as much on."""
_COMMON = 0.2
"""Share of a column's texts in a window beyond which what they have is no sign of what a row is about."""
_LEAST_WINS, _CLEARLY = 20, 5
"""Rows of a window that must say so, and how many times as many as say that the answer stands where it belongs."""


Window = tuple[int, list[tuple[str, str, str]]]
"""The number of the first row of a window, and of each of its rows the id, what is asked and what is answered."""


@dataclass(frozen=True)
class Moved:
    """A window in which the answers belong to the questions `by` rows above (below, where it is negative)."""

    row: int
    by: int
    elsewhere: int
    here: int
    examples: list[dict[str, str]] = field(default_factory=list)


def windows_of(batches: Iterable[pl.DataFrame], dataset_type: str, rows: int) -> Iterator[Window]:
    """Windows of the rows in the order of their file, of which there are `rows`; no more than `MOST_WINDOWS`."""
    every = max(1, -(-rows // (WINDOW * MOST_WINDOWS)))
    waiting: pl.DataFrame | None = None
    start = 0
    prompt, answer = (part.fill_null("").str.slice(0, _READ) for part in _sides(dataset_type))
    for batch in batches:
        waiting = batch if waiting is None else pl.concat([waiting, batch])
        while waiting.height >= WINDOW:
            if (start // WINDOW) % every == 0:
                yield start, waiting[:WINDOW].select("row_id", prompt.alias("q"), answer.alias("a")).rows()
            waiting, start = waiting[WINDOW:], start + WINDOW
    if waiting is not None and waiting.height:
        yield start, waiting.select("row_id", prompt.alias("q"), answer.alias("a")).rows()


def _sides(dataset_type: str) -> tuple[pl.Expr, pl.Expr]:
    """What is asked, and what is answered. Of a conversation that is its beginning: a later question says little."""
    if dataset_type == "sft_pair":
        turns = texts.without_system(pl.col("messages"))
        return texts.spoken(turns.list.first()), texts.spoken(turns.list.get(1, null_on_oob=True))
    return texts.prompt_of(dataset_type), texts.answer_of(dataset_type)


def moved(windows: Iterable[Window]) -> tuple[list[Moved], int]:
    """The windows whose answers belong to the questions of other rows, and how many were looked at."""
    found = [_of_window(start, rows) for start, rows in windows]
    return [one for one in found if one is not None], len(found)


def _of_window(start: int, rows: list[tuple[str, str, str]]) -> Moved | None:
    asked, said = _without_common([_letters(row[1]) for row in rows], [_letters(row[2]) for row in rows])
    own = [_alike(*pair) for pair in zip(asked, said, strict=True)]
    fitting: dict[int, list[int]] = {}
    here: dict[int, int] = {}
    for by in MOVES:
        fitting[by], here[by] = [], 0
        for number in range(max(0, -by), len(rows) - max(0, by)):
            if rows[number][1] == rows[number + by][2] or rows[number + by][1] == rows[number][2]:
                # A dialogue that was cut into pairs: what is answered in one row is asked in the next.
                continue
            other = _alike(asked[number], said[number + by])
            if other >= max(_LEAST_ALIKE, _BETTER * own[number]):
                fitting[by].append(number)
            elif own[number] >= max(_LEAST_ALIKE, _BETTER * other):
                here[by] += 1
    by = max(MOVES, key=lambda one: len(fitting[one]))
    found = len(fitting[by])
    chance = median(len(rows) for rows in fitting.values())
    if found < max(_LEAST_WINS, _CLEARLY * here[by], _BETTER * chance):
        return None
    shown = [
        {
            "row": rows[number][0],
            "question": rows[number][1][:SHOWN],
            "its answer": rows[number][2][:SHOWN],
            "the answer that fits": rows[number + by][2][:SHOWN],
        }
        for number in fitting[by][:3]
    ]
    return Moved(start, by, found, here[by], shown)


def _without_common(*columns: list[frozenset[str]]) -> list[list[frozenset[str]]]:
    """The same without what many texts of a column have, which tells no row from another."""
    common = set()
    for column in columns:
        counted = Counter(letters for text in column for letters in text)
        common |= {letters for letters, rows in counted.items() if rows > _COMMON * len(column)}
    return [[text - common for text in column] for column in columns]


def _letters(text: str) -> frozenset[str]:
    """The pairs of letters within the words of a text: of two forms of a word most are the same."""
    return frozenset(
        word[at : at + 2] for word in text.lower().split() for at in range(len(word) - 1) if word[at : at + 2].isalnum()
    )


def _alike(one: frozenset[str], other: frozenset[str]) -> float:
    """Share of pairs of letters that two texts have in common, by the geometric mean of their numbers."""
    if not one or not other:
        return 0.0
    return len(one & other) / (len(one) * len(other)) ** 0.5


def answers_belong(found: Sequence[Moved], windows: int, allowed: float) -> Verdict:
    """Whether no more than the share `allowed` of the windows have answers that belong to other rows' questions."""
    figures = {"windows": windows, "windows_moved": len(found)}
    if len(found) <= allowed * windows:
        return Verdict(True, f"{len(found):,} of {windows:,} stretches of rows have answers of rows near by.", figures)
    first = found[0]
    where = "above" if first.by > 0 else "below"
    many = abs(first.by)
    return Verdict(
        False,
        f"The answers of {len(found):,} of {windows:,} stretches of {WINDOW} rows belong to questions {many} "
        f"row{'s' if many > 1 else ''} {where}: from row {first.row + 1:,} on, {first.elsewhere:,} questions fit the "
        f"answer that stands there clearly better than their own, and {first.here:,} their own. One column was moved "
        "against the other (rows dropped of one of them, a header counted, a join by position): join them by a key and "
        "register the version again, or allow more in the policy (datasets.max_moved_answers_share)",
        figures,
    )
