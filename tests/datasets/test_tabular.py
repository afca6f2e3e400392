"""CSV and TSV are read by their own dialect; what cannot be read costs its own row; every line is accounted for."""

import csv
import io
import json
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pandas
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from upath import UPath

from llmops_assets.datasets.reading.accounting import in_words, verdict
from llmops_assets.datasets.reading.ingest import ingest
from llmops_assets.datasets.reading.raw import Limits
from llmops_assets.records.datasets import DatasetRecord, FileAccount


def read(folder: Path, data: bytes | str, name: str = "rows.csv", kind: str = "sft_pair", **options):
    """Rows as (line, texts), refusals as (line, reason), and the account, which adds up."""
    path = folder / name
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    accounts: dict[str, FileAccount] = {}
    batches = list(ingest([(name, UPath(path))], kind, accounts=accounts, **options))
    account = accounts[name]
    assert account.missing == 0, account
    rows = [
        (row["line"], [m["content"] for m in row["messages"]] if "messages" in row else [row["text"]])
        for batch in batches
        for row in batch.rows.to_dicts()
    ]
    refused = [(one["line"], one["reason"]) for batch in batches for one in batch.quarantine.to_dicts()]
    return rows, refused, account


def many(count: int, at: int = -1, line: str = "") -> str:
    rows = [f"번호 {i}번 창구는 어디에 있나요,{i}호 건물 {i}층에 있습니다" for i in range(count)]
    if at >= 0:
        rows[at] = line
    return "\n".join(["question,answer", *rows]) + "\n"


@pytest.mark.parametrize(
    "stray",
    [
        '번호 어디,"7호 건물 3층에 있습니다',
        '"번호 어디,7호 건물 3층에 있습니다',
        '"번호 "어디",7호',
        '"번호 어디,"7호 건물',
        '"번호" 어디,7호 건물',
    ],
)
@pytest.mark.parametrize("at", [0, 200, 399])
def test_a_stray_quotation_mark_costs_its_own_row(tmp_path, stray, at):
    rows, refused, account = read(tmp_path, many(400, at, stray))
    assert len(rows) == 399
    assert [line for line, _ in refused] == [at + 2]
    assert "quotation mark" in refused[0][1]
    assert (account.total, account.header) == (401, 1)


@pytest.mark.parametrize("line", ['5" 나사,있습니다', '번호는 "어디"에,있습니다"', '번호,그건 "네"라는 뜻'])
def test_a_quotation_mark_inside_of_a_cell_is_text(tmp_path, line):
    rows, refused, _ = read(tmp_path, many(50, 20, line))
    assert refused == []
    assert dict(rows)[22] == line.split(",")


def test_two_stray_marks_do_not_swallow_the_rows_between_them(tmp_path):
    text = many(100, 10, '번호,"7호').splitlines()
    text[60] = '번호,8호"'
    rows, refused, _ = read(tmp_path, "\n".join(text))
    assert len(rows) == 99 and [line for line, _ in refused] == [12]


def test_a_mark_amid_rows_that_are_quoted_well_costs_its_own_row(tmp_path):
    good = '"질문 {0}, 둘째","답 ""{0}""\n둘째 줄, 셋째"'
    text = "\n".join(
        ["question,answer", *(good.format(i) for i in range(30)), '"질문,"답', *(good.format(i) for i in range(30))]
    )
    rows, refused, account = read(tmp_path, text)
    assert len(rows) == 60 and rows[0] == (2, ["질문 0, 둘째", '답 "0"\n둘째 줄, 셋째'])
    assert [line for line, _ in refused] == [62]
    assert account.continued == 60


def test_lines_of_a_long_cell_that_look_like_rows_are_not_taken_for_rows(tmp_path):
    table = "이름,나이\n" + "\n".join(f"사람 {i},{i}" for i in range(40))
    rows, refused, _ = read(tmp_path, f'question,answer\n표로 써 줘,"{table}"\n끝,네\n')
    assert rows == [(2, ["표로 써 줘", table]), (43, ["끝", "네"])] and refused == []
    # With words before the table nobody can tell it from rows behind a stray mark: refused whole, never halved.
    rows, refused, account = read(
        tmp_path, 'question,answer\n표로 써 줘,"표입니다:\n이름,나이\n철수,3\n영희,4"\n끝,네\n'
    )
    assert rows == [(6, ["끝", "네"])]
    assert refused[0][0] == 2 and "each of those lines is a row by itself" in refused[0][1]
    assert account.continued == 3


