"""Which words a text must hold for a regular expression to match: looked for first, at a fraction of the cost."""

from re import _constants as ops
from re import _parser as parser
from typing import Any

_MOST_WORDS = 80

Needed = list[frozenset[str]]
"""Of every set a text must hold a word."""


def needed_words(expression: str) -> tuple[frozenset[str], ...]:
    """Sets of words, of each of which every match of `expression` holds one; empty where nothing can be said."""
    found = [s for s in _sequence(list(parser.parse(expression))) if s and len(s) <= _MOST_WORDS]
    # A Latin letter alone is in every text; a Korean syllable is not.
    telling = (s for s in found if all(len(word) > 1 or not word.isascii() for word in s))
    return tuple(sorted(dict.fromkeys(telling), key=len))


def _sequence(parts: list[tuple[Any, Any]]) -> Needed:
    """What a sequence needs: its runs of letters, and what each of its groups needs."""
    found: Needed = []
    run = ""
    for op, argument in parts:
        if op is ops.LITERAL:
            run += chr(argument)
            continue
        if run:
            found.append(frozenset([run]))
            run = ""
        if op is ops.SUBPATTERN:
            found += _sequence(list(argument[3]))
        elif op in (ops.MAX_REPEAT, ops.MIN_REPEAT, ops.POSSESSIVE_REPEAT) and argument[0] > 0:
            found += _sequence(list(argument[2]))
        elif op is ops.BRANCH and (words := _branch(argument[1])):
            found.append(words)
    if run:
        found.append(frozenset([run]))
    return found


def _branch(branches: list[Any]) -> frozenset[str] | None:
    """One set for all branches: of each the set with the longest words; None where a branch needs none."""
    words: set[str] = set()
    for branch in branches:
        needed = _sequence(list(branch))
        if not needed:
            return None
        words |= max(needed, key=lambda s: (min(map(len, s)), -len(s)))
    return frozenset(words)
