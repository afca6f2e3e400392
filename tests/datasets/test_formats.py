"""Whatever a row says of itself is used, kept as metadata, or refuses the row: in every shape that people bring."""

import copy
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.reading.recognise import type_of_row
from llmops_assets.datasets.versions.checkout import checkout
from llmops_assets.records.conversation import as_written, carries_loss, for_template

ASKED = {"role": "user", "content": "200달러 옷이 20% 할인이면 얼마야?"}
CALL = {"id": "c1", "type": "function", "function": {"name": "discount", "arguments": {"price": 200, "percent": 20}}}
TOOL = {
    "type": "function",
    "function": {
        "name": "discount",
        "description": "할인 뒤 값",
        "parameters": {"type": "object", "properties": {"price": {"type": "number"}}},
    },
}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": '{"result":160}'}
ANSWER = {"role": "assistant", "content": "160달러입니다."}


def ingested(folder: Path, *rows: object, kind: str = "sft_pair", name: str = "rows.jsonl") -> Any:
    """The rows, what was refused (field and reason), and the fates of the keys."""
    lines = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read(folder, kind)


def read(folder: Path, kind: str = "sft_pair") -> tuple[pl.DataFrame, list[tuple[str, str]], dict[Any, int]]:
    fates = Fates()
    batches = list(ingest(list_files(UPath(folder)), kind, fates=fates))
    refused = pl.concat([batch.quarantine for batch in batches])
    return pl.concat([b.rows for b in batches]), list(refused.select("field", "reason").iter_rows()), dict(fates.rows)


def written(rows: pl.DataFrame) -> list[tuple[list[dict], list[dict] | None]]:
    return [as_written(messages, tools) for messages, tools in rows.select("messages", "tools").iter_rows()]


def chat(*turns: dict, **beside: object) -> dict:
    return {"messages": list(turns), **beside}


def spoken(*texts: str, **last: object) -> dict:
    roles = ("user", "assistant") * len(texts)
    turns = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    turns[-1] |= last
    return {"messages": turns}


TEXT_CALL = CALL | {"function": CALL["function"] | {"arguments": json.dumps(CALL["function"]["arguments"])}}
FUNCTION = json.dumps(CALL["function"], ensure_ascii=False)


@pytest.mark.parametrize(
    "row",
    [
        chat(ASKED, {"role": "assistant", "content": None, "tool_calls": [TEXT_CALL]}, RESULT, ANSWER, tools=[TOOL]),
        chat(ASKED, {"role": "assistant", "tool_calls": [CALL]}, RESULT, ANSWER, tools=json.dumps([TOOL])),
        chat(
            ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT, ANSWER, tools=[TOOL["function"]]
        ),
        chat(
            ASKED,
            {"role": "assistant", "content": [], "tool_calls": [CALL]},
            RESULT,
            ANSWER,
            functions=[TOOL["function"]],
        ),
    ],
)
def test_tools_and_calls_of_openai_are_one_row_however_they_are_spelt(tmp_path, row):
    rows, refused, fates = ingested(tmp_path, row)
    assert refused == []
    call = {"role": "assistant", "content": "", "tool_calls": [CALL]}
    assert written(rows) == [([ASKED, call, RESULT, ANSWER], [TOOL])]
    assert fates["messages[].tool_calls", "used"] == 1 and rows["extra"].to_list() == ["{}"]
    assert for_template(rows["messages"][0], rows["tools"][0]) == written(rows)[0]


