"""Finds and masks personal data by pattern, Korean and international: one set of rules for datasets and gateway."""

import datetime
import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache

from llmops_assets.specs.recognizers import Recognizer, translated

PLACEHOLDERS: Mapping[str, str] = {
    "PERSON": "[이름]",
    "KR_RRN": "[주민등록번호]",
    "KR_FRN": "[외국인등록번호]",
    "PHONE_NUMBER": "[전화번호]",
    "EMAIL_ADDRESS": "[이메일]",
    "KR_ADDRESS": "[주소]",
    "KR_ACCOUNT": "[계좌번호]",
    "CREDIT_CARD": "[카드번호]",
    "KR_PASSPORT": "[여권번호]",
    "KR_DRIVER_LICENSE": "[운전면허번호]",
    "KR_BRN": "[사업자등록번호]",
    "KR_PLATE": "[차량번호]",
    "IP_ADDRESS": "[IP주소]",
    "US_SSN": "[사회보장번호]",
    "IBAN_CODE": "[국제계좌번호]",
}
"""What replaces a span where the caller names no placeholders of its own."""


@dataclass(frozen=True)
class Span:
    """Personal data at `text[start:end]`, in characters."""

    start: int
    end: int
    type: str
    score: float


@dataclass(frozen=True)
class Pattern:
    """One shape of one type of personal data, on folded text.

    `label` must stand directly before `body` and is not part of the span; where `unless` stands directly before it,
    the body is something else (an order number). `valid` judges the span: a date, a checksum.
    """

    name: str
    type: str
    body: str
    score: float
    label: str = ""
    unless: str = ""
    valid: Callable[[str], bool] | None = None
    numeric: bool = True
    """Whether every match holds a digit or an at sign: texts without any need not be looked at."""
    context: tuple[str, ...] = ()
    """Words of which one must stand within `NEAR` characters, if there are any."""

    @cached_property
    def expression(self) -> str:
        """For Python's `re`, whose look-behind has a fixed width: the span is the group ``span``."""
        return f"(?:{self.label})(?P<span>{self.body})" if self.label else f"(?P<span>{self.body})"

    @property
    def with_lookbehind(self) -> str:
        """The same for the `regex` module that presidio uses: the match itself is the span."""
        before = f"(?<={self.label})" if self.label else ""
        return f"{before}(?<!{self.unless}){self.body}" if self.unless else before + self.body


def superset(expression: str) -> str:
    """`expression` without look-around and upper bounds: it is found in every text that the original is found in.

    An assertion can only forbid matches, and so can a bound ("two to seven" becomes "one or more"). What is left is a
    small regular language, which the engine of polars runs in linear time.
    """
    out: list[str] = []
    position = 0
    while position < len(expression):
        if re.match(r"\(\?<?[=!]", expression[position:]):
            end = _group_end(expression, position)
            if expression.startswith("(?=", position) and not expression[end:].strip(")"):
                # What must follow the whole match can be part of it: nothing else comes after.
                out.append(f"(?:{superset(expression[position + 3 : end - 1])})")
            position = end
            continue
        if bounds := re.match(r"\{([0-9]+),[0-9]+\}", expression[position:]):
            out.append("*" if bounds[1] == "0" else "+")
            position += bounds.end()
            continue
        if expression[position] == "\\":
            out.append(expression[position : position + 2])
            position += 2
            continue
        if expression[position] == "[":
            end = _class_end(expression, position)
            out.append(expression[position:end])
            position = end
            continue
        out.append(expression[position])
        position += 1
    return "".join(out)


def _class_end(expression: str, start: int) -> int:
    position = start + 1
    if expression[position] == "^":
        position += 1
    if expression[position] == "]":
        position += 1
    while expression[position] != "]":
        position += 2 if expression[position] == "\\" else 1
    return position + 1


def _group_end(expression: str, start: int) -> int:
    depth, position = 0, start
    while True:
        char = expression[position]
        if char == "\\":
            position += 2
            continue
        if char == "[":
            position = _class_end(expression, position)
            continue
        depth += {"(": 1, ")": -1}.get(char, 0)
        position += 1
        if depth == 0:
            return position


