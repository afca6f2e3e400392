"""A row that can be read arrives unchanged; one that cannot is refused with its file, line, field and reason."""

import csv
import gzip
import io
import json
import os
import tracemalloc
from pathlib import Path

import polars as pl
import pytest
import zstandard
from upath import UPath

from llmops_assets.datasets import schema
from llmops_assets.datasets.reading import raw
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.datasets.reading.readers import list_files
from llmops_assets.datasets.versions.checkout import checkout
from llmops_assets.records.conversation import as_written

GOOD = {
    "messages": [
        {"role": "user", "content": "통행료가 얼마인가요?"},
        {"role": "assistant", "content": "4,800원입니다."},
    ]
}


def chat(asked: str = "묻습니다", answered: str = "답합니다") -> list[dict[str, str]]:
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answered}]


def read(folder: Path, dataset_type: str = "sft_pair", mapping=None, **options) -> tuple[pl.DataFrame, list[dict]]:
    batches = list(ingest(list_files(UPath(folder)), dataset_type, mapping, **options))
    rows = pl.concat([batch.rows for batch in batches])
    assert dict(rows.schema) == {k: v for k, v in schema.columns_of(dataset_type).items()}
    return rows, pl.concat([batch.quarantine for batch in batches]).to_dicts()


def spoken(rows: pl.DataFrame, column: str = "messages") -> list[list[dict[str, str]]]:
    """Messages without the fields that they do not have."""
    return [as_written(messages)[0] for messages in rows[column].to_list()]


def lines(folder: Path, *rows: object, name: str = "rows.jsonl") -> Path:
    texts = [row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows]
    (folder / name).write_text("\n".join(texts) + "\n", encoding="utf-8", errors="surrogatepass")
    return folder


SAME = [{"role": "user", "content": "얼마죠?"}, {"role": "assistant", "content": "천 원입니다."}]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": SAME},
        {"conversations": [{"from": "human", "value": "얼마죠?"}, {"from": "gpt", "value": "천 원입니다."}]},
        {"instruction": "얼마죠?", "input": "", "output": "천 원입니다."},
        {"prompt": "얼마죠?", "completion": "천 원입니다."},
        {"prompt": SAME[:1], "completion": SAME[1:]},
        {"question": "얼마죠?", "answer": "천 원입니다."},
        {"Question": "얼마죠?", "Answer": "천 원입니다."},
        {"Q": "얼마죠?", "A": "천 원입니다."},
        {"질문": "얼마죠?", "답변": "천 원입니다."},
    ],
)
def test_every_common_shape_of_a_chat_becomes_the_same_row(tmp_path, row):
    rows, refused = read(lines(tmp_path, row))
    assert refused == []
    assert spoken(rows) == [SAME]


def test_alpaca_with_input_history_and_system(tmp_path):
    row = {"instruction": "고쳐 줘", "input": "글", "output": "고침", "system": "비서", "history": [["앞", "뒤"]]}
    rows, _ = read(lines(tmp_path, row))
    assert [(m["role"], m["content"]) for m in rows["messages"][0]] == [
        ("system", "비서"), ("user", "앞"), ("assistant", "뒤"), ("user", "고쳐 줘\n\n글"), ("assistant", "고침"),
    ]  # fmt: skip