@pytest.mark.parametrize(
    "row",
    [
        {
            "conversations": [
                {"from": "human", "value": "얼마?"},
                {"from": "function_call", "value": FUNCTION},
                {"from": "observation", "value": "160"},
                {"from": "gpt", "value": "160달러"},
            ],
            "tools": json.dumps([TOOL["function"]], ensure_ascii=False),
        },
        {
            "messages": [
                {"role": "user", "content": "얼마?"},
                {"role": "assistant", "content": None, "function_call": json.loads(FUNCTION)},
                {"role": "function", "name": "discount", "content": "160"},
                {"role": "assistant", "content": "160달러"},
            ],
            "functions": [TOOL["function"]],
        },
        {
            "messages": [
                {"role": "user", "content": "얼마?"},
                {"role": "tool_call", "content": FUNCTION},
                {"role": "tool_response", "content": "160"},
                {"role": "assistant", "content": "160달러"},
            ],
            "tools": [TOOL],
        },
    ],
)
def test_calls_of_sharegpt_of_old_openai_and_of_swift_are_calls(tmp_path, row):
    rows, refused, _ = ingested(tmp_path, row)
    assert refused == []
    (messages, tools), call = written(rows)[0], {k: v for k, v in CALL.items() if k != "id"}
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "assistant"]
    assert messages[1] == {"role": "assistant", "content": "", "tool_calls": [call]} and tools == [TOOL]


def test_several_calls_at_once_and_one_after_another_are_in_order(tmp_path):
    two = [CALL, CALL | {"id": "c2"}]
    calls = {"role": "assistant", "content": "", "tool_calls": two}
    again = {"role": "assistant", "content": "다시 볼게요.", "tool_calls": [CALL | {"id": "c3"}]}
    answers = [RESULT, RESULT | {"tool_call_id": "c2"}]
    rows, refused, _ = ingested(
        tmp_path,
        chat(ASKED, calls, *answers, again, RESULT | {"tool_call_id": "c3"}, ANSWER, ASKED, ANSWER),
        chat(ASKED, calls),
    )
    assert refused == [] and rows.height == 2
    _, refused, _ = ingested(tmp_path, chat(ASKED, calls, RESULT | {"tool_call_id": "c9"}, ANSWER))
    assert refused[0][0] == "messages[2].tool_call_id" and "'c9'" in refused[0][1] and "c1, c2" in refused[0][1]
    _, refused, _ = ingested(tmp_path, chat(ASKED, RESULT, ANSWER))
    assert len(refused) == 1


@pytest.mark.parametrize(
    ("last", "field", "words"),
    [
        ({"tool_calls": "내일"}, "messages[1].tool_calls", "not JSON"),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "{1}"}}]},
            "messages[1].tool_calls[0].function.arguments",
            "not JSON",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]},
            "messages[1].tool_calls[0].function.arguments",
            "a list",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1,"a":2}'}}]},
            "messages[1].tool_calls[0].function.arguments.a",
            "twice",
        ),
        (
            {"tool_calls": [{"function": {"name": "f", "arguments": '{"a":NaN}'}}]},
            "messages[1].tool_calls[0].function.arguments.a",
            "NaN",
        ),
        ({"tool_calls": [{"function": {"arguments": {}}}]}, "messages[1].tool_calls[0].function.name", "name"),
        (
            {"tool_calls": [{"type": "code_interpreter", "id": "x"}]},
            "messages[1].tool_calls[0].type",
            "code_interpreter",
        ),
        ({"content": None}, "messages[1].content", "null"),
        ({"content": ""}, "messages[].content", "empty"),
        ({"content": 5}, "messages[1].content", "a number"),
        ({"content": [{"type": "image_url", "image_url": {"url": "x"}}]}, "messages[1].content[0]", "image_url"),
        ({"images": ["a.png"]}, "messages[1].images", "images"),
        ({"weight": 0.5}, "messages[1].weight", "0.5"),
        ({"weight": "1"}, "messages[1].weight", "text"),
        ({"weight": 1, "train": False}, "messages[1].train", "contradict"),
        (
            {"train_detail": [{"begin_offset": 0, "end_offset": 3, "train": False}]},
            "messages[1].train_detail",
            "part of a turn",
        ),
        ({"label": False}, "messages[1].label", "label"),
        ({"score": 0.1}, "messages[1].score", "score"),
        ({"rating": 1}, "messages[1].rating", "rating"),
        ({"reasoning_content": {"a": 1}}, "messages[1].reasoning_content", "an object"),
        ({"reasoning": "하나", "thinking": "둘"}, "messages[1].thinking", "differs"),
        ({"text": "딴 글"}, "messages[1].text", "both hold a text"),
        ({"role": "손님"}, "messages[1].role", "'손님' is none of"),
        ({"weight": 0}, "messages[].weight", "no answer to learn"),
    ],
)
def test_what_cannot_be_heeded_in_a_message_refuses_the_row_by_name(tmp_path, last, field, words):
    rows, refused, fates = ingested(tmp_path, spoken("묻습니다", "답합니다", **last), spoken("묻나요", "답해요"))
    assert rows.height == 1 and len(refused) == 1
    assert refused[0][0] == field and words in refused[0][1]
    assert sum(count for (_, fate), count in fates.items() if fate == "refused") == 1


