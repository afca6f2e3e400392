"""Rows as other interfaces and data sets write them are read as what they say, or refused with what to do."""

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.reading.recognise import guess

USER, ANSWER = {"role": "user", "content": "서울 날씨는?"}, {"role": "assistant", "content": "15도입니다."}
CALL = {"name": "get_weather", "arguments": {"city": "서울"}}
SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}}
TOOL = {"name": "get_weather", "description": "날씨", "parameters": SCHEMA}


def said(messages: list[dict[str, Any]]) -> list[Any]:
    """Who says what; of calls the names and arguments, of thoughts their text."""
    found: list[Any] = []
    for message in messages:
        line: list[Any] = [message["role"], message["content"]]
        if message["tool_calls"]:
            line += [(c["function"]["name"], c["function"]["arguments"]) for c in json.loads(message["tool_calls"])]
        if message["reasoning_content"]:
            line.append({"thought": message["reasoning_content"]})
        found.append(tuple(line))
    return found


class Read:
    """What became of the rows of one file: its type as guessed, rows, refusals (field, reason) and keys by fate."""

    def __init__(self, folder: Path, *rows: Any, kind: str | None = None) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / "rows.jsonl").write_text(text, encoding="utf-8")
        files, fates = list_files(UPath(folder)), Fates()
        self.kind = guess(files).type
        batches = list(ingest(files, kind or self.kind or "sft_pair", fates=fates))
        self.rows = pl.concat([batch.rows for batch in batches])
        self.refused = list(pl.concat([b.quarantine for b in batches]).select("field", "reason").iter_rows())
        self.fates = {record.key: record.fate for record in fates.records()}

    @property
    def turns(self) -> list[Any]:
        assert not self.refused
        return said(self.rows["messages"][0])

    @property
    def functions(self) -> list[dict[str, Any]]:
        return [tool["function"] for tool in json.loads(self.rows["tools"][0])]

    @property
    def preference(self) -> tuple[list[Any], list[Any], list[Any]]:
        assert not self.refused
        return tuple(said(self.rows[name][0]) for name in ("prompt", "chosen", "rejected"))


CALLED = [("user", "서울 날씨는?"), ("assistant", "", ("get_weather", {"city": "서울"}))]
TALKED = [*CALLED, ("tool", "15"), ("assistant", "15도입니다.")]


# Calls beside a question: xLAM, APIGen


