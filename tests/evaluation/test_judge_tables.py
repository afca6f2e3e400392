"""The tables of docs/evaluation.md say of every judge what is right and what is wrong; they are held to it here."""

import re
from pathlib import Path

import pytest

from llmops_assets.evaluation import calls, number_judge
from llmops_assets.evaluation.judge import Judge, without_reasoning
from llmops_assets.evaluation.llm_judge import decided
from llmops_assets.evaluation.regexes import fault
from llmops_assets.specs.suite import JUDGE_KINDS

DOC = Path(__file__).parents[2] / "docs" / "evaluation.md"
OPTIONS = ("3", "4", "5")


def tables() -> dict[str, list[tuple[str, str, bool]]]:
    """(reference, answer, right) by judge, as the document has them."""
    section = DOC.read_text(encoding="utf-8").split("## What each judge finds right", 1)[1]
    found: dict[str, list[tuple[str, str, bool]]] = {}
    for part in section.split("\n### ")[1:]:
        name, _, body = part.partition("\n")
        rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \| (right|wrong) \|$", body, re.MULTILINE)
        assert len(rows) == body.count("\n| `"), f"a row of {name} is in no shape that is read here"
        found[name] = [(r.replace("\\|", "|"), a.replace("\\|", "|"), verdict == "right") for r, a, verdict in rows]
    return found


PAIRS = [(kind, *row) for kind, rows in tables().items() for row in rows]


def test_every_judge_has_a_table_with_both_verdicts() -> None:
    assert set(tables()) == set(JUDGE_KINDS)
    assert all({right for *_, right in rows} == {True, False} for rows in tables().values())


@pytest.mark.parametrize(("kind", "reference", "answer", "right"), PAIRS)
def test_a_judge_says_what_its_table_says(kind: str, reference: str, answer: str, right: bool) -> None:
    if kind == "llm":
        assert decided(reference, answer) is right
        return
    judge = Judge(kind)  # type: ignore[arg-type]
    judge.check([reference])
    parser = "mistral" if "[TOOL_CALLS]" in answer else "llama" if '"parameters"' in answer else "hermes"
    assert judge.right(answer, [reference], choices=OPTIONS if kind == "letter" else (), parser=parser) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("3e8", "3×10^8", True),
        ("5°C", "-5°C", False),
        ("1", "첫 번째가 아니라 2번째", False),
        ("2", "이사를 갔습니다", False),
        ("100", "100점 만점", True),
        ("10000", "만 원", True),
        ("15000", "1만5천원", True),
        ("35000", "삼만 오천 원", True),
        ("12:30", "12시 반", True),
        ("오후 3시", "15:00", True),
        ("3", "오후 3시입니다", True),
        ("5 이상", "5 미만", False),
        ("42", "1. 먼저 6을 둡니다\n2. 42", True),
        ("18", "Janet makes $18 every day.\n#### 18", True),
        ("0.05", "5%", True),
        ("5", "5 m^2", True),
        ("1024", "2^10", True),
        ("5", "$-5", False),
        ("10", "10 대 3", False),
        ("0.5", "1/3", False),
        ("1/3", "2/6", True),
        ("5", "5천", False),
        ("1234567", "1\u202f234\u202f567", True),
        ("7", "٧", True),
        ("42", "답이 42는 아니고 43입니다", False),
        ("90", "90도 아님", False),
        ("2", "제2조", True),
        ("(3, 5)", "(3,5)", True),
        ("1,000", "(1,000)", True),
        ("12300", "약 1만 2천 3백 원", True),
        ("10000", "만약 그렇다면", False),
        ("2024-12-25", "25/12/2024", True),
        ("12", "12시간 30분", False),
    ],
)
def test_neighbours_of_the_table(reference: str, answer: str, right: bool) -> None:
    assert number_judge.right(answer, reference) is right


@pytest.mark.parametrize("reference", ["없음", "√2", "2π", "x > 5", "3x+5", "B-25", "±5", "π", "x = 5"])
def test_a_reference_that_the_number_judge_cannot_read_is_refused(reference: str) -> None:
    with pytest.raises(ValueError, match=r"holds|expression"):
        Judge("number").check([reference])