# Characters that stand for ASCII ones in numbers and addresses: full-width forms, digits of other scripts, the many
# dashes and spaces. Enclosed digits are left alone: "①010-…" is a list entry, not an eleven-digit number.
_DIGIT_ZEROS = (0x0660, 0x06F0, 0x0966, 0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2, 0x1D7EC, 0x1D7F6)
_FOLDED: dict[str, str] = {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
_FOLDED |= {chr(zero + digit): str(digit) for zero in _DIGIT_ZEROS for digit in range(10)}
_FOLDED |= dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2015\u2212\ufe58\ufe63\uff0d\u30fc\u00ad", "-")
_FOLDED |= dict.fromkeys(
    "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u3000", " "
)
_FOLDED |= dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", "")
_FOLDED["\u00ad"] = ""
_FOLD_TABLE = str.maketrans(_FOLDED)
FOLDABLE = "[" + "".join(sorted(_FOLDED)) + "]"
"""Class of the characters that `fold` changes."""
_FOLDABLE = re.compile(FOLDABLE)
_DELETED = frozenset(char for char, folded in _FOLDED.items() if not folded)


def fold(text: str) -> tuple[str, list[int] | None]:
    """The text that patterns are matched on, and for each of its characters the position in `text` (None: the same).

    The map has one entry more than the folded text, for spans that end at its end.
    """
    if text.isascii() or _FOLDABLE.search(text) is None:
        return text, None
    folded = text.translate(_FOLD_TABLE)
    if len(folded) == len(text):
        return folded, None
    positions = [index for index, char in enumerate(text) if char not in _DELETED]
    return folded, [*positions, len(text)]


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)


def _date(year: int, month: int, day: int) -> datetime.date | None:
    try:
        return datetime.date(year, month, day)
    except ValueError:
        return None


_CENTURY = {
    "9": 1800,
    "0": 1800,
    "1": 1900,
    "2": 1900,
    "5": 1900,
    "6": 1900,
    "3": 2000,
    "4": 2000,
    "7": 2000,
    "8": 2000,
}
_RRN_WEIGHTS = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)


def _birth_is_possible(number: str) -> bool:
    """Whether the first seven digits of a registration number are a date of birth that has been."""
    digits = _digits(number)
    born = _date(_CENTURY[digits[6]] + int(digits[:2]), int(digits[2:4]), int(digits[4:6]))
    return born is not None and born <= datetime.date.today()


def rrn_checksum_holds(number: str) -> bool:
    """The checksum of resident registration numbers issued before October 2020; later ones carry none."""
    digits = [int(char) for char in _digits(number)]
    total = sum(weight * digit for weight, digit in zip(_RRN_WEIGHTS, digits, strict=False))
    return (11 - total % 11) % 10 == digits[12]


def _bare_registration(number: str) -> bool:
    """Thirteen digits in a row are also bar codes, sums and milliseconds since 1970: those need the checksum."""
    if not _birth_is_possible(number):
        return False
    epoch_milliseconds = 1_400_000_000_000 <= int(number) < 1_900_000_000_000
    odd, even = sum(map(int, number[0:12:2])), sum(map(int, number[1:12:2]))
    bar_code = number.startswith("880") and (10 - (odd + 3 * even) % 10) % 10 == int(number[12])
    too_old = number[6] in "12" and int(number[:2]) + 100 <= datetime.date.today().year - 1900
    return rrn_checksum_holds(number) or not (epoch_milliseconds or bar_code or too_old)


def luhn_holds(number: str) -> bool:
    """The Luhn checksum of payment cards (ISO/IEC 7812-1)."""
    digits = [int(char) for char in reversed(_digits(number))]
    doubled = (digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[1::2])
    return len(digits) >= 12 and len(set(digits)) > 1 and (sum(digits[0::2]) + sum(doubled)) % 10 == 0


_BARE_CARD = re.compile(r"(?:4|5[1-5]|22[2-9]|2[3-6]|27[01]|2720|6011|65|64[4-9]|62|35|9)[0-9]+")


def _card(number: str) -> bool:
    digits = _digits(number)
    if not luhn_holds(digits):
        return False
    # Digits in a row are often something else: the length and the issuer have to fit as well.
    return number != digits or (len(digits) in (15, 16) and _bare_card(digits))