@pytest.mark.parametrize("asked", ["query", "question", "instruction"])
@pytest.mark.parametrize("written", [json.dumps, list])
def test_a_question_with_calls_and_tools_is_answered_by_calls(tmp_path, asked, written):
    flat = {"name": "get_weather", "description": "날씨", "parameters": {
        "city": {"type": "str", "description": "도시"}, "days": {"type": "int, optional", "default": "1"},
        "units": {"type": "List[str]"}}}  # fmt: skip
    read = Read(tmp_path, {"id": 1, asked: USER["content"], "answers": written([CALL]), "tools": written([flat])})
    assert read.kind == "sft_pair"
    assert read.turns == CALLED
    # A table of names is no schema: templates look for `properties`.
    assert read.functions[0]["parameters"] == {
        "type": "object",
        "properties": {
            "city": {"type": "string", "description": "도시"}, "days": {"type": "integer", "default": "1"},
            "units": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["city", "units"],
    }  # fmt: skip
    assert {read.fates[name] for name in (asked, "answers", "tools")} == {"used"}


def test_calls_that_are_the_text_of_an_answer_are_calls_where_there_are_tools(tmp_path):
    row = {"query": USER["content"], "answer": json.dumps([CALL]), "tools": [TOOL]}
    assert Read(tmp_path, row).turns == CALLED
    assert Read(tmp_path, {k: v for k, v in row.items() if k != "tools"}).turns[1] == ("assistant", row["answer"])


def test_an_answer_in_json_that_calls_none_of_the_tools_stays_text(tmp_path):
    answer = json.dumps([{"name": "김하나"}], ensure_ascii=False)
    assert Read(tmp_path, {"query": "누구?", "answer": answer, "tools": [TOOL]}).turns[1] == ("assistant", answer)


def test_a_question_to_which_no_function_is_called_is_refused(tmp_path):
    read = Read(tmp_path, {"query": "안녕?", "answers": "[]", "tools": json.dumps([TOOL])}, kind="sft_pair")
    assert read.refused == [
        ("answers", "no function is called, and no answer is given: write what the model should say instead")
    ]


def test_a_list_of_parameters_is_a_schema(tmp_path):
    tool = {"name": "f", "parameters": [{"name": "city", "type": "string", "required": True}, {"name": "n",
            "type": "integer", "required": False}]}  # fmt: skip
    found = Read(tmp_path, {"messages": [USER, ANSWER], "functions": [tool]}).functions[0]["parameters"]
    assert found == {"type": "object", "properties": {"city": {"type": "string"}, "n": {"type": "integer"}},
                     "required": ["city"]}  # fmt: skip


@pytest.mark.parametrize(
    "schema",
    [
        SCHEMA,
        {"type": "object", "properties": {"type": {"type": "string"}, "properties": {"type": "object"}}},
        {"properties": {"city": {"description": "도시"}}}, {},
    ],
)  # fmt: skip
def test_a_schema_stays_as_it_is(tmp_path, schema):
    tool = {"name": "f", "parameters": schema}
    assert Read(tmp_path, {"messages": [USER, ANSWER], "tools": [tool]}).functions[0]["parameters"] == schema


# Glaive

LISTED = (
    "SYSTEM: You are a helpful assistant with access to the following functions. Use them if required -\n"
    + json.dumps(TOOL, ensure_ascii=False, indent=4)
)


def test_glaives_text_is_turns_calls_and_tools(tmp_path):
    chat = (
        'USER: 서울 날씨는?\n\n\nASSISTANT: <functioncall> {"name": "get_weather", "arguments": \'{"city": '
        '"서울"}\'} <|endoftext|>\n\n\nFUNCTION RESPONSE: 15\n\n\nASSISTANT: 15도입니다. <|endoftext|>\n\n\n'
    )
    read = Read(tmp_path, {"system": LISTED, "chat": chat})
    assert read.kind == "sft_pair"
    assert read.turns == [("system", "You are a helpful assistant."), *TALKED]
    assert read.functions == [TOOL]
    assert read.fates == {"system": "used", "chat": "used"}


def test_an_apostrophe_in_glaives_arguments_is_one(tmp_path):
    chat = """USER: q\n\nASSISTANT: <functioncall> {"name": "f", "arguments": '{"t": "it\\'s"}'} <|endoftext|>"""
    assert Read(tmp_path, {"system": "SYSTEM: s", "chat": chat}).turns[-1] == ("assistant", "", ("f", {"t": "it's"}))


@pytest.mark.parametrize(
    ("chat", "reason"),
    [
        ("no turns", "expected turns that begin with USER: and ASSISTANT:, as Glaive writes them"),
        ("USER: q\n\nASSISTANT: <functioncall> f(x) <|endoftext|>", "behind <functioncall> stands no call as JSON"),
        ("USER: q\n\nASSISTANT: a <|endoftext|> more", "<|endoftext|> stands inside of a turn"),
    ],
)
def test_a_text_of_turns_that_cannot_be_parted_is_refused(tmp_path, chat, reason):
    read = Read(tmp_path, {"system": "SYSTEM: s", "chat": chat}, kind="sft_pair")
    assert [field for field, _ in read.refused] == ["chat"]
    assert read.refused[0][1].startswith(reason)


# Gemini


@pytest.mark.parametrize("system", ["systemInstruction", "system_instruction"])
def test_geminis_contents_are_a_conversation(tmp_path, system):
    row = {
        system: {"role": "system", "parts": [{"text": "짧게."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "서울 "}, {"text": "날씨는?"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "get_weather", "args": {"city": "서울"}}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "get_weather", "response": {"t": 15}}}]},
            {"role": "model", "parts": [{"text": "흠", "thought": True}, {"text": "15도입니다."}]},
        ],
        "tools": [{"functionDeclarations": [TOOL | {"parameters": {"type": "OBJECT", "properties": {"city": {
            "type": "STRING"}}}}]}],
        "generationConfig": {"temperature": 0.1},
    }  # fmt: skip
    read = Read(tmp_path, row)
    assert read.kind == "sft_pair"
    assert read.turns == [
        ("system", "짧게."), *CALLED, ("tool", '{"t":15}'), ("assistant", "15도입니다.", {"thought": "흠"}),
    ]  # fmt: skip
    assert read.functions == [TOOL]
    assert read.fates["contents[].parts"] == read.fates[system] == "used"
    assert read.fates["generationConfig"] == "metadata"


