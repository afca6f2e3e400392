"""Recognises the shapes of rows that users bring (messages, sharegpt, alpaca, pairs, preferences, text),types them."""

from collections.abc import Callable, Mapping
from typing import Any

from llmops_assets.datasets.reading.messages import alpaca_prompt, messages_of
from llmops_assets.datasets.reading.preferences import preference
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.retrieval import embedding, rag
from llmops_assets.datasets.reading.values import first_of, kind_of, text_of, unrecognised

_PAIRS = (
    ("prompt", "completion"),
    ("prompt", "response"),
    ("prompt", "answer"),
    ("question", "answer"),
    ("question", "response"),
    ("q", "a"),
    ("query", "answer"),
    ("query", "response"),
    ("input", "output"),
    ("질문", "답변"),
    ("질문", "대답"),
)


def _chat(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    if "messages" in row:
        return {"messages": messages_of(row["messages"], "messages")}, {"messages"}
    if "conversations" in row:
        turns = messages_of(row["conversations"], "conversations")
        if row.get("system"):
            turns = [("system", text_of(row["system"], "system")), *turns]
        return {"messages": turns}, {"conversations", "system"}
    if "instruction" in row and "output" in row:
        turns = alpaca_prompt(row)
        turns.append(("assistant", text_of(row["output"], "output")))
        return {"messages": turns}, {"instruction", "input", "output", "system", "history"}
    for asked, answered in _PAIRS:
        if asked in row and answered in row:
            prompt, answer = row[asked], row[answered]
            turns = messages_of(prompt, asked) if isinstance(prompt, list) else [("user", text_of(prompt, asked))]
            if row.get("system"):
                turns = [("system", text_of(row["system"], "system")), *turns]
            if isinstance(answer, list):
                turns = [*turns, *messages_of(answer, answered)]
            else:
                turns = [*turns, ("assistant", text_of(answer, answered))]
            return {"messages": turns}, {asked, answered, "system"}
    raise unrecognised(row, "messages, conversations, instruction/output, prompt/completion or question/answer")


def _corpus(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    name = first_of(row, ("text", "content", "document", "본문"))
    if name is None:
        raise unrecognised(row, "text")
    return {"text": text_of(row[name], name)}, {name}


_READERS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], set[str]]]] = {
    "sft_pair": _chat,
    "eval_suite": _chat,
    "pretrain_corpus": _corpus,
    "rlhf_pair": preference,
    "rag_qa": rag,
    "embedding_pair": embedding,
}


def _mapped(row: dict[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """The row with the registration's names put in place; ``a.b`` reaches into an object."""
    renamed: dict[str, Any] = {}
    taken: set[str] = set()
    for canonical, column in mapping.items():
        value: Any = row
        parts = [column] if column in row else column.split(".")
        for part in parts:
            if not isinstance(value, dict) or part not in value:
                raise RowFault(column, f"the mapping takes {canonical} from {column!r}, which the row does not have")
            value = value[part]
        renamed[canonical] = value
        taken.add(parts[0])
    return {**{name: value for name, value in row.items() if name not in taken}, **renamed}


def convert(value: Any, dataset_type: str, mapping: Mapping[str, str] | None = None) -> tuple[dict, dict]:
    """One decoded row as its type's content and the metadata that is left; RowFault when it cannot be."""
    if not isinstance(value, dict):
        raise RowFault("", f"expected an object, got {kind_of(value)}")
    row = _mapped(value, mapping) if mapping else value
    reader = _READERS[dataset_type]
    try:
        content, used = reader(row)
    except RowFault as fault:
        lowered = {str(name).strip().lower(): item for name, item in row.items()}
        if fault.field or set(lowered) == set(row) or len(lowered) < len(row):
            raise
        row = lowered
        content, used = reader(row)
    metadata = row.get("metadata")
    rest = {name: item for name, item in row.items() if name not in used and name != "metadata"}
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise RowFault("metadata", f"expected an object, got {kind_of(metadata)}")
        rest = {**rest, **metadata}
    return content, rest
