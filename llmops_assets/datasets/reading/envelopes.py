"""Objects that hold the rows of a file: a list with notes beside it, and SQuAD's articles with paragraphs."""

from collections.abc import Iterator
from typing import Any

from llmops_assets.datasets.reading.fault import RowFault
from llmops_assets.datasets.reading.hub import SPLITS
from llmops_assets.datasets.reading.nikl import is_document, row_of_document
from llmops_assets.datasets.reading.values import kind_of, text_of

ROW_FIELDS = {
    "messages", "conversations", "conversation", "dialogue", "dialog", "turns", "history", "tools", "functions",
    "instruction", "input", "output", "prompt", "completion", "response", "question", "answer", "answers", "query",
    "chosen", "rejected", "text", "content", "context", "contexts", "passages", "positives", "negatives", "premise",
    "contents", "chat", "chat_history", "hypothesis",
    "sentence1", "sentence2", "anchor", "paragraphs", "qas", "choices", "질문", "답변", "본문",
}  # fmt: skip
"""What rows have: an object with one of these is a row, and holds none."""


def rows_in(value: Any) -> list[Any] | None:
    """The rows that an object holds in its one list, each with the notes that stand beside the list; None for a row.

    So ``{"version": "1.1", "data": [{…}, …]}`` is its data, and every row has its version.
    """
    if not isinstance(value, dict):
        return None
    if (table := _of_table(value)) is not None:
        return table
    documents = value.get("document")
    if isinstance(documents, list) and documents and all(map(is_document, documents)):
        # The corpus is named by an id, and described by metadata, as each of its documents is.
        corpus = {f"corpus_{name}": item for name, item in value.items() if name != "document" and item is not None}
        return [corpus | document for document in documents]
    if ROW_FIELDS & {str(name).lower() for name in value}:
        return None
    lists = [name for name, item in value.items() if isinstance(item, list)]
    if len(lists) != 1 or any(isinstance(item, dict) for item in value.values()):
        return None
    rows = value[lists[0]]
    # An object with nothing but a list holds whatever is in it; with more beside it, a list of numbers is a field.
    if len(value) > 1 and not (rows and all(isinstance(row, dict) for row in rows)):
        return None
    if rows and all(isinstance(row, str) for row in rows):
        return None
    notes = {name: item for name, item in value.items() if name != lists[0] and item is not None}
    return [notes | row if isinstance(row, dict) else row for row in rows]


def _of_table(value: dict[str, Any]) -> list[Any] | None:
    """The rows of a whole table in one object, as pandas and the hub's viewer write it; None for anything else.

    pandas' `to_json` has columns or rows by number, `split` (names and lists), `table` (with a schema); others have a
    list for each column, or a list of rows for each split.
    """
    names, parts = list(value), list(value.values())
    if isinstance(names_of := value.get("columns"), list) and {"columns", "data"} <= set(names) <= {*_SPLIT_ORIENT}:
        rows = value["data"]
        if isinstance(rows, list) and all(isinstance(row, list) and len(row) == len(names_of) for row in rows):
            return [dict(zip(map(str, names_of), row, strict=True)) for row in rows]
        return None
    if set(names) == {"schema", "data"} and isinstance(value["schema"], dict) and "fields" in value["schema"]:
        return value["data"] if isinstance(value["data"], list) else None
    if isinstance(rows := value.get("rows"), list) and rows and "features" in value:
        inner = [row.get("row") if isinstance(row, dict) else None for row in rows]
        return inner if all(isinstance(row, dict) for row in inner) else None
    if len(parts) > 1 and all(isinstance(part, dict) for part in parts):
        if all(name.isdigit() for name in names):
            return parts
        keys = parts[0].keys()
        if keys and all(part.keys() == keys for part in parts) and all(key.isdigit() for key in keys):
            return [{name: part[key] for name, part in value.items()} for key in keys]
        return None
    if len(parts) > 1 and all(isinstance(part, list) for part in parts) and not _LISTS & set(names):
        if {name.lower() for name in names} <= SPLITS.keys() and all(
            isinstance(r, dict) for part in parts for r in part
        ):
            return [{"split": name} | row for name, part in value.items() for row in part]
        if len({len(part) for part in parts}) == 1 and len(parts[0]) > 1 and all(map(_of_texts, parts)):
            return [dict(zip(names, row, strict=True)) for row in zip(*parts, strict=True)]
    return None


_SPLIT_ORIENT = ("columns", "index", "data")
_LISTS = {
    "messages", "conversations", "conversation", "dialogue", "dialog", "turns", "history", "tools", "functions",
    "answers", "contexts", "passages", "positives", "negatives", "choices", "references", "paragraphs", "qas",
}  # fmt: skip
"""Fields of a single row that are lists themselves."""


def _of_texts(column: list[Any]) -> bool:
    return all(isinstance(cell, str | int | float | None) for cell in column) and isinstance(column[0], str)


def expanded(value: Any) -> Iterator[Any]:
    """A row itself, or the questions of an article of SQuAD or KorQuAD, each with its paragraph (of KorQuAD 2 with its
    page)."""
    if is_document(value):
        yield row_of_document(value)
        return
    # A paragraph of SQuAD has no title: one that is left of a broken article is no page.
    if isinstance(value, dict) and {"title", "context"} <= value.keys() and isinstance(value.get("qas"), list):
        yield from expanded({"paragraphs": [value]})
        return
    if not isinstance(value, dict) or not isinstance(value.get("paragraphs"), list):
        yield value
        return
    notes = {name: item for name, item in value.items() if name != "paragraphs"}
    for paragraph in value["paragraphs"]:
        if not isinstance(paragraph, dict) or not isinstance(paragraph.get("qas"), list):
            yield {**notes, "paragraphs": [paragraph]}
            continue
        about = notes | {name: item for name, item in paragraph.items() if name != "qas"}
        for asked in paragraph["qas"]:
            yield about | asked if isinstance(asked, dict) else asked


def with_answer(row: dict[str, Any]) -> dict[str, Any]:
    """A row of SQuAD with its first answer as `answer` and the other ones as `references`; others as they are.

    RowFault for a question that its passage does not answer.
    """
    given = row.get("answers")
    if given is None or "answer" in row or "question" not in row:
        return row
    starts = None
    if isinstance(given, dict):
        if "text" not in given:
            raise RowFault("answers", f"expected a list of answers, got an object with {', '.join(map(str, given))}")
        given, starts = given["text"], given.get("answer_start")
        if isinstance(given, str):
            # AI-Hub's questions have one answer, and no list of it.
            given, starts = [given], starts if isinstance(starts, list) else [starts]
    if not isinstance(given, list):
        raise RowFault("answers", f"expected a list of answers, got {kind_of(given)}")
    if not given:
        raise RowFault("answers", "there is no answer to learn: the passage does not answer the question")
    answers = [item.get("text") if isinstance(item, dict) else item for item in given]
    texts = [text_of(text, f"answers[{index}]") for index, text in enumerate(answers)]
    places = starts if starts is not None else [item.get("answer_start") for item in given if isinstance(item, dict)]
    others = [text for text in dict.fromkeys(texts) if text != texts[0]]
    rest = {"references": others} if others else {}
    rest |= {"answer_start": places[0]} if places and places[0] is not None else {}
    return {**{name: item for name, item in row.items() if name != "answers"}, "answer": texts[0], **rest}
