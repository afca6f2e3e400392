"""Personal data is found in the forms that people write it in, what only looks like it is left alone."""

import itertools
import re
from collections import Counter

import msgspec
import polars as pl
import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmops_assets.datasets.quality import personal_data
from llmops_assets.privacy import checksums, masking, pii
from llmops_assets.privacy.masker import Masked, Masker
from llmops_assets.privacy.masking import Span, find
from llmops_assets.privacy.pattern import ODD, fold, gate, superset
from llmops_assets.privacy.patterns import PATTERNS

MASKER = Masker(pii.PATTERNS_ONLY)
MASKED = [
    ("홍길동의 주민등록번호는 123456-1234567입니다.", "[이름]의 주민등록번호는 [주민등록번호]입니다."),
    ("주민번호 999999-9999999로 조회", "주민번호 [주민등록번호]로 조회"),
    ("900101-1234567이고요", "[주민등록번호]이고요"),
    ("201105-3123456 아이입니다", "[주민등록번호] 아이입니다"),
    ("900101-1****** 입니다", "[주민등록번호] 입니다"),
    ("９００１０１－１２３４５６７입니다", "[주민등록번호]입니다"),
    ("900101–1234567", "[주민등록번호]"),
    ("900101 - 1234567", "[주민등록번호]"),
    ("외국인등록번호 900101-5234567", "외국인등록번호 [외국인등록번호]"),
    ("900101-6234567", "[외국인등록번호]"),
    ("010-1234-5678로 전화 주세요", "[전화번호]로 전화 주세요"),
    ("01012345678", "[전화번호]"),
    ("010 1234 5678", "[전화번호]"),
    ("010.1234.5678", "[전화번호]"),
    ("０１０－１２３４－５６７８", "[전화번호]"),
    ("010\u200b1234\u200b5678로", "[전화번호]로"),
    ("+82 10-1234-5678", "[전화번호]"),
    ("02-123-4567이나 031)123-4567", "[전화번호]이나 [전화번호]"),
    ("전화 0311234567", "전화 [전화번호]"),
    ("call +1 (415) 555-0123 now", "call [전화번호] now"),
    ("212-555-0123", "[전화번호]"),
    ("계좌 문의는 010-1234-5678로", "계좌 문의는 [전화번호]로"),
    ("kim@example.com입니다", "[이메일]입니다"),
    ("메일:a.b+c@mail.example.co.kr.", "메일:[이메일]."),
    ("4111-1111-1111-1111로 결제", "[카드번호]로 결제"),
    ("4111111111111111", "[카드번호]"),
    ("카드번호 1234-5678-9012-3456", "카드번호 [카드번호]"),
    ("국민은행 123-45-6789012로", "국민은행 [계좌번호]로"),
    ("계좌번호는 110-123-456789입니다", "계좌번호는 [계좌번호]입니다"),
    ("여권번호 m12345678", "여권번호 [여권번호]"),
    ("여권 M 1234 5678을 갱신했어요", "여권 [여권번호]을 갱신했어요"),
    ("여권번호는 M-123 45 678입니다", "여권번호는 [여권번호]입니다"),
    ("여권번호: M 123 A 4567", "여권번호: [여권번호]"),
    ("M123A4567을 잃어버렸어요", "[여권번호]을 잃어버렸어요"),
    ("면허는 11-23-123456-12예요", "면허는 [운전면허번호]예요"),
    ("면허번호 112312345612", "면허번호 [운전면허번호]"),
    ("사업자등록번호 123-45-67890", "사업자등록번호 [사업자등록번호]"),
    ("220-81-62517", "[사업자등록번호]"),
    ("제 차는 12가 3456입니다", "제 차는 [차량번호]입니다"),
    ("123가4567", "[차량번호]"),
    ("차량번호 서울 12조 3456", "차량번호 [차량번호]"),
    ("서울 강남구 테헤란로 123 4층에 삽니다", "[주소]에 삽니다"),
    ("경기도 성남시 분당구 정자동 178-1번지 101동 1203호로 보내요", "[주소]로 보내요"),
    ("주소는 테헤란로 123입니다", "주소는 [주소]입니다"),
    ("제 이름은 김민수입니다", "제 이름은 [이름]입니다"),
    ("신청인 이도윤, 문의", "신청인 [이름], 문의"),
    ("My name is John Smith and I agree", "My name is [이름] and I agree"),
    ("server 8.8.8.8", "server [IP주소]"),
    ("SSN 123-45-6789", "SSN [사회보장번호]"),
    ("GB82 WEST 1234 5698 7654 32", "[국제계좌번호]"),
    ("공1공 삼팔이구 3030이에요", "[전화번호]이에요"),
    ("영일영에 삼팔이구에 삼공삼공으로", "[전화번호]으로"),
    ("공일공, 삼팔이구, 삼공삼공", "[전화번호]"),
    ("주민번호는 구공공일일오-일이삼사오육칠 입니다", "주민번호는 [주민등록번호] 입니다"),
    ("주민등록번호는 팔공 공일 일오 다시 이이삼사오육칠이에요", "주민등록번호는 [주민등록번호]이에요"),
    ("외국인등록번호 구공공일일오 오일이삼사오육", "외국인등록번호 [외국인등록번호]"),
    ("구공일이삼일 이일이삼사오육이라고 합니다", "[주민등록번호]이라고 합니다"),
    ("공 일 공 삼 팔 이 구 삼 공 삼 공입니다", "[전화번호]입니다"),
    ("공하나공 셋여덟둘아홉 셋공셋공", "[전화번호]"),
    ("010 다시 3829 다시 3030", "[전화번호]"),
    ("010에 삼팔이구 3030", "[전화번호]"),
    ("o1o-3829-3030, ㅇ1ㅇ 3829 3030", "[전화번호], [전화번호]"),
    ("hong at example dot com", "[이메일]"),
    ("hong.gd at gmail.com으로", "[이메일]으로"),
    ("메일은 hong at example.com", "메일은 [이메일]"),
    ("hong{at}example{dot}co{dot}kr", "[이메일]"),
    ("hong골뱅이 네이버 점 컴으로", "[이메일]으로"),
    ("홍길동 앳 지메일 닷 컴", "[이메일]"),
    ("hong @ example . com", "[이메일]"),
    ("접속 주소는 211.45.23.10입니다", "접속 주소는 [IP주소]입니다"),
    ("8.8.4.4 조회", "[IP주소] 조회"),
    ("아이디 01012345678", "아이디 [전화번호]"),
]