def _bare_card(digits: str) -> bool:
    return digits.startswith(("34", "37")) if len(digits) == 15 else _BARE_CARD.fullmatch(digits) is not None


def brn_checksum_holds(number: str) -> bool:
    """The checksum of Korean business registration numbers (National Tax Service)."""
    digits = [int(char) for char in _digits(number)]
    total = sum(weight * digit for weight, digit in zip((1, 3, 7, 1, 3, 7, 1, 3, 5), digits, strict=False))
    return (10 - (total + digits[8] * 5 // 10) % 10) % 10 == digits[9]


def _timestamp(digits: str) -> bool:
    """Whether digits read as YYYYMMDD, with or without hhmm and ss (and thousandths)."""
    if len(digits) < 8 or not digits.startswith(("19", "20")):
        return False
    if _date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])) is None:
        return False
    clock = digits[8:14]
    return all(int(clock[i : i + 2]) < limit for i, limit in ((0, 24), (2, 60), (4, 60)) if len(clock) >= i + 2)


def own_pattern(recognizer: Recognizer) -> Pattern:
    """The pattern of a recognizer that a policy describes."""
    checks = {
        "luhn": luhn_holds,
        "rrn": lambda text: len(_digits(text)) == 13 and rrn_checksum_holds(text),
        "brn": lambda text: len(_digits(text)) == 10 and brn_checksum_holds(text),
        "iban": _iban,
    }
    return Pattern(
        name=recognizer.name,
        type=recognizer.type,
        body=translated(recognizer.regex, ignore_case=recognizer.ignore_case),
        score=recognizer.score,
        valid=checks[recognizer.checksum] if recognizer.checksum else None,
        numeric=False,
        context=tuple(recognizer.context),
    )


_PHONE_LIKE = re.compile(r"\(?0(?:1[016789]|2|[3-6][1-5]|70|50[2-9]?)\)?[-. ]?[0-9]{3,4}[-. ]?[0-9]{4}")


def _account(number: str) -> bool:
    digits = _digits(number)
    if not 10 <= len(digits) <= 16 or len(set(digits)) == 1:
        return False
    return not _timestamp(digits) and _PHONE_LIKE.fullmatch(number) is None


def _licence(number: str) -> bool:
    return "-" in number or not _timestamp(_digits(number))


def _international(number: str) -> bool:
    digits = _digits(number)
    separated = re.search(r"[0-9][-. (]", number) is not None
    return (8 if separated else 10) <= len(digits) <= 15


_TOLL_FREE = ("800", "833", "844", "855", "866", "877", "888")


def _north_american(number: str) -> bool:
    return not _digits(number).removeprefix("1").startswith(_TOLL_FREE)


def _public_address(number: str) -> bool:
    try:
        return ipaddress.ip_address(number).is_global
    except ValueError:
        return False


def _iban(number: str) -> bool:
    """The remainder of ISO 13616."""
    text = number.replace(" ", "")
    return 15 <= len(text) <= 34 and int("".join(str(int(char, 36)) for char in text[4:] + text[:4])) % 97 == 1


_NOT_NAMES_TEXT = """
가입자 가해자 강원도 경기도 계약자 고객님 고객사 고객의 관리자 구매자 기관의 기사님 남편분 담당자
대리인 동승자 명의자 문의자 민원인 방문자 배우자 법인의 보호자 본인의 부모님 사무소 사용자 사장님
상담사 상대방 선생님 소비자 소유자 손님의 수령인 수취인 신고자 신청인 신청자 안내소 안내원 여러분
영업소 예금주 외국인 요금소 우리집 운전자 이라니 이렇게 이분들 이사의 이상한 이상해 이외에 이용객
이용권 이용분 이용자 이전의 전라도 전부터 정부의 정산소 정확히 제주도 주문자 주유소 주인의 지인의
직원분 차량의 차주분 충전소 탑승자 피해자 한국인 홍보팀 회원님 회원의 휴게소
"""
_NOT_NAMES = frozenset(_NOT_NAMES_TEXT.split())
_NOT_LAST = "점처과료권증객차함물당팀측"
"""Syllables that things and places end in, and given names hardly ever."""


def _name(text: str) -> bool:
    return text not in _NOT_NAMES and text[-1] not in _NOT_LAST


