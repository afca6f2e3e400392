"""The weights of the features of names, fitted by `python -m benchmarks.names --fit`, and what they add up to."""

import json
import math
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from llmops_assets.privacy import name_context as context
from llmops_assets.privacy.name_sentence import Bounds, Sentence
from llmops_assets.privacy.name_words import Features, form

PATH = Path(__file__).with_name("name_weights.json")
_STEEP = 30.0
"""Scores beyond this are as good as certain."""


def features(sentence: Sentence, start: int, end: int) -> Features:
    """All features of a candidate."""
    found = sentence.inside(start, end) | sentence.before(start) | sentence.after(end)
    word = sentence.text[start:end]
    return found | form(word) if _has_form(word) else found


def _has_form(word: str) -> bool:
    return " " not in word and not word.isascii()


@cache
def _read() -> dict[str, Any]:
    return json.loads(PATH.read_text(encoding="utf-8"))


def weights() -> tuple[dict[str, float], float]:
    """Weight by feature, and the log odds from which on a candidate counts as a name."""
    return _read()["weights"], _read()["enough"]


def evidence_weights() -> tuple[dict[str, float], float, float]:
    """Weight by feature of words, what a sentence needs, and what a hot word needs (`name_evidence.Evidence`)."""
    kept = _read()["evidence"]
    return kept["weights"], kept["enough"], kept["near"]


def total(found: Mapping[str, float], weigh: Mapping[str, float]) -> float:
    """What features add up to by their weights."""
    return sum([weigh[name] * value for name, value in found.items() if name in weigh])


@lru_cache(1 << 16)
def _by_form(word: str) -> float:
    return total(form(word), weights()[0])


class Lattice:
    """Spans of one sentence of which any that do not overlap may be names together: a semi-Markov random field.

    Sarawagi and Cohen 2004, with the spans given: a set of names is as likely as the exponential of its scores' sum.
    """

    def __init__(self, spans: Sequence[Bounds]) -> None:
        points = {point: number for number, point in enumerate(sorted({point for span in spans for point in span}))}
        self._spans = [(points[start], points[end]) for start, end in spans]
        self._ending: list[list[tuple[int, int]]] = [[] for _ in points]
        self._beginning: list[list[tuple[int, int]]] = [[] for _ in points]
        for number, (start, end) in enumerate(self._spans):
            self._ending[end].append((number, start))
            self._beginning[start].append((number, end))

    def chances(self, scores: Sequence[float]) -> tuple[float, list[float]]:
        """The logarithm of the sum over all sets of names, and of each span how likely it is a name."""
        # In logarithms: a line that lists a hundred names is likelier than any float can say.
        scores = [min(max(score, -_STEEP), _STEEP) for score in scores]
        ahead: list[float] = []
        for ending in self._ending:
            ahead.append(_either([ahead[-1] if ahead else 0.0, *(ahead[start] + scores[n] for n, start in ending)]))
        behind = [0.0] * (len(self._beginning) + 1)
        for at in range(len(self._beginning) - 1, -1, -1):
            behind[at] = _either([behind[at + 1], *(behind[end] + scores[n] for n, end in self._beginning[at])])
        every = behind[0]
        likely = [
            math.exp(ahead[start] + score + behind[end] - every)
            for score, (start, end) in zip(scores, self._spans, strict=True)
        ]
        return every, likely


def _either(logs: list[float]) -> float:
    """The logarithm of the sum of what has these logarithms."""
    if len(logs) == 1:
        return logs[0]
    most = max(logs)
    return most + math.log(sum([math.exp(one - most) for one in logs]))


def logit(likely: float) -> float:
    """The logarithm of the odds of a probability, which is kept off 0 and 1."""
    return math.log(max(likely, 1e-12) / max(1 - likely, 1e-12))


_SIGNED = 1.0
"""What a phone number ahead adds to "노은서입니다". It is not fitted: no sentence of news ends so."""


def log_odds(sentence: Sentence) -> list[tuple[float, Bounds]]:
    """Of each candidate, that it is a name and none that overlaps it is."""
    weigh = weights()[0]
    before: dict[int, float] = {}
    after: dict[int, float] = {}
    scores = []
    spans = sentence.candidates()
    for start, end in spans:
        word = sentence.text[start:end]
        if start not in before:
            before[start] = total(sentence.before(start), weigh)
        if end not in after:
            after[end] = total(sentence.after(end), weigh)
        score = before[start] + after[end] + total(sentence.inside(start, end), weigh)
        score += _by_form(word) if _has_form(word) else 0.0
        scores.append(score + _SIGNED if context.signed(sentence.text, start, end) else score)
    _, likely = Lattice(spans).chances(scores)
    return [(logit(share), span) for share, span in zip(likely, spans, strict=True)]


def choose(sentence: Sentence, odds: list[tuple[float, Bounds]], enough: float) -> list[tuple[float, Bounds]]:
    """The likeliest names that do not overlap, in order; the same in Chinese characters behind one is one too."""
    chosen: list[tuple[float, Bounds]] = []
    for likely, (start, end) in sorted(odds, reverse=True):
        if likely > enough and all(end <= first or start >= last for _, (first, last) in chosen):
            chosen.append((likely, (start, end)))
    ends = {end: likely for likely, (_, end) in chosen}
    chosen += [(ends[a - 1], (a, b)) for a, b in sentence.chinese() if a - 1 in ends]
    return sorted(chosen, key=lambda name: name[1])
