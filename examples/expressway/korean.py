"""Fills Korean templates: a slot `{word:은는}` takes the josa that fits the last sound of its word."""

import random
import re
from collections.abc import Mapping

# The form after a final consonant, and after a vowel.
_JOSA = {
    "은는": ("은", "는"),
    "이가": ("이", "가"),
    "을를": ("을", "를"),
    "과와": ("과", "와"),
    "으로": ("으로", "로"),
    "이라고": ("이라고", "라고"),
    "까지": ("까지", "까지"),
}
# Last sound of what is not Hangul, as it is read aloud: 영 일 이 삼 사 오 육 칠 팔 구, 엘 엠 엔 알, 넷.
_FINAL_CONSONANT = set("013678lmnrtLMNR")
_FINAL_RIEUL = set("178lrLR")
_SLOT = re.compile(r"\{(\w+)(?::(\w+))?\}")
_CHOICE = re.compile(r"\[([^\[\]]*)\]")


def with_josa(word: str, josa: str) -> str:
    """`word` with the fitting form of `josa`, one of 은는, 이가, 을를, 과와, 으로, 이라고, 까지.

    Raises KeyError for another josa.
    """
    after_consonant, after_vowel = _JOSA[josa]
    last = word.rstrip(")\"'")[-1:]
    if "가" <= last <= "힣":
        final = (ord(last) - ord("가")) % 28
        consonant, rieul = final != 0, final == 8
    else:
        consonant, rieul = last in _FINAL_CONSONANT, last in _FINAL_RIEUL
    if josa == "으로" and rieul:
        consonant = False
    return word + (after_consonant if consonant else after_vowel)


def slots(template: str) -> list[str]:
    """Names of the slots of a template, in order, repeated where they repeat."""
    return [match.group(1) for match in _SLOT.finditer(template)]


def fill(template: str, words: Mapping[str, str]) -> str:
    """The template with every slot filled. Raises KeyError for a slot without a word."""
    return _SLOT.sub(
        lambda m: with_josa(words[m.group(1)], m.group(2)) if m.group(2) else words[m.group(1)],
        template,
    )


def endings(ask: str) -> list[str]:
    """Every form of an ask: the cartesian product of its `[a|b]` choices, slots left open."""
    forms = [""]
    rest = 0
    for match in _CHOICE.finditer(ask):
        forms = [f + ask[rest : match.start()] + choice for f in forms for choice in match.group(1).split("|")]
        rest = match.end()
    return [f + ask[rest:] for f in forms]


def choose(ask: str, rng: random.Random) -> str:
    """One form of an ask."""
    return _CHOICE.sub(lambda m: rng.choice(m.group(1).split("|")), ask)
