"""From documents to passages, and from a model's answers to rows that are handed on or set aside with a reason."""

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from llmops_assets.datasets import schema
from llmops_assets.documents.extract import DocumentFault, read_document
from llmops_assets.documents.generate import Result, rows_of
from llmops_assets.documents.passages import Passage, cut
from llmops_assets.specs.dataset import GenerationSpec
from resources.artifacts import Artifacts

log = logging.getLogger("documents.work")

PASSAGES = "passages"
"""Folder below the artifacts where answers are kept, for all versions: the same passage is asked about once."""

SAMPLE = 300
"""Characters of a refused row that are shown with its reason."""


class KeptAnswers:
    """Answers by key, a file each, written whole and sealed as all artifacts are."""

    def __init__(self, artifacts: Artifacts) -> None:
        self._artifacts = artifacts

    def _parts(self, key: str) -> tuple[str, ...]:
        return (PASSAGES, key[:2], f"{key}.json")

    def load(self, key: str) -> dict[str, Any] | None:
        if not self._artifacts.exists(*self._parts(key)):
            return None
        data = self._artifacts.read_bytes(*self._parts(key))
        try:
            answer = json.loads(data)
        except ValueError as error:
            log.warning("the answer kept as %s is no JSON (%s): its passage is asked about again", key, error)
            return None
        if not isinstance(answer, dict) or not isinstance(answer.get("rows"), list):
            log.warning("the answer kept as %s holds no rows: its passage is asked about again", key)
            return None
        return answer

    def save(self, key: str, answer: dict[str, Any]) -> None:
        self._artifacts.write_bytes(json.dumps(answer, ensure_ascii=False).encode(), *self._parts(key))


@dataclass
class Read:
    """The passages of all documents, and the documents that have none, with the reason."""

    passages: list[Passage] = field(default_factory=list)
    unreadable: dict[str, str] = field(default_factory=dict)


def read_all(files: Sequence[tuple[str, bytes]], spec: GenerationSpec) -> Read:
    """Passages of documents given by name and bytes. The same text twice is asked about once."""
    read, known = Read(), set()
    for name, data in files:
        try:
            passages = cut(read_document(name, data), spec.passage_chars)
        except DocumentFault as fault:
            read.unreadable[name] = str(fault)
            continue
        if not passages:
            read.unreadable[name] = "it holds no passage that is long enough to ask about"
        for passage in passages:
            if passage.sha256 not in known:
                known.add(passage.sha256)
                read.passages.append(passage)
    return read


@dataclass(frozen=True)
class Sorted:
    """`rows` are handed on; `quarantine` (as of ingestion) has the rest: the line is the passage's number."""

    rows: list[dict[str, Any]]
    quarantine: pl.DataFrame
    ungrounded: int
    groundedness_mean: float


def sort_out(results: Sequence[Result], read: Read, spec: GenerationSpec) -> Sorted:
    """Keep the rows whose answers stand in their passage; everything else comes with its reason."""
    refused = [(name, 0, "document", reason, "") for name, reason in read.unreadable.items()]
    kept, shares = [], []
    ungrounded = 0
    for number, result in enumerate(results, start=1):
        where = result.passage.document
        if result.failure is not None:
            refused.append((where, number, "passage", result.failure, result.passage.text[:SAMPLE]))
        for row in rows_of([result], spec):
            share = row["metadata"]["groundedness"]
            shares.append(share)
            if share >= spec.min_groundedness:
                kept.append(row)
                continue
            ungrounded += 1
            reason = f"{share:.0%} of the answer's words are in its passage, less than {spec.min_groundedness:.0%}"
            answer = row["messages"][-1]["content"]
            refused.append((where, number, "groundedness", reason, answer[:SAMPLE]))
    return Sorted(
        kept,
        pl.DataFrame(refused, schema=schema.QUARANTINE, orient="row"),
        ungrounded,
        round(sum(shares) / len(shares), 4) if shares else 0.0,
    )


TABLE = {
    "document": pl.String,
    "page": pl.Int64,
    "start": pl.Int64,
    "end": pl.Int64,
    "passage_sha256": pl.String,
    "groundedness": pl.Float64,
    "messages": schema.MESSAGES,
}


def table(rows: Sequence[dict[str, Any]]) -> pl.DataFrame:
    """Generated rows with their provenance, a row each: what is shown of them, and looked through by an erasure."""
    flat = []
    for row in rows:
        source = row["metadata"]["provenance"]
        flat.append(
            {name: source.get(name) for name in TABLE if name in source}
            | {"groundedness": row["metadata"]["groundedness"], "messages": row["messages"]}
        )
    return pl.DataFrame(flat, schema=TABLE)


def without_provenance(rows: Sequence[dict[str, Any]], passages: Sequence[Passage]) -> int:
    """Rows whose provenance leads to no passage of the documents."""
    known = {(p.document, p.page, p.start, p.end, p.sha256[:16]) for p in passages}
    fields = ("document", "page", "start", "end", "passage_sha256")
    return sum(tuple(row["metadata"].get("provenance", {}).get(name) for name in fields) not in known for row in rows)
