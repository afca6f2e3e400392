"""What the XML of an Excel workbook says beside its values: hidden rows, formulas without a value, errors, formats.

The library that reads the values gives an empty cell for an error and for a formula that nobody computed, and 15 digits
of a number that has more. So the parts are read here first, with every size compared with what it may be.
"""

import re
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from posixpath import join, normpath
from typing import BinaryIO
from xml.parsers import expat

from llmops_assets.datasets.reading.parquet_bombs import widest
from llmops_assets.datasets.reading.raw import Limits, RowFault

MOST_CELLS = 20_000_000
"""Cells of the rectangle that a sheet spans: the library holds all of them, empty ones too."""

DIGITS = 15
"""Digits that Excel keeps of a number; those behind become 0 when it is typed."""

_ZEROS = re.compile(r"0{2,}")
_BUILT_IN = {9: "0%", 10: "0.00%", 11: "0.00E+00", 12: "# ?/?", 13: "# ??/??", 48: "##0.0E+0"}
_PLAIN = re.compile(r"General|@|[#,]*0(\.0+)?_?\s*|#,##0(\.0+)?(_[-)])?\s*")
"""Formats that show a number as it is read, but for rounding and commas."""

_DAMAGED = (
    zipfile.BadZipFile, expat.ExpatError, zlib.error, struct.error, EOFError, OSError,
    ValueError, LookupError, OverflowError, RuntimeError, StopIteration,
)  # fmt: skip
"""What an archive or a part raises that is not as it should be; RuntimeError where a part is encrypted."""

Place = tuple[int, int]
"""Row and column, from 0."""


@dataclass
class Facts:
    """Of one sheet: `last` row that holds a value (from 1), cells that are wrong, how numbers of a cell are shown."""

    last: int = 0
    width: int = 0
    hidden_rows: set[int] = field(default_factory=set)
    hidden_columns: set[int] = field(default_factory=set)
    wrong: dict[Place, str] = field(default_factory=dict)
    shown: dict[Place, str] = field(default_factory=dict)
    "Texts of numbers that a format fills up with zeros."
    otherwise: dict[int, int] = field(default_factory=dict)
    "By column: numbers that are shown as something else than their value (85% of 0.85)."


def facts_of(stream: BinaryIO, sheet: int, limits: Limits) -> Facts:
    """The facts of the sheet of this number; raises RowFault where the file is damaged or larger than it may be."""
    try:
        size = stream.seek(0, 2)
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            parts = _Parts(archive, widest(size, limits))
            formats = _formats(parts)
            lengths = _shared_lengths(parts)
            found = _Sheet(formats, lengths, parts)
            parts.read(_sheet_part(parts, sheet), found)
            return found.facts
    except _DAMAGED as error:
        raise RowFault("", f"the Excel workbook is damaged ({str(error)[:120]}): save it again in Excel") from None


class _Parts:
    """The parts of a workbook's archive, whose decompressed bytes together stay below a limit."""

    def __init__(self, archive: zipfile.ZipFile, limit: int) -> None:
        self._archive, self.limit, self._read = archive, limit, 0
        self.names = set(archive.namelist())

    def spend(self, size: int) -> None:
        self._read += size
        if self._read > self.limit:
            raise RowFault("", f"the workbook expands to more than {self.limit:,} bytes: split it, or save it as CSV")

    def read(self, name: str, handler: "_Handler") -> None:
        parser = expat.ParserCreate()
        # No entities: a few of them, one within the other, are gigabytes.
        parser.StartDoctypeDeclHandler = _no_doctype
        parser.buffer_text = True
        parser.StartElementHandler = lambda tag, given: handler.start(tag.rpartition(":")[2], given)
        parser.EndElementHandler = lambda tag: handler.end(tag.rpartition(":")[2])
        parser.CharacterDataHandler = handler.text
        with self._archive.open(name) as part:
            while data := part.read(1 << 18):
                self.spend(len(data))
                parser.Parse(data, False)
        parser.Parse(b"", True)


def _no_doctype(*_: object) -> None:
    raise RowFault("", "the workbook has a document type of its own, which no Excel writes: save it again in Excel")


class _Handler:
    def start(self, tag: str, given: dict[str, str]) -> None:
        """An element begins."""

    def end(self, tag: str) -> None:
        """An element ends."""

    def text(self, data: str) -> None:
        """Characters inside of an element."""


class _Collected(_Handler):
    def __init__(self, *tags: str) -> None:
        self.found: list[tuple[str, dict[str, str]]] = []
        self._tags, self._inside = tags, list[str]()

    def start(self, tag: str, given: dict[str, str]) -> None:
        if tag in self._tags:
            inside = self._inside[-1] if self._inside else ""
            self.found.append((f"{inside}/{tag}", {name.rpartition(":")[2]: value for name, value in given.items()}))
        self._inside.append(tag)

    def end(self, tag: str) -> None:
        self._inside.pop()


def _sheet_part(parts: _Parts, number: int) -> str:
    """The name of the part of a sheet, by its place among the sheets of the workbook."""
    roots = _Collected("Relationship")
    parts.read("_rels/.rels", roots)
    root = next(given["Target"] for _, given in roots.found if given["Type"].endswith("/officeDocument")).lstrip("/")
    folder, _, name = root.rpartition("/")
    sheets, targets = _Collected("sheet"), _Collected("Relationship")
    parts.read(root, sheets)
    parts.read(join(folder, "_rels", f"{name}.rels"), targets)
    by_id = {given["Id"]: given["Target"] for _, given in targets.found}
    target = by_id[sheets.found[number][1]["id"]]
    return target.lstrip("/") if target.startswith("/") else normpath(join(folder, target))