@pytest.mark.parametrize(
    ("beside", "field"),
    [
        ({"label": False}, "label"),
        ({"kto_tag": "false"}, "kto_tag"),
        ({"weight": 0.3}, "weight"),
        ({"sample_weight": 0}, "sample_weight"),
        ({"loss_weight": "0.5"}, "loss_weight"),
        ({"images": ["a.png"]}, "images"),
        ({"audios": ["a.wav"]}, "audios"),
        ({"videos": ["a.mp4"]}, "videos"),
        ({"tools": "{"}, "tools"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"function": {"description": "이름 없음"}}]}, "tools[0].name"),
        ({"system": 3}, "system"),
    ],
)
def test_what_cannot_be_heeded_of_a_row_refuses_it_by_name(tmp_path, beside, field):
    for row in (spoken("묻습니다", "답합니다"), {"question": "묻습니다", "answer": "답합니다"}):
        rows, refused, _ = ingested(tmp_path, row | beside)
        assert rows.height == 0 and [found for found, _ in refused] == [field]


def test_empty_lists_and_weights_of_one_say_nothing(tmp_path):
    beside = {"images": [], "tools": [], "system": "", "weight": 1, "label": True, "functions": None}
    rows, refused, _ = ingested(tmp_path, spoken("묻습니다", "답합니다") | beside, spoken("묻습니다", "답합니다"))
    assert refused == [] and rows["row_id"][1] == f"{rows['row_id'][0]}-2"


@pytest.mark.parametrize(
    "off",
    [
        {"weight": 0},
        {"train": False},
        {"loss": False},
        {"mask": True},
        {"masked": True},
        {"training": False},
        {"loss": 0},
    ],
)
@pytest.mark.parametrize("spelling", ["role", "from"])
def test_a_turn_without_loss_has_weight_0_however_it_is_said(tmp_path, off, spelling):
    keys = ("role", "content") if spelling == "role" else ("from", "value")
    names = ("user", "assistant") if spelling == "role" else ("human", "gpt")
    turns = [dict(zip(keys, (names[n % 2], f"말 {n}"), strict=True)) for n in range(4)]
    turns[1] |= off
    rows, refused, fates = ingested(tmp_path, {"messages" if spelling == "role" else "conversations": turns})
    assert refused == []
    assert [m["weight"] for m in rows["messages"][0]] == [None, 0, None, None]
    assert [carries_loss(m) for m in rows["messages"][0]] == [False, False, False, True]
    assert any(key.endswith(f"[].{next(iter(off))}") and fate == "used" for key, fate in fates)


@pytest.mark.parametrize("role", ["masked_gpt", "gpt-masked", "assistant_mask", "Masked GPT"])
def test_a_masked_role_is_a_turn_without_loss(tmp_path, role):
    turns = [{"from": f, "value": f"말 {n}"} for n, f in enumerate(("human", role, "human", "gpt"))]
    rows, refused, _ = ingested(tmp_path, {"conversations": turns})
    assert refused == []
    assert [(m["role"], m["weight"]) for m in rows["messages"][0]][1] == ("assistant", 0)


