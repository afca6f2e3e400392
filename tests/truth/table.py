"""The table of docs/truth.md, which says by which check and in which words each fault is stopped."""

import re
from dataclasses import dataclass
from pathlib import Path

from benchmarks.installation import Ran

DOCUMENT = Path(__file__).parents[2] / "docs" / "truth.md"
_LINE = re.compile(
    r"\| `(?P<key>[a-z0-9-]+)` \| (?P<fault>[^|]+) \| (?P<report>[^|]+) \| `(?P<check>\w+)` \| (?P<message>.+) \|"
)
PROMOTED = {"registered_model", "deployment"}
"""Assets that nothing spoilt may reach."""


@dataclass(frozen=True)
class Row:
    """One fault: what is seeded, and the check (or asset, or operation) and the words that stop it."""

    key: str
    fault: str
    report: str
    check: str
    message: str

    def assert_says(self, text: str) -> None:
        """The message of the table is the one that was printed; `…` stands for what differs from case to case."""
        parts = [re.escape(part) for part in self.message.replace("\\|", "|").split("…")]
        assert re.search(".*".join(parts), text, re.DOTALL), f"{self.key}: the table has {self.message!r}, but: {text}"

    def assert_stopped(self, ran: Ran) -> None:
        """The run was stopped by the check of the table in its words, and nothing was promoted."""
        assert self.check in ran.failed, f"{self.key}: stopped by {ran.failed or 'nothing'}, not by {self.check}"
        self.assert_says(ran.failed[self.check])
        assert not ran.made & PROMOTED, f"{self.key}: {ran.made & PROMOTED} was made all the same"


def done_rightly() -> set[str]:
    """The keys of the second table, of what comes out right."""
    part = DOCUMENT.read_text(encoding="utf-8").split("## Done rightly")[1].split("\n## ")[0]
    return set(re.findall(r"^\| `([a-z0-9-]+)` \|", part, re.MULTILINE))


def rows() -> dict[str, Row]:
    """The rows of the table by their key."""
    text = DOCUMENT.read_text(encoding="utf-8")
    found = [Row(**match.groupdict()) for line in text.splitlines() if (match := _LINE.fullmatch(line.strip()))]
    assert len({row.key for row in found}) == len(found), "two rows of the table have one key"
    return {row.key: row for row in found}