@pytest.mark.parametrize(
    "pattern",
    [
        "(열림",
        "[a",
        "*",
        "(a+)+$",
        r"(\w+\s?)+$",
        "(a|a)+",
        "(a|ab)+x",
        r"^(\s+|\w+)+$",
        ".*.*.*x",
        ".*",
        "a*",
        "^$",
        "\\",
    ],
)
def test_a_pattern_that_breaks_runs_away_or_matches_everything_is_refused(pattern: str) -> None:
    assert fault(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        "[3-5]일",
        r"\d{1,3}(,\d{3})*원",
        r"(\d+,)*\d+",
        r"(?:\w+\s)+끝",
        r"(?=.*가)(?=.*나).+",
        "(?i)yes|no",
        "(?:네|예)+",
    ],
)
def test_a_pattern_in_use_is_accepted(pattern: str) -> None:
    assert fault(pattern) is None


@pytest.mark.parametrize(
    ("text", "rest"),
    [
        ("<think>a</think>b", "b"),
        ("a</think>\n\nb", "\n\nb"),
        ("<think>cut off", ""),
        ("[THINK]a[/THINK]b", "b"),
        ("<think>a</think>b<think>c</think>d", "bd"),
        ("a < b", "a < b"),
    ],
)
def test_reasoning_is_left_out(text: str, rest: str) -> None:
    assert without_reasoning(text) == rest


TEMPLATES = {
    "hermes": "{{ '<tool_call>' }}",
    "mistral": "{{ '[TOOL_CALLS] [' }}",
    "llama": "{{ '<|python_tag|>' }}",
    "qwen3_coder": "<tool_call>\n<function=…>",
    "json": "{{ message.content }}",
}


@pytest.mark.parametrize(
    ("parser", "text"),
    [
        ("hermes", '찾아볼게요.\n<tool_call>\n{"name": "f", "arguments": {"a": [1, {"b": null}]}}\n</tool_call>'),
        ("hermes", '{"name": "f", "arguments": {"a": [1, {"b": null}]}}'),
        ("llama", '<|python_tag|>{"name": "f", "parameters": {"a": [1, {"b": null}]}}<|eom_id|>'),
        ("llama", '[f(a=[1, {"b": None}])]'),
        ("mistral", '[TOOL_CALLS] [{"name": "f", "arguments": {"a": [1, {"b": null}]}, "id": "abc"}]'),
        ("mistral", '[TOOL_CALLS]f[ARGS]{"a": [1, {"b": null}]}'),
        ("mistral", '[{"name": "f", "arguments": "{\\"a\\": [1, {\\"b\\": null}]}"}]'),
        (
            "qwen3_coder",
            '<tool_call>\n<function=f>\n<parameter=a>\n[1, {"b": null}]\n</parameter>\n</function>\n</tool_call>',
        ),
        ("json", '[{"type": "function", "function": {"name": "f", "arguments": {"a": [1, {"b": null}]}}}]'),
    ],
)
def test_calls_are_read_in_the_syntax_of_the_family(parser: str, text: str) -> None:
    assert calls.parser_of(TEMPLATES[parser]) == parser
    assert calls.calls_in(text, parser) == [calls.Call("f", {"a": [1, {"b": None}]})]


@pytest.mark.parametrize(
    "text", ["안녕하세요", '{"temperature": 3}', "[1, 2]", "표는 [다음](링크)입니다", "{이름}은 좋다"]
)
def test_words_and_other_json_are_no_calls(text: str) -> None:
    assert calls.calls_in(text, "hermes") == []


def test_calls_that_the_tools_do_not_declare_are_named() -> None:
    parameters = {"type": "object", "properties": {"a": {}}, "required": ["a"]}
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    assert calls.undeclared([calls.Call("f", {"a": 1})], tools) == []
    assert calls.undeclared([calls.Call("f", {"b": 1})], tools) == ["f has no argument b", "f needs the argument a"]
    assert "none of the row's tools" in calls.undeclared([calls.Call("g", {})], tools)[0]