def test_a_cell_whose_marks_do_not_match_is_refused_with_all_of_its_lines(tmp_path):
    text = 'question,answer\n앞,네\n질문,"첫 줄\n\n둘째 줄입니다\n그는 "네"라고, 했다\n끝"\n뒤,네\n'
    rows, refused, account = read(tmp_path, text)
    assert [row for row in rows if row[0] in (2, 8)] == [(2, ["앞", "네"]), (8, ["뒤", "네"])]
    assert refused[0][0] == 3 and account.total == 8


def _tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("../../rows.jsonl")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return packed.getvalue()


class Evil:
    """Runs a program when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("unpickled"),)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.csv", "rows.parquet", "rows.txt", "rows.jsonl.gz"])
@pytest.mark.parametrize("data", [pickle.dumps(Evil()), _tar(), b"\x93NUMPY\x01", b"%PDF-1.7\n%\xe2\n"])
def test_what_is_no_text_is_refused_whatever_it_is_called(tmp_path, monkeypatch, name, data):
    monkeypatch.chdir(tmp_path)
    rows, refused, _ = read(tmp_path, data, name, kind="pretrain_corpus")
    assert rows == [] and refused
    assert not (tmp_path / "unpickled").exists()


def _text_column(shape: str, count: int) -> pa.Array:
    """A megabyte of text that is written once and meant `count` times, in a column or within lists of objects."""
    flat = pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array(["a" * 1_000_000]))
    if shape == "flat":
        return flat
    turns = pa.StructArray.from_arrays([pa.array(["user"] * count), flat], ["role", "content"])
    return pa.ListArray.from_arrays(pa.array(range(0, count + 1, 4), pa.int32()), turns)


@pytest.mark.parametrize("shape", ["flat", "nested"])
def test_a_parquet_file_that_means_one_text_many_times_is_refused_before_it_fills_the_memory(tmp_path, shape):
    name = "prompt" if shape == "flat" else "messages"
    pq.write_table(pa.table({name: _text_column(shape, 2000)}), tmp_path / "bomb.parquet", compression="zstd")
    assert (tmp_path / "bomb.parquet").stat().st_size < 5000
    tracemalloc.start()
    rows, refused, _ = read(tmp_path, (tmp_path / "bomb.parquet").read_bytes(), "bomb.parquet")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [] and "expands to more than" in refused[0][1]
    assert peak < 100e6


def test_a_text_that_many_rows_share_is_read(tmp_path):
    template = "아래 글을 분류하세요. " * 40
    table = {"prompt": [f"{template}{n % 3}" for n in range(30_000)], "completion": [str(n) for n in range(30_000)]}
    pq.write_table(pa.table(table), tmp_path / "shared.parquet", compression="zstd")
    rows, refused, _ = read(tmp_path, (tmp_path / "shared.parquet").read_bytes(), "shared.parquet")
    assert len(rows) == 30_000 and refused == []


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_delimiters_line_ends_and_encodings(tmp_path, delimiter, end, encoding):
    cells = [
        ["question", "answer"],
        ["묻습니다, 무엇을; 또", "답|합니다"],
        ['"그" 말', f"두 줄{end}입니다"],
        ["끝", "네"],
    ]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator=end).writerows(cells)
    rows, refused, account = read(tmp_path, buffer.getvalue().encode(encoding))
    assert refused == []
    # Where a carriage return alone ends the lines it is put right in the cells, too.
    cells[2][1] = cells[2][1].replace("\r", "\n") if end == "\r" else cells[2][1]
    assert [texts for _, texts in rows] == cells[1:]
    assert [line for line, _ in rows] == [2, 3, 5]
    assert (account.total, account.continued) == (5, 1)


def test_what_excel_says_on_the_first_line_is_no_row(tmp_path):
    rows, refused, account = read(tmp_path, "sep=;\r\nquestion;answer\r\n하나, 둘?;네\r\n")
    assert rows == [(3, ["하나, 둘?", "네"])] and refused == []
    assert (account.total, account.comments) == (3, 1)


def test_quotes_of_pandas_in_tsv_and_bare_quotes_of_corpora(tmp_path):
    cells = [
        ["question", "answer"],
        ["버튼 이름은?", '"확인" 버튼을 눌러 주세요.'],
        ["두 줄로", "첫째 줄입니다.\n둘째 줄입니다."],
    ]
    written = pandas.DataFrame(cells[1:], columns=cells[0]).to_csv(sep="\t", index=False)
    assert [texts for _, texts in read(tmp_path, written, "rows.tsv")[0]] == cells[1:]
    everything = pandas.DataFrame(cells[1:], columns=cells[0]).to_csv(sep="\t", index=False, quoting=csv.QUOTE_ALL)
    assert [texts for _, texts in read(tmp_path, everything, "rows.tsv")[0]] == cells[1:]
    bare = [
        ['"안녕"', "네"],
        ['"안녕" 하고 말했다', '네"'],
        ['"열린 채로', "네"],
        ["사이", "네"],
        ["닫힌", '"네'],
        ["끝", '네"'],
    ]
    rows, refused, _ = read(tmp_path, "question\tanswer\n" + "\n".join(map("\t".join, bare)), "rows.tsv")
    assert [texts for _, texts in rows] == bare and refused == []


def test_marks_that_are_written_with_a_backslash(tmp_path):
    text = 'question,answer\n"그가 \\"네, 그래\\"라고 했나요","C:\\\\길"\n"둘","\\"셋\\""\n보통,네\n'
    rows, refused, _ = read(tmp_path, text)
    assert refused == []
    assert [texts for _, texts in rows] == [['그가 "네, 그래"라고 했나요', "C:\\길"], ["둘", '"셋"'], ["보통", "네"]]


def test_headers_with_blanks_doubles_or_none(tmp_path):
    frame = pandas.DataFrame({"question": ["왜?"], "answer": ["그래서"]})
    rows, refused, _ = read(tmp_path, frame.to_csv())
    assert rows == [(2, ["왜?", "그래서"])] and refused == []
    rows, refused, account = read(tmp_path, "question,question,answer\n가,나,다\n라,마,바\n")
    assert rows == [] and "names a column twice" in refused[0][1]
    assert (account.total, account.refused, account.continued) == (3, 1, 2)
    assert read(tmp_path, "\n\n")[2].blank == 2
    assert read(tmp_path, "")[2].total == 0


def test_ragged_rows_blank_lines_comments_and_trailing_delimiters(tmp_path):
    rows_written = "하나,네,\n둘\n\n#해시태그가 뭔가요,꼬리표입니다\n셋,네,아니요\n"
    text = f"# 만든 날: 오늘, 만든 이: 우리\n\nquestion,answer\n{rows_written}"
    rows, refused, account = read(tmp_path, text)
    assert [texts for _, texts in rows] == [["하나", "네"], ["#해시태그가 뭔가요", "꼬리표입니다"]]
    assert refused == [(5, "1 cells where the header has 2"), (8, "3 cells where the header has 2")]
    assert (account.total, account.comments, account.blank, account.header) == (8, 1, 2, 1)


def test_bytes_that_are_no_text_cost_their_row(tmp_path):
    data = many(20).encode().split(b"\n")
    data[5] = "깨진,글자".encode("cp949")
    data[9] = b"\xff\xfe,\x80"
    data[12] = "널\0 문자,네".encode()
    rows, refused, _ = read(tmp_path, b"\n".join(data))
    assert len(rows) == 17 and [line for line, _ in refused] == [6, 10, 13]
    assert "CP949" in refused[0][1] and "not UTF-8" in refused[1][1] and "NUL" in refused[2][1]
    rows, refused, account = read(tmp_path, "질문,답변\n왜,그래서\n".encode("euc-kr"))
    assert rows == [] and "iconv -f cp949" in refused[0][1] and account.total == 2


def test_a_very_long_cell_is_read_or_refused_alone(tmp_path):
    rows, refused, _ = read(tmp_path, 'question,answer\n길게,"' + "가, 나\n" * 50_000 + '"\n끝,네\n')
    assert len(rows) == 2 and len(rows[0][1][1]) == 250_000 and refused == []
    long = f"question,answer\n앞,네\n길게,{'가' * 5000}\n끝,네\n"
    rows, refused, _ = read(tmp_path, long, limits=Limits(line=4096))
    assert [line for line, _ in rows] == [2, 4]
    assert refused == [(3, "the line is longer than 4,096 bytes")]


def test_documents_in_one_column(tmp_path):
    rows, refused, _ = read(tmp_path, 'text\n"첫째, 문단\n\n둘째 문단"\n짧은 글\n', kind="pretrain_corpus")
    assert rows == [(2, ["첫째, 문단\n\n둘째 문단"]), (5, ["짧은 글"])] and refused == []


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("train.csv", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("train.jsonl", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("train.parquet", b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n", "git lfs pull"),
        ("train.csv", b"PK\x03\x04\x14\x00", "Excel workbook"),
        ("train.jsonl", b"\x1f\x8b\x08\x00", ".gz"),
        ("train.json", b"<!DOCTYPE html>\n<html><body>404</body></html>", "web page"),
        ("train.csv", b"PAR1\x15\x04", ".parquet"),
        ("train.parquet", pickle.dumps({"a": 1}), "not a Parquet file"),
        ("train.parquet", b"PAR1" + b"PK\x03\x04" * 9, "not a Parquet file"),
    ],
)
def test_a_file_that_is_something_else_says_what_it_is(tmp_path, name, data, word):
    rows, refused, _ = read(tmp_path, data, name)
    assert rows == [] and len(refused) == 1 and word in refused[0][1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lines_of_json_are_accounted_for_in_every_encoding(tmp_path, encoding, end):
    good = json.dumps({"prompt": "얼마", "completion": "천 원"}, ensure_ascii=False)
    lines = [good, "", good, "{oops", "  ", good]
    rows, refused, account = read(tmp_path, end.join(lines).encode(encoding), "rows.jsonl")
    assert [line for line, _ in rows] == [1, 3, 6] and [line for line, _ in refused] == [4]
    assert account == FileAccount(name="rows.jsonl", unit="lines", total=6, rows=3, refused=1, blank=2)
    assert in_words([account]) == "6 lines = 3 rows, 1 refused, 2 blank"


def test_a_text_without_a_mark_is_utf16_only_where_it_is_certain(tmp_path):
    plain = json.dumps({"prompt": "ab cd ef" * 50, "completion": "ok"}).encode()
    rows, refused, _ = read(tmp_path, plain + b"\n" + b'{"prompt": "\0", "completion": "x"}\n' + plain, "rows.jsonl")
    assert [line for line, _ in rows] == [1, 3] and [line for line, _ in refused] == [2]


def test_rows_of_arrays_and_tables_are_accounted_for(tmp_path):
    array = json.dumps([{"prompt": "하나", "completion": "네"}, {"words": "?"}, {"prompt": "둘", "completion": "네"}])
    _, _, account = read(tmp_path, array, "rows.json")
    assert (account.unit, account.total, account.rows, account.refused) == ("rows", 3, 2, 1)
    buffer = io.BytesIO()
    pandas.DataFrame({"prompt": ["하나", "", "둘"], "completion": ["네", "네", "네"]}).to_parquet(buffer)
    _, _, account = read(tmp_path, buffer.getvalue(), "rows.parquet")
    assert (account.unit, account.total, account.rows, account.refused) == ("rows", 3, 2, 1)


def test_lines_that_became_nothing_fail_the_check_and_an_old_record_does_not(tmp_path):
    account = read(tmp_path, many(5))[2]
    record = DatasetRecord(
        dataset="desk@v1", type="sft_pair", manifest="m", quarantine=None, rows=5, quarantined=0, source_bytes=1,
        content_hash="c", accounts=[account],
    )  # fmt: skip
    assert verdict(record).passed and "6 lines = 5 rows, 1 header" in verdict(record).text
    lost = record.model_copy(update={"accounts": [account.model_copy(update={"rows": 4})]})
    assert not verdict(lost).passed and "rows.csv: 1 of 6" in verdict(lost).text
    assert not verdict(record.model_copy(update={"rows": 4})).passed
    assert verdict(record.model_copy(update={"accounts": []})).passed


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("text", ["가관글대저준 가가가", "가가가가가가가가가가"])
def test_wide_text_without_a_mark_is_read_whose_syllables_end_in_zero_bytes(tmp_path, encoding, text):
    data = f"question,answer\n{text} 질문,{text} 답변입니다\n".encode(encoding)
    rows, refused, _ = read(tmp_path, data)
    assert rows == [(2, [f"{text} 질문", f"{text} 답변입니다"])]
    assert not refused


@pytest.mark.parametrize("again", ["question,answer", "\ufeffquestion,answer", ' question , "answer"'])
def test_the_header_of_a_file_that_was_put_behind_another_is_no_row(tmp_path, again):
    rows, refused, account = read(tmp_path, f"question,answer\nq1 what,a1 yes\n{again}\nq2 what,a2 yes\n")
    assert [line for line, _ in rows] == [2, 4]
    assert refused == [(3, "the header stands here again, as where files were put together: it is no row")]
    assert account.total == 4


@pytest.mark.parametrize("unseen", ["\u200b", "\ufeff", "\u00a0", "\u2060"])
def test_a_name_of_a_column_has_no_unseen_characters_around_it(tmp_path, unseen):
    rows, _, _ = read(tmp_path, f"{unseen}question{unseen},answer\nq1 what,a1 yes\n")
    assert rows == [(2, ["q1 what", "a1 yes"])]


def test_a_null_of_a_database_is_no_answer_and_a_text_of_excel_is_that_text(tmp_path):
    rows, refused, _ = read(tmp_path, 'question\tanswer\n번호는?\t="00123"\n이름은?\t\\N\n식은?\t=A1+B1\n', "rows.tsv")

    assert rows == [(2, ["번호는?", "00123"]), (4, ["식은?", "=A1+B1"])]
    assert refused == [(3, "a message is empty")]
