"""Decodes whole blocks of well-formed JSON lines by type, straight into columns; anything unusual is left to `formats`.

What comes out is what the slow path would make of the same lines (a test holds the two together), several times faster.
"""

import hashlib
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import accumulate, chain, pairwise
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pyarrow as pa

from llmops_assets.datasets import schema
from llmops_assets.datasets.reading.chats import MISSING_INPUT, NO_INPUT
from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.json_faults import written_keys
from llmops_assets.datasets.reading.messages import ROLE_NAMES
from llmops_assets.datasets.reading.shapes import (
    SHAPES,
    SPOKEN,
    UNSET,
    Alpaca,
    Chat,
    Keys,
    PromptCompletion,
    QuestionAnswer,
    ShareGpt,
)
from llmops_assets.datasets.reading.transcripts import is_open_transcript
from llmops_assets.records.conversation import FIELDS, TOOLS


@dataclass
class Columns:
    """Columns under construction, of one dataset type: messages lie flat, with the number where each row ends.

    Their texts are UTF-8 already: what is hashed and what is stored is then encoded once. What few messages have
    (names, calls, reasoning, weights) is in `others`, by field and the number of the message.
    """

    dataset_type: str
    flat: dict[str, list] = field(default_factory=dict)
    roles: dict[str, list[str]] = field(default_factory=dict)
    texts: dict[str, list[bytes]] = field(default_factory=dict)
    ends: dict[str, list[int]] = field(default_factory=dict)
    others: dict[str, dict[str, dict[int, Any]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, dtype in schema.columns_of(self.dataset_type).items():
            if dtype == schema.MESSAGES:
                self.roles[name], self.texts[name], self.ends[name] = [], [], [0]
                self.others[name] = {other: {} for other in FIELDS[2:]}
            else:
                self.flat[name] = []

    def __len__(self) -> int:
        return len(self.flat["row_id"])

    def append(self, row: dict[str, Any]) -> None:
        for name, values in self.flat.items():
            values.append(row[name])
        for name, ends in self.ends.items():
            for message in row[name]:
                for other, values in self.others[name].items():
                    if (value := getattr(message, other)) is not None:
                        values[len(self.roles[name])] = value
                self.roles[name].append(message.role)
                self.texts[name].append(message.content.encode())
            ends.append(len(self.roles[name]))

    def extend(self, others: "Columns") -> None:
        """Add all rows of other columns of the same type."""
        for name, values in self.flat.items():
            values += others.flat[name]
        for name, ends in self.ends.items():
            before = ends[-1]
            for other, given in others.others[name].items():
                self.others[name][other] |= {before + place: value for place, value in given.items()}
            ends += [before + end for end in others.ends[name][1:]]
            self.roles[name] += others.roles[name]
            self.texts[name] += others.texts[name]

    def frame(self) -> pl.DataFrame:
        columns = []
        for name, dtype in schema.columns_of(self.dataset_type).items():
            if name in self.ends:
                roles = _strings([role.encode() for role in self.roles[name]])
                others = [_sparse(given, len(self.roles[name]), other) for other, given in self.others[name].items()]
                struct = pa.StructArray.from_arrays([roles, _strings(self.texts[name]), *others], list(FIELDS))
                chats = pa.LargeListArray.from_arrays(_numbers(self.ends[name]), struct)
                columns.append(pl.Series(name, chats, dtype=dtype))
            else:
                columns.append(pl.Series(name, self.flat[name], dtype=dtype))
        return pl.DataFrame(columns)


# Arrow's own conversion of lists is slower, and imports pandas to see whether they are of it.


def _numbers(values: Iterable[int]) -> pa.Array:
    array = np.fromiter(values, np.int64)
    return pa.Array.from_buffers(pa.int64(), len(array), [None, pa.py_buffer(array)])


def _sparse(given: dict[int, Any], count: int, name: str) -> pa.Array:
    """Values of a few messages among `count`, null in the others."""
    number = name == "weight"
    if not given:
        return pa.nulls(count, pa.int8() if number else pa.large_string())
    values: list[Any] = [None] * count
    for place, value in given.items():
        values[place] = value
    found = pl.Series(values, dtype=pl.Int8 if number else pl.String).to_arrow()
    return found if number else found.cast(pa.large_string())


def _strings(texts: list[bytes]) -> pa.Array:
    """UTF-8 texts as an Arrow array."""
    ends = np.fromiter(accumulate(map(len, texts), initial=0), np.int64, len(texts) + 1)
    buffers = [None, pa.py_buffer(ends), pa.py_buffer(b"".join(texts))]
    return pa.Array.from_buffers(pa.large_string(), len(texts), buffers)


class Decoder:
    """Decodes blocks of lines of one dataset type. The shape that fitted last is tried first.

    What became of the keys of the rows is added to `fates`.
    """

    def __init__(self, dataset_type: str, fates: Fates | None = None) -> None:
        self.dataset_type = dataset_type
        self._fates = fates if fates is not None else Fates()
        self._decoders = [msgspec.json.Decoder(shape) for shape in SHAPES.get(dataset_type, ())]

    def __bool__(self) -> bool:
        return bool(self._decoders)

    def decode(self, block: bytes, first_line: int, file: str, require_category: bool) -> Columns | None:
        """The rows of a block of whole lines, or None when a line of it is not as it should be."""
        for position, decoder in enumerate(self._decoders):
            try:
                rows = decoder.decode_lines(block)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                continue
            if position:
                self._decoders.insert(0, self._decoders.pop(position))
            # Blank lines are skipped, and several values may stand in one line: then the numbers would be wrong.
            if not rows or len(rows) != block.count(b"\n") + (not block.endswith(b"\n")):
                return None
            columns, keys = Columns(self.dataset_type), Keys(rows)
            # A decoder takes the last of two equal keys: then more of them stand there than came of it.
            if written_keys(block) != keys.written:
                return None
            fates = keys.fates()
            filled = _fill_texts(columns, rows) if "text" in columns.flat else _fill_chats(columns, rows)
            if filled and _fill_known(columns, rows, require_category):
                self._fates.add(fates)
                columns.flat["file"] = [file] * len(rows)
                columns.flat["line"] = list(range(first_line, first_line + len(rows)))
                if TOOLS in columns.flat:
                    columns.flat[TOOLS] = [None] * len(rows)
                return columns
            return None
        return None


def _normal(texts: list[str]) -> bool:
    """Whether texts can stay as they are: in NFC, without NUL. Most blocks can, so all are looked at in one go."""
    joined = "\n".join(texts)
    return "\0" not in joined and (joined.isascii() or unicodedata.is_normalized("NFC", joined))


def _fill_texts(columns: Columns, rows: list[Any]) -> bool:
    texts = [row.text for row in rows]
    if not _normal(texts):
        return False
    columns.flat["text"] = texts
    columns.flat["row_id"] = [hashlib.sha256(f"\x1ctext\x1e{text}".encode()).hexdigest()[:16] for text in texts]
    return True


def _fill_chats(columns: Columns, rows: list[Any]) -> bool:
    if isinstance(rows[0], (Chat, ShareGpt)):
        chats = [row.messages for row in rows]
        turns = list(chain.from_iterable(chats))
        roles, texts = [ROLE_NAMES.get(turn.role, turn.role) for turn in turns], [turn.content for turn in turns]
        ends = [0, *accumulate(map(len, chats))]
        # A masked role, a call as JSON, a name that nobody knows: they are read, or refused, one by one.
        if not {turn.role for turn in turns} <= SPOKEN:
            return False
    else:
        roles, texts = ["user", "assistant"] * len(rows), list(chain.from_iterable(map(_pair, rows)))
        # A conversation in one text is read turn by turn.
        if any(map(is_open_transcript, texts[::2])):
            return False
        # So is an input that is none, or all that is asked.
        if isinstance(rows[0], Alpaca) and any(map(_is_odd, rows)):
            return False
        ends = list(range(0, len(texts) + 1, 2))
    encoded = [text.encode() for text in texts]
    spoken_by = {role: role.encode() + b"\x1f" for role in set(roles)}
    spoken = [spoken_by[role] + text for role, text in zip(roles, encoded, strict=True)]
    columns.roles["messages"], columns.texts["messages"], columns.ends["messages"] = roles, encoded, ends
    columns.flat["row_id"] = [
        hashlib.sha256(b"\x1e".join([b"\x1cmessages", *spoken[start:end]])).hexdigest()[:16]
        for start, end in pairwise(ends)
    ]
    return _normal(texts) and _normal(list(spoken_by))


def _is_odd(row: Alpaca) -> bool:
    return bool(row.input) and (row.input.strip().lower() in (*NO_INPUT, *MISSING_INPUT) or not row.instruction.strip())


def _pair(row: Any) -> tuple[str, str]:
    if isinstance(row, PromptCompletion):
        return row.prompt, row.completion
    if isinstance(row, QuestionAnswer):
        return row.question, row.answer
    return (f"{row.instruction}\n\n{row.input}" if row.input else row.instruction), row.output


def _fill_known(columns: Columns, rows: list[Any], require_category: bool) -> bool:
    sources, categories = columns.flat["source"], columns.flat["category"]
    scores, others = columns.flat["quality_score"], []
    for row in rows:
        source, category, score = (None if v is UNSET else v for v in (row.source, row.category, row.quality_score))
        if rest := row.metadata or {}:
            # What the metadata has of its own comes first, unless it says something else.
            if any(
                said not in (UNSET, None) and rest.get(name, said) != said
                for name, said in (
                    ("source", source), ("category", category), ("quality_score", score), ("id", row.id),
                )
            ):  # fmt: skip
                return False
            source = rest.pop("source", source)
            category, score = rest.pop("category", category), rest.pop("quality_score", score)
        if row.id is not UNSET:
            rest.setdefault("id", row.id)
        if type(score) is int:
            score = float(score)
        labelled = (source is None or type(source) is str) and (category is None or type(category) is str)
        if not labelled or (score is not None and type(score) is not float) or (require_category and not category):
            return False
        sources.append(source or None)
        categories.append(category or None)
        scores.append(score)
        others.append(rest)
    # All in one go: no line ends inside of a value in JSON.
    columns.flat["extra"] = msgspec.json.Encoder(order="sorted").encode_lines(others).decode().split("\n")[:-1]
    return _normal([category for category in categories if category])
