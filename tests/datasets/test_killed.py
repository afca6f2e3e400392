"""A sentence that is planted in the data is nowhere to be read after a command was killed, whenever that was."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from resources.encryption import new_key
from tests.datasets.test_encrypted import readings
from tests.datasets.test_graph import rows

CANARY = "아무도 읽지 못할 문장 aquila-4711"
FORMS = (CANARY.encode(), json.dumps(CANARY)[1:-1].encode())


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that all hold the sentence; it lies where no command writes."""
    made = rows(1500)
    for number, row in enumerate(made):
        row["messages"][1]["content"] += f" {CANARY} {number}"
    path = tmp_path_factory.mktemp("source") / "rows.jsonl"
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in made), encoding="utf-8")
    return path


def reveals(*folders: Path) -> list[str]:
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    return [str(path) for path in files if any(form in text for text in readings(path.read_bytes()) for form in FORMS)]


def start(place: Path, *arguments: str) -> subprocess.Popen:
    """The command, with a home, a folder for temporary files and a key of its own."""
    for name in ("home", "tmp"):
        (place / name).mkdir(parents=True)
    environment = os.environ | {"LLMOPS_HOME": str(place / "home"), "TMPDIR": str(place / "tmp")}
    environment |= {"LLMOPS_ENCRYPTION_KEY": new_key(), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "llmops_assets.cli", *arguments]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )


@pytest.mark.parametrize(
    "arguments",
    [("dataset", "scan", "FILE"), ("dataset", "add", "desk@v1", "FILE", "--type", "sft_pair")],
    ids=lambda a: " ".join(a[:2]),
)
def test_a_command_that_is_killed_leaves_no_sentence_of_its_rows(
    tmp_path: Path, source: Path, arguments: tuple[str, ...]
) -> None:
    given = [str(source) if part == "FILE" else part for part in arguments]
    began = time.monotonic()
    whole = start(tmp_path / "whole", *given)
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors.decode()
    seconds = time.monotonic() - began
    assert reveals(tmp_path / "whole") == []
    rng = random.Random(11)
    for attempt in range(4):
        place = tmp_path / str(attempt)
        killed = start(place, *given)
        try:
            # Anywhere, and rather late: the beginning is spent on imports.
            killed.wait(timeout=seconds * (0.3 + 0.7 * rng.random()))
        except subprocess.TimeoutExpired:
            os.killpg(killed.pid, signal.SIGKILL)
            killed.wait()
        killed.stderr.close()
        assert reveals(place) == []