def is_name(text: str) -> bool:
    """Whether a whole value can be a person's name: Korean with a known surname, or two to four capitalised words."""
    return re.fullmatch(rf"{_NAME}|[{SURNAMES}][가-힣]|[A-Z][a-z'-]+(?: [A-Z][a-z'.-]*){{1,3}}", text) is not None


SURNAMES = (
    "김이박최정강조윤장임한오서신권황안송류유전홍고문양손배백허남심노하곽성차주우구나민진지엄채원천방공현함변염여추도소"
    "석선설마길연위표명기반왕금옥육인맹제모탁국어은편용예경봉사부가복태목형피두감호음빈동온"
)
COMPOUND_SURNAMES = ("남궁", "황보", "제갈", "선우", "독고", "사공", "서문", "동방")

_START = r"(?<![0-9A-Za-z])(?<![0-9][-.])"
_END = r"(?![0-9])(?!-[0-9])"
_GAP = r"[^0-9\n\[\]]"
_NOT_A_PHONE = (
    r"(?:주문|접수|예약|예매|송장|운송장|등기|거래|승인|관리|영수증|문서|사건|상품|제품|모델|시리얼|일련|신청|민원|order|invoice|tracking"
    r"|ticket|serial|model|reference)\s?(?:번호|코드|넘버|no\.?|No\.?|number|id|ID|#)\s?(?:[은는이가을를:#]|is)?\s{0,2}"
)
_SIDO = (
    r"(?:서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|충청북도|충청남도|전북|전남|전라북도|전라남도|경북|경남|경상북도|경상남도|제주)"
    r"(?:특별자치시|특별자치도|특별시|광역시|시|도)?"
)
_DISTRICT = r"[가-힣]{1,5}[시군구](?![가-힣])"
_NOT_A_HOUSE = (
    r"(?![0-9])(?!\s?(?:km|Km|KM|킬로|미터|m(?![a-z])|원|분|시간|시(?![가-힣])|초|년|월|일(?![가-힣])|대|명|개|차로|차선|회|%|점|호선|층|번(?!지)|가지|억|만|천|톤))"
    r"(?![,.][0-9])"
)
_ROAD = (
    r"[가-힣0-9]{0,9}[가-힣](?<![으소차도])(?:대로|로|길)(?:\s?[0-9]{1,4}번?[가-힣]?길)?\s?[0-9]{1,4}(?:-[0-9]{1,4})?"
    + _NOT_A_HOUSE
)
_LOT = r"[가-힣]{1,5}[0-9]{0,2}(?:동|읍|면|리|가)\s(?:산\s?)?[0-9]{1,4}(?:-[0-9]{1,4})?(?:번지)?" + _NOT_A_HOUSE
_UNIT = (
    r"(?:,?\s?\(?[가-힣A-Za-z0-9]{1,15}(?:아파트|빌라|빌딩|타워|오피스텔|맨션|주택|팰리스|자이|푸르지오|래미안)\)?)?"
    r"(?:,?\s?(?:제?[0-9]{1,4}|[A-Za-z가-하])동)?(?:,?\s?[0-9]{1,3}층)?(?:,?\s?[0-9]{1,5}호)?"
)
_REGION = r"(?:서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충북|충남|전북|전남|경북|경남|제주)"
_PLATE_LETTERS = "가나다라마거너더러머버서어저고노도로모보소오조구누두루무부수우주아바사자배하허호"
_PLATE_END = r"(?![0-9])(?!\s?(?:억|만|천|원|개|명|년|회|번|km|m|미터|킬로|[,.][0-9]))"
_NAME = rf"(?:(?:{'|'.join(COMPOUND_SURNAMES)})[가-힣]{{1,2}}|[{SURNAMES}][가-힣]{{2}})"

_NAME_LABEL = r"(?:이름|성함|성명|본명|예금주|수취인|수령인|신청인|고객명|계약자명?|받는\s?분|보내는\s?분)"

PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "registration number, labelled",
        "KR_RRN",
        rf"(?<![0-9])[0-9]{{6}}\s{{0,2}}[-~.·]?\s{{0,2}}[0-9]{{6,7}}{_END}",
        0.99,
        label=r"(?:주민\s?등록\s?번호|주민\s?번호|주민\s?등록|(?i:RRN|resident registration (?:number|no\.?)))"
        rf"{_GAP}{{0,12}}?",
    ),
    Pattern(
        "foreigner registration number, labelled",
        "KR_FRN",
        rf"(?<![0-9])[0-9]{{6}}\s{{0,2}}[-~.·]?\s{{0,2}}[0-9]{{6,7}}{_END}",
        0.995,
        label=rf"(?:외국인\s?등록\s?번호|외국인\s?번호|(?i:alien registration (?:number|no\.?))){_GAP}{{0,12}}?",
    ),
    Pattern(
        "registration number",
        "KR_RRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?:\s?-\s?|\s)[0-49][0-9]{{6}}{_END}",
        0.95,
        valid=_birth_is_possible,
    ),
    Pattern(
        "registration number, partly starred",
        "KR_RRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\s?-\s?[0-9][*xX●]{{6}}",
        0.9,
        valid=_birth_is_possible,
    ),
    Pattern(
        "registration number, digits only",
        "KR_RRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])[1-4][0-9]{{6}}{_END}",
        0.85,
        unless=_NOT_A_PHONE,
        valid=_bare_registration,
    ),
    Pattern(
        "foreigner registration number",
        "KR_FRN",
        rf"{_START}[0-9]{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])\s?-\s?[5-8][0-9]{{6}}{_END}",
        0.95,
        valid=_birth_is_possible,
    ),
    Pattern(
        "mobile number",
        "PHONE_NUMBER",
        rf"{_START}(?:(?:\+82|0082|82)[-. ]?(?:\(0\)|0)?|\(?0)1[016789]\)?"
        rf"[-. ]{{0,3}}[0-9]{{3,4}}[-. ]{{0,3}}[0-9]{{4}}{_END}",
        0.8,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "landline number",
        "PHONE_NUMBER",
        rf"{_START}(?:\+82[-. ]?|\(?0)(?:2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-9]?)"
        rf"(?:\)\s?|\s?-\s?|\.)[0-9]{{3,4}}(?:\s?-\s?|\.)[0-9]{{4}}{_END}",
        0.75,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "phone number, labelled",
        "PHONE_NUMBER",
        rf"(?<![0-9])0[0-9]{{1,2}}[-. ]?[0-9]{{3,4}}[-. ]?[0-9]{{4}}{_END}",
        0.85,
        label=r"(?:전화|연락처|휴대폰|핸드폰|휴대전화|폰\s?번호|팩스|(?i:tel|phone|mobile|fax))[^0-9\n\[\]+(]{0,10}?",
    ),
    Pattern(
        "international number",
        "PHONE_NUMBER",
        rf"(?<![0-9A-Za-z+])\+(?!82)[1-9][0-9]{{0,2}}(?:[-. ]?\(?[0-9]{{1,4}}\)?){{2,5}}{_END}(?!\s?(?:원|%|달러|점))",
        0.7,
        valid=_international,
    ),
    Pattern(
        "North American number",
        "PHONE_NUMBER",
        rf"{_START}(?:1[-. ])?(?:\([2-9][0-9]{{2}}\)\s?|[2-9][0-9]{{2}}[-.])[2-9][0-9]{{2}}[-.][0-9]{{4}}{_END}",
        0.7,
        unless=_NOT_A_PHONE,
        valid=_north_american,
    ),
    Pattern(
        "e-mail address",
        "EMAIL_ADDRESS",
        r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24}",
        0.95,
    ),
    Pattern(
        "card number",
        "CREDIT_CARD",
        rf"{_START}(?:(?:[0-9]{{4}}[- ]){{3}}[0-9]{{4}}"
        rf"|3[47][0-9]{{2}}[- ][0-9]{{6}}[- ][0-9]{{5}}|[0-9]{{13,19}}){_END}",
        0.9,
        unless=_NOT_A_PHONE,
        valid=_card,
    ),
    Pattern(
        "card number, labelled",
        "CREDIT_CARD",
        rf"(?<![0-9])(?:[0-9]{{4}}[- ]?){{3}}[0-9]{{3,4}}{_END}",
        0.92,
        label=rf"(?:카드|(?i:card)){_GAP}{{0,14}}?",
        valid=lambda text: not _timestamp(text),
    ),
    Pattern(
        "account number, labelled",
        "KR_ACCOUNT",
        rf"(?<![0-9])(?:[0-9]{{2,6}}-[0-9]{{2,6}}(?:-[0-9]{{1,7}}){{1,2}}|[0-9]{{3,6}}-[0-9]{{6,9}}|[0-9]{{10,14}}){_END}(?!\s?(?:원|건|명))",
        0.86,
        label=rf"(?:계좌|통장|예금주|은행|뱅크|농협|수협|신협|새마을금고|우체국|(?i:account)){_GAP}{{0,15}}?",
        valid=_account,
    ),
    Pattern(
        "account number after a bank's short name",
        "KR_ACCOUNT",
        rf"(?<![0-9])[0-9]{{2,6}}-[0-9]{{2,6}}(?:-[0-9]{{1,7}}){{1,2}}{_END}",
        0.8,
        label=r"(?:국민|신한|우리|하나|기업|카카오|토스|KB|NH|IBK|SC제일|씨티)[ :]{0,2}",
        valid=_account,
    ),
    Pattern(
        "passport number, labelled",
        "KR_PASSPORT",
        r"(?<![A-Za-z0-9])(?:[A-Za-z]{1,2}[0-9]{6,8}|[A-Za-z][0-9]{3}[A-Za-z][0-9]{4})(?![A-Za-z0-9])",
        0.95,
        label=r"(?:여권\s?(?:번호)?|(?i:passport(?: (?:number|no\.?))?(?: is)?))[^0-9A-Za-z\n\[\]]{0,10}?",
    ),
    Pattern(
        "passport number",
        "KR_PASSPORT",
        r"(?<![A-Za-z0-9-])(?:[MSRODG][0-9]{3}[A-Z][0-9]{4}|[MSR][0-9]{8})(?![A-Za-z0-9-])",
        0.7,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "driving licence",
        "KR_DRIVER_LICENSE",
        rf"{_START}(?:(?:1[1-9]|2[0-8])-[0-9]{{2}}-[0-9]{{6}}-[0-9]{{2}}|{_REGION}\s?[0-9]{{2}}\s?-\s?[0-9]{{6}}\s?-\s?[0-9]{{2}}){_END}",
        0.93,
    ),
    Pattern(
        "driving licence, labelled",
        "KR_DRIVER_LICENSE",
        rf"(?<![0-9])[0-9]{{2}}[- ]?[0-9]{{2}}[- ]?[0-9]{{6}}[- ]?[0-9]{{2}}{_END}",
        0.94,
        label=rf"(?:면허\s?(?:증)?\s?번호|(?i:driver'?s?'? licen[cs]e (?:number|no\.?))){_GAP}{{0,8}}?",
        valid=_licence,
    ),
    Pattern(
        "business number",
        "KR_BRN",
        rf"{_START}[0-9]{{3}}-[0-9]{{2}}-[0-9]{{5}}{_END}",
        0.8,
        unless=_NOT_A_PHONE,
        valid=brn_checksum_holds,
    ),
    Pattern(
        "business number, labelled",
        "KR_BRN",
        rf"(?<![0-9])[0-9]{{3}}[- ]?[0-9]{{2}}[- ]?[0-9]{{5}}{_END}",
        0.94,
        label=rf"사업자\s?(?:등록)?\s?(?:번호)?{_GAP}{{0,10}}?",
    ),
    Pattern(
        "number plate",
        "KR_PLATE",
        rf"(?<![0-9A-Za-z가-힣])(?<![0-9][-.,])(?:{_REGION}\s?)?[0-9]{{2,3}}(?:[{_PLATE_LETTERS}]|[가나다라마거너더러머버서어저고노모보소오구누두루무부수우아바사자배하허]\s)[0-9]{{4}}{_PLATE_END}",
        0.85,
    ),
    Pattern(
        "number plate, labelled",
        "KR_PLATE",
        rf"(?<![0-9])(?:{_REGION}\s?)?[0-9]{{2,3}}\s?[{_PLATE_LETTERS}]\s?[0-9]{{4}}(?![0-9])",
        0.9,
        label=rf"(?:차량|번호판|차\s?번호|차번|(?i:plate)){_GAP}{{0,12}}?",
    ),
    Pattern(
        "address, road name",
        "KR_ADDRESS",
        rf"(?<![가-힣])(?:\(?[0-9]{{5}}\)?\s)?(?:{_SIDO}\s(?:{_DISTRICT}\s){{0,2}}|(?:{_DISTRICT}\s){{1,2}})(?:[가-힣]{{1,5}}[읍면]\s)?{_ROAD}{_UNIT}",
        0.85,
    ),
    Pattern(
        "address, lot number",
        "KR_ADDRESS",
        rf"(?<![가-힣])(?:{_SIDO}\s(?:{_DISTRICT}\s){{0,2}}|(?:{_DISTRICT}\s){{1,2}})(?:[가-힣]{{1,5}}[읍면]\s)?{_LOT}{_UNIT}",
        0.84,
    ),
    Pattern(
        "address, labelled",
        "KR_ADDRESS",
        rf"(?:{_ROAD}|{_LOT}){_UNIT}",
        0.8,
        label=r"(?:주소지|주소|거주지|배송지|사는\s?곳)(?:[은는이가:]|\s?:)?\s{0,2}(?:[가-힣]{1,7}[시군구도]\s){0,2}",
    ),
    Pattern(
        "address, flat",
        "KR_ADDRESS",
        r"(?<![가-힣])[가-힣A-Za-z0-9]{1,12}(?:아파트|빌라|오피스텔|맨션)\s(?:[0-9]{1,4}동\s?)?[0-9]{1,5}호(?![0-9가-힣]{2,})",
        0.75,
    ),
    Pattern(
        "address, English",
        "KR_ADDRESS",
        r"(?<![0-9A-Za-z])[0-9]{1,5}\s(?:[NSEW]\.?\s)?(?:[A-Z][a-z]{1,15}\s){1,3}"
        r"(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct)(?![A-Za-z])\.?"
        r"(?:,?\s(?:Apt|Apartment|Suite|Unit)\.?\s?#?[0-9A-Za-z]{1,5})?"
        r",\s[A-Z][a-z]{1,15}(?:\s[A-Z][a-z]{1,15})?(?:,\s[A-Z]{2}(?:\s[0-9]{5})?)?",
        0.75,
    ),
    Pattern(
        "social security number",
        "US_SSN",
        rf"{_START}(?!000|666|9)[0-9]{{3}}-(?!00)[0-9]{{2}}-(?!0000)[0-9]{{4}}{_END}",
        0.8,
        unless=_NOT_A_PHONE,
    ),
    Pattern(
        "IBAN",
        "IBAN_CODE",
        r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:\s?[A-Z0-9]{4}){2,7}(?:\s?[A-Z0-9]{1,4})?(?![A-Za-z0-9])",
        0.95,
        valid=_iban,
    ),
    Pattern(
        "IP address",
        "IP_ADDRESS",
        r"(?<![0-9A-Za-z.])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9])(?!\.[0-9])",
        0.7,
        unless=r"(?:(?<![A-Za-z])(?i:v|version|ver\.?|release)|버전)\s?",
        valid=_public_address,
    ),
    Pattern(
        "name, labelled",
        "PERSON",
        rf"{_NAME}(?=이고|이며|입니다|이에요|예요|이라고|라고|인데|이구요|님|씨|\s?고객)",
        0.8,
        label=rf"{_NAME_LABEL}[은는이]\s{{0,2}}",
        valid=_name,
        numeric=False,
    ),
    Pattern(
        "name, in a form",
        "PERSON",
        rf"{_NAME}(?=\s*$|\n|[,.;)/]|\s?님|\s?씨|이고|이며|입니다)",
        0.8,
        label=rf"{_NAME_LABEL}(?:\s?:\s{{0,2}}|\s)",
        valid=_name,
        numeric=False,
    ),
    Pattern(
        "name, owner of what follows",
        "PERSON",
        rf"(?<![가-힣]){_NAME}(?=\s?(?:고객님?|님|씨)?의\s?(?:주민|외국인\s?등록|전화|휴대|핸드폰|연락처|이메일|메일|주소|계좌|카드|여권|면허|운전면허|차량|생년월일))",
        0.8,
        valid=_name,
        numeric=False,
    ),
    Pattern(
        "name, English",
        "PERSON",
        r"(?<![A-Za-z])[A-Z][a-z]{1,15}(?:\s[A-Z][a-z'-]{1,15}){0,2}(?![A-Za-z])",
        0.7,
        label=r"(?i:my (?:full )?name is|(?:full |customer )name\s?:)\s{1,2}",
        numeric=False,
    ),
)


