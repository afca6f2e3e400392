"""What became of each key of the rows that were read: used, kept as metadata, or the reason for a refusal."""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from llmops_assets.datasets.reading.envelopes import ROW_FIELDS
from llmops_assets.datasets.reading.message import Message
from llmops_assets.records.datasets import KeyFate

Fate = Literal["used", "metadata", "refused"]
LABELS = ("source", "category", "quality_score")
"""Metadata that has a column of its own."""

MOST_KEYS = 1000
"""Keys that are counted by name: where names are data (an object by user), they have no end."""

OTHERS = "(other keys)"

_NUMBER = re.compile(r"\[\d+\]")


@dataclass
class Fates:
    """Rows by key and fate. A key is a path in which all places of a list are one: ``messages[].weight``."""

    rows: Counter[tuple[str, Fate]] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    """Characters of the texts by key, of metadata that reads like text."""
    _row: set[tuple[str, Fate]] = field(default_factory=set)
    _texts: dict[str, int] = field(default_factory=dict)

    def used(self, keys: Iterable[str]) -> None:
        """Keys of the row under work that are in its content."""
        self._row.update((key, "used") for key in keys)

    def metadata(self, values: Iterable[str], path: str = "") -> None:
        """Keys of the row under work that are kept beside its content; labels among them are used."""
        for key in values:
            self._row.add((f"{path}{key}", "used" if key in LABELS else "metadata"))
        if not path and isinstance(values, Mapping):
            self._texts = {str(key): len(text) for key, text in values.items() if _is_prose(text)}

    def message(self, message: Message) -> None:
        """Keys of a message of the row under work."""
        where = pattern_of(message.path)
        self._row.update((f"{where}.{key}", "used") for key in message.used)
        self._row.update((pattern_of(f"{where}.{key}"), "metadata") for key in message.rest)

    def refused(self, path: str) -> None:
        """The row under work was refused for what stands at `path`, so nothing else of it counts."""
        self._row = {(pattern_of(path) or "(the whole row)", "refused")}
        self._texts = {}

    def end_row(self) -> None:
        """Count the row under work."""
        self._count((key, 1) for key in self._row)
        for key, length in self._texts.items():
            if (key, "metadata") in self.rows:
                self.texts[key] += length
        self._row, self._texts = set(), {}

    def add(self, others: "Fates") -> None:
        """Add the counts of others."""
        self._count(others.rows.items())
        self.texts.update(others.texts)

    def _count(self, found: Iterable[tuple[tuple[str, Fate], int]]) -> None:
        for (key, fate), count in found:
            known = (key, fate) in self.rows or len(self.rows) < MOST_KEYS
            self.rows[key if known else OTHERS, fate] += count

    def records(self) -> list[KeyFate]:
        """The table as it is recorded and shown: what was refused, then what is kept beside, then what is used."""
        order = {"refused": 0, "metadata": 1, "used": 2}
        found = sorted(self.rows.items(), key=lambda item: (order[item[0][1]], -item[1], item[0][0]))
        return [
            KeyFate(
                key=key,
                fate=fate,
                rows=rows,
                characters=round(self.texts[key] / rows, 1) if fate == "metadata" else 0,
            )
            for (key, fate), rows in found
        ]


def _is_prose(value: object) -> bool:
    """Whether a value reads like text, and not like a name, an address or a number."""
    return isinstance(value, str) and value.count(" ") > 2


LONG_TEXT = 60
"""Mean characters from which a column of metadata is named as one that may have been meant to be learned."""

MEANT = {
    *ROW_FIELDS, "system", "system_prompt", "developer", "instructions", "persona", "document", "documents", "article",
    "passage", "paragraph", "evidence", "background", "knowledge", "reasoning", "reasoning_content", "thinking",
    "thought", "complex_cot", "cot", "chain_of_thought",
   
    "rationale", "chat_history", "preamble", "explanation", "label", "score", "reward", "options",
    "few_shot", "examples", "corrected",
    "available_tools", "tool_definitions", "schema", "table", "summary", "highlights", "headline", "abstract", "target",
    "votes", "upvotes", "likes",
} - {"text", "content"}  # fmt: skip
"""Names of columns that say what is asked or learned in one shape or another."""


def unlearned(fates: Iterable[KeyFate], mapped: Collection[str] = ()) -> str | None:
    """What of the metadata may have been meant to be learned: by its name, its long texts, or because a mapping names
    it (`mapped`, its fields); None for nothing."""
    found = [
        fate
        for fate in fates
        if fate.fate == "metadata"
        and not {"[", "."} & set(fate.key)
        and (fate.key in mapped or fate.key.strip().lower() in MEANT or fate.characters >= LONG_TEXT)
    ]
    if not found:
        return None
    shown = ", ".join(
        f"{fate.key} ({fate.rows:,} rows" + (f", {fate.characters:,.0f} characters each)" if fate.characters else ")")
        for fate in found[:MOST_SHOWN]
    )
    more = f" and {len(found) - MOST_SHOWN} more" if len(found) > MOST_SHOWN else ""
    return (
        f"kept as metadata, and neither asked nor learned: {shown}{more}. Name what the model is to "
        "see (--map context=COLUMN), and register answers with a label of theirs as type kto"
    )


MOST_SHOWN = 8


def pattern_of(path: str) -> str:
    """A path without the numbers of places in lists."""
    return _NUMBER.sub("[]", path)
