"""Finds names of persons in texts, Korean and transliterated: by dictionaries, syllables and what stands around."""

import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmops_assets.privacy.masking import Span
from llmops_assets.privacy.name_dictionary import Piece, pieces
from llmops_assets.privacy.name_evidence import evidence, widened
from llmops_assets.privacy.name_process import found_elsewhere
from llmops_assets.privacy.name_sentence import Bounds, Sentence
from llmops_assets.privacy.name_weights import choose, log_odds, weights
from llmops_assets.privacy.name_words import LOCK, kiwi

if TYPE_CHECKING:
    from kiwipiepy import Token

_WORTH_A_LOOK = re.compile("[가-힣]")
"""What a sentence must hold to be looked at: a name is written in Hangul, or Hangul stands beside it (A씨)."""

_SENTENCE = re.compile(r"[^\n]+?(?:[.!?]+(?=\s)|\n|$)\s*")
_LONGEST = 2_000
"""Characters that are judged together: what the candidates cost grows with their square, and no sentence is longer."""
_FIGURES = re.compile(r"[0-9][0-9. -]{7,}[0-9]")
"""Phone numbers and the like, whose surname behind would be read as a counter (권, 장) were they plain digits."""


_CACHE: dict[str, tuple[Span, ...]] = {}
"""Names of sentences that were looked at: sentences recur, in a table and from one asset to the next."""
_CACHED = 1 << 17


def _serial(match: re.Match[str]) -> str:
    """Figures of the same length that read as a number of something."""
    return f"000-{'0' * (len(match.group()) - 8)}-000"


def analysed(texts: list[str], places: list[list[Bounds]]) -> Iterator[Sentence]:
    """Sentences as both analysers cut them, to be looked at in these places; one at a time to save memory.

    Kiwi, the dearest by far, reads the places and a word on each side. Hold the lock until all are read.
    """
    plain = [_FIGURES.sub(_serial, text) for text in texts]
    windows = [widened(text, ranges, 1) for text, ranges in zip(plain, places, strict=True)]
    cut = kiwi().tokenize([text[a:b] for text, ranges in zip(plain, windows, strict=True) for a, b in ranges])
    for text, read, ranges, inside in zip(texts, plain, windows, places, strict=True):
        tokens = [_piece(token, start) for start, _ in ranges for token in next(cut)]
        yield Sentence(text, tokens, pieces(read), inside)


def _piece(token: "Token", at: int) -> Piece:
    start = at + token.start
    return Piece(start, start + token.len, token.tag + ("?" if token.oov else ""), "*")


def _names_in(sentence: Sentence) -> tuple[Span, ...]:
    return tuple(
        Span(start, end, "PERSON", min(0.95, max(0.5, 1 / (1 + math.exp(-odds)))))
        for odds, (start, end) in choose(sentence, log_odds(sentence), weights()[1])
    )


def judged(texts: list[str]) -> dict[str, tuple[Span, ...]]:
    """The names in each of these sentences."""
    with LOCK:
        places = {text: where for text in texts if (where := evidence().places(text))}
        found = dict.fromkeys(texts, ())
        if places:
            for sentence in analysed([*places], [*places.values()]):
                found[sentence.text] = _names_in(sentence)
    return found


def _judged_anywhere(texts: list[str]) -> dict[str, tuple[Span, ...]]:
    """The same, by the process that looks for names where one was started."""
    found = found_elsewhere(texts)
    if found is None:
        return judged(texts)
    return {
        text: tuple(Span(start, end, "PERSON", score) for start, end, score in spans)
        for text, spans in zip(texts, found, strict=True)
    }


def sentences(text: str) -> Iterator[tuple[int, str]]:
    """Where each sentence of a text begins, and the sentence; one beyond all measure in parts, cut between words."""
    for match in _SENTENCE.finditer(text):
        start, end = match.span()
        while end - start > _LONGEST:
            space = text.rfind(" ", start + _LONGEST // 2, start + _LONGEST)
            stop = start + _LONGEST if space < 0 else space + 1
            yield start, text[start:stop]
            start = stop
        yield start, text[start:end]


def find_names(values: list[str]) -> list[list[Span]]:
    """Spans of persons' names in each text; type PERSON, score 0.5 to 0.95 by the evidence.

    Each sentence is judged by itself, by fitted weights (see `name_sentence`): equal sentences are looked at once.
    """
    found: list[list[Span]] = [[] for _ in values]
    cut = [
        (number, start, sentence)
        for number, text in enumerate(values)
        for start, sentence in sentences(text)
        if _WORTH_A_LOOK.search(sentence)
    ]
    distinct = dict.fromkeys(sentence for _, _, sentence in cut)
    known = {sentence: _CACHE[sentence] for sentence in distinct if sentence in _CACHE}
    unknown = [sentence for sentence in distinct if sentence not in known]
    if unknown:
        new = _judged_anywhere(unknown)
        if len(_CACHE) + len(new) > _CACHED:
            _CACHE.clear()
        _CACHE.update(new)
        known |= new
    for number, start, sentence in cut:
        found[number] += [Span(start + s.start, start + s.end, s.type, s.score) for s in known[sentence]]
    return found