def _formats(parts: _Parts) -> list[str]:
    """The number format of each style."""
    name = next((name for name in parts.names if name.lower().endswith("xl/styles.xml")), None)
    if name is None:
        return []
    styles = _Collected("numFmt", "xf")
    parts.read(name, styles)
    own = {int(given["numFmtId"]): given.get("formatCode", "") for at, given in styles.found if at == "numFmts/numFmt"}
    numbers = [int(given.get("numFmtId", 0)) for at, given in styles.found if at == "cellXfs/xf"]
    return [own.get(number, _BUILT_IN.get(number, "General")) for number in numbers]


class _Lengths(_Handler):
    def __init__(self) -> None:
        self.found: list[int] = []
        self._size = 0

    def start(self, tag: str, given: dict[str, str]) -> None:
        if tag == "si":
            self._size = 0

    def end(self, tag: str) -> None:
        if tag == "si":
            self.found.append(self._size)

    def text(self, data: str) -> None:
        self._size += len(data)


def _shared_lengths(parts: _Parts) -> list[int]:
    """How long each shared text is: one of them may be meant by a million cells."""
    name = next((name for name in parts.names if name.lower().endswith("xl/sharedstrings.xml")), None)
    lengths = _Lengths()
    if name is not None:
        parts.read(name, lengths)
    return lengths.found


class _Sheet(_Handler):
    """Looks at each cell of a sheet that holds something."""

    def __init__(self, formats: list[str], lengths: list[int], parts: _Parts) -> None:
        self.facts = Facts()
        self._formats, self._lengths, self._parts = formats, lengths, parts
        self._row, self._column = -1, -1
        self._given: dict[str, str] = {}
        self._value: list[str] | None = None
        self._formula = self._has_value = False
        self._reads = False

    def start(self, tag: str, given: dict[str, str]) -> None:
        if tag == "c":
            reference = given.get("r")
            self._row, self._column = _place(reference) if reference else (self._row, self._column + 1)
            self._given, self._value, self._formula, self._has_value = given, None, False, False
        elif tag == "row":
            self._row = int(given["r"]) - 1 if "r" in given else self._row + 1
            self._column = -1
            if given.get("hidden") in ("1", "true"):
                self.facts.hidden_rows.add(self._row)
        elif tag == "col" and given.get("hidden") in ("1", "true"):
            self.facts.hidden_columns.update(range(int(given["min"]) - 1, min(int(given["max"]), 16_384)))
        elif tag == "f":
            self._formula = True
        elif tag in ("v", "t"):
            self._reads, self._value, self._has_value = True, self._value or [], True

    def text(self, data: str) -> None:
        if self._reads and self._value is not None:
            self._value.append(data)

    def end(self, tag: str) -> None:
        if tag in ("v", "t"):
            self._reads = False
        elif tag == "c":
            self._cell("".join(self._value or ()))

    def _cell(self, value: str) -> None:
        facts, place, kind = self.facts, (self._row, self._column), self._given.get("t", "n")
        if not value and not self._formula:
            return
        facts.last, facts.width = max(facts.last, self._row + 1), max(facts.width, self._column + 1)
        if facts.last * facts.width > MOST_CELLS:
            reason = (
                f"the sheet spans more than {MOST_CELLS:,} cells, most of them empty: delete what stands far outside"
            )
            raise RowFault("", reason)
        if kind == "s":
            # As the library holds them: once for each cell.
            self._parts.spend(self._lengths[int(value)])
        if kind == "e":
            facts.wrong[place] = f"holds the error {value}"
        elif self._formula and not value and not (kind == "str" and self._has_value):
            facts.wrong[place] = "holds a formula without its value: open the workbook in Excel and save it"
        elif kind == "n" and value:
            self._number(place, value)

    def _number(self, place: Place, value: str) -> None:
        digits = re.sub(r"[eE].*|[-+.]", "", value).strip("0")
        if abs(float(value)) >= 10**DIGITS or (len(digits) > DIGITS and "." not in value):
            self.facts.wrong[place] = (
                f"is a number of more than {DIGITS} digits ({value}), which Excel rounds: format the cells as text and "
                "enter them again"
            )
            return
        style = int(self._given.get("s", 0))
        shown = self._formats[style] if style < len(self._formats) else "General"
        if _ZEROS.fullmatch(shown) and float(value).is_integer():
            sign = "-" if float(value) < 0 else ""
            self.facts.shown[place] = sign + str(abs(int(float(value)))).zfill(len(shown))
        elif not _PLAIN.fullmatch(shown):
            self.facts.otherwise[place[1]] = self.facts.otherwise.get(place[1], 0) + 1


_REFERENCE = re.compile(r"([A-Z]{1,3})(\d{1,7})")


def _place(reference: str) -> Place:
    found = _REFERENCE.fullmatch(reference)
    if found is None:
        raise ValueError(f"{reference[:20]!r} is no place of a cell")
    column = 0
    for letter in found[1]:
        column = column * 26 + ord(letter) - 64
    return int(found[2]) - 1, column - 1


def letters(column: int) -> str:
    """The name of a column, from 0: A, B, … Z, AA."""
    name = ""
    column += 1
    while column:
        column, letter = divmod(column - 1, 26)
        name = chr(65 + letter) + name
    return name
