"""What Unicode calls a line break, and JSON does not, ends no entry: in answers, documents, logs and what is erased."""

import json
from pathlib import Path

import pytest

from llmops_assets.erasure.search import drop_lines
from llmops_assets.evaluation.answers_file import read_answers, write_rows
from llmops_assets.evaluation.harness import read_documents
from llmops_assets.experiments.log_files import _json_lines

BREAKS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e", "\r", "\n", "\r\n"]
ROWS = [{"id": f"{n}", "got": f"앞{text}뒤 010-1234-5678"} for n, text in enumerate(BREAKS)]


def lines(path: Path) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS), encoding="utf-8", newline="")
    return path


def test_answers_are_read_as_they_were_written(tmp_path: Path) -> None:
    sha256 = write_rows(tmp_path / "answers.jsonl", ROWS)
    assert read_answers(tmp_path / "answers.jsonl", sha256=sha256) == ROWS


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_documents_and_logs_are_read_as_they_were_written(tmp_path: Path, end: str) -> None:
    path = lines(tmp_path / "documents.jsonl")
    path.write_bytes(path.read_bytes().replace(b"\n", end.encode()))
    assert read_documents(path) == ROWS
    assert _json_lines(path, path.read_bytes().decode()) == ROWS


def test_no_half_of_an_entry_stays_when_it_is_erased(tmp_path: Path) -> None:
    data = lines(tmp_path / "answers.jsonl").read_bytes()
    kept, dropped = drop_lines(data, lambda line: "010-1234-5678" in line)
    assert (kept, dropped) == (b"", len(ROWS))
    kept, dropped = drop_lines(data, lambda line: json.loads(line)["id"] == "0")
    assert kept == b"".join(data.splitlines(keepends=True)[1:]) and dropped == 1
    assert drop_lines(b'{"a": "\xff"}\nx\n', lambda line: line == "x\n") == (b'{"a": "\xff"}\n', 1)
