"""Word lists of toxicity and bias, read once from `lexicon.yaml`."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml

_FILE = Path(__file__).with_name("lexicon.yaml")


@cache
def _content() -> dict[str, Any]:
    return yaml.safe_load(_FILE.read_text(encoding="utf-8"))


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
