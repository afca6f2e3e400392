"""What stands around a name: titles, kin and deeds that speak for one, places that do not. Features by name."""

import re
from collections.abc import Iterable
from functools import cache, lru_cache

from llmops_assets.privacy.lexicon import words

_PARTICLES_TEXT = """
이라고도 이라고는 이라는 이라고 이라도 이라면 이라며 이었다 이였다 입니다 이에요 이예요 이지만 이었던 이었고 이니까
에게서 한테서 으로부터 에게는 에게도 께서는 께서 에게 한테 까지 부터 마저 조차 밖에 처럼 보다 이랑 하고 이나 이고
이며 이자 이야 이가 이는 이를 이의 이도 이와 이다 이란 인가 인데 라고 라는 라며 라면 라도 예요 에요 였다 였던 이 가
은 는 을 를 의 와 과 도 만 나 랑 야 아 로 으로 에 께 다 란 고 며 인 식 표 님 씨 네 들 측 발
"""
_GLUED_TEXT = "감독 배우 형사 병장 교수 사단 영화 연기 형 누나 오빠 언니 팬 땜에 때문에 때문 땜 같은"
"""What people write behind a name without a space."""

_PARTICLE = "|".join([*_PARTICLES_TEXT.split(), *_GLUED_TEXT.split()])
ENDED = re.compile(rf"(.+?)(?:{_PARTICLE})$")
"""A word and its particle."""
TAIL = re.compile(rf"(?:씨|님|군|양|측)?(?:{_PARTICLE})?(?:은|는|도|만|의|이|가|을|를|과|와|에게)?(?![가-힣])")
"""All that a word may have behind the name in it."""

_CASE = "(?:은|는|이|가|을|를|의|도|과|와|에게|께서|께|역|에|으로|로|만|인|입니다|이다)?(?![가-힣])"
WIDTH = 24
"""Characters looked at on each side; enough for a title and what stands between."""


def _either(values: Iterable[str]) -> str:
    """An alternation of words, the longest first."""
    return "|".join(sorted(map(re.escape, values), key=lambda value: (-len(value), value)))


@cache
def _role() -> str:
    """An alternation of what a person can be."""
    return _either(words("roles") | words("titles"))


@cache
def _after() -> list[tuple[str, re.Pattern[str]]]:
    places = _either(place for place in words("places") if len(place) > 1)
    address = "씨|여사|옹|선생님?|어르신|할머니|할아버지|어머니|아버지|아저씨|고객님?|회원님?|사모님"
    kin = "누나|오빠|언니|누님|형제|자매|아줌마|엄마|아빠|남매|부부|장군|황제|왕후|대왕|부인"
    office = r"(?:[전현]\s|신임\s|새누리당\s|민주당\s|수석\s|부\s)?(?:[가-힣]{1,4}\s?)?"
    patterns = {
        "address": rf"\s?(?:{address})(?![가-힣]{{2}})",
        "씨, 님": r"(?:씨|님|군|양)(?:이|가|은|는|을|를|의|에게|과|와|도)?(?![가-힣])",
        "office": rf"\s{office}(?:{_role()})(?:님|들)?{_CASE}",
        "role at once": rf"(?:{_role()})님?{_CASE}",
        "age": r"\s?\(\s?(?:[0-9]{1,2}(?:세|살)?|[여남])\s?[,)·∙ㆍ/]",
        "act": rf"(?:이|가|은|는|께서|도)\s(?:[가-힣]{{1,4}}\s)?(?:{_either(words('acts'))})",
        "belonging": rf"의\s(?:{_either(words('belongings'))})",
        "praise": rf"(?:이|가|은|는|의|도|랑)?\s?(?:{_either(words('praise'))})",
        "particle of persons": r"(?:께서|에게|한테|이랑|이가|이는|이를|이도|역(?:의|을|에|으로)\b)",
        "called so": rf"['’”]?(?:이?라는|란)\s(?:{_either(words('persons'))})",
        "part played": r"['’”\"]?\s?(?:역(?:을|의|으로|에|할|과|인)|캐릭터|역할|앓이)",
        "kin": rf"\s?(?:{kin})(?![가-힣]{{3}})",
        "군, 양": r"\s(?:군|양|여인|옹)(?:이|은|을|의|과|와)?(?![가-힣])",
        "from, to": r"(?:에서|까지|부터)(?![가-힣])",
        "at": r"(?:에|로|으로|에는|에도)(?![가-힣])",
        "place": rf"\s?(?:국제|시립|국립|중앙)?(?:{places})(?:에서|까지)?{_CASE}",
        "thing": rf"\s?(?:{_either(words('things'))})",
    }
    return [(f"after: {name}", re.compile(pattern)) for name, pattern in patterns.items()]


@cache
def _before() -> list[tuple[str, re.Pattern[str]]]:
    form = r"이름|성함|성명|명의|예금주|신청인|고객명|연락처|사람|담당|\[전화번호\]|[0-9]{4}"
    made = "주연의|주연|출연한|열연한|연기한|맡은|부른|만든|감독한|연출한"
    patterns = {
        "I am": r"(?:저는|제가|나는|본인은|이름은|성함은|성명은|(?:^|[.!?,]\s?)[저전])\s?$",
        "label": rf"(?:{form})[은는이가:,.]?\s{{0,2}}$",
        "role": rf"(?:{_either(words('roles') | words('relations'))})\s?(?:인\s|이자\s|였던\s)?$",
        "performer": rf"(?:{_either(words('performers'))})\s$",
        "maker": rf"(?:{made}|[대총회사부시]표|원내대표|총리|전|現|前|고\(故\)|故)\s?$",
        "title of a work": r"[<〈《「『]\s?$",
    }
    return [(f"before: {name}", re.compile(pattern)) for name, pattern in patterns.items()]