def test_tool_calls_of_sharegpt_are_turns(tmp_path):
    call = '{"name": "weather", "arguments": {"city": "서울"}}'
    turns = [("human", "날씨?"), ("function_call", call), ("observation", "맑음"), ("gpt", "맑습니다.")]
    tools = '[{"name": "weather", "parameters": {"type": "object"}}]'
    row = {"conversations": [{"from": f, "value": v} for f, v in turns], "tools": tools}
    rows, refused = read(lines(tmp_path, row))
    assert refused == []
    assert [m["role"] for m in rows["messages"][0]] == ["user", "assistant", "tool", "assistant"]
    assert json.loads(rows["messages"][0][1]["tool_calls"]) == [{"type": "function", "function": json.loads(call)}]
    assert json.loads(rows["tools"][0]) == [{"type": "function", "function": json.loads(tools)[0]}]
    assert json.loads(rows["extra"][0]) == {}


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "고를까?", "chosen": "좋은 답", "rejected": "나쁜 답"},
        {"prompt": chat("고를까?")[:1], "chosen": chat("", "좋은 답")[1:], "rejected": chat("", "나쁜 답")[1:]},
        {"chosen": chat("고를까?", "좋은 답"), "rejected": chat("고를까?", "나쁜 답")},
        {
            "conversations": [{"from": "human", "value": "고를까?"}],
            "chosen": {"from": "gpt", "value": "좋은 답"},
            "rejected": {"from": "gpt", "value": "나쁜 답"},
        },
        {"prompt": "고를까?", "chosen": chat("고를까?", "좋은 답"), "rejected": chat("고를까?", "나쁜 답")},
    ],
)
def test_every_shape_of_a_preference_becomes_the_same_row(tmp_path, row):
    rows, refused = read(lines(tmp_path, row), "rlhf_pair")
    assert refused == []
    assert {name: spoken(rows, name) for name in ("prompt", "chosen", "rejected")} == {
        "prompt": [[{"role": "user", "content": "고를까?"}]],
        "chosen": [[{"role": "assistant", "content": "좋은 답"}]],
        "rejected": [[{"role": "assistant", "content": "나쁜 답"}]],
    }


def test_retrieval_and_embedding_rows(tmp_path):
    rows, _ = read(
        lines(
            tmp_path, {"question": "왜?", "answer": "그래서", "contexts": ["글 하나", "글 둘"], "negatives": ["딴 글"]}
        ),
        "rag_qa",
    )
    assert rows["positives"].to_list() == [["글 하나", "글 둘"]] and rows["negatives"].to_list() == [["딴 글"]]
    rows, _ = read(lines(tmp_path, {"sentence1": "가", "sentence2": "나"}), "embedding_pair")
    assert rows["anchor"][0] == "가" and rows["positives"].to_list() == [["나"]]


def test_metadata_is_kept_and_the_known_part_of_it_has_columns(tmp_path):
    row = {
        **GOOD,
        "label": 3,
        "metadata": {"category": "toll", "source": "web", "quality_score": 0.8, "user": {"id": 7}},
    }
    rows, _ = read(lines(tmp_path, row))
    assert rows.select("category", "source", "quality_score", "file", "line").row(0) == (
        "toll",
        "web",
        0.8,
        "rows.jsonl",
        1,
    )
    assert json.loads(rows["extra"][0]) == {"label": 3, "user": {"id": 7}}


def test_a_mapping_names_the_columns_that_recognition_would_miss(tmp_path):
    (tmp_path / "rows.csv").write_text("문의,회신,분야\n얼마죠?,천 원입니다.,요금\n", encoding="utf-8")
    rows, refused = read(tmp_path, mapping={"question": "문의", "answer": "회신", "category": "분야"})
    assert refused == []
    assert spoken(rows) == [SAME] and rows["category"][0] == "요금"
    _, refused = read(tmp_path, mapping={"question": "없는 것", "answer": "회신"})
    assert "the mapping takes question from '없는 것'" in refused[0]["reason"]


BAD = [
    ('{"messages": [{"role": "user", "content": "열린', "", "not JSON"),
    ('{"messages": [{"role": "user", ', "", "ends early"),
    ("{'messages': []}", "", "not JSON"),
    ('{"prompt": "\\ud800", "completion": "답"}', "prompt", "lone surrogate"),
    ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "expected text, got a number"),
    ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "expected text, got null"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "expected text, got null"),
    ({"messages": "글"}, "messages", "expected a list of messages, got text"),
    ({"messages": []}, "messages", "no messages"),
    ({"messages": chat("묻", "")}, "messages[].content", "a message is empty"),
    ({"messages": chat("묻", "  \n")}, "messages[].content", "a message is empty"),
    ({"messages": chat()[:1]}, "messages[].role", "last turn is not the assistant"),
    ({"messages": chat()[::-1] + chat()}, "messages[].role", "out of order"),
    ({"messages": [*chat(), {"role": "상담원", "content": "네"}]}, "messages[2].role", "the role '상담원' is none of"),
    ({"messages": chat("널\x00", "답")}, "messages", "NUL"),
    ({**GOOD, "metadata": {"quality_score": "high"}}, "quality_score", "expected a number"),
    ({**GOOD, "metadata": []}, "metadata", "expected an object"),
    ({"words": "?"}, "", "expected messages, conversations"),
    ([1, 2], "", "expected an object, got a list"),
    ("3", "", "expected an object, got a number"),
]


