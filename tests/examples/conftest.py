"""The example data, written once for all tests of it."""

import json
from pathlib import Path
from typing import Any

import pytest

from examples.expressway.generate import Planted, write


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Planted:
    return write(tmp_path_factory.mktemp("expressway"))


def readable(path: Path) -> list[dict[str, Any]]:
    """Every line that is JSON."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def is_sound(row: dict[str, Any]) -> bool:
    """A conversation that ends with an answer in words."""
    messages = row["messages"]
    return (
        all(isinstance(m["content"], str) and m["content"].strip() for m in messages)
        and {m["role"] for m in messages} == {"user", "assistant"}
        and messages[-1]["role"] == "assistant"
    )


@pytest.fixture(scope="session")
def conversations(planted: Planted) -> list[dict[str, Any]]:
    """The sound conversations, repeated ones too."""
    return [row for row in readable(planted.conversations) if is_sound(row)]


@pytest.fixture(scope="session")
def documents(planted: Planted) -> list[str]:
    """The texts of the corpus that are texts."""
    texts = [row["text"] for row in readable(planted.corpus)]
    return [text for text in texts if isinstance(text, str) and text.strip()]
