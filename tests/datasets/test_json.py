"""Files of JSON are read however they hold their rows, and what is no JSON is refused with what was found and where."""

import json
from typing import Any

import polars as pl
import pytest
from upath import UPath

from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.datasets.reading.readers import list_files
from tests.datasets.test_formats import ingested, read


@pytest.mark.parametrize(
    ("line", "field", "words"),
    [
        ('{"question":"첫 물음","question":"둘째 물음","answer":"답"}', "question", "twice"),
        ('{"question": "물음", "answer": "답", "metadata": {"a": 1, "a": 1, "a": 2}}', "metadata.a", "3 times"),
        ('{"messages":[{"role":"user","content":"a","content":"b"}]}', "messages[0].content", "twice"),
        ('{"question": "물음", "answer": "답", "score": NaN}', "score", "NaN"),
        ('{"question": "물음", "answer": "답", "metadata": {"s": [1, -Infinity]}}', "metadata.s[1]", "-Infinity"),
        ('{"question": "물음", "answer": "답", "n": 1e999}', "n", "too large"),
        ('{"question": "물음", "answer": "답\\ud83d"}', "answer", "lone surrogate"),
        ('{"question": "물음", "answer": "답",}', "", "comma"),
        ("{'question': '물음', 'answer': None}", "", "Python"),
        ('{"question": "물음", "answer": "답"}{"question": "물음", "answer": "답"}', "", "several values"),
        ('{"question": "물음", "answer": "답', "", "cut"),
        ('[{"question": "물음", "answer": "답"}]', "", "a list"),
        ('\ufeff{"question": "물음", "answer": "답"}', "", "byte order mark"),
        ('{"question": 1, "answer": "답"}', "question", "a number"),
        ('{"question": ["물음"], "answer": "답"}', "question[0]", "expected a message, got text"),
    ],
)
def test_broken_json_is_refused_with_what_was_found_and_where(tmp_path, line, field, words):
    good = '{"question": ":) 물음 \\":", "answer": "답"}'
    rows, refused, _ = ingested(tmp_path, good, line, good)
    assert rows.height == 2 and len(refused) == 1
    assert refused[0][0] == field and words in refused[0][1]


def test_a_huge_number_is_metadata_like_any_other(tmp_path):
    rows, refused, _ = ingested(tmp_path, f'{{"question": "물음", "answer": "답", "n": {10**30}}}')
    assert refused == [] and json.loads(rows["extra"][0]) == {"n": 10**30}


ROWS = [{"question": f"물음 {n}", "answer": f"답 {n}"} for n in range(5)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.jsonl", json.dumps(ROWS, ensure_ascii=False)),
        ("a.jsonl", json.dumps(ROWS, ensure_ascii=False, indent=2)),
        ("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in ROWS)),
        ("a.json", "\n".join(json.dumps(row, ensure_ascii=False, indent=2) for row in ROWS)),
        ("a.json", json.dumps({"version": "1.0", "license": None, "data": ROWS}, ensure_ascii=False)),
        ("a.json", json.dumps({"rows": ROWS}, ensure_ascii=False, indent=1)),
    ],
)
def test_rows_are_found_however_the_file_holds_them(tmp_path, name, text):
    (tmp_path / name).write_text(text, encoding="utf-8")
    rows, refused, _ = read(tmp_path)
    assert refused == [] and [row[0]["content"] for row in rows["messages"].to_list()] == [r["question"] for r in ROWS]