@pytest.mark.parametrize(("row", "field", "reason"), BAD)
def test_a_bad_row_is_refused_with_its_place_and_loses_no_other(tmp_path, row, field, reason):
    rows, refused = read(lines(tmp_path, GOOD, row, GOOD))
    assert rows["line"].to_list() == [1, 3]
    assert len(refused) == 1
    assert (refused[0]["file"], refused[0]["line"], refused[0]["field"]) == ("rows.jsonl", 2, field)
    assert reason in refused[0]["reason"]


def test_a_byte_order_mark_and_decomposed_hangul_are_put_right(tmp_path):
    import unicodedata

    decomposed = unicodedata.normalize("NFD", json.dumps({"prompt": "한글", "completion": "답"}, ensure_ascii=False))
    (tmp_path / "rows.jsonl").write_bytes(b"\xef\xbb\xbf" + decomposed.encode())
    rows, refused = read(tmp_path)
    assert refused == [] and rows["messages"][0][0]["content"] == "한글"


def test_bytes_that_are_not_utf8_say_what_they_look_like(tmp_path):
    (tmp_path / "rows.jsonl").write_bytes(json.dumps(GOOD, ensure_ascii=False).encode("cp949") + b"\n")
    (tmp_path / "rows.csv").write_bytes("Q,A\n얼마,천 원\n".encode("cp949"))
    rows, refused = read(tmp_path)
    assert rows.height == 0
    assert [("CP949" in line["reason"], line["file"]) for line in refused] == [(True, "rows.csv"), (True, "rows.jsonl")]


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_every_file_type_also_compressed(tmp_path, suffix):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    rows = [{"question": f"질문 {i}", "answer": f"답 {i}"} for i in range(3)]
    buffer = io.BytesIO()
    pl.DataFrame(rows).write_parquet(buffer)
    files = {
        "a.json": json.dumps(rows, ensure_ascii=False, indent=2).encode(),
        "b.jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode(),
        "c.csv": "question,answer\n질문 0,답 0\n질문 1,답 1\n질문 2,답 2\n".encode(),
        "d.tsv": "question\tanswer\n질문 0\t답 0\n질문 1\t답 1\n질문 2\t답 2\n".encode(),
        "e.parquet": buffer.getvalue(),
    }
    for name, data in files.items():
        (tmp_path / (name + suffix)).write_bytes(pack(data))
    found, refused = read(tmp_path)
    assert refused == []
    assert found.height == 15
    per_file = found.group_by("file", maintain_order=True).agg(pl.col("messages"), pl.col("line"))
    assert all(messages == per_file["messages"].to_list()[0] for messages in per_file["messages"].to_list())
    assert per_file["line"].to_list() == [[2, 6, 10], [1, 2, 3], [2, 3, 4], [2, 3, 4], [1, 2, 3]]
    assert found["row_id"].n_unique() == 15
    assert found["row_id"][3] == found["row_id"][0] + "-2"


def test_a_broken_array_gives_up_only_what_is_broken(tmp_path):
    broken = (
        '[\n{"question": "하나", "answer": "1"},\n{"question": "둘", answer: "2"},\n{"question": "셋", "answer": "3"}\n'
    )
    (tmp_path / "rows.json").write_text(broken, encoding="utf-8")
    rows, refused = read(tmp_path)
    assert [m[0]["content"] for m in rows["messages"].to_list()] == ["하나", "셋"]
    assert [(line["line"], line["reason"][:20]) for line in refused] == [
        (3, "not JSON: Expecting "),
        (5, "the array is not clo"),
    ]