def test_geminis_two_completions_are_a_preference(tmp_path):
    answers = [{"score": score, "completion": {"role": "model", "parts": [{"text": text}]}}
               for score, text in ((0.0, "몰라요."), (1.0, "15도입니다."))]  # fmt: skip
    row = {"contents": [{"role": "user", "parts": [{"text": "서울 날씨는?"}]}], "completions": answers}
    read = Read(tmp_path, row)
    assert read.kind == "rlhf_pair"
    assert read.preference == ([CALLED[0]], [TALKED[-1]], [("assistant", "몰라요.")])


def test_one_part_that_is_no_list_is_read(tmp_path):
    contents = [
        {"role": "user", "parts": {"text": "서울 날씨는?"}},
        {"role": "model", "parts": {"text": "15도입니다."}},
    ]
    assert Read(tmp_path, {"contents": contents}).turns == [CALLED[0], TALKED[-1]]


@pytest.mark.parametrize("part", [{"inlineData": {"data": "a"}}, {"fileData": {"fileUri": "gs://b"}}])
def test_a_part_of_gemini_that_is_no_text_refuses_the_row(tmp_path, part):
    contents = [{"role": "user", "parts": [part, {"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}]}]
    assert Read(tmp_path, {"contents": contents}).refused[0][0] == "contents[0].parts[0]"


# Anthropic and Bedrock

ANTHROPIC = [
    {"role": "user", "content": [{"type": "text", "text": "서울 날씨는?"}]},
    {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "get_weather", "input": {"city":
        "서울"}}]},
    {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text",
        "text": "15"}]}]},
    {"role": "assistant", "content": "15도입니다."},
]  # fmt: skip
BEDROCK = [
    {"role": "user", "content": [{"text": "서울 날씨는?"}]},
    {"role": "assistant", "content": [{"toolUse": {"toolUseId": "t1", "name": "get_weather", "input": {"city":
        "서울"}}}]},
    {"role": "user", "content": [{"toolResult": {"toolUseId": "t1", "content": [{"json": 15}], "status": "success"}}]},
    {"role": "assistant", "content": [{"text": "15도입니다."}]},
]  # fmt: skip


@pytest.mark.parametrize(
    "row",
    [
        {"system": "짧게.", "messages": ANTHROPIC, "tools": [{"name": "get_weather", "description": "날씨",
            "input_schema": SCHEMA}]},
        {"system": [{"type": "text", "text": "짧게.", "cache_control": {"type": "ephemeral"}}], "messages": ANTHROPIC,
         "tools": [{"type": "custom", "name": "get_weather", "description": "날씨", "input_schema": SCHEMA}]},
        {"system": [{"text": "짧게."}], "messages": BEDROCK, "toolConfig": {"tools": [{"toolSpec": {
            "name": "get_weather", "description": "날씨", "inputSchema": {"json": SCHEMA}}}]}},
    ],
    ids=["anthropic", "blocks", "bedrock"],
)  # fmt: skip
def test_blocks_of_calls_and_results_are_turns(tmp_path, row):
    read = Read(tmp_path, row)
    assert read.turns == [("system", "짧게."), *TALKED]
    assert read.functions == [TOOL]
    assert [m["tool_call_id"] for m in read.rows["messages"][0]][3] == "t1"


def test_text_before_a_call_and_several_results_stay_together(tmp_path):
    call = {"type": "tool_use", "name": "f", "input": {}}
    messages = [
        USER,
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "흠", "signature": "x"},
            {"type": "text", "text": "찾아볼게요."}, call | {"id": "1"}, call | {"id": "2"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "가"},
            {"type": "tool_result", "tool_use_id": "2", "content": "나", "is_error": True}]},
        ANSWER,
    ]  # fmt: skip
    read = Read(tmp_path, {"messages": messages})
    assert read.turns[1:4] == [
        ("assistant", "찾아볼게요.", ("f", {}), ("f", {}), {"thought": "흠"}), ("tool", "가"), ("tool", "나"),
    ]  # fmt: skip
    assert read.fates["messages[].content[].is_error"] == "metadata"


