"""The shapes of names that a label or an owner gives away, and of a value that is a name as a whole."""

import re

from llmops_assets.privacy.pattern import Pattern
from llmops_assets.privacy.surnames import COMPOUND_SURNAMES, SURNAMES

_NAME = rf"(?:(?:{'|'.join(COMPOUND_SURNAMES)})[가-힣]{{1,2}}|[{SURNAMES}][가-힣]{{2}})"

_NAME_LABEL = r"(?:이름|성함|성명|본명|예금주|수취인|수령인|신청인|고객명|계약자명?|받는\s?분|보내는\s?분)"

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


NAMES: tuple[Pattern, ...] = (
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