def test_csv_rows_of_another_width_are_refused_and_quoted_ones_are_not(tmp_path):
    (tmp_path / "rows.csv").write_text('Q,A\n"쉼표, 있음","줄\n바꿈"\n하나뿐\n얼마,"=cmd()"\n', encoding="utf-8")
    rows, refused = read(tmp_path)
    assert [[m["content"] for m in row] for row in rows["messages"].to_list()] == [
        ["쉼표, 있음", "줄\n바꿈"],
        ["얼마", "=cmd()"],
    ]
    assert rows["line"].to_list() == [2, 5]
    assert [(line["line"], line["reason"]) for line in refused] == [(4, "1 cells where the header has 2")]


def test_a_line_over_the_limit_is_skipped_without_the_rest(tmp_path):
    lines(tmp_path, GOOD, {"prompt": "가" * 5000, "completion": "답"}, GOOD)
    rows, refused = read(tmp_path, limits=Limits(line=4096))
    assert rows["line"].to_list() == [1, 3]
    assert refused[0]["line"] == 2 and "longer than 4,096 bytes" in refused[0]["reason"]


def test_a_bomb_is_refused_before_it_fills_the_memory(tmp_path):
    with gzip.open(tmp_path / "rows.jsonl.gz", "wb") as file:
        for _ in range(80):
            file.write(b" " * 2**20)
    rows, refused = read(tmp_path)
    assert rows.height == 0 and "expands to more than" in refused[0]["reason"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_file_cut_off_while_compressed_keeps_what_was_read(tmp_path, suffix):
    pack = {".gz": gzip.compress, ".zst": zstandard.compress}[suffix]
    data = b"".join(
        json.dumps({"prompt": os.urandom(40).hex(), "completion": "ok"}).encode() + b"\n" for _ in range(20000)
    )
    (tmp_path / f"rows.jsonl{suffix}").write_bytes(pack(data)[: len(data) // 4])
    rows, refused = read(tmp_path)
    assert rows.height > 0
    assert any("ends early" in line["reason"] or "not JSON" in line["reason"] for line in refused)


def test_plain_text_is_documents(tmp_path):
    (tmp_path / "paragraphs.txt").write_text("첫 문단\n둘째 줄\n\n둘째 문단\n", encoding="utf-8")
    (tmp_path / "lines.txt").write_text("한 줄\n두 줄\n", encoding="utf-8")
    rows, refused = read(tmp_path, "pretrain_corpus")
    assert refused == []
    assert rows["text"].to_list() == ["한 줄", "두 줄", "첫 문단\n둘째 줄", "둘째 문단"]
    assert rows["line"].to_list() == [1, 2, 1, 4]


def test_an_unknown_file_is_refused_and_an_empty_one_has_no_rows(tmp_path):
    (tmp_path / "notes.docx").write_bytes(b"PK")
    (tmp_path / "empty.jsonl").write_bytes(b"")
    rows, refused = read(tmp_path)
    assert rows.height == 0
    assert [line["reason"][:30] for line in refused] == ["no reader for files ending in "]


def test_batches_do_not_change_the_result(tmp_path):
    lines(tmp_path, *[GOOD if i % 3 else {"prompt": f"{i}", "completion": "답"} for i in range(50)], *[BAD[3][0]] * 5)
    whole, split = read(tmp_path), read(tmp_path, batch_rows=7)
    assert whole[0].equals(split[0]) and whole[1] == split[1]


def test_a_category_can_be_required(tmp_path):
    lines(tmp_path, GOOD, {**GOOD, "metadata": {"category": "toll"}})
    rows, refused = read(tmp_path, require_category=True)
    assert rows["category"].to_list() == ["toll"]
    assert refused[0]["field"] == "metadata.category"


def numbered(count: int) -> list[dict]:
    return [{"messages": chat(f'질문 {i}, "인용", {{괄호}}, {{', f"답 {i}}}, {{{{끝")} for i in range(count)]


@pytest.mark.parametrize("indent", [None, 1, 2])
@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
def test_an_array_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, indent, block):
    text = json.dumps(numbered(40), ensure_ascii=False, indent=indent)
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    monkeypatch.setattr(raw, "BLOCK", block)
    rows, refused = read(tmp_path)
    assert refused == []
    assert [m[0]["content"] for m in rows["messages"].to_list()] == [r["messages"][0]["content"] for r in numbered(40)]
    starts = [n for n, line in enumerate(text.split("\n"), start=1) if line == " " * (indent or 0) + "{"]
    assert rows["line"].to_list() == (starts if indent else [1] * 40)


@pytest.mark.parametrize("block", [64, 300, 1 << 20])
def test_a_break_in_an_array_costs_its_row_alone_wherever_the_pieces_end(tmp_path, monkeypatch, block):
    lines = [json.dumps(row, ensure_ascii=False) for row in numbered(30)]
    lines[7] = lines[7].replace('"role"', "role", 1)
    lines[20] = "{oops"
    (tmp_path / "rows.json").write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")
    monkeypatch.setattr(raw, "BLOCK", block)
    rows, refused = read(tmp_path)
    assert rows["line"].to_list() == [n for n in range(2, 32) if n not in (9, 22)]
    assert [(line["line"], line["reason"][:8]) for line in refused] == [(9, "not JSON"), (22, "not JSON")]


def test_an_array_whose_row_is_over_the_limit_goes_on_behind_it(tmp_path):
    made = [GOOD, {"prompt": "가" * 30000, "completion": "답"}, GOOD, GOOD]
    text = ",\n".join(json.dumps(row, ensure_ascii=False) for row in made)
    (tmp_path / "rows.json").write_text(f"[\n{text}\n]", encoding="utf-8")
    rows, refused = read(tmp_path, limits=Limits(line=4096))
    assert rows["line"].to_list() == [2, 4, 5]
    assert [(line["line"], line["reason"]) for line in refused] == [(3, "the row is longer than 4,096 bytes")]


def test_an_object_that_holds_the_rows_and_a_single_row(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"data": [GOOD, GOOD]}), encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps(GOOD, indent=2), encoding="utf-8")
    (tmp_path / "c.json").write_text("\n".join([json.dumps(GOOD)] * 3), encoding="utf-8")
    (tmp_path / "d.json").write_text("", encoding="utf-8")
    rows, refused = read(tmp_path)
    assert refused == []
    assert rows.group_by("file", maintain_order=True).len().rows() == [("a.json", 2), ("b.json", 1), ("c.json", 3)]


