"""Rows for retrieval: questions with their passages, and texts that belong together."""

from typing import Any

from llmops_assets.datasets.reading.values import first_of, text_of, texts_of, unrecognised


def rag(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of a question with its answer and passages, and the fields that were used for it."""
    asked = first_of(row, ("question", "query", "q", "질문"))
    answered = first_of(row, ("answer", "a", "response", "답변"))
    if asked is None or answered is None:
        raise unrecognised(row, "question and answer, with positives and negatives")
    positive = first_of(row, ("positives", "positive", "contexts", "context", "passages", "passage", "pos"))
    negative = first_of(row, ("negatives", "negative", "neg"))
    content = {
        "question": text_of(row[asked], asked),
        "answer": text_of(row[answered], answered),
        "positives": texts_of(row[positive], positive) if positive else [],
        "negatives": texts_of(row[negative], negative) if negative else [],
    }
    return content, {name for name in (asked, answered, positive, negative) if name}


def embedding(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of an anchor with its positives and negatives, and the fields that were used for it."""
    anchor = first_of(row, ("anchor", "query", "sentence1", "question", "premise"))
    positive = first_of(row, ("positives", "positive", "pos", "sentence2", "answer", "hypothesis"))
    negative = first_of(row, ("negatives", "negative", "neg"))
    if anchor is None or positive is None:
        raise unrecognised(row, "anchor and positive")
    content = {
        "anchor": text_of(row[anchor], anchor),
        "positives": texts_of(row[positive], positive),
        "negatives": texts_of(row[negative], negative) if negative else [],
    }
    return content, {name for name in (anchor, positive, negative) if name}
