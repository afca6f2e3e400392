"""Multiple-choice questions among rows to learn from: their options are written into the question."""

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.values import first_of, kind_of

_ASKED = ("question", "instruction", "prompt", "query", "질문")
_LISTS = ("options", "choices", "보기", "선택지")
_LETTERS = ("A", "B", "C", "D", "E", "F", "G", "H")


def with_options(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """A row with its options written below the question, as suites ask (``A. …``), and the fields that they were in.

    Rows without options, and those whose question has all of them in it, are as they were. The answer stays in the
    words of the row. RowFault where the options are in no shape that is known.
    """
    asked = first_of(row, _ASKED)
    if asked is None or not isinstance(row[asked], str):
        return row, set()
    options, used = _options(row)
    if not options:
        return row, set()
    question = row[asked]
    if all(text in question for text in options.values()):
        return row, used
    listed = "\n".join(f"{label}. {text}" for label, text in options.items())
    return {**row, asked: f"{question.rstrip()}\n{listed}"}, used


def _options(row: Mapping[str, Any]) -> tuple[dict[str, str], set[str]]:
    name = next((name for name in _LISTS if row.get(name) not in (None, [], {}, "")), None)
    if name is not None:
        return _listed(row[name], name), {name}
    columns = [name for name in _LETTERS if isinstance(row.get(name), str) and row[name].strip()]
    if len(columns) >= 2 and columns == list(_LETTERS[: len(columns)]):
        return {name: row[name] for name in columns}, set(columns)
    return {}, set()


def _listed(value: Any, path: str) -> dict[str, str]:
    """Options by their label, from a list of texts, an object of labels and texts, or ARC's two lists."""
    if isinstance(value, dict) and {"text", "label"} <= value.keys():
        labels, texts = value["label"], value["text"]
    elif isinstance(value, dict):
        labels, texts = list(value), list(value.values())
    elif isinstance(value, list) and all(isinstance(item, dict) and {"text", "label"} <= item.keys() for item in value):
        labels, texts = [item["label"] for item in value], [item["text"] for item in value]
    elif isinstance(value, list):
        labels, texts = list(ascii_uppercase[: len(value)]), value
    else:
        raise RowFault(path, f"options as {kind_of(value)}: write them as a list of texts")
    if not isinstance(labels, list) or not isinstance(texts, list) or len(labels) != len(texts):
        raise RowFault(path, "options need a label and a text each")
    for index, text in enumerate(texts):
        if isinstance(text, bool) or not isinstance(text, (str, int, float)):
            raise RowFault(f"{path}[{index}]", f"expected the text of an option, got {kind_of(text)}")
    texts = [str(text) for text in texts]
    lettered = all(
        text.lstrip("(").startswith((f"{label})", f"{label}.")) for label, text in zip(labels, texts, strict=True)
    )
    if lettered:
        texts = [text.lstrip("(")[len(str(label)) + 1 :].strip() for label, text in zip(labels, texts, strict=True)]
    return {str(label): text for label, text in zip(labels, texts, strict=True)}
