"""Recognises the shapes of rows that users bring (messages, sharegpt, alpaca, pairs, preferences, text),types them."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

from llmops_assets.datasets.reading import questions
from llmops_assets.datasets.reading.chats import chat
from llmops_assets.datasets.reading.envelopes import with_answer
from llmops_assets.datasets.reading.fates import Fates
from llmops_assets.datasets.reading.message import Message
from llmops_assets.datasets.reading.messages import ROLE_NAMES
from llmops_assets.datasets.reading.offered import refuse_unoffered
from llmops_assets.datasets.reading.options import with_options
from llmops_assets.datasets.reading.preferences import OF_OPENAI, of_openai, preference
from llmops_assets.datasets.reading.rated import rated
from llmops_assets.datasets.reading.ratings import labels_of_mapping, refuse_rated, refuse_withdrawn, with_named_label
from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.retrieval import embedding, rag
from llmops_assets.datasets.reading.tags import retagged, tags_of_mapping
from llmops_assets.datasets.reading.translation import Translated
from llmops_assets.datasets.reading.translations import translated
from llmops_assets.datasets.reading.trees import is_tree
from llmops_assets.datasets.reading.values import first_of, kind_of, text_of, unrecognised

ONE_MESSAGE = (
    "one message of a conversation a row, which a corpus would learn by itself: write the messages of a conversation "
    "into one row, as a list of role and content"
)


def _corpus(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    name = first_of(row, ("text", "content", "document", "본문"))
    if name is None and is_tree(row):
        raise RowFault("prompt", "a tree of messages, which is no document: take it as type sft_pair or rlhf_pair")
    if name is None:
        raise unrecognised(row, "text")
    if isinstance(role := row.get("role"), str) and role.strip().lower() in (*ROLE_NAMES, "prompter"):
        raise RowFault("role", ONE_MESSAGE)
    return {"text": text_of(row[name], name)}, {name}


def _taught(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """A conversation whose answers are learned as they are, so none that was found bad may be among them."""
    refuse_rated(row)
    row, shown = with_options(row)
    content, used = chat(row)
    return content, used | shown


_READERS: dict[str, Callable[[dict[str, Any]], tuple[dict[str, Any], set[str]]]] = {
    "sft_pair": _taught,
    "eval_suite": chat,
    "pretrain_corpus": _corpus,
    "rlhf_pair": preference,
    "kto": rated,
    "rag_qa": rag,
    "embedding_pair": embedding,
}


_ANSWERS = ("chosen", "rejected", "completion")
_LEARNED = ("messages", "chosen", "completion")
"""What a model is to say. A rejected answer may well call what there is not."""
_ANSWERED = ("sft_pair", "eval_suite", "rag_qa")
_CONVERSATIONS = ("sft_pair", "eval_suite", "rlhf_pair", "kto")


def _mapped(row: dict[str, Any], mapping: Mapping[str, str]) -> dict[str, Any]:
    """The row with the registration's names put in place; ``a.b`` reaches into an object, and ``a?`` is taken where a
    row has it."""
    renamed: dict[str, Any] = {}
    taken: set[str] = set()
    for canonical, wanted in mapping.items():
        column, value = wanted if wanted in row else wanted.removesuffix("?"), row
        if column != wanted and column not in row:
            continue
        parts = [column] if column in row else column.split(".")
        for part in parts:
            if not isinstance(value, dict) or part not in value:
                raise RowFault(column, f"the mapping takes {canonical} from {column!r}, which the row does not have")
            value = value[part]
        renamed[canonical] = value
        taken.add(parts[0])
    return {**{name: value for name, value in row.items() if name not in taken}, **renamed}


def convert(
    value: Any, dataset_type: str, mapping: Mapping[str, str] | None = None, fates: Fates | None = None
) -> tuple[dict, dict]:
    """One decoded row as its type's content and the metadata that is left; RowFault when it cannot be.

    What becomes of each of its keys is added to `fates`.
    """
    fates = fates if fates is not None else Fates()
    if not isinstance(value, dict):
        raise RowFault("", f"expected an object, got {kind_of(value)}")
    columns, tags = tags_of_mapping(mapping or {})
    columns, names, least = labels_of_mapping(columns)
    row = _mapped(value, columns) if columns else value
    row = retagged(row, tags) if tags else row
    refuse_withdrawn(row, dataset_type)
    if names or least is not None:
        row = with_named_label(row, names, least)
    # What an evaluation suite has beside question and answer decides how it is asked: it is no metadata.
    asked = questions.question(row) if dataset_type == "eval_suite" else None
    shape = translated(row, dataset_type) if dataset_type in _CONVERSATIONS and asked is None else Translated(row)
    fates.used(shape.used)
    try:
        return _content(shape, dataset_type, fates, asked)
    except RowFault as fault:
        raise RowFault(shape.place(fault.field), fault.reason) from fault


def _content(
    shape: Translated, dataset_type: str, fates: Fates, asked: "questions.Question | None"
) -> tuple[dict, dict]:
    """The content of a row whose names are the usual ones, and the metadata that is left."""
    row = shape.row
    if dataset_type in _ANSWERED and (answered := with_answer(row)) is not row:
        row = answered
        fates.used(["answers"])
        asked = questions.question(row) if dataset_type == "eval_suite" else None
    if dataset_type == "rlhf_pair" and row.keys() >= OF_OPENAI:
        row = of_openai(row)
        fates.used(OF_OPENAI)
    reader = _READERS[dataset_type]
    try:
        content, used = (asked.content(), asked.used) if asked else reader(row)
    except RowFault as fault:
        lowered = {str(name).strip().lower(): item for name, item in row.items()}
        if fault.field or set(lowered) == set(row) or len(lowered) < len(row):
            raise
        row = lowered
        content, used = reader(row)
    _refuse_twins(row, used)
    metadata = row.get("metadata")
    rest = {name: item for name, item in row.items() if name not in used and name != "metadata"}
    fates.used(name for name in row if name in used and name not in shape.made)
    fates.metadata(rest)
    if asked:
        rest |= asked.metadata()
        rest.setdefault("category", questions.category_of(row))
    for name, item in content.items():
        if isinstance(item, list) and item and not isinstance(item[0], str):
            content[name] = messages = [_as_message(message) for message in item]
            if name in _LEARNED and not (name == "completion" and content.get("label") is False):
                refuse_unoffered(messages, content.get("tools"))
            for message in messages:
                if message.weight is not None and name in _ANSWERS:
                    raise RowFault(f"{message.path}.weight", "a turn without loss in an answer that is compared whole")
                message.path = shape.place(message.path)
                if message.path not in shape.texts:
                    fates.message(message)
                rest |= {f"{message.path}.{key}": left for key, left in message.rest.items()}
    if metadata is not None:
        if not isinstance(metadata, dict):
            raise RowFault("metadata", f"expected an object, got {kind_of(metadata)}")
        fates.metadata(metadata, "metadata.")
        for name, item in metadata.items():
            if name in rest and rest[name] is not None and rest[name] != item:
                raise RowFault(f"metadata.{name}", f"{name} stands beside metadata and in it, and differs: keep one")
        rest = {**rest, **metadata}
    return content, rest


def _refuse_twins(row: Mapping[str, Any], used: Collection[str]) -> None:
    """RowFault for a key that differs from one that is used only in case or spaces: nobody knows which is meant."""
    lowered = {name.strip().lower(): name for name in used}
    for name, item in row.items():
        twin = lowered.get(str(name).strip().lower())
        if twin is not None and twin != name and twin in row and item is not None and item != row[twin]:
            raise RowFault(str(name), f"{twin!r} and {name!r} are one name in two spellings, and differ: keep one")


def _as_message(message: Any) -> Message:
    return message if isinstance(message, Message) else Message(*message)