LEFT_ALONE = [
    "my passport in 2024 2025 was new",
    "주문번호 010-2024-0001",
    "접수 번호는 01012345678입니다",
    "접수 번호는 3456-7890입니다.",
    "2024-01-15 12:30:45",
    "결제 시각은 2026-03-15 14:23입니다.",
    "20240115123045",
    "승인 시각 2026031509301이라고 나와요.",
    "202401151230에 통과",
    "1712031234567",
    "통행료 12,000원, 2024년 3월 1일 10시",
    "금액 10000000000원을 은행에",
    "경부고속도로 서울톨게이트 요금 4,800원",
    "경부선 123km 지점 서울방향",
    "호남고속도로 광주 34km",
    "기점 표지판은 123.4입니다.",
    "성남시 방향으로 3시간",
    "서수원영업소로 20분",
    "대표번호 1588-2504로 전화",
    "12조 5000억",
    "35도 2000m",
    "톨게이트 3가 1000대",
    "1234-5678-1234-5678",
    "version 1.2.3.4 and 192.168.0.1",
    "고객님의 연락처를 남겨 주세요",
    "주유소의 카드 단말기",
    "하필 같은 이름이라니.",
    "이름이 이상해요.",
    "①②③ 순서대로",
    "meet me at example.com today",
    "x @ self.weight",
    "릴리스 8.8.4.4 업데이트",
    "펌웨어 9.1.2.3을 설치",
    "nginx 1.18.0.2",
    "numpy==1.21.2.1",
    "openssl-1.1.1.4",
    "kernel 5.15.90.1-generic",
    "3.1.2.4절을 참고",
    "섹션 3.1.2.4와 제3.1.2.4조, 그림 2.3.4.5",
    "commit 0101234567",
    "해시 4111111111111111",
    "세션 4592 1800, 포트 8080 9090",
    "550e8400-e29b-41d4-a716-446655440000",
    "ISBN 978-89-12345-67-8",
    "영일만에서 삼일 동안 사오일 더",
    "이일 삼사 오육칠팔",
]


@pytest.mark.parametrize(("text", "masked"), MASKED)
def test_is_masked_and_the_particle_stays(text, masked):
    found = MASKER.mask(text)
    assert found.text == masked
    assert found.found.total() >= 1
    assert find(found.text) == [], "a second look finds nothing"


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_is_left_alone(text):
    assert MASKER.mask(text) == Masked(text, Counter())


def test_placeholders_are_the_callers():
    assert Masker(pii.Detector(placeholders={"EMAIL_ADDRESS": "<mail>"}))("kim@example.com") == "<mail>"


def test_a_checksum_never_rejects_a_number_with_a_hyphen():
    number = "901231-1234560"
    assert not checksums.rrn_checksum_holds(number)
    assert MASKER(number) == "[주민등록번호]"


