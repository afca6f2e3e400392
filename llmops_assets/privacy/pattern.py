"""What one shape of personal data is, the text that it is looked for in, and a looser shape for a column at once."""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from llmops_assets.privacy.needed import Needed, figures_needed, needs_latin, words_needed


@dataclass(frozen=True)
class Pattern:
    """One shape of one type of personal data, on folded text.

    `label` must stand directly before `body` and is not part of the span; where `unless` stands directly before it,
    the body is something else (an order number). `valid` judges the span: a date, a checksum.
    """

    name: str
    type: str
    body: str
    score: float
    label: str = ""
    unless: str = ""
    valid: Callable[[str], bool] | None = None
    numeric: bool = True
    """Whether every match holds a digit or an at sign: texts without any need not be looked at."""
    context: tuple[str, ...] = ()
    """Words of which one must stand within `NEAR` characters, if there are any."""

    anywhere: tuple[str, ...] = ()
    """Parts in lower case of which every match holds one, if there are any: a text without them is not searched."""

    @cached_property
    def expression(self) -> str:
        """For Python's `re`, whose look-behind has a fixed width: the span is the group ``span``."""
        return f"(?:{self.label})(?P<span>{self.body})" if self.label else f"(?P<span>{self.body})"

    @cached_property
    def figures(self) -> int:
        """How many digits and at signs a text needs to be searched."""
        return max(figures_needed(self.expression), int(self.numeric))

    @cached_property
    def latin(self) -> bool:
        """Whether a text without a Latin letter need not be searched."""
        return needs_latin(self.expression)

    @cached_property
    def words(self) -> Needed:
        """Sets of words, of each of which a text needs one to be searched."""
        return words_needed(self.expression)

    @property
    def with_lookbehind(self) -> str:
        """The same for the `regex` module that presidio uses: the match itself is the span."""
        before = f"(?<={self.label})" if self.label else ""
        return f"{before}(?<!{self.unless}){self.body}" if self.unless else before + self.body


_SPAN = "(?P<span>"
_LEAST = 20
"""Repetitions that a superset asks for at most: counting further makes the automaton large."""


@lru_cache(512)
def superset(expression: str) -> str:
    """`expression` without look-around, `$` and upper bounds: found in every text that the original is found in.

    An assertion can only forbid matches, and so can a bound ("two to seven" becomes "two or more"). What is left is a
    small regular language, which the engine of polars runs in linear time. As it asserts nothing, it is also found in
    every longer text that such a text is a part of.
    """
    out: list[str] = []
    position = 0
    while position < len(expression):
        if re.match(r"\(\?<?[=!]", expression[position:]):
            end = _group_end(expression, position)
            if expression.startswith("(?=", position) and not expression[end:].strip(")"):
                # What must follow the whole match can be part of it: nothing else comes after.
                out.append(f"(?:{superset(expression[position + 3 : end - 1])})")
            position = end
            continue
        if bounds := re.match(r"\{([0-9]+),[0-9]+\}", expression[position:]):
            least = min(int(bounds[1]), _LEAST)
            out.append({0: "*", 1: "+"}.get(least, f"{{{least},}}"))
            position += bounds.end()
            continue
        if expression[position] == "\\":
            out.append(expression[position : position + 2])
            position += 2
            continue
        if expression[position] == "[":
            end = _class_end(expression, position)
            out.append(expression[position:end])
            position = end
            continue
        if expression[position] != "$":
            out.append(expression[position])
        position += 1
    return "".join(out)


def gate(patterns: Iterable[Pattern]) -> str:
    """One expression for all patterns, found in every text that the superset of one of them is found in.

    Of numeric patterns it has the bodies without what may be left out at their beginning: a match without its beginning
    is one of the rest, and one automaton for all labels too would be so large that its engine runs out of cache.
    """
    return "|".join(_needed(superset(p.body)) if p.numeric else superset(p.expression) for p in patterns).replace(
        _SPAN, "(?:"
    )


def _needed(expression: str) -> str:
    while (end := _atom_end(expression)) < len(expression) and expression[end] in "?*":
        expression = expression[end + 1 :].removeprefix("?")
    return expression


def _atom_end(expression: str) -> int:
    """Where the first character, class or group of an expression ends."""
    if expression.startswith("("):
        return _group_end(expression, 0)
    if expression.startswith("["):
        return _class_end(expression, 0)
    return 2 if expression.startswith("\\") else 1


def _class_end(expression: str, start: int) -> int:
    position = start + 1
    if expression[position] == "^":
        position += 1
    if expression[position] == "]":
        position += 1
    while expression[position] != "]":
        position += 2 if expression[position] == "\\" else 1
    return position + 1


def _group_end(expression: str, start: int) -> int:
    depth, position = 0, start
    while True:
        char = expression[position]
        if char == "\\":
            position += 2
            continue
        if char == "[":
            position = _class_end(expression, position)
            continue
        depth += {"(": 1, ")": -1}.get(char, 0)
        position += 1
        if depth == 0:
            return position


# Characters that stand for ASCII ones in numbers and addresses: full-width forms, digits of other scripts, the many
# dashes and spaces. Enclosed digits are left alone: "①010-…" is a list entry, not an eleven-digit number.
_DIGIT_ZEROS = (0x0660, 0x06F0, 0x0966, 0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6)
_FOLDED: dict[str, str] = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_FOLDED |= {chr(zero + digit): str(digit) for zero in _DIGIT_ZEROS for digit in range(10)}
_FOLDED |= dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u30fc\u00ad", "-")
_FOLDED |= dict.fromkeys(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "
)
_FOLDED |= dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
_FOLDED["\u00ad"] = ""
_FOLD_TABLE = str.maketrans(_FOLDED)
FOLDABLE = "[" + "".join(sorted(_FOLDED)) + "]"
"""Class of the characters that `fold` changes."""
ODD = FOLDABLE.replace("]", "\x1c-\x1f\u0130\u0131]")
"""The same and those that Python's `re` alone takes for ``\\s`` (four controls) or ``(?i:i)`` (the Turkish letters)."""
_FOLDABLE = re.compile(FOLDABLE)
# What `fold` leaves alone of the plane that nearly all texts are written in: a class that reaches beyond that plane is
# gone through range by range.
_CHANGED = sorted(ord(char) for char in _FOLDED if char <= "\uffff")
_GAPS = zip([0, *(code + 1 for code in _CHANGED)], [*(code - 1 for code in _CHANGED), 0xFFFF], strict=True)
_LEFT = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in _GAPS if first <= last) + "]*")
_DELETED = frozenset(char for char, folded in _FOLDED.items() if not folded)


def fold(text: str) -> tuple[str, list[int] | None]:
    """The text that patterns are matched on, and for each of its characters the position in `text` (None: the same).

    The map has one entry more than the folded text, for spans that end at its end.
    """
    if text.isascii() or _LEFT.fullmatch(text) is not None or _FOLDABLE.search(text) is None:
        return text, None
    folded = text.translate(_FOLD_TABLE)
    if len(folded) == len(text):
        return folded, None
    positions = [index for index, char in enumerate(text) if char not in _DELETED]
    return folded, [*positions, len(text)]
