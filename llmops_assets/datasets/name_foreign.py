"""Names of one word that is no Korean full name, and transliterated names of several: candidates with evidence."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops_assets.datasets.lexicon import words
from llmops_assets.datasets.name_context import PARTICLE, TAIL, around, covering, may_end
from llmops_assets.datasets.name_words import common, elsewhere, foreign, gazetteer, given, usage

if TYPE_CHECKING:
    from kiwipiepy import Token

RUN = re.compile("[가-힣]+")
_DONE = ("XSV", "XSA")
"""Suffixes that make a verb of the noun before: what has one is no name."""
_AREAS = frozenset("시군구읍면동리도역산강섬")
_BETWEEN_TEXT = "드 데 반 폰 엘 알 르 라 다 더 본 빈 디 델 판 벤 오 맥 매 세인트 생 앤 킴 진 리 조 루"
_BETWEEN = frozenset(_BETWEEN_TEXT.split())
"""Particles and short words inside foreign names."""
_MOST = 4
"""Words of a name."""


@dataclass(frozen=True)
class Candidate:
    """`text[start:end]` may be a name, with so much evidence (like log odds)."""

    start: int
    end: int
    evidence: float
    whole: bool = False
    """Of several words, so that it goes before a part of it."""


def known(text: str, tokens: "Sequence[Token]", number: int) -> Candidate:
    """A name of several words that the analyser's dictionary has as one: a person's if Wikidata says so."""
    token = tokens[number]
    parts = token.form.split(" ")
    person = token.form in gazetteer().full
    likely = 2.6 if person else sum(min(foreign(part), 1.5) for part in parts) / len(parts) - 0.8
    end = token.start + token.len
    rest = RUN.match(text, end)
    if rest and (tokens[number + 1].tag.startswith("E") or not may_end(text, tokens, number + 1, end)):
        # The entry is the beginning of a longer name.
        longer = re.fullmatch(rf"(.{{1,3}}?)(?:{PARTICLE})?", rest.group())
        end += len(longer[1]) if longer else 0
    return Candidate(token.start, end, likely + 0.4 * around(text, token.start, end), whole=True)


def single(text: str, tokens: "Sequence[Token]", number: int, run: re.Match[str]) -> Iterator[Candidate]:
    """One word that may be a given name alone, a stage name, or a foreign name."""
    token = tokens[number]
    word, end = bare(text, token, run)
    called = word[2:] in ("아", "야") and token.oov and text[end : end + 1] in ("~", "!", "♥")
    if (word[2:] == "이" or called) and given(word[:2]) and (token.oov or not common(word[0])):
        word, end = word[:2], end - 1
    following = tokens[number + 1] if number + 1 < len(tokens) else None
    made_a_verb = token.tag == "NNG" and following is not None and following.tag in _DONE
    if _long_enough(text, token, word, end) and not made_a_verb and not elsewhere(word):
        shape = _alone(word, token)
        if shape is not None and not may_end(text, tokens, number + 1, end):
            area = following is not None and following.form in _AREAS
            people, others = usage(word)
            sure = people > 5 * (others + 1) or word in words("known_people")
            shape = shape - 0.7 if sure and not area and token.tag == "NNP" and not token.oov else None
        if shape is not None:
            yield Candidate(token.start, end, shape + around(text, token.start, end))
    if token.tag != "NNP":
        yield from _cut_up(text, tokens, number, run)


def _long_enough(text: str, token: "Token", word: str, end: int) -> bool:
    if len(word) > 1:
        return True
    people, others = usage(word)
    particle = end < len(text) and "가" <= text[end] <= "힣"
    return particle and token.tag == "NNP" and people > max(100, 5 * others) and not common(word)


def _alone(word: str, token: "Token") -> float | None:
    """How much a token speaks for a name of one word; None when it is none."""
    people, others = usage(word)
    if token.tag == "NNP" and word in words("known_people"):
        return 1.6
    if token.tag == "NNP" or (token.oov and token.tag.startswith("NN")):
        if given(word):
            shape = 1.2 if people > others else 1.0 if people + others == 0 else -1.5
            return shape - (0.0 if token.tag == "NNP" else 0.2)
        doubt = 0.0 if people else 0.8 if len(word) == 2 else 0.5 if token.oov and len(word) < 5 else 0.3
        return foreign(word) - doubt
    if token.tag == "NNG" and word in words("known_people"):
        return 0.4
    if token.tag == "NNG" and people > 20 * (others + 1):
        return foreign(word) - 2.4
    return None


def _cut_up(text: str, tokens: "Sequence[Token]", number: int, run: re.Match[str]) -> Iterator[Candidate]:
    """A word of people's names that the analyser did not see in this sentence: 키 + 키 + 는."""
    for length in range(2, min(7, run.end() - run.start() + 1)):
        end = run.start() + length
        word = text[run.start() : end]
        people, others = usage(word)
        if people < 5 or people < 5 * others or elsewhere(word):
            continue
        count, aligned = covering(tokens, number, end)
        inside = tokens[number : number + count]
        if (count == 1 and not inside[0].oov) or _has(inside, "V", "E", "J", "NP", "NNB", "MAG", "MAJ"):
            continue
        if TAIL.match(text, end) or (aligned and may_end(text, tokens, number + count, end)):
            yield Candidate(run.start(), end, foreign(word) - 1.3 + around(text, run.start(), end))


