"""What a dossier is made of: sections of facts with their sources, and gaps that a person fills."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from resources.catalog.statements import ModelStatement

Language = Literal["en", "ko"]
LANGUAGES: tuple[Language, ...] = ("en", "ko")


@dataclass(frozen=True)
class Source:
    """Where a fact is on record: an asset's partition, or a part of the catalog."""

    asset: str
    partition: str = ""
    check: str = ""

    @property
    def text(self) -> str:
        place = f"{self.asset} [{self.partition}]" if self.partition else self.asset
        return f"{place} · {self.check}" if self.check else place


@dataclass(frozen=True)
class Fact:
    """One thing that the platform knows. `name` is that of its words in `texts.yaml`, `values` fill them."""

    name: str
    source: Source
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Gap:
    """What the platform cannot know; `statement` is what a person last said of it, of this version or an earlier."""

    name: str
    statement: ModelStatement | None = None


@dataclass(frozen=True)
class Section:
    """One heading of the file, with what is known and what is missing."""

    name: str
    facts: tuple[Fact, ...]
    gaps: tuple[Gap, ...] = ()


@dataclass(frozen=True)
class Dossier:
    """The file of one model version, before it is written in a language."""

    ref: str
    at: datetime
    code: str
    sections: tuple[Section, ...]

    @property
    def open_gaps(self) -> list[str]:
        """Names of the gaps about which nobody has said anything of this version."""
        gaps = [gap for section in self.sections for gap in section.gaps]
        return [gap.name for gap in gaps if gap.statement is None or gap.statement.ref != self.ref]


@cache
def texts() -> dict[str, Any]:
    """The words of all facts, gaps and headings, by language."""
    return yaml.safe_load(Path(__file__).with_name("texts.yaml").read_text(encoding="utf-8"))


def gap_names() -> tuple[str, ...]:
    """Names of everything that a person has to state."""
    return tuple(texts()["gaps"])


def label(fact: Fact, language: Language) -> str:
    """What a fact is about."""
    return texts()["facts"][fact.name]["label"][language].format(**fact.values)


def words(fact: Fact, language: Language) -> str:
    """What it says."""
    return texts()["facts"][fact.name]["text"][language].format(**fact.values)


def when(moment: datetime) -> str:
    """A moment, as a dossier writes it."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"
