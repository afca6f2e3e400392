"""Recognizers of the house's own: what they may look like, and that none of them can run away."""

import re

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from llmops_assets.privacy.pattern import superset
from llmops_assets.specs.policy import DEFAULT_POLICY, SpecError, load_policy
from llmops_assets.specs.recognizers import Recognizer, translated

GOOD = [
    ("EX-\\d{5}", "EX-12345", "EX-1234"),
    ("\\bEMP\\d{4,6}\\b", "사번은 EMP1234입니다", "XEMP1234"),
    ("[A-Z]{2}(?:-\\d{3}){2}", "AB-123-456", "AB-123"),
    ("(?:red|blue)-[^\\s]{3}", "blue-a1!", "green-a1!"),
    ("고객\\s?번호\\s?[0-9]+", "고객 번호 12", "고객 이름"),
]
BAD = [
    ("(a+)+", "exponential"),
    ("(?:[0-9]+-?)*x", "exponential"),
    ("(a|a)*b", "exponential"),
    ("(?:a{2,}){3,}", "exponential"),
    ("(?<=사번)\\d+", "look-around"),
    ("(\\d)\\1", "not allowed"),
    ("(?i)ex", "flags"),
    ("^EX", "anywhere"),
    ("EX[a", "without its"),
    ("(EX", "without its"),
    ("EX)", "without its"),
    ("*EX", "nothing stands before"),
    ("a**", "repetition of a repetition"),
    ("a{1,9999}", "200"),
    ("[a&&b]", "differently"),
    ("\\pL", "not allowed"),
    ("x*", "everywhere"),
    ("a" * 2000, "1000"),
]


def recognizer(regex: str, **more: object) -> Recognizer:
    return Recognizer.model_validate({"name": "사번", "type": "STAFF_ID", "regex": regex, **more})


@pytest.mark.parametrize(("regex", "text", "other"), GOOD)
def test_a_good_expression_is_read_alike_by_python_and_polars(regex, text, other):
    body = translated(recognizer(regex).regex)
    assert re.search(body, text) and not re.search(body, other)
    assert pl.Series([text]).str.contains(superset(body))[0]


@pytest.mark.parametrize(("regex", "reason"), BAD)
def test_a_bad_expression_is_refused_with_the_reason(regex, reason):
    with pytest.raises(ValidationError, match=reason):
        recognizer(regex)


def test_case_is_ignored_where_asked():
    assert re.fullmatch(translated("ex-[a-f]", ignore_case=True), "Ex-C")
    assert not re.fullmatch(translated("ex-[a-f]"), "Ex-C")


ATOMS = st.sampled_from(["a", "\\d", "[ab-]", "(?:ab|c)", "(a)", "\\b", ".", "\\s", "\\W", "가", "-"])
MARKS = st.sampled_from(["", "?", "{2}", "{1,3}", "+", "*", "+?"])
EXPRESSIONS = st.lists(st.tuples(ATOMS, MARKS).map("".join), min_size=1, max_size=5).map("".join)


@settings(max_examples=150, deadline=None)
@given(EXPRESSIONS, st.text(alphabet="abc01-  \n가x_\u00b2\u3000", max_size=25))
def test_the_prefilter_of_an_own_expression_contains_every_match(expression, text):
    try:
        body = translated(recognizer(expression).regex)
    except ValidationError:
        return
    if re.search(body, text):
        assert pl.Series([text]).str.contains(superset(body))[0]


def test_the_policy_names_the_field_of_a_bad_recognizer(tmp_path):
    path = tmp_path / "policy.yaml"
    text = DEFAULT_POLICY.read_text(encoding="utf-8")
    bad = "recognizers: [{name: staff id, type: STAFF_ID, regex: '(a+)+'}]"
    path.write_text(text.replace("recognizers: []", bad), encoding="utf-8")
    with pytest.raises(SpecError, match=r"recognizers\[0\]"):
        load_policy(path)
    twice = "recognizers: [{name: a, type: A, regex: x}, {name: a, type: B, regex: y}]"
    path.write_text(text.replace("recognizers: []", twice), encoding="utf-8")
    with pytest.raises(SpecError, match="two are named"):
        load_policy(path)
