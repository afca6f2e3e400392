"""What patterns need of a text before it is searched: never more than each of their matches holds."""

import re

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from images.gateway.guards.injection_rules import rules, rules_for
from llmops_assets.privacy import masking
from llmops_assets.privacy.needed import LATIN, WordIndex, figures_needed, needs_latin, words_needed
from llmops_assets.privacy.pattern import Pattern
from llmops_assets.privacy.patterns import PATTERNS

KOREAN = st.text(st.sampled_from("가나다라010-2345.@, 서울시로길"), max_size=20)


@pytest.mark.parametrize(
    ("expression", "figures", "words"),
    [
        (r"[0-9]{3,4}-[0-9]{4}", 7, [{"-"}]),
        (r"(?:가나|다)[0-9]?", 0, [{"가나", "다"}]),
        (r"(?:a|bc)\d+@", 1, [{"@"}]),
        (r"(?i:IBAN)[0-9]{2}", 2, []),
        (r"(?<=주소)[0-9@]{2}(?=로)", 2, []),
        (r"(?:번호)?[시군구]", 0, [{"시", "군", "구"}]),
        (r"[^0-9]{5}", 0, []),
        (r"(?:(?:가|나다)라){2}", 0, [{"라"}, {"가", "나다"}]),
    ],
)
def test_what_an_expression_needs(expression: str, figures: int, words: list[set[str]]):
    assert figures_needed(expression) == figures
    assert sorted(map(sorted, words_needed(expression))) == sorted(map(sorted, words))


@pytest.mark.parametrize(
    ("expression", "latin"),
    [
        (r"[A-Z]{2}[0-9]", True),
        (r"(?i:iban)?[0-9]", False),
        (r"(?:a|나)", False),
        (r"(?:a|[b-d]나)+", True),
        (r"\w", False),
    ],
)
def test_which_expressions_need_a_latin_letter(expression: str, latin: bool):
    assert needs_latin(expression) == latin


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_every_match_holds_what_its_pattern_needs(pattern: Pattern, data: st.DataObject):
    text = data.draw(KOREAN) + data.draw(st.from_regex(pattern.expression)) + data.draw(KOREAN)
    match = re.search(pattern.expression, text)
    assume(match is not None)
    assert len(re.findall(masking.FIGURE, match[0])) >= pattern.figures
    assert all(any(word in match[0] for word in needed) for needed in pattern.words)
    assert re.search(f"[{LATIN}]", match[0]) or not pattern.latin
    # And so nothing that a pattern holds is missed.
    assert pattern in masking._gates_of(PATTERNS).open_for(text)


@given(st.lists(st.text(min_size=1, max_size=4), max_size=20), st.text(max_size=60))
def test_an_index_finds_the_words_that_a_text_holds(words: list[str], text: str):
    assert WordIndex(words).found(text) == {word for word in words if word in text}


@given(st.lists(st.sampled_from([w for r in rules() for n in r.needed for w in n]), max_size=8))
def test_rules_of_injection_are_left_out_only_where_they_do_not_match(words: list[str]):
    text = "".join(words)
    asked = rules_for(text)
    assert all(rule in asked or not rule.expression.search(text) for rule in rules())
    assert asked == [rule for rule in rules() if rule in asked]
