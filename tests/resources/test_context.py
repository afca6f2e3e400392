"""What a model was sent is kept whole, masked text by text, or the log says why it is not."""

import json

import pytest

from resources.traffic.context import MOST_BYTES, context_of, masked, sent_of, texts

ASKED = {"role": "user", "content": "왜요?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": '{"tel": "010-1234-5678"}'}}
TOOL = {"type": "function", "function": {"name": "find", "description": "looks up", "parameters": {"type": "object"}}}


def without_numbers(text: str) -> str:
    return text.replace("010-1234-5678", "[전화]")


def row(**body) -> dict:
    turns, context = context_of(body)
    return {"query": "왜요?", "turns": turns, "context": context}


@pytest.mark.parametrize("body", [{"messages": [ASKED]}, {"messages": [ASKED], "tools": []}, {"prompt": "왜요?"}])
def test_a_question_by_itself_needs_no_context(body: dict) -> None:
    found = row(**body)
    assert (found["turns"], found["context"]) == (1, None)
    assert sent_of(found).is_lone and sent_of(found).conversation == "왜요?"


def test_all_that_was_sent_is_there_and_masked_where_it_is_text() -> None:
    parts = [{"type": "text", "text": "둘로"}, {"type": "text", "text": "나뉘어 010-1234-5678"}]
    messages = [
        {"role": "system", "content": "짧게"},
        {"role": "user", "content": parts},
        {"role": "assistant", "content": None, "tool_calls": [CALL]},
        {"role": "tool", "tool_call_id": "c1", "content": "010-1234-5678\n없음"},
        ASKED,
    ]
    found = row(messages=messages, tools=[TOOL])
    found["context"] = masked(found["context"], without_numbers)
    assert "1234" not in found["context"] and json.loads(found["context"])["tools"] == [TOOL]
    assert masked(found["context"], without_numbers) is found["context"]
    sent = sent_of(found)
    assert (found["turns"], sent.missing, sent.is_lone) == (5, None, False)
    assert sent.messages[1]["content"] == "둘로 나뉘어 [전화]" and sent.messages[3]["content"] == "[전화]\n없음"
    assert sent.messages[2]["tool_calls"][0]["function"]["arguments"] == '{"tel": "[전화]"}'
    assert sent.conversation.startswith("system: 짧게\n\nuser: 둘로") and 'find({"tel": "[전화]"})' in sent.conversation
    assert {"짧게", "looks up", "왜요?"} <= set(texts(found["context"]))


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}], "no text (image_url)"),
        ([{"role": "system", "content": "가" * MOST_BYTES}, ASKED], "longer than 65,536 bytes"),
        ({"messages": [ASKED], "n": 2}, "asked for 2 answers"),
        ({"prompt": ["왜요?", "언제요?"]}, "several things at once"),
    ],
)
def test_what_is_not_kept_says_why(messages: list[dict] | dict, why: str) -> None:
    found = row(**(messages if isinstance(messages, dict) else {"messages": messages}))
    assert why in sent_of(found).missing and len(found["context"]) < 100


def test_what_was_taken_out_is_missing_and_what_is_from_before_is_the_question_alone() -> None:
    assert sent_of({"query": "왜요?", "turns": 3, "context": None}).missing == "it was taken out of the log"
    assert sent_of({"query": "왜요?", "turns": None, "context": None}).is_lone
    assert sent_of({"query": "왜요?"}).is_lone
