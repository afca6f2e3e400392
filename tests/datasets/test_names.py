"""Names of persons are found where something speaks for them, and not in places, things or titles."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets.privacy import names
from llmops_assets.privacy.names import find_names

NAMES = [
    ("저는 홍길동입니다.", ["홍길동"]),
    ("박서연이라고 합니다. 차량 조회 부탁드려요.", ["박서연"]),
    ("예금주는 최하은입니다.", ["최하은"]),
    ("김민수 고객님이 서수원 톨게이트에서 접수했습니다.", ["김민수"]),
    ("이영희 씨가 왔다.", ["이영희"]),
    ("010-0126-0092 양은서입니다. 부모님을 모시고 갑니다.", ["양은서"]),
    ("01017920248 권나래입니다. 부모님을 모시고 갑니다.", ["권나래"]),
    ("010.1470.8459 장나래입니다.", ["장나래"]),
    ("신고한 사람은 유서연, 연락처는 남겼다.", ["유서연"]),
    ("남보람입니다. 확인해 주세요.", ["남보람"]),
    ("김 씨는 어제 통과했다.", ["김"]),
    ("홍길동의 카드와 김철수의 카드", ["홍길동", "김철수"]),
    ("박모(33) 씨와 최모 씨가 함께 있었다.", ["박", "최"]),
    ("A씨는 B(41)씨에게 돈을 빌렸다.", ["A", "B"]),
    ("정 전 장관과 윤 의원이 만났다.", ["정", "윤"]),
    ("배우 에밀리 왓슨과 감독 마틴 스코세이지가 왔다.", ["에밀리 왓슨", "마틴 스코세이지"]),
    ("다니엘은 크리스티나에게 전화했다.", ["다니엘", "크리스티나"]),
    ("남궁민수 씨의 주소를 바꿔 주세요.", ["남궁민수"]),
    ("지연 씨와 정수 씨가 왔다.", ["지연", "정수"]),
    ("김지연과 박정수가 파일을 보냈다.", ["김지연", "박정수"]),
]
NONE = [
    "강릉에서 오산까지 얼마인가요?",
    "남청주 나들목에서 고지서를 받았어요.",
    "소중한 고객님, 안녕하세요.",
    "며칠 전 동해선을 탔는데요, 유실물은 어디서 찾나요?",
    "주유소와 전기차 충전소, 화물차 라운지가 있나요?",
    "안내견과 함께 휴게소에 가도 되나요?",
    "정산소에서 현금으로 냈어요.",
    "이용자가 전용차로를 지나면 하이패스 단말기가 울립니다.",
    "구간별 요금과 동승자 안전벨트를 확인해 주세요.",
    "장마철에는 제설제 대신 가드레일을 봅니다.",
    "모유 수유 공간과 전동 킥보드를 찾아요.",
    "서강대 교수와 현대자동차 직원이 갔다.",
    "스타벅스에서 커피와 케이크를 샀고 하이브리드 자동차를 탔다.",
    "이 영화는 최고의 작품이고 최우선으로 봐야 한다.",
    "커밋 4111 1111을 되돌렸다",
    "시리얼 4148 1164를 확인해 주세요",
    "노드 4592 1800이 응답하지 않는다",
    "릴리스 버전 10.2.3.4를 설치했다",
    "What time is it?",
    "",
    "작년에 웨스턴오스트레일리아주와 퀸즐랜드에 다녀왔다.",
    "클래스의 정규식과 위젯 트리거를 확인하세요.",
    "쿼리 버퍼와 스레드 모드, 페이지 헤더를 설정한다.",
    "이스케이프하면 캐시를 비우고 데몬이 리셋됩니다.",
    "세션 4592 1800과 포트 8080 9090, 빌드 20240 1122",
    "티켓 1234 5678이 릴리스 브랜치에 머지됐다",
    "우즈베키스탄과 리히텐슈타인, 테네시와 버몬트",
    "이진 파일을 열 수 없음",
    "정수 표현식이 필요함",
    "[지연] 시간과 지연 비율",
    "정수 값을 이진 파일로 쓴다",
    "스웨덴어와 슬로베니아어, 크림타타르어, 에스페란토 번역",
    "드보락 자판과 콜맥 자판, 케이프웰 드보락",
    "소욤보 문자와 파스파 문자",
    "달라시와 도브라, 텡게로 환전한다",
    "휴렛팩커드 파빌리온 노트북",
]


@pytest.mark.parametrize(("text", "expected"), NAMES)
def test_names_are_found(text, expected):
    assert [text[s.start : s.end] for s in find_names([text])[0]] == expected


@pytest.mark.parametrize("text", NONE)
def test_other_words_are_no_names(text):
    assert find_names([text]) == [[]]


@pytest.mark.parametrize("count", [100, 400])
def test_a_long_list_in_one_line_loses_no_name(count):
    names_of = [f"{surname}{given}" for surname in "김이박최정" for given in ("철수", "영희", "민수", "지영")]
    listed = [names_of[i % len(names_of)] for i in range(count)]
    text = "참석자는 " + ", ".join(listed) + " 고객입니다"
    assert [text[span.start : span.end] for span in find_names([text])[0]] == listed


def test_a_batch_gives_each_text_its_own():
    texts = [text for text, _ in NAMES] + NONE
    assert find_names(texts) == [find_names([text])[0] for text in texts]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.sampled_from([text for text, _ in NAMES] + NONE),
            st.text(alphabet="김민수씨A홍 .!?\n0-洪吉童(Bモx", max_size=20),
        ),
        max_size=4,
    ).map(" ".join)
)
def test_what_the_prefilter_leaves_out_holds_no_name(text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "_WORTH_A_LOOK", re.compile(""))
        patch.setattr(names, "_CACHE", {})
        without = find_names([text])
    assert find_names([text]) == without
