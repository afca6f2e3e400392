"""The shapes of numbers and addresses that people spell out or disguise: 공일공 …, o1o-…, hong 골뱅이 … 점 컴."""

import re

from llmops_assets.privacy.checksums import birth_is_possible
from llmops_assets.privacy.pattern import Pattern

_SINO = "[공영일이삼사오육륙칠팔구]"
_DIGIT = "(?:[공영일이삼사오육륙칠팔구0-9]|하나|둘|셋|넷|다섯|여섯|일곱|여덟|아홉)"
_GROUPS = r"(?:\s?(?:에|다시|대시|하고|[-.,·~])\s?|\s{0,3})"
"""What is said or written between the groups of a number."""
_ENDS = r"(?![0-9])(?![공영일이삼사오육륙칠팔구](?![에고요야니라며다지죠예]))"
"""No digit follows; 이 may, as the beginning of what comes behind: …삼공삼공이에요."""

_LOCAL = r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}"
_LABEL = r"[A-Za-z0-9-]{1,63}"
_AT = r"\s?(?:[(\[{<]\s?(?i:at|앳|골뱅이)\s?[)\]}>]|골뱅이|@)\s?"
_DOT = r"(?:\s?\.\s?|\s?[(\[{<]\s?(?i:dot|점|닷)\s?[)\]}>]\s?|\s?[점닷]\s?|\s(?i:dot)\s)"
_HOUSES = "(?:네이버|지메일|구글|다음|한메일|네이트|카카오|핫메일|야후|아웃룩|아이클라우드)"
_MAIL = r"(?:gmail|naver|daum|hanmail|kakao|nate|hotmail|outlook|yahoo|icloud|proton|protonmail)"
_ENDING = r"(?:com|net|org|info|biz|edu|gov|io|dev|ai|me|kr|co|jp|cn|us|uk|de|fr)(?![A-Za-z])"


def _is_disguised(text: str) -> bool:
    """With a plain @ there must be something else unusual, or it is an address as any other, or code (`a @ b.c`)."""
    if "@" not in text:
        return True
    local, _, domain = text.partition("@")
    spaced = local.endswith(" ") and domain.startswith(" ") and " ." in domain
    # With spaces around its sign it is code, or a slip of the pen: at the providers of mail the latter.
    housed = re.match(rf"\s?{_MAIL}\s?\.", domain, re.IGNORECASE) is not None
    spaced = spaced or (housed and (local.endswith(" ") or domain.startswith(" ")))
    return spaced or any(mark in domain.casefold() for mark in ("점", "닷", "dot"))


_VALUES = {**dict(zip("일이삼사오육칠팔구", range(1, 10), strict=True)), "공": 0, "영": 0, "륙": 6}
_VALUES |= dict(zip(("하나", "둘", "셋", "넷", "다섯", "여섯", "일곱", "여덟", "아홉"), range(1, 10), strict=True))
_SPOKEN_DIGIT = re.compile(f"{_DIGIT}")
_HALVES = rf"{_DIGIT}(?:\s?{_DIGIT}){{5}}{_GROUPS}{_DIGIT}(?:\s?{_DIGIT}){{6}}{_ENDS}"
"""A registration number digit by digit: the birthday, and what follows it."""


def _spoken_birth(text: str) -> bool:
    """Whether a spoken number begins with a day that somebody may be born on."""
    return birth_is_possible("".join(str(_VALUES.get(found, found)) for found in _SPOKEN_DIGIT.findall(text)))


