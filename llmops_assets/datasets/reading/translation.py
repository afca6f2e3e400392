"""A row under its usual names, with where in the file each of them came from."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Row = dict[str, Any]


@dataclass
class Translated:
    """A row as it is read on, the keys of it that are in there by other names, and where in the file (by the name of
    now) something stands: at a path, or somewhere in the text at that path (``in_text``)."""

    row: Row
    used: set[str] = field(default_factory=set)
    paths: dict[str, str] = field(default_factory=dict)
    in_text: bool = False

    @property
    def made(self) -> set[str]:
        """Keys of the row that no key of the file is called."""
        return self.paths.keys() - self.used

    @property
    def texts(self) -> set[str]:
        """Paths in the file of texts that messages were found in."""
        return set(self.paths.values()) if self.in_text else set()

    def place(self, path: str) -> str:
        """The path in the file of what stands at `path` of the row."""
        head = _HEAD.match(path)
        if head is None or head[0] not in self.paths:
            return path
        there = self.paths[head[0]]
        return there if self.in_text else there + path[head.end() :]


_HEAD = re.compile(r"[^.\[]+")


def without(row: Mapping[str, Any], names: set[str]) -> Row:
    """The row without some of its keys."""
    return {name: value for name, value in row.items() if name not in names}