def test_loss_on_the_users_words_cannot_be_asked_for(tmp_path):
    row = spoken("묻습니다", "답합니다")
    row["messages"][0]["train"] = True
    _, refused, _ = ingested(tmp_path, row)
    assert refused[0][0] == "messages[0].train" and "user" in refused[0][1]
    row["messages"][0]["train"] = False
    rows, refused, _ = ingested(tmp_path, row)
    assert refused == [] and rows["messages"][0][0]["weight"] is None


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_part_of_the_answer(tmp_path, key):
    rows, refused, _ = ingested(
        tmp_path,
        spoken("12 더하기 30은?", "42", **{key: "열둘에 서른"}),
        {"question": "12 더하기 30은?", "answer": "42", key: "열둘에 서른"},
        spoken("7 곱하기 6은?", "<think>칠 육 사십이</think>42"),
    )
    assert refused == []
    assert [row[1]["reasoning_content"] for row in rows["messages"].to_list()] == ["열둘에 서른", "열둘에 서른", None]
    assert rows["messages"][2][1]["content"] == "<think>칠 육 사십이</think>42"
    assert rows["row_id"][1] == f"{rows['row_id'][0]}-2"


def test_a_system_prompt_beside_the_messages_comes_first(tmp_path):
    said = spoken("묻나", "답한다")["messages"]
    rows, refused, fates = ingested(
        tmp_path,
        {"system": "반말", **spoken("묻나", "답한다")},
        {"system": "반말", "messages": [{"role": "developer", "content": "반말"}, *said]},
        {"system": "반말", "conversations": [{"from": "human", "value": "묻나"}, {"from": "gpt", "value": "답한다"}]},
        {"system": "존댓말", "messages": [{"role": "system", "content": "반말"}, *said]},
    )
    assert [[m["role"] for m in row] for row in rows["messages"].to_list()] == [["system", "user", "assistant"]] * 3
    assert rows["row_id"].str.slice(0, 16).n_unique() == 1
    assert [field for field, _ in refused] == ["system"] and "differs" in refused[0][1]
    assert fates["system", "used"] == 3


def test_content_in_parts_is_their_text(tmp_path):
    parts = [{"type": "text", "text": "하나"}, {"type": "text", "text": "둘"}]
    rows, refused, _ = ingested(
        tmp_path, chat({"role": "user", "content": parts}, {"role": "Assistant", "content": "셋"})
    )
    assert refused == [] and rows["messages"][0][0]["content"] == "하나\n둘"