@pytest.mark.parametrize(
    ("role", "content", "field"),
    [
        ("user", [{"type": "image", "source": {}}], "messages[0].content[0]"),
        ("assistant", [{"type": "redacted_thinking", "data": "x"}], "messages[0].content[0]"),
        ("assistant", [{"type": "tool_use", "id": "1", "name": "f", "input": {}}, {"type": "text", "text": "했어요"}],
         "messages[0].content[1]"),
        ("user", [{"type": "tool_result", "tool_use_id": "1", "content": "가"}, {"type": "text", "text": "계속"}],
         "messages[0].content"),
        ("assistant", [{"type": "tool_result", "tool_use_id": "1", "content": "가"}], "messages[0].content"),
        ("assistant", [{"type": "text", "text": "가", "train": False}, {"type": "text", "text": "나"}],
         "messages[0].content[0].train"),
        ("user", [{"type": "tool_result", "tool_use_id": "1", "content": [{"type": "image", "source": {}}]}],
         "messages[0].content[0].content[0]"),
    ],
)  # fmt: skip
def test_a_block_that_no_turn_has_a_place_for_refuses_the_row(tmp_path, role, content, field):
    read = Read(tmp_path, {"messages": [{"role": role, "content": content}, ANSWER]}, kind="sft_pair")
    assert [where for where, _ in read.refused] == [field]


# OpenAI's Responses, LangChain, logs


@pytest.mark.parametrize("asked", ["서울 날씨는?", [{"role": "user", "content": [{"type": "input_text", "text":
    "서울 날씨는?"}]}]])  # fmt: skip
def test_items_of_the_responses_interface_are_turns(tmp_path, asked):
    output = [
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "흠"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "15도입니다."}]},
    ]
    read = Read(tmp_path, {"instructions": "짧게.", "input": asked, "output": output})
    assert read.kind == "sft_pair"
    assert read.turns == [("system", "짧게."), CALLED[0], ("assistant", "15도입니다.", {"thought": "흠"})]
    assert read.fates["instructions"] == "used"


def test_calls_between_items_are_turns(tmp_path):
    call = {"type": "function_call", "call_id": "c", "name": "get_weather", "arguments": '{"city": "서울"}'}
    given = [USER, call, {"type": "function_call_output", "call_id": "c", "output": "15"}]
    read = Read(tmp_path, {"input": given, "output": [ANSWER], "tools": [{"type": "function", **TOOL}]})
    assert read.turns == TALKED
    assert read.functions == [TOOL]


def test_an_item_that_is_no_text_refuses_the_row(tmp_path):
    read = Read(tmp_path, {"input": [USER, {"type": "web_search_call", "id": "w"}], "output": [ANSWER]})
    assert read.refused[0][0] == "input[1]"
    assert "'web_search_call'" in read.refused[0][1]


@pytest.mark.parametrize("wrapped", [lambda turn: turn, lambda turn: {"type": turn.pop("type"), "data": turn}])
def test_langchains_messages_are_turns(tmp_path, wrapped):
    call = {"name": "get_weather", "args": {"city": "서울"}, "id": "1", "type": "tool_call"}
    messages = [
        {"type": "human", "content": "서울 날씨는?"}, {"type": "ai", "content": "", "tool_calls": [call]},
        {"type": "tool", "content": "15", "tool_call_id": "1"}, {"type": "ai", "content": "15도입니다."},
    ]  # fmt: skip
    assert Read(tmp_path, {"messages": [wrapped(turn) for turn in messages]}).turns == TALKED


@pytest.mark.parametrize(("asked", "answered"), [("request", "response"), ("inputs", "outputs"), ("input", "output")])
@pytest.mark.parametrize(
    "answer", [{"choices": [{"index": 0, "message": ANSWER, "finish_reason": "stop"}], "model": "m"}, ANSWER]
)
def test_a_logged_request_with_its_answer_is_a_conversation(tmp_path, asked, answered, answer):
    read = Read(tmp_path, {asked: {"messages": [USER], "model": "m", "tools": [TOOL]}, answered: answer})
    assert read.kind == "sft_pair"
    assert read.turns == [CALLED[0], TALKED[-1]]
    assert read.functions == [TOOL]
    assert read.fates[f"{asked}.model"] == "metadata"