@lru_cache(512)
def _compiled(expression: str, unless: str) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    return re.compile(expression), re.compile(f"(?:{unless})$") if unless else None


_LONGEST_CONTEXT = 32
NEAR = 40
"""Characters on each side within which a word of `Pattern.context` counts."""


def stands_near(pattern: Pattern, text: str, start: int, end: int) -> bool:
    """Whether a word that the pattern wants is near `text[start:end]`."""
    around = text[max(0, start - NEAR) : end + NEAR].casefold()
    return not pattern.context or any(word.casefold() in around for word in pattern.context)


FIGURE = "[0-9@]"
"""What every numeric pattern needs at least."""
_FIGURE = re.compile(FIGURE)


def matches(pattern: Pattern, text: str) -> list[tuple[int, int]]:
    """Where a pattern holds in an already folded text."""
    expression, unless = _compiled(pattern.expression, pattern.unless)
    found = []
    for match in expression.finditer(text):
        start, end = match.span("span")
        if unless is not None and unless.search(text, max(0, start - _LONGEST_CONTEXT), start):
            continue
        if pattern.valid is not None and not pattern.valid(text[start:end]):
            continue
        if not stands_near(pattern, text, start, end):
            continue
        found.append((start, end))
    return found


def find(text: str, patterns: Iterable[Pattern] = PATTERNS) -> list[Span]:
    """Personal data in `text`, in order and without overlap; positions are those of `text` as given."""
    folded, positions = fold(text)
    figures = _FIGURE.search(folded) is not None
    candidates = [
        Span(start, end, pattern.type, pattern.score)
        for pattern in patterns
        if figures or not pattern.numeric
        for start, end in matches(pattern, folded)
    ]
    return unfolded(resolve(candidates), positions)