@pytest.mark.parametrize(
    ("row", "turns"),
    [
        ({"id": "0", "data": ["묻", "답", "또 묻", "또 답"]}, ["묻", "답", "또 묻", "또 답"]),
        ({"prompt": "묻", "prompt_id": "a1", "messages": spoken("묻", "답")["messages"]}, ["묻", "답"]),
        ({"instruction": "요약해", "context": "긴 글", "response": "짧은 글"}, ["요약해\n\n긴 글", "짧은 글"]),
        ({"instruction": "요약해", "context": "", "response": "짧은 글"}, ["요약해", "짧은 글"]),
        (
            {"conversation": [{"input": "묻", "output": "답"}, {"input": "또", "output": "네"}]},
            ["묻", "답", "또", "네"],
        ),
        ({"conversation": [{"human": "묻", "assistant": "답"}]}, ["묻", "답"]),
        ({"dialogue": [{"speaker": "user", "text": "묻"}, {"speaker": "bot", "text": "답"}]}, ["묻", "답"]),
        ({"messages": [{"Role": "User", "Content": "묻"}, {"Role": "Assistant", "Content": "답"}]}, ["묻", "답"]),
        (
            {"messages": None, "conversations": [{"from": "human", "value": "묻"}, {"from": "gpt", "value": "답"}]},
            ["묻", "답"],
        ),
    ],
)
def test_shapes_of_public_datasets(tmp_path, row, turns):
    rows, refused, _ = ingested(tmp_path, row)
    assert refused == []
    assert type_of_row(row) == "sft_pair"
    assert [m["content"] for m in rows["messages"][0]] == turns
    assert [m["role"] for m in rows["messages"][0]] == ["user", "assistant"] * (len(turns) // 2)


def test_segments_without_roles_are_refused_by_name(tmp_path):
    _, refused, _ = ingested(tmp_path, {"segments": [{"label": True, "text": "글"}, {"label": False, "text": "딴 글"}]})
    assert refused[0][0] == "segments" and "Axolotl" in refused[0][1]


def test_every_key_has_a_fate_and_unknown_ones_keep_their_path(tmp_path):
    row = spoken("묻습니다", "답합니다", model="gpt-5", annotator={"id": 3}) | {"tool_choice": "auto", "lang": "ko"}
    rows, refused, fates = ingested(
        tmp_path, row | {"metadata": {"category": "요금", "user": 7}}, spoken("둘", "셋"), {"질문": "넷"}
    )
    assert rows.height == 2 and len(refused) == 1
    assert json.loads(rows["extra"][0]) == {
        "messages[1].model": "gpt-5",
        "messages[1].annotator": {"id": 3},
        "tool_choice": "auto",
        "lang": "ko",
        "user": 7,
    }
    assert fates == {
        ("messages", "used"): 2,
        ("messages[].role", "used"): 2,
        ("messages[].content", "used"): 2,
        ("messages[].model", "metadata"): 1,
        ("messages[].annotator", "metadata"): 1,
        ("tool_choice", "metadata"): 1,
        ("lang", "metadata"): 1,
        ("metadata.category", "used"): 1,
        ("metadata.user", "metadata"): 1,
        ("(the whole row)", "refused"): 1,
    }


def test_what_is_written_out_is_read_as_the_same_rows(tmp_path):
    made = [
        chat(ASKED, {"role": "assistant", "content": "", "tool_calls": [CALL]}, RESULT, ANSWER, tools=[TOOL]),
        spoken("하나", "둘", "셋", "넷", reasoning_content="생각"),
        spoken("다섯", "여섯", "일곱", "여덟"),
    ]
    made[2]["messages"][1]["weight"] = 0
    made[2]["messages"][0]["name"] = "guest"
    rows, refused, _ = ingested(tmp_path, *made)
    assert refused == []
    out = tmp_path / "out"
    out.mkdir()
    checkout([rows], "sft_pair", out / "again.jsonl")
    again, refused, _ = read(out)
    assert refused == []
    assert again.drop("file").equals(rows.drop("file"))


def test_a_row_of_preferences_has_tools_and_no_weights(tmp_path):
    pair = {
        "prompt": [ASKED],
        "chosen": [{"role": "assistant", "content": "", "tool_calls": [CALL]}],
        "rejected": [ANSWER],
    }
    rows, refused, _ = ingested(tmp_path, pair | {"tools": [TOOL]}, kind="rlhf_pair")
    assert refused == [] and json.loads(rows["tools"][0]) == [TOOL]
    assert json.loads(rows["chosen"][0][0]["tool_calls"]) == [CALL]
    _, refused, _ = ingested(tmp_path, pair | {"rejected": [ANSWER | {"weight": 0}]}, kind="rlhf_pair")
    assert refused[0][0] == "rejected[0].weight"


def test_every_record_of_a_version_says_what_became_of_its_keys(tmp_path):
    from llmops_assets.datasets.reading.scan import scan
    from llmops_assets.specs.policy import load_policy

    made = [spoken(f"물음 {n}은 무엇인가요", f"답 {n}은 이것입니다", model="m") | {"lang": "ko"} for n in range(3)]
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps(row) for row in [*made, {"label": False} | made[0]]))
    found = scan(str(tmp_path / "a.jsonl"), load_policy())
    keys = {(fate["key"], fate["fate"]): fate["rows"] for fate in found.summary()["keys"]}
    assert keys["label", "refused"] == 1 and keys["lang", "metadata"] == 3 and keys["messages[].content", "used"] == 3
    assert found.key_fates[0].fate == "refused"


