"""Objects that hold the rows of a file: a list with notes beside it, and SQuAD's articles with paragraphs."""

from collections.abc import Iterator
from typing import Any

from llmops_assets.datasets.reading.fault import RowFault
from llmops_assets.datasets.reading.values import kind_of, text_of

ROW_FIELDS = {
    "messages", "conversations", "conversation", "dialogue", "dialog", "turns", "history", "tools", "functions",
    "instruction", "input", "output", "prompt", "completion", "response", "question", "answer", "answers", "query",
    "chosen", "rejected", "text", "content", "context", "contexts", "passages", "positives", "negatives", "premise",
    "hypothesis", "sentence1", "sentence2", "anchor", "paragraphs", "qas", "choices", "질문", "답변", "본문",
}  # fmt: skip
"""What rows have: an object with one of these is a row, and holds none."""


def rows_in(value: Any) -> list[Any] | None:
    """The rows that an object holds in its one list, each with the notes that stand beside the list; None for a row.

    So ``{"version": "1.1", "data": [{…}, …]}`` is its data, and every row has its version.
    """
    if not isinstance(value, dict) or ROW_FIELDS & {str(name).lower() for name in value}:
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


def expanded(value: Any) -> Iterator[Any]:
    """A row itself, or the questions of an article of SQuAD or KorQuAD, each with its paragraph."""
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
        given, starts = given.get("text"), given.get("answer_start")
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
