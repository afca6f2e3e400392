"""A description beside the data names its columns, a mapping of the registration wins, and both reach into messages."""

import json
from pathlib import Path

import pytest

from llmops_assets.datasets.reading.described import columns_beside
from llmops_assets.datasets.reading.scan import scan
from llmops_assets.specs.policy import load_policy

CHAT = [{"speaker": "손님", "said": "환불은 언제 되나요?"}, {"speaker": "상담원", "said": "사흘 안에 됩니다."}]
TAGGED = {
    "file_name": "desk.json",
    "formatting": "sharegpt",
    "columns": {"messages": "dialog", "system": "persona", "tools": "functions_json"},
    "tags": {"role_tag": "speaker", "content_tag": "said", "user_tag": "손님", "assistant_tag": "상담원"},
}
CORPUS = {"file_name": "c4.jsonl", "columns": {"prompt": "body"}}
ALPACA = {"file_name": "a.json", "columns": {"prompt": "ask", "query": "about", "response": "say", "system": "persona"}}
PAIRS = {"file_name": "d.json", "ranking": True, "columns": {"prompt": "ask", "chosen": "good", "rejected": "bad"}}


def put(folder: Path, rows: list[dict], name: str, info: dict | None = None) -> str:
    (folder / name).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    if info is not None:
        (folder / "dataset_info.json").write_text(json.dumps({"mine": info, "other": {"hf_hub_url": "a/b"}}))
    return str(folder / name)


def test_tags_of_llamafactory_name_who_speaks(tmp_path, tmp_path_factory):
    file = put(tmp_path, [{"dialog": CHAT, "persona": "반말"}, {"dialog": CHAT}], "desk.json", TAGGED)
    for given in (file, str(tmp_path)):
        found = scan(given, load_policy(), out=(out := tmp_path_factory.mktemp("out")))
        assert (found.type, found.rows, found.quarantine.height) == ("sft_pair", 2, 0)
        assert any("dataset_info.json" in note and "message.role=speaker" in note for note in found.notes)
    rows = [json.loads(line) for line in (out / "clean.jsonl").read_text().splitlines()]
    assert [m["role"] for m in rows[0]["messages"]] == ["system", "user", "assistant"]


@pytest.mark.parametrize(
    ("info", "row", "kind"),
    [
        (ALPACA, {"ask": "무엇을 도와드릴까요?", "about": "환불", "say": "환불을 도와주세요."}, "sft_pair"),
        (PAIRS, {"ask": "언제 되나요?", "good": "사흘 안에 됩니다.", "bad": "몰라요, 묻지 마세요."}, "rlhf_pair"),
        (CORPUS, {"body": "고속도로 통행료는 거리에 따라 다르다고 안내문에 적혀 있다."}, "pretrain_corpus"),
    ],
)
def test_columns_of_llamafactory_are_taken(tmp_path, info, row, kind):
    file = put(tmp_path, [row], info["file_name"], info)
    if file.endswith(".jsonl"):
        Path(file).write_text(json.dumps(row))
    found = scan(file, load_policy())
    assert (found.type, found.rows, found.quarantine.height) == (kind, 1, 0)


def test_a_mapping_of_the_registration_wins_and_reaches_into_messages(tmp_path):
    file = put(tmp_path, [{"talk": CHAT, "dialog": []}], "desk.json", TAGGED)
    mapping = {
        "messages": "talk",
        "message.role": "speaker",
        "message.content": "said",
        "role.손님": "user",
        "role.상담원": "assistant",
    }
    found = scan(file, load_policy(), mapping=mapping)
    assert (found.type, found.rows) == ("sft_pair", 1)
    wrong = scan(file, load_policy(), mapping=mapping | {"message.role": "who"})
    assert wrong.rows == 0 and wrong.quarantine["field"][0] == "messages[0].who"


def test_other_descriptions_say_nothing_and_broken_ones_are_named(tmp_path):
    file = put(tmp_path, [{"question": "q", "answer": "a"}], "a.json")
    (tmp_path / "dataset_info.json").write_text(
        '{"builder_name": "json", "features": {"question": {"dtype": "string"}}}'
    )
    assert columns_beside([file], ["a.json"]).mapping is None
    (tmp_path / "dataset_info.json").write_text("{broken")
    assert "dataset_info.json" in columns_beside([file], ["a.json"]).notes[0]
    (tmp_path / "dataset_info.json").unlink()
    (tmp_path / "README.md").write_text("---\nx: [\n---\n")
    assert "README.md" in columns_beside([str(tmp_path)], ["a.json"]).notes[0]


def test_files_that_are_described_differently_are_not_read_by_one_of_them(tmp_path):
    put(tmp_path, [{"ask": "a", "say": "b"}], "a.json")
    put(tmp_path, [{"q1": "a", "a1": "b"}], "b.json")
    info = {"one": ALPACA, "two": {"file_name": "b.json", "columns": {"prompt": "q1", "response": "a1"}}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    found = columns_beside([str(tmp_path)], ["a.json", "b.json"])
    assert found.mapping is None and "each by itself" in found.notes[0]
