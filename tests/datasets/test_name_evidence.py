"""What is passed over before names are looked for changes no result: words without evidence hold none."""

import csv
import math
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmops_assets.privacy import names
from llmops_assets.privacy.name_dictionary import cut_word, pieces
from llmops_assets.privacy.name_evidence import Evidence, evidence, widened
from llmops_assets.privacy.name_sentence import Sentence, may_hold_name
from llmops_assets.privacy.name_weights import evidence_weights
from llmops_assets.privacy.names import find_names
from tests.conftest import PUBLIC_DATA

WORDS_TEXT = """
김민수 김민수는 박모 씨 씨가 최 감독 홍길동입니다 에밀리 왓슨 남궁솔 A씨 B(33)씨 배우 이용자가 서울에서 010-1234-5678
리아 웨스턴오스트레일리아주 다니엘과 세종대왕 (洪吉童) 최고의 우선 대표 A 가 ㅋㅋ 🙂 . ! 김
"""
WORDS = [*WORDS_TEXT.split(), "the\u200b", "\x1c", "\t", "\n"]
TEXTS = st.one_of(
    st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join),
    st.text(alphabet="김민수박서연이가는씨군모A홍 .!?\n0-洪吉童(Bモx", max_size=40),
    st.text(max_size=40),
)


class Thorough(Evidence):
    """Looks at every word with what stands around it."""

    def __init__(self) -> None:
        super().__init__(*evidence_weights())
        self.bound = math.inf


THOROUGH = Thorough()


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_a_word_that_is_passed_over_never_has_evidence(text):
    assert evidence().places(text) == THOROUGH.places(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, min_size=1, max_size=3))
def test_names_are_the_same_without_the_prefilter(texts):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "evidence", lambda: THOROUGH)
        patch.setattr(names, "_WORTH_A_LOOK", re.compile(""))
        patch.setattr(names, "_CACHE", {})
        without = find_names(texts)
    assert find_names(texts) == without


def public_texts(count: int) -> list[str]:
    path = PUBLIC_DATA / "songys-chatbot" / "ChatbotData.csv"
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [f"{row['Q']} {row['A']}" for row in rows[: 10 * count : 10]]


@pytest.mark.public_data
def test_on_public_talk_too():
    texts = public_texts(300)
    assert [evidence().places(text) for text in texts] == [THOROUGH.places(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(names, "evidence", lambda: THOROUGH)
        patch.setattr(names, "_CACHE", {})
        without = find_names(texts)
    assert find_names(texts) == without


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="김민수박서연이가는씨군모홍길동남궁세종대왕다니엘에게", min_size=2, max_size=9))
def test_a_word_that_cannot_hold_a_name_has_no_candidate(word):
    cut = cut_word(word)
    assert cut == pieces(word)
    assert may_hold_name(word, cut) or not Sentence(word, [], cut).candidates()


def test_ranges_are_widened_to_words_and_joined_where_they_touch():
    text = "하나 둘 셋 넷 다섯 여섯 일곱"
    assert [text[a:b] for a, b in widened(text, [(0, 1), (12, 13)], 1)] == ["하나 둘", "다섯 여섯 일곱"]
    assert [text[a:b] for a, b in widened(text, [(3, 4), (7, 8)], 1)] == ["하나 둘 셋 넷 다섯"]
    assert widened("", [], 2) == []


def test_a_sentence_in_which_nothing_speaks_for_a_name_is_read_by_no_analyser(monkeypatch):
    monkeypatch.setattr(names, "_CACHE", {})
    monkeypatch.setattr(names, "kiwi", lambda: pytest.fail("the analyser was asked"))
    assert find_names(["통행료 고지서를 어디에서 받나요? 영업소에 문의해 주세요."] * 2) == [[], []]
