"""Finds names of persons in texts: Korean and transliterated ones, by morphemes, word forms and what stands around."""

import re

from llmops_assets.datasets.name_rules import names_in
from llmops_assets.datasets.name_words import LOCK, kiwi
from llmops_assets.datasets.privacy import Span

_WORTH_A_LOOK = re.compile("[가-힣]")
"""What a sentence must hold to be looked at: a name is written in Hangul, or Hangul stands beside it (A씨)."""

_SENTENCE = re.compile(r"[^\n]+?(?:[.!?]+(?=\s)|\n|$)\s*")
_FIGURES = re.compile(r"[0-9][0-9. -]{7,}[0-9]")
"""Phone numbers and the like, whose surname behind would be read as a counter (권, 장) were they plain digits."""


_CACHE: dict[str, tuple[Span, ...]] = {}
"""Names of sentences that were looked at: sentences recur, in a table and from one asset to the next."""
_CACHED = 1 << 17


def _serial(match: re.Match[str]) -> str:
    """Figures of the same length that read as a number of something."""
    return f"000-{'0' * (len(match.group()) - 8)}-000"


def find_names(values: list[str]) -> list[list[Span]]:
    """Spans of persons' names in each text; type PERSON, score 0.5 to 0.95 by the evidence.

    Each sentence is judged by itself (see `name_rules`): equal sentences are looked at once.
    """
    found: list[list[Span]] = [[] for _ in values]
    pieces = [
        (number, match.start(), match.group())
        for number, text in enumerate(values)
        for match in _SENTENCE.finditer(text)
        if _WORTH_A_LOOK.search(match.group())
    ]
    sentences = dict.fromkeys(sentence for _, _, sentence in pieces)
    known = {sentence: _CACHE[sentence] for sentence in sentences if sentence in _CACHE}
    unknown = [sentence for sentence in sentences if sentence not in known]
    if unknown:
        plain = [_FIGURES.sub(_serial, sentence) for sentence in unknown]
        with LOCK:
            judged = {s: tuple(names_in(s, tokens)) for s, tokens in zip(unknown, kiwi().tokenize(plain), strict=True)}
        if len(_CACHE) + len(judged) > _CACHED:
            _CACHE.clear()
        _CACHE.update(judged)
        known |= judged
    for number, start, sentence in pieces:
        found[number] += [Span(start + s.start, start + s.end, s.type, s.score) for s in known[sentence]]
    return found
