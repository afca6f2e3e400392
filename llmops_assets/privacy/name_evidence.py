"""Where in a sentence anything speaks for a name: by its words one by one, before an analyser reads the sentence.

A word is cut by mecab as it stands alone, and scored: once, as words recur. With what stands around it that gives
evidence, weighed by weights that are fitted to the same sentences as all others. This is a part of the model, and no
shortcut only: names are looked for beside words of evidence, and nowhere else. What changes no result is `bound`: most
words can have none whatever stands around them, and are passed over.
"""

import re
from collections.abc import Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from llmops_assets.privacy import name_context as context
from llmops_assets.privacy.name_dictionary import cut_word
from llmops_assets.privacy.name_sentence import Bounds, Sentence, may_hold_name
from llmops_assets.privacy.name_weights import evidence_weights, total
from llmops_assets.privacy.name_words import Features, form
from llmops_assets.privacy.surnames import SURNAMES

_HANGUL = re.compile("[가-힣]+")
_WORD = re.compile(r"\S+")
_AROUND = "around: "
_LETTER = re.compile(r"(?<![A-Za-z])[A-Z](?![A-Za-z])")
_SURNAME = re.compile(rf"(?<![가-힣])[{SURNAMES}](?=[가-힣]?\s?[씨모군양(]|\s[가-힣])")
_INTRODUCED = re.compile(
    rf"(?<![가-힣])[{SURNAMES}][가-힣]{{2,3}}(?=(?:입니다|이에요|예요|이라고|라고|인데요|이고요|이구요|이요)(?![가-힣]))"
)
"""What people say who they are with. Dictionaries may not know the name, so the word alone does not speak for it."""
_KEPT = 1 << 18
"""Words whose evidence is kept, a hundred bytes each for most."""


class Suspect(NamedTuple):
    """A part of a word that may be a name, and what speaks for it in the word itself."""

    start: int
    end: int
    features: Features


def _suspects(word: str) -> list[Suspect]:
    """Parts of a word in Hangul that may be names, with their features as far as the word alone shows them."""
    if len(word) == 1:
        return []
    pieces = cut_word(word)
    if not may_hold_name(word, pieces):
        return []
    alone = Sentence(word, [], pieces)
    found = []
    for start, end in alone.candidates():
        features = alone.inside(start, end) | alone.before(start) | alone.after(end)
        found.append(Suspect(start, end, features | form(word[start:end])))
    return found


def _around(text: str, word: Bounds, start: int, end: int) -> Features:
    """Features of what stands around `text[start:end]` beyond the word that it is in."""
    found = {_AROUND + name: 1.0 for name in (*context.ahead(text, start), *context.behind(text, end))}
    found[_AROUND + context.mark_ahead(text[word[0] - 1 : word[0]])] = 1.0
    found[_AROUND + "then " + context.mark_behind(text[word[1] : word[1] + 1])] = 1.0
    return found


def parts_of_words(text: str) -> list[tuple[Bounds, Features]]:
    """Parts of words that may be names, in order, with all their features."""
    found = []
    for word in _HANGUL.finditer(text):
        for start, end, features in _suspects(word.group()):
            part = word.start() + start, word.start() + end
            found.append((part, features | _around(text, word.span(), *part)))
    return sorted(found, key=lambda one: one[0])


def _titled(text: str) -> list[int]:
    """Where a surname or a letter stands for a person (김 대표, 박모(33) 씨, A씨), or somebody may say who they are."""
    found = [match.start() for match in _LETTER.finditer(text) if context.initial(text, match.end())]
    for match in _SURNAME.finditer(text):
        if context.surname_alone(text, match.end()) or context.in_office(text, match.end()):
            found.append(match.start())
    found += [match.start() for match in _INTRODUCED.finditer(text)]
    return found


class Evidence:
    """Evidence by these weights: a sentence needs a word of more than `enough`; words of more than `near` are hot."""

    def __init__(self, weights: Mapping[str, float], enough: float, near: float) -> None:
        self._weights, self._enough, self._near = weights, enough, near
        around = (weight for name, weight in weights.items() if name.startswith(_AROUND))
        self.bound = sum(weight for weight in around if weight > 0)
        self._weighed = lru_cache(_KEPT)(self._weigh)

    def _weigh(self, word: str) -> tuple[tuple[int, int, float], ...]:
        """The parts of a word that may be names, with their evidence so far; without those that are never hot."""
        found = ((start, end, total(features, self._weights)) for start, end, features in _suspects(word))
        # A hair less is wanted: sums come out differently in another order.
        return tuple(part for part in found if part[2] + self.bound > self._near - 1e-9)

    def places(self, text: str) -> list[Bounds]:
        """Where names may begin, as ranges of whole words: hot words and their neighbours. Hold the analysers' lock."""
        hot, most = [], self._near
        for word in _HANGUL.finditer(text):
            for start, end, so_far in self._weighed(word.group()):
                part = word.start() + start, word.start() + end
                evidence = so_far + total(_around(text, word.span(), *part), self._weights)
                if evidence > self._near:
                    hot.append(part[0])
                    most = max(most, evidence)
        titled = _titled(text)
        if most <= self._enough and not titled:
            return []
        return _neighbourhoods(text, sorted(hot + titled))


def _neighbourhoods(text: str, hot: list[int]) -> list[Bounds]:
    """Ranges of words: those at these positions, one more on each side; ranges that touch are one."""
    return widened(text, [(at, at + 1) for at in hot], 1)


def widened(text: str, ranges: list[Bounds], by: int) -> list[Bounds]:
    """Ranges of `text`, in order, widened to whole words and `by` words more on each side; those that touch are one."""
    words = [match.span() for match in _WORD.finditer(text)]
    found: list[Bounds] = []
    number = 0
    for start, end in ranges:
        while words[number][1] <= start:
            number += 1
        last = number
        while last + 1 < len(words) and words[last + 1][0] < end:
            last += 1
        begin, stop = words[max(0, number - by)][0], words[min(len(words) - 1, last + by)][1]
        if found and begin <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(stop, found[-1][1])
        else:
            found.append((begin, stop))
    return found


@cache
def evidence() -> Evidence:
    """By the weights that are kept."""
    return Evidence(*evidence_weights())
