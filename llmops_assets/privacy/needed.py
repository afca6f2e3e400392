"""What a text must hold for a regular expression to match it: looked for first, at a fraction of the cost."""

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import add
from re import _constants as ops
from re import _parser as parser
from typing import Any

FIGURES = frozenset(map(ord, "0123456789@"))
LATIN = "A-Za-z\u0130\u0131\u017f\u212a"
"""Class of the Latin letters, and of those that stand for one of them where case does not count."""
_LATIN = frozenset(map(ord, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"))
_REPEATS = (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT)
_MOST_WORDS = 64
_MOST_CLASS = 16

Needed = tuple[frozenset[str], ...]
"""Of every set a text must hold a word."""


@lru_cache(512)
def figures_needed(expression: str) -> int:
    """How many digits and at signs every match of `expression` holds at least."""
    return _figures(parser.parse(expression))


def _figures(parts: Any) -> int:
    count = 0
    for op, argument in parts:
        if op is ops.LITERAL:
            count += argument in FIGURES
        elif op is ops.IN:
            count += all(_is_figures(*item) for item in argument)
        elif op is ops.SUBPATTERN:
            count += _figures(argument[3])
        elif op in _REPEATS:
            count += argument[0] * _figures(argument[2])
        elif op is ops.ATOMIC_GROUP:
            count += _figures(argument)
        elif op is ops.BRANCH:
            count += min(_figures(branch) for branch in argument[1])
    return count


def _is_figures(op: Any, argument: Any) -> bool:
    if op is ops.LITERAL:
        return argument in FIGURES
    return op is ops.RANGE and all(code in FIGURES for code in range(argument[0], argument[1] + 1))


@lru_cache(512)
def needs_latin(expression: str) -> bool:
    """Whether every match of `expression` holds a Latin letter, or one that is taken for such in either case."""
    return _latin(parser.parse(expression))


def _latin(parts: Any) -> bool:
    for op, argument in parts:
        if op is ops.LITERAL and argument in _LATIN:
            return True
        if op is ops.IN and all(_is_latin(*item) for item in argument):
            return True
        if op is ops.SUBPATTERN and _latin(argument[3]):
            return True
        if op is ops.ATOMIC_GROUP and _latin(argument):
            return True
        if op in _REPEATS and argument[0] > 0 and _latin(argument[2]):
            return True
        if op is ops.BRANCH and all(_latin(branch) for branch in argument[1]):
            return True
    return False


def _is_latin(op: Any, argument: Any) -> bool:
    if op is ops.LITERAL:
        return argument in _LATIN
    return op is ops.RANGE and all(code in _LATIN for code in range(argument[0], argument[1] + 1))


@lru_cache(512)
def words_needed(expression: str) -> Needed:
    """Sets of words, of each of which every match of `expression` holds one; empty where nothing can be said.

    What is matched in either case is left out, and so are digits, spaces and single Latin letters, which are in most
    texts.
    """
    found = [one for one in _words(parser.parse(expression)) if one and len(one) <= _MOST_WORDS]
    telling = (one for one in found if all(_tells(word) for word in one))
    return tuple(sorted(dict.fromkeys(telling), key=len))


def _tells(word: str) -> bool:
    return len(word) > 1 or not (word.isascii() and (word.isalnum() or word.isspace()))


def _words(parts: Any) -> list[frozenset[str]]:
    found: list[frozenset[str]] = []
    run = ""
    for op, argument in parts:
        if op is ops.LITERAL:
            run += chr(argument)
            continue
        if run:
            found.append(frozenset([run]))
            run = ""
        if op is ops.SUBPATTERN and not argument[1] & re.IGNORECASE:
            found += _words(argument[3])
        elif op is ops.IN and len(argument) <= _MOST_CLASS and all(kind is ops.LITERAL for kind, _ in argument):
            found.append(frozenset(chr(code) for _, code in argument))
        elif op in _REPEATS and argument[0] > 0:
            found += _words(argument[2])
        elif op is ops.ATOMIC_GROUP:
            found += _words(argument)
        elif op is ops.BRANCH and (words := _branch(argument[1])):
            found.append(words)
    if run:
        found.append(frozenset([run]))
    return found


def _branch(branches: Any) -> frozenset[str] | None:
    """One set for all branches: of each the set with the longest words; None where a branch needs none."""
    words: set[str] = set()
    for branch in branches:
        needed = [one for one in _words(branch) if all(_tells(word) for word in one)]
        if not needed:
            return None
        words |= max(needed, key=lambda one: (min(map(len, one)), -len(one)))
    return frozenset(words)


class WordIndex:
    """Finds which of many words a text holds, at the cost of its pairs of characters and not of all the words."""

    def __init__(self, words: Iterable[str]) -> None:
        self._single: list[str] = []
        self._by_beginning: dict[str, list[str]] = {}
        for word in sorted(set(words)):
            if len(word) == 1:
                self._single.append(word)
            else:
                self._by_beginning.setdefault(word[:2], []).append(word)

    def found(self, text: str) -> set[str]:
        """Those words that the text holds."""
        pairs = self._by_beginning.keys() & set(map(add, text, text[1:]))
        present = {word for pair in pairs for word in self._by_beginning[pair] if word in text}
        present.update([word for word in self._single if word in text])
        return present