@pytest.mark.parametrize(
    "choices", [[{"message": ANSWER}, {"message": ANSWER}], [{"message": ANSWER, "finish_reason": "length"}]]
)
def test_a_logged_answer_that_was_cut_or_is_one_of_several_is_refused(tmp_path, choices):
    read = Read(tmp_path, {"request": {"messages": [USER]}, "response": {"choices": choices}})
    assert read.refused[0][0].startswith("response.choices")


# Turns before a question, answers beside one


@pytest.mark.parametrize(
    "row",
    [
        {"history": [["가?", "나."]], "query": "서울 날씨는?", "response": "15도입니다."},
        {"history": [["가?", "나."]], "question": "서울 날씨는?", "answer": "15도입니다."},
        {"history": [{"role": "user", "content": "가?"}, {"role": "assistant", "content": "나."}],
         "instruction": "서울 날씨는?", "output": "15도입니다."},
        {"chat_history": [{"role": "USER", "message": "가?"}, {"role": "CHATBOT", "message": "나."}],
         "message": "서울 날씨는?", "response": "15도입니다."},
        {"messages": [{"role": "user", "content": "가?"}, {"role": "assistant", "content": "나."}, USER],
         "answer": "15도입니다."},
        {"prompt": "\n\nHuman: 가?\n\nAssistant: 나.\n\nHuman: 서울 날씨는?\n\nAssistant:",
         "completion": "15도입니다."},
    ],
)  # fmt: skip
def test_turns_before_a_question_are_asked_with_it(tmp_path, row):
    read = Read(tmp_path, row)
    assert read.kind == "sft_pair"
    assert read.turns == [("user", "가?"), ("assistant", "나."), CALLED[0], TALKED[-1]]


def test_a_word_that_switches_reasoning_on_is_none(tmp_path):
    row = {"input": [USER], "output": "15도입니다.", "reasoning": "on"}
    assert Read(tmp_path, row).turns == [CALLED[0], TALKED[-1]]
    assert Read(tmp_path, {"messages": [USER, ANSWER | {"reasoning": "on"}]}).turns == [CALLED[0], TALKED[-1]]


def test_instructions_for_the_template_alone_refuse_the_row(tmp_path):
    row = {
        "messages": [USER, ANSWER],
        "chat_template_kwargs": {"custom_instructions": "짧게.", "enable_thinking": True},
    }
    assert Read(tmp_path, row).refused[0][0] == "chat_template_kwargs.custom_instructions"


def test_a_talk_of_numbered_keys_is_a_conversation_in_their_order(tmp_path):
    content = {"SS01": "나.", "HS01": "가?", "HS02": "서울 날씨는?", "SS02": "15도입니다.", "HS03": "", "SS03": ""}
    read = Read(tmp_path, {"profile": {"persona": "p"}, "talk": {"id": {"n": 1}, "content": content}})
    assert read.turns == [("user", "가?"), ("assistant", "나."), CALLED[0], TALKED[-1]]


def test_an_answer_in_an_object_is_its_text(tmp_path):
    read = Read(tmp_path, {"question": "서울 날씨는?", "answer": {"contents": "15도입니다.", "count": 3}})
    assert read.turns == [CALLED[0], TALKED[-1]]
    assert read.fates["answer.count"] == "metadata"


# Preferences


@pytest.mark.parametrize(
    ("row", "first"),
    [
        ({"response_1": "가", "response_2": "나", "preference_strength": -2}, True),
        ({"response_1": "가", "response_2": "나", "preference_strength": 1}, False),
        ({"response1": "가", "response2": "나", "overall_preference": 1}, False),
        ({"response1": "가", "response2": "나", "overall_preference": -1}, True),
        ({"output_1": "가", "output_2": "나", "preference": 1}, True),
        ({"response_a": '["가"]', "response_b": '["나"]', "winner_model_a": 0, "winner_model_b": 1, "winner_tie": 0},
         False),
    ],
)  # fmt: skip
def test_the_preferred_answer_is_the_one_that_the_scale_says(tmp_path, row, first):
    read = Read(tmp_path, {"prompt": "서울 날씨는?", **row})
    assert read.kind == "rlhf_pair"
    better, worse = ("가", "나") if first else ("나", "가")
    assert read.preference == ([CALLED[0]], [("assistant", better)], [("assistant", worse)])


