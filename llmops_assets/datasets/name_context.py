"""What stands around a name: particles that end it, titles, kin and deeds that speak for one, things that do not."""

import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from llmops_assets.datasets.lexicon import words

if TYPE_CHECKING:
    from kiwipiepy import Token

_PARTICLES_TEXT = """
이라고도 이라고는 이라는 이라고 이라도 이라면 이라며 이었다 이였다 입니다 이에요 이예요 이지만 이었던 이었고 이니까
에게서 한테서 으로부터 에게는 에게도 께서는 께서 에게 한테 까지 부터 마저 조차 밖에 처럼 보다 이랑 하고 이나 이고
이며 이자 이야 이가 이는 이를 이의 이도 이와 이다 이란 인가 인데 라고 라는 라며 라면 라도 예요 에요 였다 였던 이 가
은 는 을 를 의 와 과 도 만 나 랑 야 아 로 으로 에 께 다 란 고 며 인 식 표 님 씨 네 들 측 발
"""
_GLUED_TEXT = "감독 배우 형사 병장 교수 사단 영화 연기 형 누나 오빠 언니 팬 땜에 때문에 때문 땜 같은"
"""What people write behind a name without a space."""

PARTICLE = "|".join([*_PARTICLES_TEXT.split(), *_GLUED_TEXT.split()])
TAIL = re.compile(rf"(?:씨|님|군|양|측)?(?:{PARTICLE})?(?:은|는|도|만|의|이|가|을|를|과|와|에게)?(?![가-힣])")
"""All that a word may have behind the name in it."""

_CASE = "(?:은|는|이|가|을|를|의|도|과|와|에게|께서|께|역|에|으로|로|만|인|입니다|이다)?(?![가-힣])"
_WIDTH = 24
"""Characters looked at on each side; enough for a title and what stands between."""


def either(values: Iterable[str]) -> str:
    """An alternation of words, the longest first."""
    return "|".join(sorted(map(re.escape, values), key=lambda value: (-len(value), value)))


@cache
def role() -> str:
    """An alternation of what a person can be."""
    return either(words("roles") | words("titles"))


@cache
def _after() -> list[tuple[re.Pattern[str], float]]:
    places = either(place for place in words("places") if len(place) > 1)
    address = "씨|여사|옹|선생님?|어르신|할머니|할아버지|어머니|아버지|아저씨|고객님?|회원님?|사모님"
    kin = "누나|오빠|언니|누님|형제|자매|아줌마|엄마|아빠|남매|부부|장군|황제|왕후|대왕|부인"
    office = r"(?:[전현]\s|신임\s|새누리당\s|민주당\s|수석\s|부\s)?(?:[가-힣]{1,4}\s?)?"
    weights = {
        rf"\s?(?:{address})(?![가-힣]{{2}})": 2.5,
        r"(?:씨|님|군|양)(?:이|가|은|는|을|를|의|에게|과|와|도)?(?![가-힣])": 2.0,
        rf"\s{office}(?:{role()})(?:님|들)?{_CASE}": 1.3,
        rf"(?:{role()})님?{_CASE}": 1.0,
        r"\s?\(\s?(?:[0-9]{1,2}(?:세|살)?|[여남])\s?[,)·∙ㆍ/]": 2.0,
        rf"(?:이|가|은|는|께서|도)\s(?:[가-힣]{{1,4}}\s)?(?:{either(words('acts'))})": 0.8,
        rf"의\s(?:{either(words('belongings'))})": 0.8,
        rf"(?:이|가|은|는|의|도|랑)?\s?(?:{either(words('praise'))})": 0.7,
        r"(?:께서|에게|한테|이랑|이가|이는|이를|이도|역(?:의|을|에|으로)\b)": 0.6,
        rf"['’”]?(?:이?라는|란)\s(?:{either(words('persons'))})": 1.5,
        r"['’”\"]?\s?(?:역(?:을|의|으로|에|할|과|인)|캐릭터|역할|앓이)": 1.3,
        rf"\s?(?:{kin})(?![가-힣]{{3}})": 1.3,
        r"\s(?:군|양|여인|옹)(?:이|은|을|의|과|와)?(?![가-힣])": 1.8,
        r"(?:에서|까지|부터)(?![가-힣])": -1.2,
        r"(?:에|로|으로|에는|에도)(?![가-힣])": -0.8,
        rf"\s?(?:국제|시립|국립|중앙)?(?:{places})(?:에서|까지)?{_CASE}": -1.6,
        rf"\s?(?:{either(words('things'))})": -0.8,
    }
    return [(re.compile(pattern), weight) for pattern, weight in weights.items()]


@cache
def _before() -> list[tuple[re.Pattern[str], float]]:
    form = r"이름|성함|성명|명의|예금주|신청인|고객명|연락처|사람|담당|\[전화번호\]|[0-9]{4}"
    made = "주연의|주연|출연한|열연한|연기한|맡은|부른|만든|감독한|연출한"
    weights = {
        r"(?:저는|제가|나는|본인은|이름은|성함은|성명은|(?:^|[.!?,]\s?)[저전])\s?$": 1.6,
        rf"(?:{form})[은는이가:,.]?\s{{0,2}}$": 0.9,
        rf"(?:{either(words('roles') | words('relations'))})\s?(?:인\s|이자\s|였던\s)?$": 1.2,
        rf"(?:{either(words('performers'))})\s$": 1.8,
        rf"(?:{made}|[대총회사부시]표|원내대표|총리|전|現|前|고\(故\)|故)\s?$": 0.5,
        r"[<〈《「『]\s?$": -1.5,
    }
    return [(re.compile(pattern), weight) for pattern, weight in weights.items()]


def around(text: str, start: int, end: int) -> float:
    """How much what stands before and behind `text[start:end]` speaks for a person there."""
    ahead, behind = text[end : end + _WIDTH], text[max(0, start - _WIDTH) : start]
    evidence = sum(weight for pattern, weight in _after() if pattern.match(ahead))
    return evidence + sum(weight for pattern, weight in _before() if pattern.search(behind))


def may_end(text: str, tokens: "Sequence[Token]", number: int, end: int) -> bool:
    """Whether a name may end at `end`, where token `number` begins: no other noun of the same word follows."""
    if end >= len(text) or not "가" <= text[end] <= "힣":
        return True
    if number >= len(tokens) or tokens[number].start != end:
        return TAIL.match(text, end) is not None
    following = tokens[number]
    if not following.tag.startswith(("NNG", "NNP", "NR", "XR", "MM", "XPN")):
        return True
    beside = words("roles") | words("titles") | words("honorifics") | words("relations")
    return following.form in beside or TAIL.match(text, end) is not None


def covering(tokens: "Sequence[Token]", number: int, end: int) -> tuple[int, bool]:
    """How many tokens from `number` on begin before `end`, and whether one of them ends there."""
    count, aligned = 0, False
    while number + count < len(tokens) and tokens[number + count].start < end:
        aligned = tokens[number + count].start + tokens[number + count].len == end
        count += 1
    return count, aligned
