"""Personal data that comes in pieces: masked as if it had come whole, and never passed on in part."""

import random

import pytest

from images.gateway.guards.personal_data import MAX_HELD, StreamMask, StreamMasker, longest
from llmops_assets.privacy.patterns import PATTERNS
from llmops_assets.privacy.pii import detector
from llmops_assets.specs.policy import load_policy

TEXTS = [
    "제 번호는 010-1234-5678이고 메일은 kim.cheolsu@example.co.kr입니다. 감사합니다.",
    "주소는 서울특별시 강남구 테헤란로 123, 삼성빌딩 101동 20층 3호입니다. 내일 오세요.",
    "카드 4111 1111 1111 1111로 결제했고 계좌 신한은행 110-123-456789 입니다",
    "주민등록번호: 900101-1234567, 여권번호 M12345678",
    "이름은 홍길동입니다. 성함: 김철수\n차량번호 12가3456 운전면허 11-12-123456-78",
    "공일공 일이삼사 오육칠팔로 전화 주세요",
    "Call me at +1 (415) 555-2671 or write to john.smith at gmail dot com please",
    "My name is John Smith, 12 West Elm Street, Springfield, IL 62704. Thanks!",
    "DE89 3704 0044 0532 0130 00 으로 보내 주세요. IP는 8.8.113.77 입니다.",
    "０１０－１２３４－５６７８ 과 010\u200b-1234\u200b-5678",
    "통행료는 1,200원이고 2024년 5월 3일 12시 30분에 버전 10.2.3.4를 설치했습니다.",
    "연락처 010 2345 6789, 010 3456 7890. 이메일 a@b.kr, c@d.kr, 사업자등록번호 123-45-67891",
    "전화 02-123-4567. " * 60,
]
VALUES = [
    "1234-5678", "kim.cheolsu", "테헤란로 123", "101동", "1111 1111", "456789", "1234567",
    "M12345678", "홍길동", "김철수", "12가3456", "일이삼사", "555-2671", "john.smith",
    "John Smith", "0044 0532", "113.77", "２３４", "2345 6789",
]  # fmt: skip


@pytest.fixture(scope="module")
def masker() -> StreamMasker:
    return StreamMasker(detector(load_policy().datasets.pii, "traffic"))


def streamed(masker: StreamMasker, pieces: list[str]) -> tuple[list[str], StreamMask]:
    mask = StreamMask(masker)
    return [*[mask.feed(piece) for piece in pieces], mask.end()], mask


def cut(text: str, generator: random.Random, longest_piece: int) -> list[str]:
    pieces, at = [], 0
    while at < len(text):
        size = generator.randint(1, longest_piece)
        pieces.append(text[at : at + size])
        at += size
    return pieces


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_in_pieces_is_masked_as_the_whole_however_it_is_cut(masker: StreamMasker, text: str) -> None:
    whole = masker.mask(text)
    generator = random.Random(7)
    for longest_piece in (1, 1, 2, 3, 5, 8, 13, 40, len(text)):
        out, mask = streamed(masker, cut(text, generator, longest_piece))
        assert "".join(out) == whole.text
        assert mask.found == whole.found


@pytest.mark.parametrize("text", TEXTS)
def test_nothing_of_a_value_is_passed_on_before_it_is_masked(masker: StreamMasker, text: str) -> None:
    out, mask = StreamMask(masker), []
    for char in text:
        mask.append(out.feed(char))
        shown = "".join(mask)
        assert not any(value in shown for value in VALUES)
        assert out.held <= MAX_HELD + 64


def test_prose_without_personal_data_is_hardly_held_back(masker: StreamMasker) -> None:
    text = (
        "하이패스 단말기를 새로 사셨다면 먼저 등록을 하셔야 합니다. 가까운 영업소에 들르시거나 앱에서 하실 수 있어요. "
        * 3
    )
    mask = StreamMask(masker)
    held = []
    for char in text:
        mask.feed(char)
        held.append(mask.held)
    assert max(held) <= 16, "a word or two"


def test_what_never_ends_is_passed_on_within_the_bound(masker: StreamMasker) -> None:
    mask, out = StreamMask(masker), 0
    for _ in range(600):
        out += len(mask.feed("abcdefghij"))
        assert mask.held <= MAX_HELD + 64
    assert out > 4000
    assert out + len(mask.end()) == 6000


def test_the_window_is_wider_than_every_shape_of_the_platform() -> None:
    assert longest(PATTERNS) < MAX_HELD


def test_an_installations_own_recognizer_is_held_back_too() -> None:
    rules = load_policy().datasets.pii
    own = {"name": "사번", "type": "STAFF_ID", "regex": "EMP-[0-9]{6}", "context": ["사번", "staff"]}
    masker = StreamMasker(detector(type(rules).model_validate({**rules.model_dump(), "recognizers": [own]}), "traffic"))
    text = "내 사번은 EMP-123456이고, EMP-654321 is my colleague's staff number. EMP-111111 alone is " + "x" * 60
    whole = masker.mask(text)
    assert "EMP-123456" not in whole.text and "EMP-654321" not in whole.text
    for size in (1, 2, 5, 11):
        out, _ = streamed(masker, [text[i : i + size] for i in range(0, len(text), size)])
        assert "".join(out) == whole.text


def test_a_long_text_is_masked_in_windows_like_a_short_one(masker: StreamMasker) -> None:
    filler = "통행료는 얼마인가요? " * 3000
    text = filler[:16380] + " 010-1234-5678 " + filler
    masked = masker.mask(text)
    assert masked.found == {"PHONE_NUMBER": 1}
    assert "1234" not in masked.text and len(masked.text) == len(text) - len("010-1234-5678") + len("[전화번호]")
