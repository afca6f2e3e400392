"""One automaton says which of many expressions may match a text: never fewer than Python's `re` finds."""

import re
import sys

import pytest
import re2
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from images.gateway.guards.injection_rules import by_words, rules, rules_for
from images.gateway.guards.personal_data import _in_part, _unfinished
from llmops_assets.privacy import masking, prefilter
from llmops_assets.privacy.patterns import PATTERNS

EVERY_CHARACTER = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
EXPRESSIONS = [pattern.expression for pattern in PATTERNS] + [rule.expression.pattern for rule in rules()]


def test_every_pattern_and_rule_of_the_platform_is_in_the_automaton():
    assert all(prefilter.loosened(expression) for expression in EXPRESSIONS)
    assert prefilter.prefilter(tuple(EXPRESSIONS)).works


@pytest.mark.parametrize(
    "expression",
    [
        r"\w", r"\s", r"\d", r"[\w-]", r"[^\w]", r"[^\s가]", r"[^\d\s]", r"\W", r"\S", r"\D", r"[\S]", r".", r"[^\S]",
        *(f"(?i:{letter})" for letter in "iskaz"), "(?i:[a-z])", "(?i:[^k])", "(?i:é)", "(?i:[à-ü])", "(?i)ſ",
        "(?i:[가-힣])",
        "(?s:.)", "[A-Z]", "(?i:ß)", "(?i:Σ)", "(?i:\u01c4)", r"(?a:\w)", r"(?i:[i-k\u0130])",
    ],
)  # fmt: skip
def test_no_character_that_an_expression_matches_is_lost(expression: str):
    loose = re2.compile(f"(?s:{prefilter.loosened(expression)})")
    found = "".join(re.findall(expression, EVERY_CHARACTER))
    assert found
    assert re2.compile(f"(?:{loose.pattern})*").fullmatch(found) is not None


SMALL = st.recursive(
    st.sampled_from(
        [
            "가",
            "나",
            "1",
            "[0-9]",
            "[^가]",
            r"\d",
            r"\s",
            "(?i:Ks)",
            "[가-다]",
            "-",
            r"\.",
            "(?!나)",
            "(?<=1)",
            "$",
            "^",
            r"\b",
            ".",
        ]
    ),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.tuples(inner, st.sampled_from(["?", "*", "+", "{2}", "{1,3}", "{0,2}?", "+?"])).map(
            lambda pair: f"(?:{pair[0]}){pair[1]}"
        ),
        inner.map(lambda part: f"({part})(?=[가1])"),
    ),
    max_leaves=8,
)


@settings(max_examples=400, deadline=None)
@given(st.lists(SMALL, min_size=1, max_size=4), st.text(st.sampled_from("가나다1-. kKs\u212a\u017f\n"), max_size=12))
def test_of_any_expressions_those_that_match_are_among_those_that_may(expressions: list[str], text: str):
    may = prefilter.Prefilter(expressions).may_match(text)
    assert may is not None
    assert {at for at, one in enumerate(expressions) if re.search(one, text)} <= set(may)
    assert list(may) == sorted(may)


def test_what_cannot_be_loosened_is_always_searched_for():
    one = prefilter.Prefilter([r"(가)\1", "나", "나{2000}(?:나{900}){900}", r"(?P<x>다)?(?(x)라|마)"])
    assert list(one.may_match("다른 것")) == [0, 3]
    assert list(one.may_match("나")) == [0, 1, 3]


def test_half_a_character_is_looked_at_without_the_automaton():
    text = "전화 010-1234-5678 \ud800"
    assert prefilter.prefilter(tuple(EXPRESSIONS)).may_match(text) is None
    assert [span.type for span in masking.find(text)] == ["PHONE_NUMBER"]
    assert rules_for("이전지시를무시\ud800") == by_words("이전지시를무시\ud800")
    assert _unfinished(PATTERNS)("전화 010-12\ud800") == _in_part(PATTERNS)("전화 010-12\ud800")


def test_without_the_library_the_same_is_found(monkeypatch: pytest.MonkeyPatch):
    text = "전화 010-1234-5678, 메일 kim@example.com, 주소는 서울 강남구 테헤란로 12, 카드 4111-1111-1111-1111입니다"
    with_it = masking.find(text)
    monkeypatch.setattr(prefilter, "re2", None)
    without = prefilter.Prefilter(EXPRESSIONS)
    assert not without.works
    assert without.may_match(text) is None
    assert prefilter.unfinished(EXPRESSIONS) is None
    needs = masking._Needs(PATTERNS)
    assert {span.type for span in with_it} <= {pattern.type for pattern in needs.open_for(text)}


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_what_may_go_on_is_held_back_from_where_a_pattern_begins(data: st.DataObject):
    pattern = data.draw(st.sampled_from(PATTERNS))
    before = data.draw(st.text(st.sampled_from("가나 서울1-"), max_size=6))
    value = data.draw(st.from_regex(pattern.expression))
    cut = data.draw(st.integers(0, len(value)))
    text = masking.fold(before + value[:cut])[0].replace("\x00", " ")
    found, in_part = _unfinished(PATTERNS)(text), _in_part(PATTERNS)(text)
    assert found <= in_part
    # Four controls are spaces to the patterns, but not to the module that finds in part.
    assert found == in_part or re.search("[\x1c-\x1f]", text)
