"""Rows for retrieval: questions with their passages, and texts that belong together."""

import re
from collections.abc import Mapping
from typing import Any

from llmops_assets.datasets.reading.raw import RowFault
from llmops_assets.datasets.reading.relations import relation_of
from llmops_assets.datasets.reading.values import first_of, kind_of, text_of, texts_of, unrecognised

_PASSAGES = (
    "positives", "positive", "contexts", "context", "passages", "passage", "pos", "positive_ctxs",
    "positive_passages", "ctxs", "paragraph", "text", "document", "본문", "지문",
)  # fmt: skip
_NEGATIVES = ("negatives", "negative", "neg", "hard_negatives", "hard_negative_ctxs", "negative_ctxs",
              "negative_passages", "hard_neg")  # fmt: skip
_NUMBERED_NEGATIVE = re.compile(r"(hard_?)?neg(ative)?s?[_-]?\d+|hard_negative")
"""Columns of single negatives, as sentence-transformers mines them: ``negative_1`` to ``negative_n``."""
_NUMBERED_POSITIVE = re.compile(r"pos(itive)?s?[_-]?\d+")
_ASKED = ("question", "query", "q", "질문")
_ANSWERED = ("answer", "a", "response", "answers", "답변")

SYMMETRIC = (
    ("sentence1", "sentence2"), ("sentence_1", "sentence_2"), ("sentence_a", "sentence_b"), ("sent1", "sent2"),
    ("text1", "text2"), ("text_a", "text_b"), ("question1", "question2"), ("s1", "s2"),
)  # fmt: skip
INFERENCE = (("premise", "hypothesis"),)
_BEFORE_QUERY = ("prompt", "instruction", "instruct", "query_instruction", "query_prompt")
"""What FlagEmbedding and E5 put before a row's question."""
_ANCHORS = ("anchor", "query", "question")
_BELONGING = ("positives", "positive", "pos", "positive_ctxs", "positive_passages", "passages", "passage", "answer",
              "document", "context")  # fmt: skip
_OTHERS_LABELS = ("answer", "target", "is_same", "same")
"""Fields beside two texts that may be a label under another name."""


def rag(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of a question with its answer and passages, and the fields that were used for it."""
    asked = first_of(row, _ASKED)
    answered = first_of(row, _ANSWERED)
    if asked is None or answered is None:
        raise unrecognised(row, "question and answer, with positives and negatives")
    used = {asked, answered}
    positives, negatives = _passages_of(row, used)
    content = {
        "question": text_of(row[asked], asked),
        "answer": _answer(row[answered], answered),
        "positives": positives,
        "negatives": negatives,
    }
    return content, used


def _answer(value: Any, path: str) -> str:
    """The answer: of several the first (SQuAD, DPR)."""
    if isinstance(value, Mapping) and isinstance(value.get("text"), (list, str)):
        value, path = value["text"], f"{path}.text"
    if isinstance(value, list):
        if not value:
            raise RowFault(path, "there is no answer")
        first = value[0]
        value = first.get("text") if isinstance(first, Mapping) else first
    text = text_of(value, path)
    if text.strip().lower().rstrip(".") == "no answer present":
        raise RowFault(path, "nobody found an answer in the passages")
    return text


def _passages_of(row: Mapping[str, Any], used: set[str]) -> tuple[list[str], list[str]]:
    positives: list[str] = []
    negatives: list[str] = []
    name = first_of(row, _PASSAGES)
    if name is not None:
        used.add(name)
        if isinstance(row[name], Mapping) and "is_selected" in row[name]:
            positives, negatives = _selected(row[name], name)
        else:
            positives = _texts(row[name], name)
    _add_negatives(row, used, negatives)
    _refuse_contradiction(positives, negatives, "negatives")
    return positives, negatives


def _add_negatives(row: Mapping[str, Any], used: set[str], negatives: list[str]) -> None:
    """Add the negatives of all columns that hold some, one by one or as lists, and the columns to `used`."""
    for name in row:
        if name not in used and (name in _NEGATIVES or _NUMBERED_NEGATIVE.fullmatch(str(name).lower())):
            used.add(name)
            negatives += [text for text in _texts(row[name], name) if text not in negatives]


def _refuse_prompt(row: Mapping[str, Any], used: set[str]) -> None:
    """What would stand before the question is embedded with it, in training and in serving: one for all questions."""
    for name in _BEFORE_QUERY:
        if name not in used and isinstance(text := row.get(name), str) and text.strip():
            raise RowFault(
                name,
                f"{text.strip()[:60]!r} is to stand before the question: write it as query_prompt into the spec of the "
                "training, which questions are then asked with in serving, too, and leave the field out of the rows",
            )


def _refuse_contradiction(belonging: list[str], negatives: list[str], path: str) -> None:
    if both := [text for text in negatives if text in belonging]:
        raise RowFault(path, f"one text belongs to the question and does not at once: {both[0][:60]!r}")


def _selected(value: Mapping[str, Any], path: str) -> tuple[list[str], list[str]]:
    """MS MARCO's passages: those that were selected, and the others."""
    texts = texts_of(value.get("passage_text"), f"{path}.passage_text")
    chosen = value["is_selected"]
    if not isinstance(chosen, list) or len(chosen) != len(texts):
        raise RowFault(f"{path}.is_selected", f"{len(texts)} passages, and not a choice for each")
    if not any(chosen):
        raise RowFault(f"{path}.is_selected", "no passage was selected, so none belongs to the question")
    pairs = list(zip(texts, chosen, strict=True))
    return [text for text, own in pairs if own], [text for text, own in pairs if not own]


def _texts(value: Any, path: str) -> list[str]:
    """Texts, or objects of which each has one with a title (DPR, Tevatron)."""
    if isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list) or not any(isinstance(item, Mapping) for item in value):
        return texts_of(value, path)
    found = []
    for index, item in enumerate(value):
        where = f"{path}[{index}]"
        if not isinstance(item, Mapping):
            raise RowFault(where, f"expected a passage with a text, got {kind_of(item)}")
        key = first_of(item, ("text", "content", "passage", "contents", "passage_text"))
        if key is None:
            raise RowFault(where, f"a passage without a text; it has {', '.join(map(str, item))}")
        text, title = text_of(item[key], f"{where}.{key}"), item.get("title")
        found.append(f"{title}\n{text}" if isinstance(title, str) and title.strip() else text)
    return found


