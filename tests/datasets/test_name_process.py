"""Names are found by a process beside this one as they are found in it, and in this one when that ends."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmops_assets.cli.ahead import wants_names
from llmops_assets.privacy import name_process, names

TEXTS = [
    "담당은 김민수 과장이고, 박지영이가 돕습니다.\n윤서준은 내일 옵니다.",
    "이름이 없는 문장입니다.",
    "No Hangul here.",
    "",
]


@pytest.fixture
def process() -> Iterator[name_process.NameProcess]:
    name_process.start()
    running = name_process._running
    assert running is not None
    yield running
    name_process.stop()


def test_a_process_finds_what_this_one_finds_and_may_end(process, monkeypatch):
    monkeypatch.setattr(names, "_CACHE", {})
    elsewhere = names.find_names(TEXTS)
    assert elsewhere[0] and not elsewhere[1]

    monkeypatch.setattr(names, "_CACHE", {})
    process.stop()
    # It has gone without a word: what was asked of it is done here, and it is asked no more.
    assert names.find_names(TEXTS) == elsewhere
    assert name_process._running is None


@pytest.mark.parametrize(
    ("line", "cores", "wanted"),
    [
        ("dataset scan a.jsonl", 2, True),
        ("dataset scan a.jsonl --json", 2, True),
        ("dataset scan a.jsonl --no-names", 2, False),
        ("dataset scan --help", 2, False),
        ("dataset scan", 2, False),
        ("dataset scan a.jsonl", 1, False),
        ("dataset add scan", 2, False),
        ("", 2, False),
    ],
)
def test_it_is_started_for_a_scan_that_looks_for_names(line, cores, wanted):
    assert wants_names(line.split(), cores) is wanted


def test_a_scan_by_the_command_looks_for_names_and_leaves_no_process(tmp_path: Path):
    row = {"question": "담당은 누구예요?", "answer": "김민수 과장입니다."}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row, ensure_ascii=False))
    code = (
        "import sys, psutil\n"
        "import llmops_assets.cli as cli\n"
        "before = psutil.Process().children()\n"
        "cli.app(standalone_mode=False)\n"
        "print(len(before), file=sys.stderr)\n"
    )
    command = [sys.executable, "-c", code, "dataset", "scan", str(tmp_path / "rows.jsonl"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert json.loads(done.stdout)["pii"] == {"PERSON": 1}
    assert done.stderr.split() == ["1"]
