"""Personal data in what is said to tools and thought is found and masked like any other, and the JSON stays JSON."""

import json

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets import texts
from llmops_assets.datasets.quality import personal_data
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.privacy.pii import PATTERNS_ONLY

PHONE, EMAIL = "010-1234-5678", "hong@example.com"
TOOL = {
    "type": "function",
    "function": {
        "name": "call",
        "description": f"물을 곳: {PHONE}",
        "parameters": {"type": "object", "properties": {}},
    },
}


def call(id: str, **arguments: object) -> dict:
    return {"id": id, "type": "function", "function": {"name": "call", "arguments": arguments}}


@pytest.fixture
def rows(tmp_path) -> pl.DataFrame:
    calls = [
        call("c1", phone=PHONE, nested={"to": [f'"{EMAIL}"', 3, None, True]}),
        call("c2", number=1012345678, ok=1.5),
    ]
    messages = [
        {"role": "user", "content": "전화해 줘", "name": EMAIL},
        {"role": "assistant", "content": "", "tool_calls": calls, "reasoning_content": f"{PHONE}로 걸면 된다"},
        {"role": "tool", "tool_call_id": "c1", "content": f"{PHONE} 통화 중", "name": "call"},
        {"role": "tool", "tool_call_id": "c2", "content": "받지 않음"},
        {"role": "assistant", "content": "받지 않습니다."},
        {"role": "user", "content": "다시"},
        {"role": "assistant", "content": "", "tool_calls": [call("c3", phone="02-345-6789")]},
    ]
    plain = [{"role": "user", "content": "안녕"}, {"role": "assistant", "content": f"{EMAIL}로 보내세요"}]
    lines = [
        {"messages": plain},
        {"messages": messages, "tools": [TOOL]},
        {"messages": plain, "metadata": {"p": PHONE}},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
    batches = list(ingest([("a.jsonl", UPath(tmp_path / "a.jsonl"))], "sft_pair"))
    assert sum(batch.quarantine.height for batch in batches) == 0
    return pl.concat([batch.rows for batch in batches])


def test_all_of_it_is_found_and_masked_and_the_calls_are_calls(rows):
    found = personal_data.find_in_rows(rows, "sft_pair", PATTERNS_ONLY)
    assert set(found.filter(pl.col("row") == 1)["column"]) == {
        "messages", "messages.name", "messages.reasoning_content", "messages.tool_calls", "tools",
    }  # fmt: skip
    masked = personal_data.mask_rows(rows, "sft_pair", PATTERNS_ONLY)
    whole = json.dumps(masked.frame.to_dicts(), ensure_ascii=False)
    assert not any(text in whole for text in (PHONE, EMAIL, "02-345-6789"))
    messages = masked.frame["messages"][1].to_list()
    first, second = json.loads(messages[1]["tool_calls"])
    assert first["id"] == "c1" and first["function"]["name"] == "call"
    assert first["function"]["arguments"]["nested"]["to"][1:] == [3, None, True]
    assert "[" in first["function"]["arguments"]["phone"] and second["function"]["arguments"]["ok"] == 1.5
    assert "[" in json.loads(messages[6]["tool_calls"])[0]["function"]["arguments"]["phone"]
    assert [m["tool_call_id"] for m in messages[2:4]] == ["c1", "c2"] and messages[2]["name"] == "call"
    tool = json.loads(masked.frame["tools"][1])[0]
    assert list(tool["function"]) == ["name", "description", "parameters"] and "[" in tool["function"]["description"]
    again = personal_data.find_in_rows(masked.frame, "sft_pair", PATTERNS_ONLY)
    assert again.height == 0
    assert masked.frame.schema == rows.schema
    assert masked.frame["messages"][0].to_list()[0]["content"] == "안녕"


def test_recorded_spans_mask_as_a_new_search_does(rows):
    spans = personal_data.recorded(personal_data.find_in_rows(rows, "sft_pair", PATTERNS_ONLY), rows)
    there = personal_data.in_rows(spans, rows)
    masked = personal_data.mask_rows(rows, "sft_pair", PATTERNS_ONLY, there).frame
    assert masked.equals(personal_data.mask_rows(rows, "sft_pair", PATTERNS_ONLY).frame)
    left = list(
        personal_data.find_left(lambda _: iter([masked]), "sft_pair", PATTERNS_ONLY, lambda _: iter([rows]), spans)
    )
    assert sum(found.height for _, found in left) == 0
    unmasked = personal_data.find_left(lambda _: iter([rows]), "sft_pair", PATTERNS_ONLY, lambda _: iter([rows]), spans)
    assert sum(found.height for _, found in unmasked) == spans.height


def test_what_is_called_and_thought_is_part_of_what_a_row_says(rows):
    prompt, answer, whole = rows.select(
        texts.prompt_of("sft_pair"), texts.answer_of("sft_pair"), texts.whole_of("sft_pair")
    ).row(1)
    assert "02-345-6789" in answer and "로 걸면 된다" in prompt and '"nested"' in prompt
    assert "물을 곳" in whole
    assert rows.select(texts.answer_of("sft_pair"))["answer"][0] == f"{EMAIL}로 보내세요"


def test_texts_put_back_are_the_rows(rows):
    flat = texts.flat_texts(rows, "sft_pair")
    assert texts.with_texts(rows, "sft_pair", flat).equals(rows)