@pytest.mark.parametrize(
    "said",
    [
        {"response_1": "가", "response_2": "나", "preference_strength": 0},
        {"response1": "가", "response2": "나", "overall_preference": 0},
        {"response_a": "가", "response_b": "나", "winner_model_a": 0, "winner_model_b": 0, "winner_tie": 1},
    ],
)
def test_a_tie_by_number_is_refused(tmp_path, said):
    assert "none of the two answers was preferred" in Read(tmp_path, {"prompt": "q", **said}).refused[0][1]


@pytest.mark.parametrize(
    "rejected",
    [{"rejected_response": "몰라요."}, {"rejected_messages": [USER, {"role": "assistant", "content": "몰라요."}]}],
)
def test_a_rejected_answer_beside_a_conversation_is_a_preference(tmp_path, rejected):
    read = Read(tmp_path, {"messages": [USER, ANSWER], **rejected})
    assert read.kind == "rlhf_pair"
    assert read.preference == ([CALLED[0]], [TALKED[-1]], [("assistant", "몰라요.")])
    assert Read(tmp_path, {"messages": [USER, ANSWER], **rejected}, kind="sft_pair").turns == [CALLED[0], TALKED[-1]]


def test_a_mapping_into_an_object_is_proposed(tmp_path):
    row = {"info": {"id": 1}, "label": {"instruction": "가?", "output": "나."}}
    reason = Read(tmp_path, row, kind="sft_pair").refused[0][1]
    assert "--map instruction=label.instruction --map output=label.output" in reason


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": [{"type": "tool-call", "toolCallId": "t", "toolName": "get_weather",
            "input": {"city": "서울"}}]},
         {"role": "tool", "content": [{"type": "tool-result", "toolCallId": "t", "toolName": "get_weather",
            "output": {"type": "text", "value": "15"}}]}],
        [{"role": "assistant", "content": [{"type": "toolCall", "id": "t", "name": "get_weather",
            "arguments": {"city": "서울"}}]},
         {"role": "toolResult", "toolCallId": "t", "content": [{"type": "text", "text": "15"}]}],
    ],
)  # fmt: skip
def test_calls_and_results_of_agents_are_turns(tmp_path, messages):
    read = Read(tmp_path, {"messages": [USER, *messages, ANSWER]})
    assert read.turns == TALKED
    assert read.rows["messages"][0][2]["tool_call_id"] == "t"


def test_properties_that_are_null_come_of_other_tools(tmp_path):
    schema = {"type": "object", "properties": {"city": {"type": "string", "default": None}, "other": None}}
    tool = {"name": "f", "parameters": schema}
    found = Read(tmp_path, {"messages": [USER, ANSWER], "tools": [tool]}).functions[0]["parameters"]
    assert found == {"type": "object", "properties": {"city": {"type": "string", "default": None}}}


@pytest.mark.parametrize(
    "row",
    [
        {"inputs": {"question": "서울 날씨는?"}, "outputs": {"answer": "15도입니다."}, "metadata": {"split": "base"}},
        {"input": {"query": "서울 날씨는?"}, "output": {"response": "15도입니다.", "score": None}},
        {"inputs": {"question": "서울 날씨는?"}, "expectations": {"expected_response": "15도입니다."}},
    ],
    ids=["LangSmith", "Langfuse", "MLflow"],
)
def test_examples_of_tracers(tmp_path, row):
    read = Read(tmp_path, row)

    assert read.kind == "sft_pair"
    assert read.turns == [("user", "서울 날씨는?"), ("assistant", "15도입니다.")]


def test_an_example_that_may_ask_two_things_is_left_to_a_mapping(tmp_path):
    assert Read(tmp_path, {"inputs": {"question": "?", "input": "!"}, "outputs": {"answer": "네"}}).kind is None
