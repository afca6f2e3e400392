"""Rows that say of themselves that they are none, inputs that are none, and answers that are only begun."""

import json
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.formats import convert
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import RowFault

PAIR = {"instruction": "서울 요금은?", "output": "천 원입니다."}
CHAT = {"messages": [{"role": "user", "content": "환불은요?"}, {"role": "assistant", "content": "사흘 걸립니다."}]}


@pytest.mark.parametrize(
    "mark",
    [
        {"is_deleted": True},
        {"deleted": "Y"},
        {"spam": 1},
        {"discarded": "true"},
        {"status": "discarded"},
        {"review_status": " Rejected "},
        {"상태": "반려"},
    ],
)
@pytest.mark.parametrize("row", [PAIR, CHAT, {"text": "고속도로 요금 안내문입니다."}])
def test_a_row_that_was_taken_out_is_not_learned(row: dict[str, Any], mark: dict[str, Any]) -> None:
    with pytest.raises(RowFault, match="says that the row was taken out: leave it out of the file") as e:
        convert({**row, **mark}, "pretrain_corpus" if "text" in row else "sft_pair")
    assert e.value.field == next(iter(mark))


@pytest.mark.parametrize(
    "mark",
    [{"is_deleted": False}, {"deleted": None}, {"spam": 0}, {"deleted": "N"}, {"status": "submitted"}, {"status": 3}],
)
def test_what_says_nothing_of_the_kind_stays_metadata(mark: dict[str, Any]) -> None:
    assert convert({**PAIR, **mark}, "sft_pair")[0]["messages"][0].content == PAIR["instruction"]


def test_the_status_of_a_preference_is_its_label() -> None:
    row = {"prompt": "환불은요?", "completion": "몰라요.", "label": False, "status": "rejected"}
    assert convert(row, "kto")[0]["label"] is False


@pytest.mark.parametrize("without", ["nan", "None", "<NA>", " NaN "])
@pytest.mark.parametrize("more", [{}, {"topic": "요금"}])
def test_an_input_that_is_none_is_refused_on_both_ways_in(tmp_path: Path, without: str, more: dict[str, str]) -> None:
    rows = [PAIR, {**PAIR, "input": without, **more}, {**PAIR, "input": "Nan 은 사람 이름입니다."}]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    (batch,) = ingest([(file.name, UPath(file))], "sft_pair")
    assert batch.rows["line"].to_list() == [1, 3]
    (reason,) = batch.quarantine["reason"].to_list()
    assert "is what a tool writes where there is no input: write an empty text" in reason


@pytest.mark.parametrize("more", [{}, {"topic": "요금"}])
def test_an_input_that_says_that_there_is_none_is_asked_about_no_more(tmp_path: Path, more: dict[str, str]) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps({**PAIR, "input": "<noinput>", **more}) + "\n", encoding="utf-8")
    fates = Fates()
    (batch,) = ingest([(file.name, UPath(file))], "sft_pair", fates=fates)
    assert batch.rows["messages"][0][0]["content"] == PAIR["instruction"]
    assert {fate.key for fate in fates.records() if fate.fate == "used"} == {"instruction", "input", "output"}


def test_what_is_asked_begins_without_blank_lines_where_the_instruction_is_empty(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(
        json.dumps({"instruction": "", "input": "서울 요금은?", "output": "천 원"}) + "\n", encoding="utf-8"
    )
    (batch,) = ingest([(file.name, UPath(file))], "sft_pair")
    assert batch.rows["messages"][0][0]["content"] == "서울 요금은?"


@pytest.mark.parametrize("key", ["prefix", "partial"])
def test_an_answer_that_is_only_begun_is_not_learned_as_a_whole_one(key: str) -> None:
    asked, said = CHAT["messages"]
    with pytest.raises(RowFault, match="an answer that is only begun"):
        convert({"messages": [asked, {**said, key: True}]}, "sft_pair")
    convert({"messages": [asked, {**said, key: False}]}, "sft_pair")