SPELLED: tuple[Pattern, ...] = (
    *(
        Pattern(
            f"{whose} registration number, spoken, labelled",
            type_,
            _HALVES,
            0.97,
            label=rf"{label}\s?(?:등록)?\s?번호[^0-9\n]{{0,8}}?",
            anywhere=(label,),
            numeric=False,
        )
        for whose, type_, label in (("resident", "KR_RRN", "주민"), ("foreigner", "KR_FRN", "외국인"))
    ),
    Pattern(
        "registration number, spoken",
        "KR_RRN",
        rf"(?<![가-힣0-9A-Za-z]){_SINO}{{6}}{_GROUPS}{_SINO}{{7}}{_ENDS}",
        0.9,
        valid=_spoken_birth,
        numeric=False,
    ),
    Pattern(
        "mobile number, spoken",
        "PHONE_NUMBER",
        rf"(?<![가-힣0-9A-Za-z])(?:[공영](?:[일1]|하나){_DIGIT}|0(?:일|하나){_DIGIT}|01[공영일육륙칠팔구])"
        rf"{_GROUPS}{_DIGIT}{{3,4}}{_GROUPS}{_DIGIT}{{4}}{_ENDS}",
        0.8,
        numeric=False,
    ),
    Pattern(
        "mobile number, spoken after the first group",
        "PHONE_NUMBER",
        rf"(?<![가-힣0-9A-Za-z])01[016789](?:{_GROUPS}{_SINO}{{3,4}}{_GROUPS}{_DIGIT}{{4}}"
        rf"|{_GROUPS}[0-9]{{3,4}}{_GROUPS}{_SINO}{{4}}|\s?(?:에|다시)\s?[0-9]{{3,4}}\s?(?:에|다시)\s?[0-9]{{4}}){_ENDS}",
        0.8,
        numeric=False,
    ),
    Pattern(
        "mobile number, spoken digit by digit",
        "PHONE_NUMBER",
        rf"(?<![가-힣0-9A-Za-z])[공영](?:\s|,\s?|-)(?:일|하나)(?:(?:\s|,\s?|-){_DIGIT}){{8,9}}{_ENDS}",
        0.8,
        numeric=False,
    ),
    Pattern(
        "mobile number, with letters for noughts",
        "PHONE_NUMBER",
        r"(?<![A-Za-z0-9가-힣ㅇ○])[oOㅇ○〇0][1lI][oOㅇ○〇016789][-. ]{1,3}[0-9oOㅇ○〇]{3,4}[-. ]{1,3}[0-9oOㅇ○〇]{4}"
        r"(?![0-9A-Za-z])",
        0.75,
        valid=lambda text: any(letter in text for letter in "oOㅇ○〇lI"),
    ),
    Pattern(
        "e-mail address, disguised",
        "EMAIL_ADDRESS",
        rf"{_LOCAL}{_AT}(?:{_LABEL}{_DOT}){{1,6}}[A-Za-z]{{2,24}}(?![A-Za-z])",
        0.9,
        valid=_is_disguised,
        anywhere=("골뱅이", "앳", "at", "@"),
        numeric=False,
    ),
    Pattern(
        "e-mail address, in words",
        "EMAIL_ADDRESS",
        rf"{_LOCAL}\s(?i:at)\s(?:{_LABEL}\s(?i:dot)\s){{1,6}}{_ENDING}",
        0.9,
        anywhere=("dot",),
        numeric=False,
    ),
    Pattern(
        "e-mail address, with at for its sign",
        "EMAIL_ADDRESS",
        rf"{_LOCAL}\s(?i:at)\s(?i:{_MAIL})\.(?i:{_ENDING})(?:\.(?i:kr))?",
        0.9,
        anywhere=(
            "gmail.",
            "naver.",
            "daum.",
            "hanmail.",
            "kakao.",
            "nate.",
            "hotmail.",
            "outlook.",
            "yahoo.",
            "icloud.",
            "proton",
        ),
        numeric=False,
    ),
    Pattern(
        "e-mail address, labelled, with at for its sign",
        "EMAIL_ADDRESS",
        rf"{_LOCAL}\s(?i:at)\s(?:{_LABEL}\.){{1,6}}{_ENDING}",
        0.85,
        label=r"(?:메일|(?i:e-?mail|mailto))(?:\s?(?:주소|address))?(?:[은는이가:]|\sis)?\s{0,2}",
        anywhere=("mail", "메일"),
        numeric=False,
    ),
    Pattern(
        "e-mail address, spoken in Korean",
        "EMAIL_ADDRESS",
        rf"(?<![A-Za-z0-9가-힣._%+-])[A-Za-z0-9가-힣][A-Za-z0-9가-힣._+-]{{0,30}}\s?(?:골뱅이|앳)\s?"
        rf"(?:{_HOUSES}|{_LABEL})\s?[점닷쩜.]\s?(?:컴|넷|코\s?[점닷쩜.]?\s?케이알|오알지|{_ENDING})",
        0.9,
        anywhere=("골뱅이", "앳"),
        numeric=False,
    ),
)