def test_a_line_of_a_hundred_megabytes_takes_no_hundred_megabytes(tmp_path):
    with open(tmp_path / "rows.jsonl", "wb") as file:
        file.write(json.dumps(GOOD).encode() + b'\n{"prompt": "')
        for _ in range(100):
            file.write(b"x" * 2**20)
        file.write(b'", "completion": "y"}\n' + json.dumps(GOOD).encode() + b"\n")
    tracemalloc.start()
    rows, refused = read(tmp_path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows["line"].to_list() == [1, 3]
    assert (refused[0]["line"], refused[0]["reason"]) == (2, "the line is longer than 16,777,216 bytes")
    assert peak < 70 * 2**20


def test_a_truncated_last_line_is_refused_and_the_others_stand(tmp_path):
    good = json.dumps(GOOD)
    (tmp_path / "rows.jsonl").write_text(f'{good}\n{good}\n{{"messages": [{{"ro', encoding="utf-8")
    rows, refused = read(tmp_path)
    assert rows["line"].to_list() == [1, 2]
    assert [(line["line"], line["raw"]) for line in refused] == [(3, '{"messages": [{"ro')]


def test_a_cell_that_a_spreadsheet_would_run_stays_text_and_nothing_we_write_is_a_spreadsheet(tmp_path):
    formulas = ['=HYPERLINK("http://x","y")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)"]
    with open(tmp_path / "rows.csv", "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["question", "answer"], *([formula, "답"] for formula in formulas)])
    rows, refused = read(tmp_path)
    assert refused == []
    assert [m[0]["content"] for m in rows["messages"].to_list()] == formulas
    with pytest.raises(ValueError, match=r"should end in one of \.jsonl"):
        checkout([rows], "sft_pair", tmp_path / "out.csv")


def test_answers_rated_good_or_bad_are_conversations_with_their_label(tmp_path):
    row = {"prompt": chat("좋은가?")[:1], "completion": chat("", "네")[1:], "label": True}
    rows, refused = read(lines(tmp_path, row))
    assert refused == [] and json.loads(rows["extra"][0]) == {"label": True}
