"""Calls, their results and what was thought before them are learned as the row says, or refused by name."""

import json

import pytest

from tests.datasets.test_other_interfaces import ANSWER, CALL, TOOL, USER, Read


def call(name: str, key: str = "c1", **arguments: str) -> dict:
    return {"id": key, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def calling(*calls: dict) -> dict:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(key: str, text: str) -> dict:
    return {"role": "tool", "tool_call_id": key, "content": text}


def test_a_call_of_a_function_that_is_not_offered_is_refused_by_its_name(tmp_path):
    turns = [
        USER,
        calling(call("get_weather"), call("get_wether", "c2")),
        result("c1", "15"),
        result("c2", "?"),
        ANSWER,
    ]
    read = Read(tmp_path, {"messages": turns, "tools": [TOOL]})

    assert not read.rows.height
    ((field, reason),) = read.refused
    assert field == "messages[1].tool_calls[1].function.name"
    assert "'get_wether'" in reason and "get_weather" in reason.partition("tools")[2]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, {**calling(call("other")), "weight": 0}, result("c1", "?"), ANSWER], "tools": [TOOL]},
        {"messages": [{"role": "system", "content": "<tools>…"}, USER, calling(call("other")), result("c1", "?"),
                      ANSWER]},
        {"prompt": [USER], "chosen": [calling(call("get_weather"))], "rejected": [calling(call("other"))],
         "tools": [TOOL]},
        {"prompt": [USER], "completion": [calling(call("other"))], "label": False, "tools": [TOOL]},
    ],
    ids=["not learned", "tools in words", "a rejected answer", "an answer that was found bad"],
)  # fmt: skip
def test_a_call_that_is_not_learned_or_cannot_be_judged_is_left_alone(tmp_path, row):
    assert not Read(tmp_path, row).refused


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": [USER], "chosen": [calling(call("other"))], "rejected": [ANSWER], "tools": [TOOL]},
        {"prompt": [USER], "completion": [calling(call("other"))], "label": True, "tools": [TOOL]},
        {"conversations": [{"from": "human", "value": "?"}, {"from": "function_call",
                                                             "value": json.dumps(CALL | {"name": "other"})}],
         "tools": json.dumps([TOOL])},
    ],
    ids=["chosen", "kto", "sharegpt"],
)  # fmt: skip
def test_a_call_is_held_against_the_tools_in_every_shape(tmp_path, row):
    assert "'other'" in Read(tmp_path, row).refused[0][1]


def test_results_stand_in_the_order_of_their_calls(tmp_path):
    calls = calling(call("get_weather", "c1", city="서울"), call("get_weather", "c2", city="부산"))
    again = calling(call("get_weather", "c3", city="대구"))
    turns = [USER, calls, result("c2", "비"), result("c1", "맑음"), again, result("c3", "눈"), ANSWER]
    read = Read(tmp_path, {"messages": turns, "tools": [TOOL]})

    given = [(m["tool_call_id"], m["content"]) for m in read.rows["messages"][0] if m["role"] == "tool"]
    assert given == [("c1", "맑음"), ("c2", "비"), ("c3", "눈")]


def test_a_call_without_the_result_that_is_answered_for_is_refused(tmp_path):
    calls = calling(call("get_weather", "c1"), call("get_weather", "c2"))
    missing = Read(tmp_path, {"messages": [USER, calls, result("c2", "비"), ANSWER], "tools": [TOOL]})
    ends = Read(tmp_path, {"messages": [USER, calls], "tools": [TOOL]})

    assert "'c1'" in missing.refused[0][1] and not ends.refused


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, {"role": "assistant", "content": "<think>\n바다로 갈까 산으로"}]},
        {"prompt": [USER], "chosen": [{"role": "assistant", "content": " <think>바다로 갈까"}], "rejected": [ANSWER]},
        {"question": "어디로?", "answer": "<think>바다로 갈까"},
    ],
    ids=["messages", "preference", "pairs"],
)
def test_a_thought_that_was_cut_is_no_answer(tmp_path, row):
    assert "<think>" in Read(tmp_path, row).refused[0][1]


def test_a_thought_that_ends_is_left_as_it_stands(tmp_path):
    turns = [USER, {"role": "assistant", "content": "<think>어디?</think>바다로요."}]

    assert not Read(tmp_path, {"messages": turns}).refused


@pytest.mark.parametrize(
    "thought",
    [
        {"thought": "바다로 간다"},
        {"reasoning_details": [{"type": "reasoning.text", "text": "바다로 간다"}]},
        {"reasoning_details": [{"type": "reasoning.encrypted", "data": "AAAA"},
                               {"type": "reasoning.summary", "summary": "바다로 간다"}]},
        {"reasoning": "바다로 간다", "reasoning_details": [{"type": "reasoning.text", "text": "바다로 간다"}]},
    ],
)  # fmt: skip
def test_what_was_thought_is_no_metadata(tmp_path, thought):
    read = Read(tmp_path, {"messages": [USER, ANSWER | thought]})

    assert read.turns[-1] == ("assistant", ANSWER["content"], {"thought": "바다로 간다"})


def test_messages_by_column_are_read_as_messages(tmp_path):
    columns = {"role": ["user", "assistant"], "content": [USER["content"], ANSWER["content"]]}

    assert Read(tmp_path, {"messages": columns}).turns == [(m["role"], m["content"]) for m in (USER, ANSWER)]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "\n\nHuman: 서울 날씨는?\n\nAssistant:", "answers": [{"answer": "몰라요", "rank": 2.0},
                                                                    {"answer": "15도입니다.", "rank": 1.0}]},
        {"instruction": "서울 날씨는?", "generations": ["몰라요", "15도입니다."], "ratings": [1, 5]},
        {"prompt": "서울 날씨는?", "responses": ["15도입니다.", "몰라요"], "ranks": [1, 2]},
    ],
    ids=["nectar", "distilabel", "ranks beside"],
)  # fmt: skip
def test_the_best_and_the_worst_of_ranked_answers_are_a_preference(tmp_path, row):
    read = Read(tmp_path, row)

    assert read.kind == "rlhf_pair"
    assert read.preference == ([("user", "서울 날씨는?")], [("assistant", "15도입니다.")], [("assistant", "몰라요")])
