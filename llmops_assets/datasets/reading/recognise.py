"""Tells a dataset's type from the names of its rows' fields, and how sure that is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from upath import UPath

from llmops_assets.datasets.reading.chats import PAIRS, is_chat
from llmops_assets.datasets.reading.comparisons import is_ranked
from llmops_assets.datasets.reading.formats import ONE_MESSAGE
from llmops_assets.datasets.reading.raw import DEFAULT_LIMITS, Limits
from llmops_assets.datasets.reading.readers import read_file
from llmops_assets.datasets.reading.retrieval import INFERENCE, SYMMETRIC
from llmops_assets.datasets.reading.translations import type_of_other_shape

SAMPLED = 500
"""Rows of each file that are looked at."""

SAME_QUESTION = 0.02
"""Share of different questions among the rows, under which a column that was guessed holds no questions."""

ENOUGH = 50
"""Rows from which that share is judged."""

_ASKED = {"prompt", "question", "q", "query", "input", "inputs", "input_text", "problem", "질문"}
_ANSWERED = {
    "completion", "response", "answer", "a", "output", "targets", "output_text", "solution", "답변", "대답",
}  # fmt: skip
_PASSAGES = {
    "positives", "positive", "contexts", "context", "passages", "passage", "pos", "positive_ctxs", "positive_passages",
    "ctxs",
}  # fmt: skip
_TEXT = {"text", "content", "document", "본문"}
_TWO_ANSWERS = (
    ("human_ref_a", "human_ref_b"), ("response_a", "response_b"), ("conversation_a", "conversation_b"),
    ("response_0", "response_1"), ("answer_0", "answer_1"), ("output_1", "output_2"), ("response_j", "response_k"),
    ("response_1", "response_2"), ("response1", "response2"), ("answer_a", "answer_b"), ("output_0", "output_1"),
    ("output_a", "output_b"),
)  # fmt: skip
_ASKED_OF_SEVERAL = {*_ASKED, "instruction", "messages"}
_SAID_OF_ANSWER = ("label", "kto_tag", "desirable", "thumbs_up")
_YES_NO = {"true", "false", "good", "bad", "desirable", "undesirable", "chosen", "rejected", "👍", "👎", "좋음", "나쁨"}
_NUMBERED = ({"0", "1"}, {"-1", "1"})
"""Labels of a file that say yes and no in numbers; with a third they are classes."""


@dataclass
class Guess:
    """The type that rows seem to be of, by the fields `columns`; `agreeing` of the `looked_at` rows tell the same.
    `refused` says why it is none after all."""

    type: str | None = None
    columns: tuple[str, ...] = ()
    agreeing: int = 0
    looked_at: int = 0
    refused: str | None = None
    found: list[str] = field(default_factory=list)

    def words(self) -> str:
        """What was guessed, and how sure it is."""
        if self.type is None:
            return self.refused or "no row tells what type it is"
        by = f" by the fields {', '.join(self.columns)}" if self.columns else ""
        return f"{self.type}{by}, in {self.agreeing:,} of the first {self.looked_at:,} rows"


def type_of_fields(fields: Iterable[str], row: Mapping[str, Any] | None = None) -> str | None:
    """The dataset type that rows with these fields are of, or None when they tell nothing.

    With a `row` what its label says counts, too: an answer that was found good or bad is no answer to be learned.
    """
    names = {str(name).strip().lower() for name in fields}
    if row is not None and (other := type_of_other_shape(row)) is not None:
        return "kto" if other == "sft_pair" and _is_rated(row) else other
    if {"chosen", "rejected"} <= names or {"preferred_output", "non_preferred_output"} <= names:
        return "rlhf_pair"
    if any({one, other} <= names for one, other in _TWO_ANSWERS):
        return "rlhf_pair"
    if "instruction" in names and "completions" in names:
        return "rlhf_pair"
    if row is not None and names & _ASKED_OF_SEVERAL and is_ranked(row):
        return "rlhf_pair"
    chat = is_chat(names)
    if (chat or (names & _ASKED and names & _ANSWERED)) and _is_rated(row):
        return "kto"
    if chat:
        return "sft_pair"
    if any({one, other} <= names for one, other in (*SYMMETRIC, *INFERENCE)):
        return "embedding_pair"
    if names & _ASKED and names & (_ANSWERED | {"answers"}):
        if names & _PASSAGES or ("answers" not in names and "text" in names and {"question", "query"} & names):
            return "rag_qa"
        if names & _ANSWERED:
            return "sft_pair"
    if (names & {"anchor", "query", "question"} and names & _PASSAGES) or names == {"set"}:
        return "embedding_pair"
    return "pretrain_corpus" if names & _TEXT else None


def _one_message(rows: Iterable[Any]) -> bool:
    """Whether every row is a single message: who says it, and a text."""
    names = [set(_lowered(row)) for row in rows if isinstance(row, dict)]
    return bool(names) and all({"role", "speaker", "sender", "author"} & n and _TEXT & n for n in names)


def _is_rated(row: Mapping[str, Any] | None) -> bool:
    """Whether a row says of its answer that it is wanted or not."""
    if row is None:
        return False
    for name in _SAID_OF_ANSWER:
        value = row.get(name)
        if isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in _YES_NO):
            return True
        if name != "label" and value is not None:
            return True
    return False


def type_of_row(value: Any, mapping: Mapping[str, str] | None = None) -> str | None:
    """The type of one decoded row; with `mapping` (field by column) its columns count under their canonical names."""
    if not isinstance(value, dict):
        return None
    if not mapping:
        return type_of_fields(value, value)
    columns = {column.removesuffix("?"): name for name, column in mapping.items()}
    renamed = {columns.get(name, name): item for name, item in value.items()}
    return type_of_fields([*renamed, *mapping], renamed)


def any_decoded(files: Iterable[tuple[str, UPath]], limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether any row of the files can be decoded at all, whatever it holds."""
    return any(raw.fault is None for _, path in files for raw in read_file(path, limits))