def behind(text: str, end: int) -> list[str]:
    """Which patterns what follows `text[:end]` matches."""
    ahead = text[end : end + WIDTH]
    return [name for name, pattern in _after() if pattern.match(ahead)]


def ahead(text: str, start: int) -> list[str]:
    """Which patterns what precedes `text[start:]` matches."""
    back = text[max(0, start - WIDTH) : start]
    return [name for name, pattern in _before() if pattern.search(back)]


_QUOTES = frozenset("'\"‘“’”")


def mark_behind(character: str) -> str:
    """What kind of character, not Hangul, follows a word."""
    if not character:
        return "end"
    if character.isspace():
        return "space"
    if character in _QUOTES:
        return "quote"
    if character in ">〉》」』":
        return "bracket"
    return character if character in "(," else "·" if character in "·/&ㆍ" else "other"


def mark_ahead(character: str) -> str:
    """What kind of character stands before a word."""
    if not character:
        return "start"
    if character.isspace():
        return "space"
    if "가" <= character <= "힣":
        return "Hangul"
    if character in _QUOTES:
        return "quote"
    return "bracket" if character in "<〈《「『" else "(" if character == "(" else "other"


_KINDS_TEXT = {
    "subject": "이|가|은|는|도|이가|이는|이도|만|께서|께서는",
    "object": "을|를|이를",
    "genitive": "의|이의",
    "dative": "에게|한테|께|에게서|한테서|에게는|에게도",
    "and": "과|와|랑|이랑|하고|이나|나",
    "place": "에서|에|로|으로|까지|부터|에는|에도|에서는",
    "씨": "(?:씨|님)(?:은|는|이|가|을|를|의|에게|도|과|와|네)?",
    "군": "(?:군|양|옹)(?:은|는|이|가|을|를|의|에게|도|과|와)?",
    "is": "입니다|이다|다|이었다|였다|이에요|예요|이야|야|아|인|이란|란|이라는|라는|이라고|라고|이라며|라며|인데|이지만"
    "|지만|이며|며|이고|고|이라|라",
    "like": "처럼|보다|같은|만큼",
    "side": "측(?:은|이|의|에)?|네|들(?:은|이|의|을)?",
}
_KINDS = {kind: re.compile(pattern) for kind, pattern in _KINDS_TEXT.items()}


@lru_cache(1 << 14)
def tail(rest: str) -> str:
    """What kind of ending the rest of a word is."""
    for kind, pattern in _KINDS.items():
        if pattern.fullmatch(rest):
            return kind
    return "role" if re.match(_role(), rest) else "other"


_SURNAME = re.compile(
    r"\s?씨(?:가|는|를|의|와|도|에게|에|로|한테|측|네|부부|일당|라고|라는|만|이|랑|께서)?(?![가-힣])"
    r"|\s?모\s?(?:\(|씨|군|양)|\s(?:군|양)(?:은|이|을|의|과|에게)(?![가-힣])|\s?\(\s?[0-9]{1,2}\s?[)·,∙ㆍ]"
)


def surname_alone(text: str, end: int) -> bool:
    """Whether what follows makes one syllable a surname: 김 씨, 박모(33) 씨."""
    return _SURNAME.match(text, end) is not None


@cache
def _office() -> re.Pattern[str]:
    return re.compile(rf"\s(?:전\s|현\s|前\s|부\s?|신임\s)?(?:[가-힣]{{2}})?(?:{_role()})")


def in_office(text: str, end: int) -> bool:
    """Whether a title follows: 이 전 대통령, 최 감독."""
    return _office().match(text, end) is not None


_SOMEBODY = re.compile(r"\s?(?:\(|씨|군|양)")


def somebody(text: str, start: int, end: int) -> bool:
    """Whether the end of `text[start:end]` is the 모 of "박모 씨", which is no part of a name."""
    return text[end - 1] == "모" and end - start < 4 and _SOMEBODY.match(text, end) is not None


_COUNTED = re.compile(
    r"(?:(?<![가-힣])(?:한|두|세|네|다섯|여섯|일곱|여덟|아홉|열|스무|몇|여러|수십|수백|수천)|[0-9만천백십])\s?$"
)


def counted(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` counts animals: the 마리 of "고라니 한 마리", which is a name elsewhere."""
    return text[start:end] == "마리" and _COUNTED.search(text, max(0, start - 4), start) is not None


_FIGURES_AHEAD = re.compile(r"[0-9][0-9.\- ]{6,}[0-9]\)?,?\s$")
_STATED = re.compile(r"(?:입니다|이에요|예요|이라고|인데요|이고요|이구요|이요)(?![가-힣])")


def signed(text: str, start: int, end: int) -> bool:
    """Whether `text[start:end]` has the length of a full name and is stated right behind a phone number or the like."""
    return 2 < end - start < 5 and bool(
        _STATED.match(text, end) and _FIGURES_AHEAD.search(text[max(0, start - 24) : start])
    )


@cache
def _initial() -> re.Pattern[str]:
    case = "(?:가|는|를|의|와|도|에게|에|측|은|이|과)?(?![가-힣])"
    of = rf"\s?\([^)]{{1,12}}\)\s?(?:씨|양|군|모)|\s?(?:{_role()}|여성|남성|원사)(?![가-힣]{{2}})"
    return re.compile(rf"\s?(?:씨|양|군|모|여인){case}|{of}")


def initial(text: str, end: int) -> bool:
    """Whether a letter that ends at `end` stands for a person: A씨, B(33)씨, C양."""
    return _initial().match(text, end) is not None
