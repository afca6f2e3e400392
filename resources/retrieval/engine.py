"""Searches an index: Qdrant embedded in this process, or a Qdrant server; dense and sparse, fused by reciprocal rank.

Embedded, Qdrant ranks the vectors; the sparse side is ranked here, because its local mode walks through every passage
in Python for each question (0.25 s at 10,000 passages). A server ranks both.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from resources.retrieval.bm25 import idf, question_terms
from resources.retrieval.files import PassageIndex

log = logging.getLogger("retrieval.engine")

Mode = Literal["hybrid", "dense", "sparse"]
CANDIDATES = 50
"""Passages that each side of a hybrid search brings, at least."""
RANK_CONSTANT = 60
"""k of reciprocal rank fusion (Cormack, Clarke and Büttcher 2009)."""
DENSE, SPARSE = "dense", "sparse"
_BATCH = 256


class EngineUnavailable(RuntimeError):
    """The Qdrant server does not answer, or not as it should; the message says what it was asked."""


@dataclass(frozen=True)
class Hit:
    """A passage that was found: its row in the index, its fused score, and what each side gave it.

    `cosine` is that of its vector with the question's, also where only the sparse side found it; `sparse` is None where
    it has no term of the question.
    """

    row: int
    score: float
    cosine: float
    sparse: float | None


class Engine(Protocol):
    """One version of an index, ready to be searched; both rankings are (row, score), the best first."""

    name: str

    def nearest(self, vector: NDArray[np.float32], limit: int) -> list[tuple[int, float]]: ...

    def matching(self, terms: Sequence[int], limit: int) -> list[tuple[int, float]]: ...

    def close(self) -> None: ...


class Embedded:
    """Qdrant in this process's memory, filled from an index's files: nothing is locked, so any number may read them."""

    name = "embedded"

    def __init__(self, index: PassageIndex) -> None:
        from qdrant_client import QdrantClient, models

        self._client = QdrantClient(":memory:")
        self._collection = index.facts.version
        self._client.create_collection(
            self._collection,
            vectors_config=models.VectorParams(size=index.facts.dimensions, distance=models.Distance.COSINE),
        )
        for start in range(0, len(index.vectors), _BATCH):
            part = index.vectors[start : start + _BATCH]
            batch = models.Batch(ids=list(range(start, start + len(part))), vectors=part.tolist())
            self._client.upsert(self._collection, batch)
        self._passages = len(index.vectors)
        # By term instead of by passage: a question has a handful of terms, and each has few passages.
        order = np.argsort(index.sparse.terms, kind="stable")
        self._terms, begins = np.unique(index.sparse.terms[order], return_index=True)
        self._begins = np.append(begins, len(order))
        lengths = np.diff(index.sparse.starts)
        self._rows = np.repeat(np.arange(len(lengths)), lengths)[order]
        self._weights = index.sparse.weights[order]

    def nearest(self, vector: NDArray[np.float32], limit: int) -> list[tuple[int, float]]:
        """The rows whose vectors are nearest by cosine: exactly those, as local mode compares with all."""
        found = self._client.query_points(self._collection, query=vector.tolist(), limit=limit, with_payload=False)
        return [(int(point.id), float(point.score)) for point in found.points]

    def matching(self, terms: Sequence[int], limit: int) -> list[tuple[int, float]]:
        """The rows that hold terms of the question, by BM25."""
        scores = np.zeros(self._passages, dtype=np.float64)
        for term in terms:
            at = int(np.searchsorted(self._terms, term))
            if at == len(self._terms) or self._terms[at] != term:
                continue
            part = slice(int(self._begins[at]), int(self._begins[at + 1]))
            rows = self._rows[part]
            scores[rows] += idf(self._passages, np.array([len(rows)]))[0] * self._weights[part]
        best = np.argsort(-scores, kind="stable")[:limit]
        return [(int(row), float(scores[row])) for row in best if scores[row] > 0]

    def close(self) -> None:
        self._client.close()


class Server:
    """One version of an index in a Qdrant server, where it is a collection of its own.

    A point holds vectors and the id of its passage, and no text: what is erased or sealed lies in the index's files
    alone. Raises EngineUnavailable where the server does not do what it is asked.
    """

    def __init__(self, client: Any, collection: str, address: str) -> None:
        self.name = address
        self._client, self._collection = client, collection

    def nearest(self, vector: NDArray[np.float32], limit: int) -> list[tuple[int, float]]:
        return self._query(vector.tolist(), DENSE, limit)

    def matching(self, terms: Sequence[int], limit: int) -> list[tuple[int, float]]:
        from qdrant_client import models

        # The server weighs each term by its rarity (its IDF modifier).
        return self._query(models.SparseVector(indices=list(terms), values=[1.0] * len(terms)), SPARSE, limit)

    def _query(self, query: Any, using: str, limit: int) -> list[tuple[int, float]]:
        with unavailable(self.name, f"the search of {self._collection}"):
            found = self._client.query_points(
                self._collection, query=query, using=using, limit=limit, with_payload=False
            )
        return [(int(point.id), float(point.score)) for point in found.points]

    def close(self) -> None:
        """Nothing to close: the client is the indexes'."""


class unavailable:
    """Turns whatever a Qdrant client raises into EngineUnavailable."""

    def __init__(self, address: str, what: str) -> None:
        self.address, self.what = address, what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, EngineUnavailable):
            first = (str(error).splitlines() or [""])[0][:200]
            raise EngineUnavailable(
                f"the Qdrant server {self.address} failed at {self.what}: {type(error).__name__} {first}"
            ) from error


def search(
    engine: Engine,
    index: PassageIndex,
    question: str,
    vector: NDArray[np.float32],
    limit: int,
    *,
    mode: Mode = "hybrid",
    excluded: Sequence[int] = (),
) -> list[Hit]:
    """The best `limit` passages for a question with its unit vector; rows in `excluded` are found by nobody.

    hybrid: each side's ranking counts 1 / (60 + rank). Of equal scores the passage with the larger cosine comes first,
    then the one that stands first.
    """
    wanted = max(CANDIDATES, limit) + len(excluded)
    out = frozenset(excluded)
    dense: list[tuple[int, float]] = []
    sparse: list[tuple[int, float]] = []
    if mode != "sparse":
        dense = [hit for hit in engine.nearest(vector, wanted) if hit[0] not in out]
    if mode != "dense" and (terms := question_terms(question)):
        sparse = [hit for hit in engine.matching(terms, wanted) if hit[0] not in out]
    fused: dict[int, float] = {}
    for ranking in (dense, sparse):
        for rank, (row, _) in enumerate(ranking, 1):
            fused[row] = fused.get(row, 0.0) + 1 / (RANK_CONSTANT + rank)
    matched = dict(sparse)
    hits = [Hit(row, score, float(index.vectors[row] @ vector), matched.get(row)) for row, score in fused.items()]
    return sorted(hits, key=lambda hit: (-hit.score, -hit.cosine, hit.row))[:limit]