def unfolded(spans: list[Span], positions: list[int] | None) -> list[Span]:
    """Spans of a folded text as spans of the text that it was made from."""
    if positions is None:
        return spans
    return [Span(positions[s.start], positions[s.end - 1] + 1, s.type, s.score) for s in spans]


def resolve(candidates: Iterable[Span]) -> list[Span]:
    """Spans without overlap, in order: of those that overlap, the surer one stays, then the longer, then the first."""
    taken: list[Span] = []
    for span in sorted(candidates, key=lambda s: (-s.score, s.start - s.end, s.start, s.type)):
        if all(span.end <= other.start or span.start >= other.end for other in taken):
            taken.append(span)
    return sorted(taken, key=lambda s: s.start)


StandIn = Callable[[str, str, str], str]
"""Of a type, a value and the type's placeholder, what takes the value's place."""


def replace(
    text: str,
    spans: Iterable[Span],
    placeholders: Mapping[str, str] = PLACEHOLDERS,
    stand_in: StandIn | None = None,
) -> str:
    """`text` with each span's placeholder or stand-in in its place; a Korean particle stays attached."""
    pieces, position = [], 0
    for span in spans:
        pieces.append(text[position : span.start])
        placeholder = placeholders.get(span.type, f"[{span.type}]")
        pieces.append(stand_in(span.type, text[span.start : span.end], placeholder) if stand_in else placeholder)
        position = span.end
    pieces.append(text[position:])
    return "".join(pieces)


def mask_text(text: str, placeholders: Mapping[str, str] = PLACEHOLDERS) -> tuple[str, Counter[str]]:
    """`text` with personal data replaced, and how many spans of each type were. Patterns only: names need a label."""
    counts: Counter[str] = Counter()
    # What stood behind a masked number may now stand behind its label; a few rounds reach the end.
    for _ in range(4):
        spans = find(text)
        if not spans:
            break
        counts.update(span.type for span in spans)
        text = replace(text, spans, placeholders)
    return text, counts
