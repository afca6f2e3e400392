"""Which words of a sentence are names of persons: candidates at each word, of which the ones with enough evidence stay.

Evidence adds up like log odds; its weights are set by hand. It comes from the form of the word (`name_words`), from
what the analyser made of it, and from what stands around (`name_context`).
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import TYPE_CHECKING

from llmops_assets.datasets.lexicon import words
from llmops_assets.datasets.name_context import TAIL, around, covering, may_end, role
from llmops_assets.datasets.name_foreign import RUN, Candidate, joined, known, several, single
from llmops_assets.datasets.name_words import common, elsewhere, is_noun, korean
from llmops_assets.datasets.patterns import COMPOUND_SURNAMES
from llmops_assets.datasets.privacy import Span

if TYPE_CHECKING:
    from kiwipiepy import Token

ENOUGH = 0.6
"""Evidence from which a word counts as a name."""
_LINKED = 0.9
"""What it adds to be named in one breath with a person, or to be named as one elsewhere in the sentence."""

_AND = re.compile(r"(?:과|와|랑|이랑|하고)?\s?[·/&ㆍ]?\s?")
_MAKES_NOUNS = frozenset(
    "자별철제용품금권증비료소장실율률량식형급계선기물점측팀도로화성적인원단대회지처과"
    "국청서함당판차분초중후전내외상하들감력법론문부사술업직층"
)
_AREAS = frozenset("시군구읍면동도역산함당판령대")
_CALLED = ("~", "!", "♥")


def names_in(text: str, tokens: "Sequence[Token]") -> list[Span]:
    """Names in one sentence, in order and without overlap."""
    options: list[Candidate] = []
    reached = 0
    for number, token in enumerate(tokens):
        if token.start < reached:
            continue
        best = max(_candidates(text, tokens, number), key=_rank, default=None)
        if best is not None and best.evidence > ENOUGH - _LINKED:
            options.append(best)
            if best.evidence >= ENOUGH:
                reached = best.end
    return [Span(c.start, c.end, "PERSON", min(0.95, 0.45 + c.evidence / 10)) for c in _linked(text, options)]


def _rank(candidate: Candidate) -> tuple[int, float]:
    """A sure name of several words before its first word alone."""
    return (candidate.end if candidate.whole and candidate.evidence >= ENOUGH else 0, candidate.evidence)


def _linked(text: str, options: list[Candidate]) -> list[Candidate]:
    """The sure ones, and those that a sure one vouches for: by its side ("… 와 …") or by the same word."""
    sure = [c for c in options if c.evidence >= ENOUGH]
    if len(sure) == len(options) or not sure:
        return sure
    named = {text[c.start : c.end] for c in sure}
    known_as = named | {name[1:] for name in named if len(name) == 3}
    chosen = list(sure)
    for candidate in options:
        beside = any(
            _AND.fullmatch(text, min(c.end, candidate.end), max(c.start, candidate.start)) is not None for c in sure
        )
        if candidate.evidence < ENOUGH and (beside or text[candidate.start : candidate.end] in known_as):
            chosen.append(candidate)
    chosen.sort(key=lambda c: (c.start, -c.evidence))
    return [c for at, c in enumerate(chosen) if all(c.start >= other.end for other in chosen[:at])]


def _candidates(text: str, tokens: "Sequence[Token]", number: int) -> Iterator[Candidate]:
    token = tokens[number]
    if not _begins(text, tokens, number):
        return
    if token.tag == "SL" or token.tag == "SH":
        yield from _initial(text, token)
        return
    run = RUN.match(text, token.start)
    if run is None:
        return
    if " " in token.form and token.tag == "NNP":
        yield known(text, tokens, number)
        return
    if run.group() in words("roles") or (token.form in words("roles") and token.len > 1):
        return
    yield from _surname_alone(text, token)
    for length in (3, 2, 4):
        yield from _korean(text, tokens, number, run, length)
    yield from single(text, tokens, number, run)
    yield from joined(text, tokens, number, run)
    yield from several(text, tokens, number)


def _begins(text: str, tokens: "Sequence[Token]", number: int) -> bool:
    """Whether a name can begin with this token: at the beginning of a word, or "배우송강호", "역시신동엽"."""
    token = tokens[number]
    if token.start == 0 or text[token.start - 1].isspace():
        return True
    if token.tag.startswith(("J", "E", "VC", "XSV", "XSA")):
        return False
    if not text[token.start - 1].isalnum():
        return True
    before = tokens[number - 1]
    return token.tag == "NNP" and (before.tag in ("MAG", "MAJ", "MM", "IC") or before.form in words("roles"))


@cache
def _initialled() -> re.Pattern[str]:
    case = "(?:가|는|를|의|와|도|에게|에|측|은|이|과)?(?![가-힣])"
    of = rf"\s?\([^)]{{1,12}}\)\s?(?:씨|양|군|모)|\s?(?:{role()}|여성|남성|원사)(?![가-힣]{{2}})"
    return re.compile(rf"\s?(?:씨|양|군|모|여인){case}|{of}")


def _initial(text: str, token: "Token") -> Iterator[Candidate]:
    """A씨, B(33)씨, C양; and names in Chinese characters behind the same name in Hangul."""
    end = token.start + token.len
    if token.tag == "SL":
        if token.len == 1 and token.form.isupper() and _initialled().match(text, end):
            yield Candidate(token.start, end, 2.0)
    elif 2 < token.len <= 5 and re.search(r"[가-힣]\s?\($", text[: token.start]):
        yield Candidate(token.start, end, 1.2)


_SURNAME = re.compile(
    r"\s?씨(?:가|는|를|의|와|도|에게|에|로|한테|측|네|부부|일당|라고|라는|만|이|랑|께서)?(?![가-힣])"
    r"|\s?모\s?(?:\(|씨|군|양)|\s?\(\s?[0-9]{1,2}\s?[)·,∙ㆍ]"
)
_SOMEBODY = re.compile(r"\s?(?:\(|씨|군|양)")


@cache
def _in_office() -> re.Pattern[str]:
    return re.compile(rf"\s(?:전\s|현\s|前\s|부\s?|신임\s)?(?:[가-힣]{{2}})?(?:{role()})")


def _surname_alone(text: str, token: "Token") -> Iterator[Candidate]:
    """김 씨, 박모(33) 씨, 이 전 대통령, 최 감독."""
    end = token.start + 1
    if not common(text[token.start]):
        return
    if _SURNAME.match(text, end):
        yield Candidate(token.start, end, 2.0)
    elif token.len == 1 and token.tag == "NNP" and _in_office().match(text, end):
        yield Candidate(token.start, end, 1.8)


def _korean(text: str, tokens: "Sequence[Token]", number: int, run: re.Match[str], length: int) -> Iterator[Candidate]:
    """A surname and a given name, as one word or as what the analyser cuts an unknown one into."""
    start, end = run.start(), run.start() + length
    word = text[start:end]
    shape = korean(word) if end <= run.end() else -3.0
    if shape <= -3.0 or elsewhere(word) or (length == 4 and word[:2] not in COMPOUND_SURNAMES):
        return
    count, aligned = covering(tokens, number, end)
    inside, token = tokens[number : number + count], tokens[number]
    following = tokens[number + count] if number + count < len(tokens) else None
    if _is_something_else(inside, following, length, aligned) or (word[1:] == "모" and _SOMEBODY.match(text, end)):
        return
    if (
        length == 3
        and count == 1
        and token.oov
        and token.len == 3
        and word[2] in "아야"
        and text[end : end + 1] in _CALLED
    ):
        # "유천아~": the given name is called.
        return
    ends = may_end(text, tokens, number + count, end) if aligned else TAIL.match(text, end) is not None
    if not ends:
        # Written together with a noun: "이민정때매".
        if not (aligned and count == 1 and token.tag == "NNP" and not token.oov):
            return
        shape -= 0.7
    evidence = shape + _by_form(word, inside) + _by_analysis(word, inside, aligned)
    yield Candidate(start, end, evidence + around(text, start, end))


def _is_something_else(inside: "Sequence[Token]", following: "Token | None", length: int, aligned: bool) -> bool:
    """Whether the analyser sees what no name can be: a longer word, a noun with its ending, a verb."""
    token, second = inside[0], inside[1] if len(inside) > 1 else None
    noun = not token.oov and token.tag.startswith("NN")
    if second is None:
        # "고려대학교"; an adverb; "유치하다".
        if token.len > length:
            return not token.oov
        verb = token.tag == "NNG" and following is not None and following.tag in ("XSV", "XSA")
        return aligned and ((verb and not token.oov) or not (token.oov or noun))
    if token.tag == "XPN" or (token.tag == "XR" and not second.tag.startswith("N")):
        return True
    if noun and token.len == 2 and length == 3 and not second.tag.startswith("N"):
        # "최고의", "이용하고".
        return True
    if token.tag in ("MM", "NP", "VV", "VA") and second.len == 2:
        # "한가지", "이영화".
        return True
    ended = any(t.tag.startswith(("V", "E", "J")) and not (t.tag == "JC" and token.oov) for t in inside)
    return ended and (aligned or not token.oov)


def _by_form(word: str, inside: "Sequence[Token]") -> float:
    """What a last syllable says that is often something else's."""
    if len(word) != 3:
        return 0.0
    token, evidence = inside[0], 0.0
    if word[1] == word[2] and token.oov:
        evidence -= 0.5
    if word[2] == "이" and token.oov:
        # "서영이": rather a given name and what is said behind it.
        evidence -= 1.5
    if word[2] in _AREAS:
        evidence -= 2.5 if word[2] == "대" else 0.5
    in_dictionary = len(inside) == 1 and token.tag == "NNP" and not token.oov
    if word[2] in _MAKES_NOUNS and not in_dictionary and is_noun(word[:2]):
        # "구간별", "동승자": a noun and what makes another of it.
        evidence -= 1.6
    return evidence


def _by_analysis(word: str, inside: "Sequence[Token]", aligned: bool) -> float:
    """What it says how the analyser cut the word: a proper noun, unknown, or pieces that happen to be words."""
    token, last, full = inside[0], inside[-1], len(word) > 2
    if aligned and len(inside) == 1:
        if token.tag == "NNP":
            return (0.6 if full else 0.2) if token.oov else (0.4 if full else 0.2)
        return 0.4 if token.oov else -2.5
    if aligned:
        evidence = -1.0
        if token.tag == "NNP":
            evidence = -0.2 if token.len == 2 else -0.6
        if token.tag == last.tag == "NNG" and token.len == 2 and not token.oov and not last.oov:
            # Two nouns: "소속팀", "도주로".
            evidence -= 0.8
        if last.tag == "JC":
            evidence += 0.5 if word[2:] == "나" else -1.2
        return evidence - (0.0 if full else 0.8)
    if token.oov and token.len <= len(word) + 2:
        # An unknown word with its particle: "정재영이".
        return 0.2 if full else 0.6 if token.form == word + "이" else -2.0
    return -1.3 if full else -2.5
