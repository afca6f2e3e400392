"""Reads the rows of raw files (JSON, CSV, Parquet, Arrow, Excel, text; .gz and .zst) one by one, each with its line."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from upath import UPath

from llmops_assets.datasets.reading import raw
from llmops_assets.datasets.reading.accounting import ROWS, Account
from llmops_assets.datasets.reading.columnar import read_arrow, read_parquet
from llmops_assets.datasets.reading.encodings import Rejoined
from llmops_assets.datasets.reading.envelopes import expanded, rows_in
from llmops_assets.datasets.reading.excel import read_excel
from llmops_assets.datasets.reading.fault import encoding_reason
from llmops_assets.datasets.reading.json_array import Pieces, read_array, read_values
from llmops_assets.datasets.reading.json_object import read_object
from llmops_assets.datasets.reading.one_message import in_conversation, in_tree, joined
from llmops_assets.datasets.reading.opening import ARROW, EXCEL, SUFFIXES, open_file
from llmops_assets.datasets.reading.raw import (
    DEFAULT_LIMITS,
    RAW_SAMPLE,
    Limits,
    Raw,
    RowFault,
    decode,
    gather,
)
from llmops_assets.datasets.reading.tabular import read_table
from resources.encryption import NO_KEYS, Keyring


def all_files(folder: UPath) -> list[tuple[str, UPath]]:
    """All files under `folder` with their names relative to it, sorted; hidden ones, too."""
    found = []
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder)) if hasattr(path, "relative_to") else path.name
        if path.is_file():
            found.append((name, path))
    return sorted(found)


def list_files(folder: UPath) -> list[tuple[str, UPath]]:
    """All files under `folder` with their names relative to it, sorted; hidden ones left out."""
    return [(name, path) for name, path in all_files(folder) if not any(p.startswith(".") for p in name.split("/"))]


def read_file(
    path: UPath, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS, account: Account | None = None
) -> Iterator[Raw]:
    """Every row of one file, sealed with one of `keys` or not, with the line (Parquet: row) that it begins at.

    Where each row of the file is one message of a conversation, a conversation is a row. What became of the lines is
    counted into `account`, but for the rows and refusals themselves.
    """
    account = account or Account(path.name)
    yield from joined(_read_file(path, limits, keys, account), account)


def _read_file(path: UPath, limits: Limits, keys: Keyring, account: Account) -> Iterator[Raw]:
    try:
        stream, suffix = open_file(path, limits, keys, account)
    except RowFault as fault:
        account.without_line += 1
        yield Raw(1, None, fault)
        return
    with stream:
        try:
            if suffix in LINES_OF_JSON and not _one_value(stream):
                yield from _read_lines_of_json(stream, limits, account)
            elif suffix in (".json", *LINES_OF_JSON):
                yield from _read_json(stream, limits, account)
            elif suffix in (".csv", ".tsv"):
                yield from read_table(stream, suffix, limits, account)
            elif suffix == ".parquet":
                yield from read_parquet(stream, limits, account)
            elif suffix in ARROW:
                yield from read_arrow(stream, limits, account)
            elif suffix == EXCEL:
                yield from read_excel(stream, limits, account)
            elif suffix in (".txt", ".md"):
                yield from _read_text(stream, limits, account)
            else:
                what = _INSTEAD.get(suffix, f"use one of {', '.join(SUFFIXES)}")
                reason = f"no reader for files ending in {suffix or 'nothing'}: {what}"
                account.without_line += 1
                yield Raw(1, None, RowFault("", reason))
        except RowFault as fault:
            # A fault of the whole stream: what was read before it stands.
            account.without_line += 1
            yield Raw(1, None, fault)


_INSTEAD = {
    **dict.fromkeys((".xls", ".xlsb", ".xlsm", ".ods", ".numbers"), "save the sheet as .xlsx, or as CSV (UTF-8)"),
    **dict.fromkeys(
        (".zip", ".tar", ".tgz", ".7z", ".rar", ".bz2", ".xz"), "unpack it, or compress it by gzip or zstd"
    ),
    **dict.fromkeys((".hwp", ".hwpx", ".doc", ".docx", ".pdf"), "save its text as .txt or .md"),
    **dict.fromkeys((".xml", ".sql", ".db", ".sqlite"), "write its rows as JSON lines"),
}
"""What to do about files that people have their rows in and that are not read."""


@dataclass(frozen=True)
class Block:
    """Whole lines of a file of JSON lines, the first of them numbered `line`."""

    line: int
    data: bytes
    account: Account

    def parts(self, pieces: int = 64) -> Iterator["Block"]:
        """The block cut into smaller ones, at ends of lines."""
        start, line = 0, self.line
        step = max(1, len(self.data) // pieces)
        while start < len(self.data):
            end = self.data.find(b"\n", start + step) + 1 or len(self.data)
            yield Block(line, self.data[start:end], self.account)
            line += self.data.count(b"\n", start, end)
            start = end

    def rows(self) -> Iterator[Raw]:
        """The lines one by one."""
        for number, line in enumerate(self.data.removesuffix(b"\n").split(b"\n"), start=self.line):
            if line := line.strip():
                yield decode(number, line)
            else:
                self.account.blank += 1


def read_blocks(
    path: UPath, limits: Limits = DEFAULT_LIMITS, keys: Keyring = NO_KEYS, account: Account | None = None
) -> Iterator[Block | Raw] | None:
    """The lines of a file of JSON lines in blocks, with a fault for each line over the limit; None for other files."""
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() not in (".gz", ".zst")]
    if not suffixes or suffixes[-1] not in LINES_OF_JSON:
        return None
    try:
        with open_file(path, limits, keys, Account(path.name))[0] as stream:
            if _one_value(stream) or _one_message(stream):
                return None
    except RowFault:
        # Said by whoever reads it.
        pass
    return _blocks_of(path, limits, keys, account or Account(path.name))


def _blocks_of(path: UPath, limits: Limits, keys: Keyring, account: Account) -> Iterator[Block | Raw]:
    try:
        stream, _ = open_file(path, limits, keys, account)
    except RowFault as fault:
        account.without_line += 1
        yield Raw(1, None, fault)
        return
    size = min(raw.BLOCK, limits.line)
    line, rest, broken = 1, b"", None
    with stream:
        while broken is None:
            data, broken = gather(stream, size)
            ended = broken is not None or not data
            first, newline, others = data.partition(b"\n")
            # Only the line that was begun before can be over the limit: the others fit into what was read at once.
            if len(rest) + len(first) > limits.line:
                rest, data = b"", others
                if not newline and not ended:
                    data, broken = _skip_line(stream, size)
                if broken is None:
                    yield Raw(line, None, RowFault("", f"the line is longer than {limits.line:,} bytes"))
                line += 1
            cut = len(data) if ended else data.rfind(b"\n") + 1
            block, rest = (rest + data[:cut], data[cut:]) if cut or ended else (b"", rest + data)
            if block.strip():
                yield Block(line, block, account)
            else:
                account.blank += block.count(b"\n") + (bool(block) and not block.endswith(b"\n"))
            line += block.count(b"\n")
            if ended:
                break
    if broken is not None:
        # What was read before the stream broke stands.
        account.without_line += 1
        yield Raw(line, None, broken)


def _skip_line(stream: BinaryIO, size: int) -> tuple[bytes, RowFault | None]:
    """Read to the end of a line without keeping it: what was read beyond it, and a fault of the stream."""
    while True:
        data, fault = gather(stream, size)
        end = data.find(b"\n") + 1
        if end or fault is not None or not data:
            return (data[end:] if end else b""), fault


def _lines(stream: BinaryIO, limits: Limits) -> Iterator[tuple[int, bytes | RowFault]]:
    """Numbered lines without their ends; a line over the limit is skipped in pieces."""
    number = 0
    while True:
        line = stream.readline(limits.line + 1)
        if not line:
            return
        number += 1
        if len(line) > limits.line and not line.endswith(b"\n"):
            while (piece := stream.readline(limits.line)) and not piece.endswith(b"\n"):
                continue
            yield number, RowFault("", f"the line is longer than {limits.line:,} bytes")
            continue
        yield number, line.strip()


def _read_lines_of_json(stream: BinaryIO, limits: Limits, account: Account) -> Iterator[Raw]:
    for number, line in _lines(stream, limits):
        if isinstance(line, RowFault):
            yield Raw(number, None, line)
        elif line:
            yield decode(number, line)
        else:
            account.blank += 1


_OBJECT = re.compile(rb"\n[ \t]{0,8}\{")
LINES_OF_JSON = (".jsonl", ".ndjson")


def _one_value(stream: BinaryIO) -> bool:
    """Whether what is called a file of JSON lines is one array, or objects that go over several lines."""
    head = stream.peek(1) if isinstance(stream, io.BufferedReader) else b""
    first, newline, rest = head.lstrip().partition(b"\n")
    if first.strip() in (b"{", b"["):
        return bool(newline)
    # A line that is a list of its own is a row, if none that anybody can read.
    return first[:1] == b"[" and not (newline and rest.strip() and decode(1, first.strip()).fault is None)


def _one_message(stream: BinaryIO) -> bool:
    """Whether the first line is one message of a conversation, which no block is read by itself with."""
    head = stream.peek(1) if isinstance(stream, io.BufferedReader) else b""
    first = head.strip().partition(b"\n")[0].strip()
    if b'_id"' not in first:
        return False
    value = decode(1, first).value
    return in_tree(value) or in_conversation(value) is not None


def _read_json(stream: BinaryIO, limits: Limits, account: Account) -> Iterator[Raw]:
    """An array of rows, one object that holds such an array, one row, or JSON lines in a file called .json.

    An array is read piece by piece, so it may be larger than the memory.
    """
    data, fault = gather(stream, min(raw.BLOCK, limits.line))
    first = data.lstrip().split(b"\n", 1)[0].strip()
    lines = first and first[:1] != b"[" and len(first) < len(data.strip()) and decode(1, first).fault is None
    if fault is None and lines:
        yield from _read_lines_of_json(io.BufferedReader(Rejoined(data, stream), 1 << 20), limits, account)
        return
    rows = 0
    try:
        for row in _rows_of_json(stream, data, fault, limits):
            for value in expanded(row.value) if row.fault is None else (row.value,):
                rows += 1
                yield Raw(row.line, value, row.fault)
    finally:
        # Not its lines are counted but its rows.
        account.unit, account.total = ROWS, rows


def _rows_of_json(stream: BinaryIO, data: bytes, fault: RowFault | None, limits: Limits) -> Iterator[Raw]:
    if data.lstrip()[:1] == b"[":
        yield from read_array(Pieces(stream, data, fault, limits))
        return
    whole = data
    while fault is None and len(whole) <= limits.line:
        data, fault = gather(stream, raw.BLOCK)
        if not data:
            break
        whole += data
    if fault is not None:
        raise fault
    if len(whole) > limits.line:
        yield from read_object(Pieces(stream, whole, fault, limits))
        return
    if not whole.strip():
        return
    row = decode(1, whole)
    if row.fault is not None and _OBJECT.search(whole, 1):
        # Several objects over many lines, or one that is broken among others: each by itself.
        yield from read_values(whole, limits)
        return
    rows = rows_in(row.value) if row.fault is None else None
    if rows is None:
        yield row
        return
    for index, value in enumerate(rows, start=1):
        yield Raw(index, value)


def _read_text(stream: BinaryIO, limits: Limits, account: Account) -> Iterator[Raw]:
    """Documents of plain text: separated by blank lines when there are any, else one a line."""
    data = stream.read(limits.line)
    blank = re.search(rb"\n[ \t\r]*\n", data.strip()) is not None
    chained = io.BufferedReader(Rejoined(data, stream), 1 << 20)
    lines: list[str] = []
    start = size = 0
    for number, line in _lines(chained, limits):
        if isinstance(line, RowFault):
            yield Raw(number, None, line)
            continue
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            yield Raw(number, line[:RAW_SAMPLE].decode("utf-8", "replace"), RowFault("", encoding_reason(line)))
            continue
        if text:
            start = start or number
            size += len(text)
            lines.append(text)
        else:
            account.blank += 1
        if lines and (not blank or not text or size > limits.line):
            account.continued += len(lines) - 1
            yield Raw(start, {"text": "\n".join(lines)})
            lines, start, size = [], 0, 0
    if lines:
        account.continued += len(lines) - 1
        yield Raw(start, {"text": "\n".join(lines)})
