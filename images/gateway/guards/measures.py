"""How long a text is, and in which language: what needs no model."""

import math
import re
import unicodedata

from llmops_assets.specs.guards import LanguageGuard, LengthGuard

_NO_LATIN = bytes(code for code in range(128) if not chr(code).isalpha())
_REST = re.compile("[^\x00-\x7f가-힣\u1100-\u11ff\u3130-\u318f]")
"""What is neither ASCII nor Hangul, whole syllables or parts of them."""
# What normalising leaves as it is.
_PLAIN = re.compile("[\x00-\x7f가-힣]*")
_MOST_BYTES_PER_TOKEN = 8
"""No tokenizer in use packs more into a token on average."""


def too_long(guard: LengthGuard, characters: int, size: int) -> str | None:
    """Why a text of `characters` and of `size` UTF-8 bytes is too long; None where it is not."""
    if guard.max_characters is not None and characters > guard.max_characters:
        return f"{characters} characters, more than {guard.max_characters}"
    tokens = math.ceil(size / _MOST_BYTES_PER_TOKEN)
    if guard.max_tokens is not None and tokens > guard.max_tokens:
        return f"at least {tokens} tokens, more than {guard.max_tokens}"
    return None


def fitting(guard: LengthGuard, characters: int, size: int, text: str) -> str:
    """The beginning of `text` that still fits behind `characters` and `size` bytes that went before."""
    if too_long(guard, characters + len(text), size + len(text.encode("utf-8", "replace"))) is None:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        part = text[:middle]
        fits = too_long(guard, characters + middle, size + len(part.encode("utf-8", "replace"))) is None
        low, high = (middle, high) if fits else (low, middle - 1)
    return text[:low]


def letters(text: str) -> dict[str, int]:
    """Letters of a text by language: `ko` Hangul, `en` Latin, `other`."""
    if not (is_plain := _PLAIN.fullmatch(text) is not None):
        text = unicodedata.normalize("NFKC", text)
    rest = () if is_plain else _REST.findall(text)
    written = text.encode("ascii", "ignore")
    found = {"ko": len(text) - len(written) - len(rest), "en": len(written.translate(None, _NO_LATIN)), "other": 0}
    for char in rest:
        if char.isalpha():
            # Letters with marks are no English by themselves, and no other script either.
            found["en" if unicodedata.name(char, "").startswith("LATIN") else "other"] += 1
    return found


def language_share(guard: LanguageGuard, counted: dict[str, int]) -> float | None:
    """Share of the letters that are of the allowed languages; None for texts with too few to say."""
    total = sum(counted.values())
    if total < guard.min_letters:
        return None
    return sum([counted[language] for language in guard.allowed]) / total
