"""What is measured of one text: its language, what is new in it, and whether it holds a masked piece of somebody."""

import re
from collections.abc import Iterable

LANGUAGES = ("none", "Hangul", "Latin", "Hangul and Latin", "other")
"""What a text is written in; which language Latin letters are in nobody asks here."""
_FOREIGN_SHARE = 0.2


def hangul_share(text: str) -> float:
    """Hangul syllables and jamo among the letters of a text; 0 where there is no letter."""
    letters = [c for c in text if c.isalpha()]
    return sum(map(_is_hangul, letters)) / len(letters) if letters else 0.0


def language(text: str) -> int:
    """The place in LANGUAGES of what a text is written in: a script counts from a fifth of its letters on."""
    letters = [c for c in text if c.isalpha()]
    if not letters:
        return 0
    hangul = sum(map(_is_hangul, letters)) / len(letters)
    latin = sum(c.isascii() or "À" <= c <= "ɏ" for c in letters) / len(letters)
    if 1 - hangul - latin > 0.5:
        return 4
    if hangul >= _FOREIGN_SHARE:
        return 3 if latin >= _FOREIGN_SHARE else 1
    return 2 if latin >= _FOREIGN_SHARE else 4


def trigrams(text: str) -> set[str]:
    """The distinct character 3-grams of a text."""
    return {text[i : i + 3] for i in range(len(text) - 2)}


def vocabulary_of(texts: Iterable[str]) -> set[str]:
    """All character 3-grams of some texts."""
    return set().union(*(trigrams(text) for text in texts))


def new_share(text: str, vocabulary: set[str]) -> float:
    """Share of a text's distinct character 3-grams that are not in `vocabulary`; 0 where there are none."""
    found = trigrams(text)
    return len(found - vocabulary) / len(found) if found else 0.0


def placeholder_pattern(placeholders: Iterable[str]) -> re.Pattern[str]:
    """What finds a placeholder of personal data that was masked."""
    return re.compile("|".join(re.escape(one) for one in sorted(placeholders, key=len, reverse=True)) or r"(?!)")


def _is_hangul(c: str) -> bool:
    return "\uac00" <= c <= "\ud7a3" or "\u3131" <= c <= "\u318e" or "\u1100" <= c <= "\u11ff"