def test_thirteen_digits_are_a_registration_number_only_where_they_can_be():
    assert MASKER.mask("8001011234567").found == Counter(KR_RRN=1)
    assert MASKER.mask("8013011234567").found == Counter()


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_every_pattern_compiles_everywhere(pattern):
    re.compile(pattern.expression)
    regex.compile(pattern.with_lookbehind)
    pl.Series(["x"]).str.contains(superset(pattern.expression))


SNIPPETS = [text for text, _ in MASKED] + LEFT_ALONE
PIECES = st.one_of(
    st.sampled_from(SNIPPETS),
    st.text(alphabet="0123456789-. ()+@가나다라시군로길번호의은이A①０－\u200b\n,[]:", max_size=24),
    st.from_regex(r"[0-9]{2,6}-[0-9]{2,7}(-[0-9]{2,7})?", fullmatch=True),
)
TEXTS = st.lists(PIECES, min_size=1, max_size=5).map(" ".join)
MIXED = st.lists(
    st.one_of(PIECES, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=12)), min_size=1, max_size=5
).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=6))
def test_whole_columns_give_the_spans_of_each_text(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pii, "_FEW", 0)
        found = pii.find(pl.Series(texts, dtype=pl.String))
    alone = [(number, span.start, span.end, span.type) for number, text in enumerate(texts) for span in find(text)]
    assert found.select("text", "start", "end", "type").rows() == alone


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_the_prefilter_contains_every_match(text):
    folded, _ = fold(text)
    alone_and_inside = pl.Series([folded, f'"{folded}",'])
    for pattern in PATTERNS:
        if masking.matches(pattern, folded):
            assert alone_and_inside.str.contains(superset(pattern.expression)).all(), pattern.name
            assert alone_and_inside.str.contains(gate([pattern])).all(), pattern.name


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.name)
def test_the_gate_contains_whatever_has_the_shape(pattern):
    @settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.from_regex(re.compile(pattern.expression)))
    def holds(text):
        folded, _ = fold(text)
        if re.search(pattern.expression, folded) and not pl.Series([folded]).str.contains(ODD)[0]:
            assert pl.Series([folded]).str.contains(gate([pattern]))[0]

    holds()


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(MIXED, st.sampled_from(["010-1234-5678", "\x1c", "ı", ""])), min_size=1, max_size=6))
def test_rows_are_masked_as_each_text_alone(pairs):
    texts = [text + end for text, end in pairs]
    table = pl.concat([rows(text) for text in texts])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pii, "_FEW", 0)
        masked = personal_data.mask_rows(table, "sft_pair", pii.PATTERNS_ONLY)
    shown = [messages[0]["content"] for messages in masked.frame["messages"].to_list()]
    assert shown == [MASKER(text) for text in texts]
    left = [number for number in range(len(texts)) if number not in masked.rows]
    assert masked.frame[left].equals(table[left])


@settings(max_examples=80, deadline=None)
@given(st.lists(st.dictionaries(st.sampled_from(["name", "memo", "이름", "n"]), MIXED | st.integers(0, 10**13))))
def test_the_prefilter_of_metadata_changes_no_result(values):
    table = pl.concat([rows("네", msgspec.json.encode(value, order="sorted").decode()) for value in [{}, *values]])
    found = personal_data.find_in_rows(table, "sft_pair")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(personal_data, "may_hold", lambda column, patterns: pl.lit(True))
        assert found.equals(personal_data.find_in_rows(table, "sft_pair"))


@settings(max_examples=200, deadline=None)
@given(TEXTS)
def test_masking_reaches_an_end_and_spans_lie_in_the_text(text):
    spans = find(text)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert find(MASKER(text)) == []


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="0０１–-－ \u200b\u00a0가각ab①", max_size=30))
def test_folding_maps_every_character_back(text):
    folded, positions = fold(text)
    if positions is None:
        assert len(folded) == len(text)
    else:
        assert len(positions) == len(folded) + 1
        assert all(fold(text[at])[0] == char for at, char in zip(positions, folded, strict=False))


def test_of_overlapping_spans_the_surer_stays():
    spans = [Span(0, 10, "A", 0.5), Span(5, 12, "B", 0.9), Span(12, 14, "C", 0.1)]
    assert [s.type for s in masking.resolve(spans)] == ["B", "C"]


def rows(text: str, extra: str = "{}") -> pl.DataFrame:
    from llmops_assets.datasets import schema

    values = {name: [None] for name in schema.COMMON} | {
        "row_id": ["r"],
        "extra": [extra],
        "file": ["f"],
        "line": [1],
        "messages": [[{"role": "user", "content": text}, {"role": "assistant", "content": "네"}]],
        "tools": [None],
    }
    return pl.DataFrame(values, schema=schema.columns_of("sft_pair"))


