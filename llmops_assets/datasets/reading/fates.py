"""What became of each key of the rows that were read: used, kept as metadata, or the reason for a refusal."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

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
    _row: set[tuple[str, Fate]] = field(default_factory=set)

    def used(self, keys: Iterable[str]) -> None:
        """Keys of the row under work that are in its content."""
        self._row.update((key, "used") for key in keys)

    def metadata(self, values: Iterable[str], path: str = "") -> None:
        """Keys of the row under work that are kept beside its content; labels among them are used."""
        for key in values:
            self._row.add((f"{path}{key}", "used" if key in LABELS else "metadata"))

    def message(self, message: Message) -> None:
        """Keys of a message of the row under work."""
        where = pattern_of(message.path)
        self._row.update((f"{where}.{key}", "used") for key in message.used)
        self._row.update((f"{where}.{key}", "metadata") for key in message.rest)

    def refused(self, path: str) -> None:
        """The row under work was refused for what stands at `path`, so nothing else of it counts."""
        self._row = {(pattern_of(path) or "(the whole row)", "refused")}

    def end_row(self) -> None:
        """Count the row under work."""
        self._count((key, 1) for key in self._row)
        self._row = set()

    def add(self, others: "Fates") -> None:
        """Add the counts of others."""
        self._count(others.rows.items())

    def _count(self, found: Iterable[tuple[tuple[str, Fate], int]]) -> None:
        for (key, fate), count in found:
            known = (key, fate) in self.rows or len(self.rows) < MOST_KEYS
            self.rows[key if known else OTHERS, fate] += count

    def records(self) -> list[KeyFate]:
        """The table as it is recorded and shown: what was refused, then what is kept beside, then what is used."""
        order = {"refused": 0, "metadata": 1, "used": 2}
        found = sorted(self.rows.items(), key=lambda item: (order[item[0][1]], -item[1], item[0][0]))
        return [KeyFate(key=key, fate=fate, rows=rows) for (key, fate), rows in found]


def pattern_of(path: str) -> str:
    """A path without the numbers of places in lists."""
    return _NUMBER.sub("[]", path)
