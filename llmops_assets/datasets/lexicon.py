"""Word lists of the stage, read once from `lexicon.yaml`."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).with_name("lexicon.yaml")


@cache
def _content() -> dict[str, Any]:
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


@cache
def words(name: str) -> frozenset[str]:
    """The words of one list; KeyError when there is no such list."""
    return frozenset(_content()[name].split())


def toxic_stems() -> dict[str, list[str]]:
    """Stems (regular expressions) by the group that they offend."""
    return _content()["toxic"]


@cache
def mentions() -> dict[str, tuple[str, ...]]:
    """The words that name each group."""
    return {group: tuple(stems) for group, stems in _content()["mentions"].items()}


@cache
def sentiments() -> dict[str, tuple[str, ...]]:
    """Stems of praise and of blame."""
    return {kind: tuple(stems) for kind, stems in _content()["sentiments"].items()}