def test_rows_are_masked_in_content_and_metadata():
    table = rows(
        "제 번호는 010-1234-5678", '{"age":30,"name":"홍길동","phones":["010-1111-2222",1012345678],"user":"u-17"}'
    )
    masked = personal_data.mask_rows(table, "sft_pair", pii.PATTERNS_ONLY)
    assert masked.frame["messages"][0].to_list()[0]["content"] == "제 번호는 [전화번호]"
    assert masked.frame["extra"][0] == '{"age":30,"name":"[이름]","phones":["[전화번호]",1012345678],"user":"u-17"}'
    assert masked.counts == {"PERSON": 1, "PHONE_NUMBER": 2}
    assert masked.rows == [0]
    assert personal_data.find_in_rows(masked.frame, "sft_pair").height == 0


def test_metadata_without_an_ascii_digit_is_masked_too():
    table = rows("네", '{"phone":"０１０－１２３４－５６７８"}')
    assert personal_data.mask_rows(table, "sft_pair", pii.PATTERNS_ONLY).frame["extra"][0] == '{"phone":"[전화번호]"}'


def test_rows_without_personal_data_are_the_same_table():
    table = rows("통행료가 얼마인가요?")
    assert personal_data.mask_rows(table, "sft_pair", pii.PATTERNS_ONLY).frame.equals(table)


def test_presidio_with_our_recognizers_finds_the_same_spans():
    from llmops_assets.privacy import recognizers

    engine = recognizers.analyzer(with_names=False)
    for text in [*SNIPPETS, " ".join(SNIPPETS[:12]), "연락처\u00a0０１０－１２３４－５６７８, kim＠example.com"]:
        expected = [(s.start, s.end, s.type) for s in find(text)]
        assert [(s.start, s.end, s.type) for s in recognizers.find(engine, text)] == expected, text


def test_presidio_takes_recognizers_of_the_users_own():
    from presidio_analyzer import PatternRecognizer

    from llmops_assets.privacy import recognizers

    badge = PatternRecognizer.from_dict(
        {
            "supported_entity": "STAFF_ID",
            "supported_language": "ko",
            "patterns": [{"name": "badge", "regex": "EX-[0-9]{5}", "score": 0.9}],
        }
    )
    engine = recognizers.analyzer(with_names=True, extra=[badge])
    found = recognizers.find(engine, "홍길동 님의 사번은 EX-12345입니다.")
    assert [(s.type, s.start, s.end) for s in found] == [("PERSON", 0, 3), ("STAFF_ID", 11, 19)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("제 번호는 공일공 삼팔이구 삼공삼공입니다", "제 번호는 [전화번호]입니다"),
        ("공일공삼팔이구삼공삼공", "[전화번호]"),
        ("메일은 hong(at)example.com으로", "메일은 [이메일]으로"),
        ("hong.gd [AT] mail.example (dot) com", "[이메일]"),
        ("hong골뱅이example.com", "[이메일]"),
        ("공일이 많은 집", "공일이 많은 집"),
        ("meet me (at) the station. ok", "meet me (at) the station. ok"),
        ("버전 1.2.3.4", "버전 1.2.3.4"),
        ("펌웨어 버전은 1.2.3.4입니다", "펌웨어 버전은 1.2.3.4입니다"),
        ("버전 … 1.2.3.4", "버전 … 1.2.3.4"),
        ("Version: 8.1.2.3", "Version: 8.1.2.3"),
        ("버전 확인 IP는 8.8.4.4입니다", "버전 확인 IP는 [IP주소]입니다"),
        ("hong @ naver.com으로", "[이메일]으로"),
        ("Hong.g@ Gmail.com 입니다", "[이메일] 입니다"),
        ("결과는 w @ x.T 입니다", "결과는 w @ x.T 입니다"),
        ("주민등록번호 뒷자리는 1234567이에요", "주민등록번호 뒷자리는 [주민등록번호]이에요"),
        ("주민번호 뒤 7자리 2345678", "주민번호 뒤 7자리 [주민등록번호]"),
        ("주문번호 뒷자리 1234567", "주문번호 뒷자리 1234567"),
        ("2a00:1450:4001:81b::200e에서 접속", "[IP주소]에서 접속"),
        ("2a00:1450:4001:81b:1:2:3:4로 접속", "[IP주소]로 접속"),
        (
            "fe80::1, ::1, 12:30:45, aa:bb:cc:dd:ee:ff, std::vector",
            "fe80::1, ::1, 12:30:45, aa:bb:cc:dd:ee:ff, std::vector",
        ),
    ],
)
def test_numbers_and_addresses_in_disguise_are_masked_and_versions_left_alone(text, expected):
    assert MASKER(text) == expected
    assert pii.mask_texts(pl.Series([text] * 3 + [f"{n}번 글" for n in range(80)]), pii.PATTERNS_ONLY)[0] == expected
