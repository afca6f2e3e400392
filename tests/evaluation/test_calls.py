"""A model is asked with the tools of a row, and its calls are judged in the syntax of its template."""

import dataclasses
import json
from pathlib import Path

import polars as pl
import pytest

from llmops_assets.datasets import schema
from llmops_assets.evaluation.answers import Model, chat_template_of, shows_tools
from llmops_assets.evaluation.case import Baseline, Case, Identity, Rows
from llmops_assets.evaluation.evaluate import evaluate
from llmops_assets.specs.evaluation_rules import EvaluationPolicy
from llmops_assets.specs.suite import SuiteSpec
from resources.content import content_hash
from tests.evaluation.conftest import CHATML, make_tiny_model, read_jsonl
from tests.evaluation.test_assets import spec_of
from tests.evaluation.test_compare import InProcess
from tests.evaluation.test_suites import chat_frame

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}]
WITH_TOOLS = "{% if tools %}<tools>{{ tools | tojson }}</tools> call as <tool_call>{% endif %}" + CHATML


def frame() -> pl.DataFrame:
    """A question that a call answers, and one that wants none."""
    call = json.dumps([{"type": "function", "function": {"name": "f", "arguments": {"a": 1}}}])
    nothing = dict.fromkeys(("name", "tool_calls", "tool_call_id", "reasoning_content", "weight"))
    answers = [{"content": "", "tool_calls": call}, {"content": "안녕하세요"}]
    rows = [
        {
            "messages": [
                {"role": "user", "content": f"{n}번 질문"} | nothing,
                {"role": "assistant"} | nothing | answer,
            ],
            "tools": json.dumps(TOOLS),
            "row_id": f"r{n}",
            "extra": "{}",
            "file": "calls.jsonl",
            "line": n + 1,
        }
        for n, answer in enumerate(answers)
    ]
    empty = dict.fromkeys(("source", "category", "quality_score"))
    return pl.DataFrame([row | empty for row in rows], schema=schema.columns_of("eval_suite"))


def case(tmp_path: Path, tuned: Path, base: Path) -> Case:
    return Case(
        identity=Identity("desk@v1", "tiny", "key"),
        spec=spec_of("tiny", "desk@v1", evaluation={"max_new_tokens": 6, "suites": ["calls@v1"]}),
        tuned=Model(str(tuned), content_hash(tuned)),
        test=Rows("sft_pair", chat_frame([("a", "c", "질문", "답", {})])),
        suites={"calls@v1": Rows("eval_suite", frame(), SuiteSpec(judge="calls"))},
        answers=tmp_path / "answers.jsonl",
        cache=tmp_path / "cache",
        worker=InProcess(),
        base=Baseline("base", "hf:base", Model(str(base), content_hash(base))),
        policy=EvaluationPolicy(latency_items=0),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("calling")
    knowing, plain = (make_tiny_model(root / name, seed=1) for name in ("knowing", "plain"))
    (knowing / "chat_template.jinja").write_text(WITH_TOOLS, encoding="utf-8")
    return knowing, plain


def test_calls_are_asked_with_their_tools_and_judged_by_the_templates_syntax(tmp_path, folders) -> None:
    knowing, plain = folders
    assert shows_tools(chat_template_of(knowing)) and not shows_tools(chat_template_of(plain))
    made = case(tmp_path, knowing, plain)
    evaluated = evaluate(made)
    record = evaluated.record
    # A random model calls nothing: right where no call was wanted, and wrong where one was.
    assert [(row["id"], row["correct"]) for row in evaluated.rows if row["suite"] == "calls@v1"] == [
        ("r0", False),
        ("r1", True),
    ]
    assert record.judges["calls@v1"] == "calls" and record.metric("calls@v1", "accuracy").value == 0.5
    assert record.settings["tuned"]["call_parser"] == "hermes"
    assert "The base was not asked calls@v1: its chat template shows no tools" in record.baseline
    (asked,) = (
        row for path in tmp_path.glob("cache/*/input.jsonl") for row in read_jsonl(path) if row["id"].endswith("r0")
    )
    assert asked["tools"] == TOOLS


def test_a_template_without_tools_is_no_way_to_ask_for_calls(tmp_path, folders) -> None:
    knowing, plain = folders
    made = case(tmp_path, plain, knowing)
    with pytest.raises(ValueError, match="renders none: the model would not see them"):
        evaluate(dataclasses.replace(made, base=None))
