"""The weights of the features of names, fitted by `python -m benchmarks.names --fit`, and what they add up to."""

import json
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path

from llmops_assets.datasets.name_sentence import Bounds, Sentence
from llmops_assets.datasets.name_words import Features, form

PATH = Path(__file__).with_name("name_weights.json")
_LEAST = -6.0


def features(sentence: Sentence, start: int, end: int) -> Features:
    """All features of a candidate."""
    found = sentence.inside(start, end) | sentence.before(start) | sentence.after(end)
    word = sentence.text[start:end]
    return found | form(word) if _has_form(word) else found


def _has_form(word: str) -> bool:
    return " " not in word and not word.isascii()


@cache
def weights() -> tuple[dict[str, float], float]:
    """Weight by feature, and the log odds from which on a candidate counts as a name."""
    content = json.loads(PATH.read_text(encoding="utf-8"))
    return content["weights"], content["enough"]


def _sum(found: Mapping[str, float], weigh: Mapping[str, float]) -> float:
    return sum(weigh.get(name, 0.0) * value for name, value in found.items())


@lru_cache(1 << 16)
def _by_form(word: str) -> float:
    return _sum(form(word), weights()[0])


def log_odds(sentence: Sentence) -> list[tuple[float, Bounds]]:
    """Of each candidate, that it is a name: what `features` add up to."""
    weigh = weights()[0]
    before: dict[int, float] = {}
    after: dict[int, float] = {}
    found = []
    for start, end in sentence.candidates():
        word = sentence.text[start:end]
        if start not in before:
            before[start] = _sum(sentence.before(start), weigh)
        if end not in after:
            after[end] = _sum(sentence.after(end), weigh)
        odds = before[start] + after[end] + _sum(sentence.inside(start, end), weigh)
        found.append((odds + _by_form(word) if _has_form(word) else odds, (start, end)))
    return found


def choose(sentence: Sentence, odds: list[tuple[float, Bounds]], enough: float) -> list[tuple[float, Bounds]]:
    """The likeliest names that do not overlap, in order; the same in Chinese characters behind one is one too."""
    chosen: list[tuple[float, Bounds]] = []
    for likely, (start, end) in sorted(odds, reverse=True):
        if likely > enough and all(end <= first or start >= last for _, (first, last) in chosen):
            chosen.append((likely, (start, end)))
    ends = {end: likely for likely, (_, end) in chosen}
    chosen += [(ends[a - 1], (a, b)) for a, b in sentence.chinese() if a - 1 in ends]
    return sorted(chosen, key=lambda name: name[1])