def guess(
    files: Iterable[tuple[str, UPath]], mapping: Mapping[str, str] | None = None, limits: Limits = DEFAULT_LIMITS
) -> Guess:
    """The type of most of the first rows of the files, and how sure it is.

    A guess by which nearly all rows ask the same (a column `question` that holds "cause" or "effect") is none.
    """
    votes: Counter[str] = Counter()
    rows: list[Any] = []
    for _, path in files:
        for raw in islice(read_file(path, limits), SAMPLED):
            if raw.fault is not None:
                continue
            rows.append(raw.value)
            if found := type_of_row(raw.value, mapping):
                votes[found] += 1
    names = list(dict.fromkeys(str(name) for row in rows[:ENOUGH] if isinstance(row, dict) for name in row))
    if not votes:
        return Guess(looked_at=len(rows), found=names)
    kind, agreeing = votes.most_common(1)[0]
    columns = _guessed_columns(kind, rows)
    if kind == "pretrain_corpus" and _one_message(rows):
        return Guess(refused=f"its rows are {ONE_MESSAGE}", looked_at=len(rows), found=names)
    if kind == "sft_pair" and _labelled_by_number(rows):
        kind, columns = "kto", (*columns, "label")
    guessed = Guess(kind, columns, agreeing, len(rows), found=names)
    if mapping or len(columns) != 2:
        return guessed
    asked = columns[0]
    values = [_lowered(row).get(asked) for row in rows if isinstance(row, dict)]
    texts = [value for value in values if isinstance(value, str)]
    different = len(set(texts))
    if len(texts) >= ENOUGH and different <= max(2, SAME_QUESTION * len(texts)):
        some = ", ".join(repr(text[:30]) for text in list(dict.fromkeys(texts))[:3])
        guessed.type = None
        guessed.refused = (
            f"the column {asked} holds {different:,} different texts in {len(texts):,} rows ({some}), so it is no "
            f"question. The columns are {', '.join(names)}: name the type with --type and the columns with "
            "--map FIELD=COLUMN"
        )
    return guessed


def _labelled_by_number(rows: Iterable[Any]) -> bool:
    """Whether every row has a label and all of them are one of two numbers that say yes and no, both of which occur."""
    labels = {_written(row.get("label")) if isinstance(row, dict) else "" for row in rows}
    return labels in _NUMBERED


def _written(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return ""
    return str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()


def _lowered(row: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).strip().lower(): value for name, value in row.items()}


def _guessed_columns(kind: str, rows: list[Any]) -> tuple[str, ...]:
    """The pair of columns that the first row of a type is read by, where it is one that is guessed by its names."""
    pairs: Iterable[tuple[str, str]] = {
        "sft_pair": PAIRS,
        "rag_qa": (("question", "answer"), ("query", "answer"), ("question", "answers"), ("query", "answers")),
        "embedding_pair": (*SYMMETRIC, *INFERENCE),
    }.get(kind, ())
    for row in rows:
        if isinstance(row, dict) and type_of_row(row) == kind:
            names = _lowered(row)
            if names.keys() & {"messages", "conversations", "instruction"}:
                return ()
            return next(((one, other) for one, other in pairs if one in names and other in names), ())
    return ()


def type_of_files(
    files: Iterable[tuple[str, UPath]], mapping: Mapping[str, str] | None = None, limits: Limits = DEFAULT_LIMITS
) -> str | None:
    """The type of most of the first rows of the files, or None when no row of any tells."""
    return guess(files, mapping, limits).type
