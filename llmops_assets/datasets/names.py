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
_SELF = re.compile(r"(?:저는|제가|나는|본인은|이름은|성함은|성명은|(?:^|[.!?,]\s?)[저전])\s?$")
_NEARBY = re.compile(
    r"(?:저는|제가|이름|성함|성명|명의|예금주|신청인|고객명|연락처|사람|담당|\[전화번호\]|[0-9]{4})[은는이가:,.]?\s{0,2}$"
)

_READ_AS = ("MM", "NP", "NR", "IC", "XPN")
"""Tags under which a surname of one syllable may be mistaken."""


@cache
def _kiwi() -> "Kiwi":
    from kiwipiepy import Kiwi

    return Kiwi(num_workers=1)


@cache
def _worth_a_look() -> re.Pattern[str]:
    """What a sentence must hold to be looked at: something built like a name, or a word that names stand beside."""
    common = "".join(words("common_surnames"))
    first, second = "".join(words("first_syllables")), "".join(words("second_syllables"))
    beside = "|".join(sorted(words("honorifics") | words("titles"), key=len, reverse=True))
    return re.compile(
        rf"(?<![가-힣])(?:[{SURNAMES}][{first}][{second}]|{'|'.join(COMPOUND_SURNAMES)}"
        rf"|[{common}][가-힣]{{0,3}}\s?(?:{beside}|모\s?\(|입니다|이에요|예요|이?라고))"
        rf"|(?:{beside}|저는|제가|이름|성함|성명|명의|예금주|신청인|고객명|연락처|사람|담당)[은는이가:,.]?\s{{0,2}}[{common}]"
    )


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
    """Spans of persons' names in each text; type PERSON, score 0.5 to 0.9 by the evidence.

    Each sentence is judged by itself. A noun is a name when it is built like one (surname and given-name syllables)
    and either nothing speaks for a place or a thing, or an honorific, a title or an introduction ("저는 …입니다")
    stands beside it.
    """
    found: list[list[Span]] = [[] for _ in values]
    look = _worth_a_look()
    pieces = [
        (number, match.start(), match.group())
        for number, text in enumerate(values)
        if look.search(text)
        for match in _SENTENCE.finditer(text)
        if look.search(match.group())
    ]
    sentences = dict.fromkeys(sentence for _, _, sentence in pieces)
    known = {sentence: _CACHE[sentence] for sentence in sentences if sentence in _CACHE}
    unknown = [sentence for sentence in sentences if sentence not in known]
    if unknown:
        plain = [_FIGURES.sub(_serial, sentence) for sentence in unknown]
        with _LOCK:
            judged = {s: tuple(_names(s, tokens)) for s, tokens in zip(unknown, _kiwi().tokenize(plain), strict=True)}
        if len(_CACHE) + len(judged) > _CACHED:
            _CACHE.clear()
        _CACHE.update(judged)
        known |= judged
    for number, start, sentence in pieces:
        found[number] += [Span(start + s.start, start + s.end, s.type, s.score) for s in known[sentence]]
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


def _candidate(text: str, tokens: "list[Token]", number: int) -> tuple[str, int]:
    """The word that could be a name from token `number` on, and of how many tokens it is; empty when there is none.

    What the analyser does not know it cuts up: a surname and single syllables (김 + 상 + 석), a half known name and a
    syllable (양희 + 종), a surname and a word (남 + 보람).
    """
    token = tokens[number]
    inside = token.start > 0 and "가" <= text[token.start - 1] <= "힣"
    if inside or token.form[0] not in SURNAMES:
        return "", 1
    word, length = token.form, 1
    noun = token.tag.startswith("NN")
    # A surname may be read as another short word (양 as a determiner), but then its given name is cut into syllables.
    if not noun and (
        len(word) > 1 or token.tag not in ("MM", "NP", "NR", "IC", "XPN") or word not in words("common_surnames")
    ):
        return "", 1
    introduced = _introduced(text, token.start)
    may_grow = len(word) == 1 or (len(word) == 2 and (token.tag == "NNP" or introduced))
    while may_grow and len(word) < 3 and number + length < len(tokens):
        following = tokens[number + length]
        touches = following.start == token.start + len(word)
        if not touches or not following.tag.startswith(("NN", "XR", "NR", "NP", "MM", "XP")):
            break
        if len(word) + len(following.form) > 3 or following.form in ("씨", "님", "군", "양"):
            break
        if not noun and len(following.form) > 1:
            break
        word, length = word + following.form, length + 1
    if length > 1 and len(word) == 3:
        return word, length
    return (token.form, 1) if noun else ("", 1)


def _introduced(text: str, start: int) -> bool:
    before = text[max(0, start - 12) : start]
    return _SELF.search(before) is not None or _NEARBY.search(before) is not None


def _judge(text: str, tokens: "list[Token]", number: int) -> tuple[int, float]:
    """How many tokens from `number` on could be one name, and how much speaks for it."""
    token = tokens[number]
    word, length = _candidate(text, tokens, number)
    if not word:
        return 1, 0.0
    end = token.start + len(word)
    after = tokens[number + length] if number + length < len(tokens) else None
    following = after.form if after is not None and after.start - end <= 1 else ""
    if len(word) == 1:
        # A surname alone is a name before 씨 and 모 ("김 씨", "김모(33) 씨").
        alone = following == "씨" or re.match(r"모\s?(?:\(|씨|군|양)", text[end:]) is not None
        return 1, float(alone and word in words("common_surnames"))
    if re.fullmatch("[가-힣]{2,4}", word) is None or word in words("not_names"):
        return length, 0.0
    evidence = _shape(word)
    if token.tag == "NNP":
        evidence += 0.4
    elif length == 1 and not token.oov:
        # A common noun of the dictionary: 고지서, 주유소.
        evidence -= 0.4
    elif len(word) == 3 and after is not None and after.tag.startswith(("J", "VCP", "XSN", "NNB", "S")):
        evidence += 0.2
    if word[2:] and word[2] in "구군시읍면당국천각역강대사팀차형도령산":
        evidence -= 0.3
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
    if number > 0 and word[-1] in "동리가로길" and tokens[number - 1].form.endswith(("시", "군", "구", "읍", "면")):
        evidence -= 0.6
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
        return 0.3 if common else 0.0
    return 0.0 if common else -0.3