def test_keys_that_are_data_are_counted_without_end_in_no_memory():
    from llmops_assets.datasets.reading.fates import MOST_KEYS, OTHERS

    fates = Fates()
    for number in range(MOST_KEYS + 50):
        fates.metadata([f"user{number}"])
        fates.end_row()
    assert len(fates.rows) == MOST_KEYS + 1 and fates.rows[OTHERS, "metadata"] == 50


def test_tools_of_a_parquet_file_have_their_own_fields_alone(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet

    def tool(name: str, **properties: Any) -> dict:
        return {"type": "function", "function": {"name": name, "parameters": {"properties": properties}}}

    made = [
        chat(
            ASKED,
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            tools=[tool("discount", price={"type": "number"})],
        ),
        chat(ASKED, ANSWER, tools=[tool("weather", city={"type": "string"})]),
    ]
    pyarrow.parquet.write_table(pa.Table.from_pylist(made), tmp_path / "a.parquet")
    rows, refused, _ = read(tmp_path)
    assert refused == [] and [tools for _, tools in written(rows)] == [row["tools"] for row in made]
    assert written(rows)[0][0][1]["tool_calls"] == [CALL]


def test_what_nobody_thought_of_costs_its_own_row(tmp_path, monkeypatch):
    from llmops_assets.datasets.reading import formats

    whole = formats._READERS["sft_pair"]

    def reader(row: dict[str, Any]) -> Any:
        return whole(row) if row.get("lang") is None else {}["nobody"]

    monkeypatch.setitem(formats._READERS, "sft_pair", reader)
    rows, refused, _ = ingested(tmp_path, spoken("하나", "둘") | {"lang": "ko"}, spoken("셋", "넷"))
    assert rows.height == 1 and "KeyError" in refused[0][1]


def test_any_mutation_of_a_row_is_read_or_refused(tmp_path):
    rng = random.Random(7)
    atoms: list[Any] = [
        None,
        True,
        0,
        -1,
        0.5,
        10**40,
        "",
        "글",
        "user",
        "{}",
        "[]",
        "\ud800",
        "a\0b",
        [],
        {},
        [[]],
        [{}],
    ]
    good = [
        chat(
            ASKED,
            {"role": "assistant", "content": None, "tool_calls": [TEXT_CALL]},
            RESULT,
            ANSWER,
            tools=[TOOL],
            system="반",
        ),
        {"instruction": "a", "input": "b", "output": "c", "history": [["a", "b"]], "metadata": {"category": "x"}},
        {"question": "a", "answers": [{"text": "b"}], "context": "c", "thinking": "d"},
        {"conversation": [{"input": "a", "output": "b"}], "weight": 1},
    ]

    def places(value: Any, path: tuple = ()) -> Iterator[tuple]:
        yield path
        for key in value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ():
            yield from places(value[key], (*path, key))

    lines = []
    for _ in range(1500):
        row = copy.deepcopy(rng.choice(good))
        *into, last = rng.choice(list(places(row))[1:])
        at: Any = row
        for key in into:
            at = at[key]
        at[last] = rng.choice(atoms)
        lines.append(json.dumps(row))
    rows, refused, fates = ingested(tmp_path, *lines)
    assert rows.height + len(refused) == len(lines) and min(rows.height, len(refused)) > 200
    assert not [reason for _, reason in refused if "could not be read" in reason]
    assert sum(count for (_, fate), count in fates.items() if fate == "refused") == len(refused)
