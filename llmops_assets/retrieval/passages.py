"""The passages of a dataset version, each with where it stands and the rows it came from, and what they are asked."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from llmops_assets.documents.extract import Document, Page
from llmops_assets.documents.passages import cut
from llmops_assets.documents.work import read_all
from llmops_assets.evaluation.retrieval import Query, passage_key, queries_of
from llmops_assets.evaluation.suites import NO_CATEGORY
from llmops_assets.privacy import pii
from llmops_assets.specs.dataset import GenerationSpec
from resources.retrieval.files import COLUMNS

ASKED_BY = {"rag_qa": "question", "embedding_pair": "anchor"}
"""The column of a type's rows that asks for passages."""
INDEXED = (*ASKED_BY, "pretrain_corpus")


class NoPassages(ValueError):
    """Why a dataset version has nothing to index."""


@dataclass
class Passages:
    """A passage a row (`COLUMNS` of the index's files), and why others are left out, counted."""

    frame: pl.DataFrame
    left_out: Counter[str] = field(default_factory=Counter)


def of_rows(frames: Iterable[pl.DataFrame], dataset: str) -> Passages:
    """The positives and negatives of rows (`rag_qa`, `embedding_pair`), each once, with all rows that hold it."""
    found: dict[str, dict[str, Any]] = {}
    for frame in frames:
        for row_id, source, positives, negatives in frame.select(
            "row_id", "source", "positives", "negatives"
        ).iter_rows():
            for text in (*positives, *negatives):
                if not text.strip():
                    continue
                one = found.setdefault(
                    passage_key(text), {**_EMPTY, "text": text.strip(), "document": source or dataset, "rows": []}
                )
                one["rows"].append(row_id)
    return _passages({key: {**one, "rows": sorted(set(one["rows"]))} for key, one in found.items()})


def of_corpus(frames: Iterable[pl.DataFrame], longest: int) -> Passages:
    """The texts of a corpus, cut at headings and paragraphs into passages of at most `longest` characters."""
    found: dict[str, dict[str, Any]] = {}
    left_out: Counter[str] = Counter()
    for frame in frames:
        for row_id, source, text in frame.select("row_id", "source", "text").iter_rows():
            pieces = cut(Document(row_id, [Page(None, text)]), longest)
            left_out["too short to be a passage"] += not pieces
            for piece in pieces:
                known = found.setdefault(
                    passage_key(piece.text),
                    {
                        **_EMPTY,
                        "text": piece.text.strip(),
                        "document": source or row_id,
                        "start": piece.start,
                        "end": piece.end,
                        "heading": piece.heading,
                        "rows": [],
                    },
                )
                if row_id not in known["rows"]:
                    known["rows"].append(row_id)
    return _passages(found, left_out)


def of_documents(files: Sequence[tuple[str, bytes]], spec: GenerationSpec, how: pii.Detector) -> Passages:
    """The passages of registered documents without personal data, as the policy has it: masked, or left out."""
    read = read_all(files, spec)
    left_out: Counter[str] = Counter()
    left_out["unreadable document"] += len(read.unreadable)
    texts = pl.Series([passage.text for passage in read.passages], dtype=pl.String)
    masked = pii.mask_texts(texts, how) if len(texts) else texts
    found: dict[str, dict[str, Any]] = {}
    for passage, text in zip(read.passages, masked, strict=True):
        if text == pii.NOT_SHOWN:
            left_out["it could not be searched for personal data"] += 1
            continue
        if text != passage.text and how.mode == "drop":
            left_out["it holds personal data"] += 1
            continue
        one = found.setdefault(
            passage_key(text),
            {
                **_EMPTY,
                "text": text.strip(),
                "document": passage.document,
                "page": passage.page,
                "start": passage.start,
                "end": passage.end,
                "heading": passage.heading,
                "rows": [],
                "sources": [],
            },
        )
        one["sources"].append(passage.sha256[:16])
    return _passages(found, left_out)


_EMPTY: dict[str, Any] = {"page": None, "start": None, "end": None, "heading": "", "sources": []}


def _passages(found: dict[str, dict[str, Any]], left_out: Counter[str] | None = None) -> Passages:
    # By their names: the same passages are the same index, in whatever order their rows come.
    rows = [{"id": key, **found[key]} for key in sorted(found)]
    return Passages(pl.DataFrame(rows, schema=COLUMNS), +(left_out or Counter()))


def questions_of(frame: pl.DataFrame, type_: str, passages: pl.DataFrame) -> list[Query]:
    """The test questions whose own passages are among `passages`; none where nothing says which they are.

    `frame` is the test split. Rows written about documents (`sft_pair`) name their passage in their metadata.
    """
    known = set(passages["id"])
    if (column := ASKED_BY.get(type_)) is not None:
        if not frame.height or not frame["positives"].list.len().sum():
            return []
        try:
            asked, _ = queries_of(frame, column)
        except ValueError:
            # No two texts of the split belong together.
            return []
        return [query for query in asked if known.issuperset(query.relevant)]
    if type_ != "sft_pair" or "messages" not in frame.columns:
        return []
    own = {source: id for id, sources in passages.select("id", "sources").iter_rows() for source in sources}
    found = []
    source = frame["extra"].str.json_path_match("$.provenance.passage_sha256")
    for row_id, category, messages, name in zip(
        frame["row_id"], frame["category"], frame["messages"], source, strict=True
    ):
        asked = [turn["content"] for turn in messages if turn["role"] == "user"]
        if name in own and len(asked) == 1 and not _holds(asked[0], passages, own[name]):
            found.append(Query(row_id, asked[0], category or NO_CATEGORY, (own[name],)))
    return found


def _holds(question: str, passages: pl.DataFrame, id: str) -> bool:
    """Whether a question brings its passage with it, as the template `summary` does: then it asks for nothing."""
    text = passages.filter(passages["id"] == id)["text"][0]
    return str(text)[:200] in question


def digest(passages: pl.DataFrame) -> str:
    """A name for the passages, for the folder of a build that is under way."""
    return hashlib.sha256("\n".join(passages["id"]).encode()).hexdigest()[:16]