def test_what_stands_behind_an_array_or_is_broken_among_objects_is_not_lost(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(ROWS) + "\n" + json.dumps(ROWS), encoding="utf-8")
    rows, refused, _ = read(tmp_path)
    assert rows.height == 5 and "behind the end of the array" in refused[0][1]
    (tmp_path / "a.json").write_text('{"question": "열린\n' + "\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    rows, refused, _ = read(tmp_path)
    assert rows.height == 5 and len(refused) == 1


def test_notes_beside_a_list_of_rows_are_their_metadata(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps({"version": "1.0", "data": ROWS}), encoding="utf-8")
    rows, _, fates = read(tmp_path)
    assert json.loads(rows["extra"][0]) == {"version": "1.0"} and fates["version", "metadata"] == 5


def squad() -> dict[str, Any]:
    asked = [
        {
            "id": "q1",
            "question": "언제?",
            "answers": [{"text": "1999년", "answer_start": 3}, {"text": "99년", "answer_start": 5}],
        },
        {"id": "q2", "question": "왜?", "answers": [], "is_impossible": True},
    ]
    return {
        "version": "KorQuAD_v1.0",
        "data": [{"title": "다리", "paragraphs": [{"context": "글이다.", "qas": asked}]}],
    }


@pytest.mark.parametrize("kind", ["sft_pair", "eval_suite"])
def test_articles_of_squad_are_questions_about_their_paragraphs(tmp_path, kind):
    (tmp_path / "a.json").write_text(json.dumps(squad(), ensure_ascii=False), encoding="utf-8")
    rows, refused, _ = read(tmp_path, kind)
    assert [m["content"] for m in rows["messages"][0]] == ["언제?\n\n글이다.", "1999년"]
    extra = json.loads(rows["extra"][0])
    assert extra["references"] == ["99년"] and extra["title"] == "다리" and extra["id"] == "q1"
    assert [field for field, _ in refused] == ["answers"]


def korquad(count: int = 40) -> dict[str, Any]:
    """Articles that are more than fits into the limit of the test, as KorQuAD's training file is of the platform's."""
    return {
        "version": "KorQuAD_v1.0",
        "dev": None,
        "data": [
            {"title": f"글 {n}", "paragraphs": [{"context": f"{n}번 다리는 {1900 + n}년에 놓였다.", "qas": [
                {"id": f"q{n}", "question": "언제 놓였나?", "answers": [{"text": f"{1900 + n}년"}]}]}]}
            for n in range(count)
        ],
    }  # fmt: skip


def large(folder: Any, text: str, kind: str = "sft_pair") -> tuple[list[dict[str, Any]], list[tuple[str, str]]]:
    """The rows and refusals of a JSON object that is larger than the limit."""
    (folder / "a.json").write_text(text, encoding="utf-8")
    found = list(ingest(list_files(UPath(folder)), kind, limits=Limits(line=800)))
    refused = [row for batch in found for row in batch.quarantine.select("field", "reason").iter_rows()]
    return [row for batch in found for row in batch.rows.to_dicts()], refused


@pytest.mark.parametrize("indent", [None, 1])
def test_an_object_that_is_too_large_to_be_held_is_read_piece_by_piece(tmp_path, indent):
    text = json.dumps(korquad(), ensure_ascii=False, indent=indent)
    assert len(text) > 5 * 800
    rows, refused = large(tmp_path, text)
    assert not refused and [row["messages"][1]["content"] for row in rows] == [f"{1900 + n}년" for n in range(40)]
    assert all(json.loads(row["extra"])["version"] == "KorQuAD_v1.0" for row in rows)
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    small = pl.concat([batch.rows for batch in ingest(list_files(UPath(tmp_path)), "sft_pair")])
    assert [row["row_id"] for row in rows] == small["row_id"].to_list(), "the same rows as of an object that fits"


@pytest.mark.parametrize(
    ("change", "field", "words"),
    [
        (lambda t: t[:-1] + ', "licence": "CC BY"}', "licence", "write it before them"),
        (lambda t: t[:-1], "", "not closed"),
        (lambda t: t[:-2] + "]]}", "", "more stands behind"),
        (lambda t: t + '{"x": 1}', "", "more stands behind"),
        (
            lambda t: t.replace('"version": "KorQuAD_v1.0"', '"version": "1", "question": "언제?"'),
            "",
            "one object of more",
        ),
        (lambda t: t.replace('"version": "KorQuAD_v1.0"', '"version": {"of": 1}'), "", "one object of more"),
    ],
)
def test_what_such_an_object_has_beside_its_rows_is_not_lost(tmp_path, change, field, words):
    rows, refused = large(tmp_path, change(json.dumps(korquad(), ensure_ascii=False)))
    assert len(refused) == 1 and refused[0][0] == field and words in refused[0][1]
    assert len(rows) == (0 if "one object" in words else 40)


def test_a_broken_article_of_a_large_object_is_refused_and_what_was_read_stands(tmp_path):
    text = json.dumps(korquad(), ensure_ascii=False, indent=1).replace('"title": "글 7"', '"title": 글 7')
    rows, refused = large(tmp_path, text)
    titles = [json.loads(row["extra"])["title"] for row in rows]
    assert titles[:7] == [f"글 {n}" for n in range(7)] and "글 7" not in titles and refused


ASKED = [f"{word} 통행료는 어디에서 내나요?" for word in ("어제", "오늘", "내일")]
TOLD = [f"{word} 요금소에서 냅니다." for word in ("어제", "오늘", "내일")]
EACH = [{"question": question, "answer": answer} for question, answer in zip(ASKED, TOLD, strict=True)]


@pytest.mark.parametrize(
    "table",
    [
        {"question": {str(n): q for n, q in enumerate(ASKED)}, "answer": {str(n): a for n, a in enumerate(TOLD)}},
        {str(n): row for n, row in enumerate(EACH)},
        {
            "columns": ["question", "answer"],
            "index": [0, 1, 2],
            "data": [[row["question"], row["answer"]] for row in EACH],
        },
        {"schema": {"fields": [{"name": "question"}], "pandas_version": "1.4.0"}, "data": EACH},
        {"question": ASKED, "answer": TOLD},
        {"train": EACH[:2], "test": EACH[2:]},
        {"features": [{"name": "question"}], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(EACH)]},
    ],
    ids=["pandas columns", "pandas index", "pandas split", "pandas table", "columns of lists", "splits", "the viewer"],
)
def test_a_table_in_one_object_is_its_rows(tmp_path, table):
    (tmp_path / "a.json").write_text(json.dumps(table, ensure_ascii=False), encoding="utf-8")
    rows, refused, _ = read(tmp_path)
    assert not refused
    assert [[m["content"] for m in row] for row in rows["messages"].to_list()] == [list(row.values()) for row in EACH]
    if "train" in table:
        assert [json.loads(extra)["split"] for extra in rows["extra"]] == ["train", "train", "test"]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "tools": []},
        {"conversation": ["안녕하세요", "네, 말씀하세요"], "tags": ["인사", "처음"]},
        {"question": "물음", "answer": "답", "metadata": {"0": 1, "1": 2}},
    ],
)
def test_one_row_is_no_table(tmp_path, row):
    (tmp_path / "a.json").write_text(json.dumps(row, ensure_ascii=False), encoding="utf-8")
    rows, refused, _ = read(tmp_path)
    assert rows.height == 1 and not refused


def test_messages_in_a_cell_are_read_as_json_and_refused_as_anything_else(tmp_path):
    messages = [{"role": "user", "content": "언제 되나요?"}, {"role": "assistant", "content": "내일 됩니다."}]
    cell = json.dumps(messages, ensure_ascii=False)
    lines = [{"messages": cell}, {"conversations": cell}, {"messages": str(messages)}, {"messages": "[1"}]
    rows, refused, _ = ingested(tmp_path, *lines)
    assert [[m["content"] for m in row] for row in rows["messages"].to_list()] == [["언제 되나요?", "내일 됩니다."]] * 2
    assert [field for field, _ in refused] == ["messages", "messages"]
    assert "Python" in refused[0][1] and all("as JSON" in reason for _, reason in refused)
