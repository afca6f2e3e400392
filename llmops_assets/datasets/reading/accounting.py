"""What became of every line of a raw file: a row, a refusal, a blank, a comment, the header, the rest of a row."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from llmops_assets.datasets.reading.encodings import Wrapped
from llmops_assets.records.datasets import DatasetRecord, FileAccount
from llmops_assets.verdict import Verdict

LINES, ROWS = "lines", "rows"


@dataclass
class Account:
    """The account of one file while it is read.

    `total` is counted apart from reading: of a file of lines by the stream (`Counted`), of others by what they say they
    hold. `unit` is what is counted: lines, or the rows of an array or table.
    """

    file: str
    unit: str = LINES
    total: int = 0
    blank: int = 0
    comments: int = 0
    header: int = 0
    continued: int = 0
    "Lines that go on with a row or a refusal which began on a line before."
    joined: int = 0
    "Rows that became part of another row."
    without_line: int = 0
    "Refusals that stand for no line: of the file as a whole."
    universal: bool = False
    "Whether a carriage return alone ends a line, too."
    notes: list[str] = field(default_factory=list)
    "What a person should know of how the file was read, a sentence each."

    def closed(self, rows: int, refused: int) -> FileAccount:
        """The account with what became of the rows."""
        return FileAccount(
            name=self.file,
            unit=self.unit,
            total=self.total,
            rows=rows,
            refused=refused,
            blank=self.blank,
            comments=self.comments,
            header=self.header,
            continued=self.continued,
            joined=self.joined,
            without_line=self.without_line,
            notes=tuple(self.notes),
        )


class Counted(Wrapped):
    """A stream that counts the lines which pass through it into an account."""

    def __init__(self, stream: BinaryIO, account: Account) -> None:
        super().__init__(stream)
        self._account, self._last = account, b""
        self._feeds = self._returns = self._both = 0

    def readinto(self, buffer: memoryview) -> int:
        data = self._stream.read1(len(buffer))
        if data:
            self._feeds += data.count(b"\n")
            self._both += self._last == b"\r" and data[:1] == b"\n"
            # Most files have none, which is known at once.
            if b"\r" in data:
                self._returns += data.count(b"\r")
                self._both += data.count(b"\r\n")
            self._last = data[-1:]
            ends = self._feeds + (self._returns - self._both if self._account.universal else 0)
            open_line = self._last != b"\n" and not (self._account.universal and self._last == b"\r")
            self._account.total = ends + open_line
        buffer[: len(data)] = data
        return len(data)


def table(record: DatasetRecord, most: int = 20) -> list[dict[str, Any]]:
    """The accounts of the files that matter most: those whose lines don't add up, or else the first ones."""
    shown = (unaccounted(record.accounts) or record.accounts)[:most]
    return [account.model_dump(exclude={"notes"}) | {"missing": account.missing} for account in shown]


def verdict(record: DatasetRecord) -> Verdict:
    """Whether every line of the files of a version became something; a record of an earlier version has no accounts."""
    if not record.accounts:
        return Verdict(True, "Ingested by an earlier version, which kept no account of lines.")
    if wrong := unaccounted(record.accounts):
        where = ", ".join(f"{account.name}: {account.missing:,} of {account.total:,}" for account in wrong[:5])
        return Verdict(False, f"Lines that nobody accounts for ({where}): ingest the version again")
    stored = sum(account.rows for account in record.accounts)
    if stored != record.rows:
        return Verdict(False, f"{record.rows:,} rows are stored and {stored:,} were read: ingest the version again")
    return Verdict(True, f"Every line is accounted for: {in_words(record.accounts)}.")


def unaccounted(accounts: Iterable[FileAccount]) -> list[FileAccount]:
    """The files whose lines don't add up: rows and refusals, blanks, comments, header and continuations."""
    return [account for account in accounts if account.missing]


def notes(accounts: Iterable[FileAccount]) -> list[str]:
    """What a person should know of how the files were read."""
    return [f"{account.name}: {note}" for account in accounts for note in account.notes]


def in_words(accounts: Sequence[FileAccount]) -> str:
    """What became of the lines of all files, in one sentence without what there was none of."""
    parts = []
    for unit in (LINES, ROWS):
        of_unit = [account for account in accounts if account.unit == unit]
        if not of_unit:
            continue
        names = ("rows", "joined", "refused", "blank", "comments", "header", "continued")
        sums = {name: sum(getattr(account, name) for account in of_unit) for name in names}
        sums["refused"] -= sum(account.without_line for account in of_unit)
        what = ", ".join(f"{count:,} {_WORDS.get(name, name)}" for name, count in sums.items() if count)
        parts.append(f"{sum(account.total for account in of_unit):,} {unit} = {what or 'nothing'}")
    return "; ".join(parts) or "no lines"


_WORDS = {"joined": "joined into other rows", "continued": "continuing a row"}
