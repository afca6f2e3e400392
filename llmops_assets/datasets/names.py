"""Finds names of persons in Korean text by morphemes, surnames, given-name syllables and what stands around."""

import re
import threading
from functools import cache
from typing import TYPE_CHECKING

from llmops_assets.datasets.lexicon import words
from llmops_assets.datasets.privacy import COMPOUND_SURNAMES, SURNAMES, Span

if TYPE_CHECKING:
    from kiwipiepy import Kiwi, Token

ENOUGH = 0.5
"""Evidence from which a word counts as a name."""

_LOCK = threading.Lock()
_HANGUL = re.compile("[가-힣]{2}")
_SELF = re.compile(r"(?:저는|전|제가|나는|본인은|이름은|성함은|성명은|저)\s?$")
_NEARBY = re.compile(
    r"(?:저는|제가|이름|성함|성명|명의|예금주|신청인|고객명|연락처|\[전화번호\]|[0-9]{4})[은는이가:,.]?\s{0,2}$"
)


@cache
def _kiwi() -> "Kiwi":
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1)


def find_names(values: list[str]) -> list[list[Span]]:
    """Spans of persons' names in each text; type PERSON, score 0.5 to 0.9 by the evidence.

    A noun is a name when it is built like one (surname and given-name syllables) and either nothing speaks for a place
    or a thing, or an honorific, a title or an introduction ("저는 …입니다") stands beside it.
    """
    numbers = [number for number, text in enumerate(values) if _HANGUL.search(text)]
    found: list[list[Span]] = [[] for _ in values]
    with _LOCK:
        tokenized = _kiwi().tokenize([values[number] for number in numbers])
        for number, tokens in zip(numbers, tokenized, strict=True):
            found[number] = _names(values[number], tokens)
    return found


def _names(text: str, tokens: "list[Token]") -> list[Span]:
    spans: list[Span] = []
    number = 0
    while number < len(tokens):
        length, evidence = _judge(text, tokens, number)
        if evidence >= ENOUGH:
            last = tokens[number + length - 1]
            spans.append(Span(tokens[number].start, last.start + last.len, "PERSON", min(0.9, 0.4 + evidence / 4)))
        number += length
    return spans


def _judge(text: str, tokens: "list[Token]", number: int) -> tuple[int, float]:
    """How many tokens from `number` on could be one name, and how much speaks for it."""
    token = tokens[number]
    if not token.tag.startswith("NN") or token.form[0] not in SURNAMES:
        return 1, 0.0
    word, length = token.form, 1
    if len(word) == 1 and number + 1 < len(tokens):
        # A given name that is a word of its own (보람, 나래) is parted from its surname.
        given = tokens[number + 1]
        if given.tag.startswith(("NN", "XR")) and given.start == token.start + token.len and len(given.form) == 2:
            word, length = word + given.form, 2
    end = tokens[number + length - 1].start + tokens[number + length - 1].len
    after = tokens[number + length] if number + length < len(tokens) else None
    following = after.form if after is not None and after.start - end <= 1 else ""
    if len(word) == 1:
        # A surname alone is a name before 씨 ("김 씨").
        return 1, float(word in words("common_surnames") and following == "씨" and after.tag in ("NNB", "XSN"))
    if re.fullmatch("[가-힣]{2,4}", word) is None or word in words("not_names"):
        return length, 0.0
    evidence = _shape(word)
    if token.tag == "NNP" and length == 1:
        evidence += 0.4
    if following in words("honorifics"):
        evidence += 0.6
    elif following in words("titles"):
        evidence += 0.5
    elif following in words("places"):
        evidence -= 0.8
    elif following in ("에서", "까지", "부터", "으로", "로"):
        evidence -= 0.4
    if number > 0 and tokens[number - 1].form in words("titles"):
        evidence += 0.3
    before = text[max(0, token.start - 12) : token.start]
    if _SELF.search(before):
        evidence += 0.4
    elif _NEARBY.search(before):
        evidence += 0.2
    starts_sentence = not before.strip() or before.rstrip().endswith((".", "!", "?"))
    if after is not None and after.tag == "VCP" and (starts_sentence or _NEARBY.search(before)):
        evidence += 0.3
    return length, evidence


def _shape(word: str) -> float:
    """How much `word` is built like a Korean name: from 0.3 down to where only much else could make it one."""
    common = word[0] in words("common_surnames")
    if len(word) == 4:
        return 0.3 if word.startswith(COMPOUND_SURNAMES) else -1.0
    if len(word) == 2:
        return -0.3 if common else -1.0
    if word[1] in words("first_syllables") and word[2] in words("second_syllables"):
        return 0.3 if common else 0.1
    return -0.1 if common else -0.3