def _has(tokens: "Sequence[Token]", *tags: str) -> bool:
    return any(token.tag.startswith(tags) for token in tokens)


_BARE = re.compile(r"(.{2,}?)(?:이가|이는|에게|이랑|랑|씨|은|는|이|가|을|를|의|도|와|과|영화|연기|감독|형사)")


def bare(text: str, token: "Token", run: re.Match[str]) -> tuple[str, int]:
    """The word, without the particle that the analyser may have left on one that it does not know; and its end."""
    end = min(token.start + token.len, run.end())
    word = text[token.start : end]
    cut = _BARE.fullmatch(word) if token.oov else None
    if cut is None:
        return word, end
    before = cut[1]
    clear = word[-1] in "랑를는을은과와" and foreign(before) > 0.2
    likelier = word[-1] in "가를은는을의랑화기독사" and foreign(before) > foreign(word)
    if clear or likelier or usage(before)[0] > usage(word)[0]:
        return before, token.start + len(before)
    return word, end


def joined(text: str, tokens: "Sequence[Token]", number: int, run: re.Match[str]) -> Iterator[Candidate]:
    """A foreign name written without spaces: 빈디젤."""
    odds: list[float] = []
    at, end = number, run.start()
    while at < len(tokens) and tokens[at].start == end < run.end() and (tokens[at].tag == "NNP" or tokens[at].oov):
        word = text[tokens[at].start : tokens[at].start + tokens[at].len]
        if elsewhere(word):
            return
        odds.append(foreign(word))
        end += len(word)
        at += 1
    if len(odds) > 1 and min(odds) > -0.3 and end - run.start() > 2 and may_end(text, tokens, at, end):
        evidence = 0.8 * sum(odds) / len(odds) + 0.4
        yield Candidate(run.start(), end, evidence + 0.5 * around(text, run.start(), end), whole=True)


def several(text: str, tokens: "Sequence[Token]", number: int) -> Iterator[Candidate]:
    """Foreign names of two to four words: each but the last stands alone, and all sound like it."""
    start = position = tokens[number].start
    first = RUN.match(text, start)
    if first is None or text[first.end() : first.end() + 1] != " ":
        return
    at, odds = number, list[float]()
    while len(odds) < _MOST:
        run = RUN.match(text, position)
        if run is None or run.group() in words("roles"):
            return
        inside = at
        while inside < len(tokens) and tokens[inside].start < run.end():
            inside += 1
        ends = [*_ends(tokens, at, inside, run), (run.end(), inside)]
        if inside == at + 1 and tokens[at].start == run.start():
            unbound = bare(text, tokens[at], run)[1]
            if unbound < run.end():
                ends = [(unbound, inside)]
        if odds:
            # The last word may carry a particle or a title.
            for end, behind in ends:
                score = _part(text[position:end], tokens[at:behind], last=True)
                if score > 0.2 and sum(odds) + score > 1.2:
                    evidence = min(3.5, 0.9 * (sum(odds) + score) / (len(odds) + 1) + 1.2)
                    yield Candidate(start, end, evidence + 0.5 * around(text, start, end), whole=True)
        score = _part(run.group(), tokens[at:inside], last=False)
        if ends[-1][0] < run.end() or score < 0.0 or text[run.end() : run.end() + 1] != " ":
            return
        odds.append(score)
        position, at = run.end() + 1, inside


def _part(word: str, tokens: "Sequence[Token]", *, last: bool) -> float:
    """How much one word of several is like a part of a foreign name."""
    impossible = -3.0
    if not tokens or elsewhere(word) or word in words("roles") or tokens[-1].form in words("roles"):
        return impossible
    if not last and word in _BETWEEN:
        return 0.3
    people, others = usage(word)
    if _has(tokens, "V", "XSV", "XSA", "MAG") or (_has(tokens, "E") and (people < 5 or people <= 3 * others)):
        return impossible
    if _has(tokens, "NP", "MM", "MAJ", "NNB", "NR") and people < 10:
        return impossible
    if _has(tokens[1:], "J") and people <= 3 * others:
        return impossible
    alone = len(tokens) == 1 and tokens[0].tag.startswith("NN") and tokens[0].len >= len(word)
    if people <= 2 * others and not alone and not any(token.oov for token in tokens):
        return impossible
    if len(word) == 1 and (people <= 3 or tokens[0].tag != "NNP"):
        return -1.5
    if alone and tokens[0].tag == "NNG" and not tokens[0].oov and people < 5 * (others + 1):
        return -1.5
    return foreign(word)


def _ends(tokens: "Sequence[Token]", at: int, inside: int, run: re.Match[str]) -> Iterator[tuple[int, int]]:
    """Where the last word may end inside its run: positions, and the number of the token behind."""
    for number in range(at, inside - 1):
        end, following = tokens[number].start + tokens[number].len, tokens[number + 1]
        beside = following.form in words("roles") or following.form in words("relations")
        if run.start() < end < run.end() and (_has([following], "J", "VCP", "XSN", "NNB") or beside):
            yield end, number + 1
