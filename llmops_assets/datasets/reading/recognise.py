"""Tells a dataset's type from the names of its rows' fields."""

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

from upath import UPath

from llmops_assets.datasets.reading.chats import is_chat
from llmops_assets.datasets.reading.raw import DEFAULT_LIMITS, Limits
from llmops_assets.datasets.reading.readers import read_file

SAMPLED = 500
"""Rows of each file that are looked at."""

_ASKED = {"prompt", "question", "q", "query", "input", "질문"}
_ANSWERED = {"completion", "response", "answer", "a", "output", "답변", "대답"}
_PASSAGES = {"positives", "positive", "contexts", "context", "passages", "passage", "pos"}
_TEXT = {"text", "content", "document", "본문"}


def type_of_fields(fields: Iterable[str]) -> str | None:
    """The dataset type that rows with these fields are of, or None when they tell nothing."""
    names = {str(name).strip().lower() for name in fields}
    if {"chosen", "rejected"} <= names:
        return "rlhf_pair"
    if is_chat(names):
        return "sft_pair"
    if names & _ASKED and names & _ANSWERED:
        return "rag_qa" if names & _PASSAGES else "sft_pair"
    if (
        {"sentence1", "sentence2"} <= names
        or {"premise", "hypothesis"} <= names
        or (names & {"anchor", "query"} and names & _PASSAGES)
    ):
        return "embedding_pair"
    return "pretrain_corpus" if names & _TEXT else None


def type_of_row(value: Any, mapping: Mapping[str, str] | None = None) -> str | None:
    """The type of one decoded row; with `mapping` (field by column) its columns count under their canonical names."""
    if not isinstance(value, dict):
        return None
    if not mapping:
        return type_of_fields(value)
    return type_of_fields([*(name for name in value if name not in mapping.values()), *mapping])


def any_decoded(files: Iterable[tuple[str, UPath]], limits: Limits = DEFAULT_LIMITS) -> bool:
    """Whether any row of the files can be decoded at all, whatever it holds."""
    return any(raw.fault is None for _, path in files for raw in read_file(path, limits))


def type_of_files(
    files: Iterable[tuple[str, UPath]], mapping: Mapping[str, str] | None = None, limits: Limits = DEFAULT_LIMITS
) -> str | None:
    """The type of most of the first rows of the files, or None when no row of any tells."""
    votes: Counter[str] = Counter()
    for _, path in files:
        for raw in islice(read_file(path, limits), SAMPLED):
            found = type_of_row(raw.value, mapping) if raw.fault is None else None
            if found:
                votes[found] += 1
    return votes.most_common(1)[0][0] if votes else None
