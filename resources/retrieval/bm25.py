"""Sparse vectors of passages and questions by BM25 (Robertson and Zaragoza 2009) over morphemes."""

import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version

import numpy as np
from numpy.typing import NDArray

from resources.retrieval.morphemes import tokens

K1, B = 1.2, 0.75
_WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class SparseRows:
    """A sparse vector a passage, in compressed rows: terms of row i are ``terms[starts[i]:starts[i + 1]]``, ascending.

    `weights` are those of the passage's side of BM25; the side of a question is the rarity of its terms (`idf`).
    """

    starts: NDArray[np.int64]
    terms: NDArray[np.int64]
    weights: NDArray[np.float32]
    average_terms: float

    def __len__(self) -> int:
        return len(self.starts) - 1

    def row(self, number: int) -> tuple[list[int], list[float]]:
        """Terms and weights of one passage."""
        part = slice(int(self.starts[number]), int(self.starts[number + 1]))
        return self.terms[part].tolist(), self.weights[part].tolist()


def description() -> str:
    """What decides the sparse vectors: part of an index's version."""
    return f"bm25 k1={K1} b={B}, kiwipiepy {version('kiwipiepy')}, model {version('kiwipiepy_model')}, rule 1"


def words(text: str) -> list[str]:
    """The terms of a text: content morphemes, stems and numbers; of a script that neither knows, its plain words."""
    normal = unicodedata.normalize("NFKC", text)
    return tokens(normal) or _WORD.findall(normal.lower())


@lru_cache(maxsize=200_000)
def term_id(word: str) -> int:
    """The index of a term in sparse vectors: 32 bits of its hash, so that no vocabulary has to be kept."""
    return int.from_bytes(hashlib.blake2s(word.encode(), digest_size=4).digest(), "big")


def sparse_rows(texts: Sequence[str]) -> SparseRows:
    """The sparse vectors of passages, weighed by their own lengths against the average of them all."""
    counts = [Counter(map(term_id, words(text))) for text in texts]
    lengths = np.array([sum(count.values()) for count in counts], dtype=np.float64)
    average = float(lengths.mean()) if len(lengths) and lengths.sum() else 1.0
    starts: list[int] = [0]
    terms: list[int] = []
    weights: list[float] = []
    for count, length in zip(counts, lengths, strict=True):
        norm = K1 * (1 - B + B * length / average)
        for term in sorted(count):
            terms.append(term)
            weights.append(count[term] * (K1 + 1) / (count[term] + norm))
        starts.append(len(terms))
    return SparseRows(
        np.array(starts, dtype=np.int64), np.array(terms, dtype=np.int64), np.array(weights, dtype=np.float32), average
    )


def question_terms(text: str) -> list[int]:
    """The terms of a question, each once, in the order of their ids."""
    return sorted({term_id(word) for word in words(text)})


def idf(passages: int, holding: NDArray[np.int64]) -> NDArray[np.float64]:
    """How rare terms are that `holding` of the passages have; as Qdrant weighs them by its IDF modifier."""
    result: NDArray[np.float64] = np.log((passages - holding + 0.5) / (holding + 0.5) + 1)
    return result