def embedding(row: dict[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """The content of an anchor with its positives and negatives, and the fields that were used for it.

    A label of the two texts is under `relation`: what it makes of them is known when all rows of the file are there.
    """
    if "query-id" in row and "corpus-id" in row:
        raise RowFault(
            "corpus-id",
            "relevance judgements that name texts by their ids (BEIR): put the texts of both in their place",
        )
    pair = next((p for p in (*INFERENCE, *SYMMETRIC) if p[0] in row and p[1] in row), None)
    if pair is not None:
        return _pair(row, *pair, inference=pair in INFERENCE)
    if isinstance(row.get("set"), list):
        texts = texts_of(row["set"], "set")
        if len(texts) < 2:
            raise RowFault("set", f"{len(texts)} texts, and two at least belong together")
        return {"anchor": texts[0], "positives": texts[1:], "negatives": []}, {"set"}
    anchor = first_of(row, (*_ANCHORS, *(first for first, _ in (*SYMMETRIC, *INFERENCE))))
    positive = first_of(row, (*_BELONGING, *(second for _, second in (*SYMMETRIC, *INFERENCE))))
    if anchor is None or positive is None or anchor == positive:
        raise unrecognised(row, "anchor and positive")
    used = {anchor, positive}
    _refuse_prompt(row, used)
    if isinstance(row[positive], Mapping) and "is_selected" in row[positive]:
        positives, negatives = _selected(row[positive], positive)
    else:
        positives, negatives = _texts(row[positive], positive), []
    for name in (name for name in row if _NUMBERED_POSITIVE.fullmatch(str(name).lower()) and name not in used):
        used.add(name)
        positives += [text for text in _texts(row[name], name) if text not in positives]
    _add_negatives(row, used, negatives)
    _refuse_contradiction([*positives, row[anchor]], negatives, "negatives")
    content = {"anchor": text_of(row[anchor], anchor), "positives": positives, "negatives": negatives}
    if len(positives) == 1 and not negatives:
        relation, labels = relation_of(row, positives[0], inference=False)
        if relation is not None:
            return {**content, "positives": [], "relation": relation}, used | labels
    return content, used


def _pair(row: Mapping[str, Any], first: str, second: str, inference: bool) -> tuple[dict[str, Any], set[str]]:
    """Two texts and what a label says of them."""
    one, other = text_of(row[first], first), text_of(row[second], second)
    relation, labels = relation_of(row, other, inference)
    used = {first, second, *labels}
    if relation is not None:
        return {"anchor": one, "positives": [], "negatives": [], "relation": relation}, used
    if inference:
        raise RowFault(
            "label",
            "a premise and a hypothesis without a label (entailment, neutral or contradiction): nobody can know "
            "whether they belong together",
        )
    for name in _OTHERS_LABELS:
        said = row.get(name)
        if isinstance(said, bool) or (isinstance(said, str) and said.strip().lower() in ("true", "false")):
            raise RowFault(
                name, f"{name} is {said}, and nothing says what that is of the two texts: --map label={name}"
            )
    negatives = _texts(row["sentence3"], "sentence3") if "sentence3" in row else []
    used |= {"sentence3"} & row.keys()
    _add_negatives(row, used, negatives)
    _refuse_contradiction([one, other], negatives, "negatives")
    return {"anchor": one, "positives": [other], "negatives": negatives}, used
