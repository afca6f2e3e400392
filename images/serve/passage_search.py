"""Searches the index that a name stands for, with the encoder that made it, and follows the name.

When the name stands for another version, that version and the encoder that made it are loaded beside the old ones and
take their place in one step. What was erased is found by nobody from the moment that its tombstone is written.
"""

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from resources import content
from resources.retrieval.bm25 import description, words
from resources.retrieval.engine import Engine, EngineUnavailable, Mode, search
from resources.retrieval.files import PassageIndex
from resources.retrieval.indexes import IndexCorrupt, Indexes, UnknownIndex

log = logging.getLogger("serve.retriever")

MOST_TEXT = 32_000
"""Characters of a question that are embedded: no encoder reads more."""
MOST_PASSAGES = 50
MODES: dict[str, Mode] = {"hybrid": "hybrid", "dense": "dense", "sparse": "sparse"}


class Search(msgspec.Struct, forbid_unknown_fields=True):
    """What is asked of `/v1/search`."""

    query: str
    top_k: int = 5
    min_score: float | None = None
    mode: str = "hybrid"
    rerank: int | None = None
    max_tokens: int | None = None

    def fault(self) -> str | None:
        """What is wrong with it, or None."""
        if not self.query.strip():
            return "query is empty"
        if not 1 <= self.top_k <= MOST_PASSAGES or not 1 <= (self.rerank or 1) <= MOST_PASSAGES:
            return f"top_k and rerank are 1 to {MOST_PASSAGES}"
        return None if self.mode in MODES else f"mode is one of {', '.join(MODES)}"


class NotReady(RuntimeError):
    """Nothing can be searched; the message says why, and what to do."""


@dataclass
class Loaded:
    """One version, ready to be searched, with the encoder that made it."""

    index: PassageIndex
    engine: Engine
    encoder: Any
    ids: list[str]
    passages: list[dict[str, Any]]
    tombstones: list[str]
    dead: frozenset[int] = field(default=frozenset())


class Retriever:
    """The index that a name stands for, as it is now; `fault` says why it is none, or an old one."""

    def __init__(self, indexes: Indexes, name: str, reranker: Any = None, tokenizer: Any = None) -> None:
        self.indexes, self.name = indexes, name
        self.reranker, self.tokenizer = reranker, tokenizer
        self.current: Loaded | None = None
        self.fault: str | None = "it is being loaded"
        self._buried_at: float | None = None
        self._encoding = threading.Lock()
        self._refreshing = threading.Lock()

    def refresh(self) -> None:
        """Load what the name stands for now, if that is another version. Never raises: `fault` says what is wrong."""
        with self._refreshing:
            try:
                version = self.indexes.version(self.name)
                if self.current is None or self.current.index.facts.version != version:
                    self._switch_to(self._load(version))
                self._bury()
                self.fault = None
            except UnknownIndex as error:
                # Nobody may be given what its name no longer stands for.
                self.current = None
                self._note(str(error))
            except (IndexCorrupt, EngineUnavailable, content.ContentChanged, OSError) as error:
                self._note(str(error))
            except Exception as error:  # whatever a library meets in a broken folder, the version before goes on
                log.exception("index %s could not be loaded", self.name)
                self._note(f"the index {self.name!r} cannot be loaded: {type(error).__name__}: {error}")

    def _note(self, fault: str) -> None:
        if fault != self.fault:
            log.error("%s", fault)
        self.fault = fault

    def _load(self, version: str) -> Loaded:
        began = time.monotonic()
        index = self.indexes.read(version)
        facts = index.facts
        content.verify(
            facts.encoder.path,
            facts.encoder.content_hash,
            f"used to build the index {self.name!r} ({facts.encoder.ref})",
            "Restore it, or build the index again by the encoder of now",
        )
        known = self.current
        same = known is not None and known.index.facts.encoder.content_hash == facts.encoder.content_hash
        encoder = known.encoder if known is not None and same else load_encoder(facts.encoder.path)
        if facts.sparse != description():
            log.warning(
                "index %s was built with %s, and questions are analysed by %s", self.name, facts.sparse, description()
            )
        ids = index.passages["id"].to_list()
        loaded = Loaded(
            index,
            self.indexes.engine(index),
            encoder,
            ids,
            index.passages.select("id", "text", "document", "page", "heading").to_dicts(),
            [self.indexes.tombstone(id) for id in ids],
        )
        # The analyser reads its dictionary with the first text.
        words("준비")
        log.info("index %s: version %s, %d passages, in %.1f s", self.name, version, len(ids), time.monotonic() - began)
        return loaded

    def _switch_to(self, loaded: Loaded) -> None:
        self._buried_at = None
        buried = self.indexes.tombstones()
        loaded.dead = frozenset(row for row, name in enumerate(loaded.tombstones) if name in buried)
        # The one before may be searched at this moment: it goes with the last search that knows it.
        self.current = loaded

    def _bury(self) -> None:
        """Read the tombstones where they changed."""
        changed = self.indexes.changes()["tombstones"]
        if changed != self._buried_at and self.current is not None:
            buried = self.indexes.tombstones()
            dead = (row for row, name in enumerate(self.current.tombstones) if name in buried)
            self.current.dead = frozenset(dead)
            self._buried_at = changed

    def ready(self) -> Loaded:
        """What is searched now; NotReady where that is nothing."""
        if self.current is None:
            raise NotReady(self.fault or "it is being loaded")
        return self.current

    def embed(self, texts: list[str], prompt: str | None = None) -> tuple[Loaded, np.ndarray]:
        """Unit vectors of texts, float32, behind the encoder's prompt for questions unless another is given."""
        loaded = self.ready()
        prompt = loaded.index.facts.encoder.query_prompt if prompt is None else prompt
        with self._encoding:
            found = loaded.encoder.encode(
                [prompt + text[:MOST_TEXT] for text in texts],
                prompt="",
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            )
        return loaded, found.astype(np.float32)

    def search(self, asked: Search) -> dict[str, Any]:
        """The passages that a question finds; those whose cosine is below `min_score` are left out.

        With `rerank` so many are found, and the reranker says which come first. Whole passages are given until
        `max_tokens` of the model's tokenizer are spent; the first is cut to fit.
        """
        self._bury()
        began = time.monotonic()
        question, rerank = asked.query[:MOST_TEXT], asked.rerank if self.reranker is not None else None
        loaded, vectors = self.embed([question])
        embedded = time.monotonic()
        if not np.isfinite(vectors).all():
            raise NotReady("the encoder gives no direction for this question")
        limit, mode, dead = max(asked.top_k, rerank or 0), MODES[asked.mode], sorted(loaded.dead)
        hits = search(loaded.engine, loaded.index, question, vectors[0], limit, mode=mode, excluded=dead)
        passages = [
            {
                **loaded.passages[hit.row],
                "score": round(hit.score, 6),
                "cosine": round(hit.cosine, 6),
                "bm25": None if hit.sparse is None else round(hit.sparse, 4),
            }
            for hit in hits
            if asked.min_score is None or hit.cosine >= asked.min_score
        ]
        if rerank and passages:
            passages = self._reranked(question, passages)
        passages = self._within(passages[: asked.top_k], asked.max_tokens)
        facts = loaded.index.facts
        return {
            "index": self.name,
            "version": facts.version,
            "dataset": facts.dataset,
            "encoder": facts.encoder.content_hash,
            "passages": passages,
            "seconds": {"embedding": embedded - began, "search": time.monotonic() - embedded},
        }

    def _reranked(self, question: str, passages: list[dict[str, Any]]) -> list[dict[str, Any]]:
        with self._encoding:
            pairs = [(question, passage["text"]) for passage in passages]
            scores = self.reranker.predict(pairs, show_progress_bar=False, convert_to_numpy=True)
        scored = [{**one, "rerank": round(float(score), 6)} for one, score in zip(passages, scores, strict=True)]
        return sorted(scored, key=lambda passage: -passage["rerank"])

    def _within(self, passages: list[dict[str, Any]], most: int | None) -> list[dict[str, Any]]:
        """The first passages that fit into a prompt of `most` tokens; without the model's tokenizer, all of them."""
        if most is None or self.tokenizer is None:
            return passages
        found, left = [], most
        for passage in passages:
            offsets = self.tokenizer(passage["text"], add_special_tokens=False, return_offsets_mapping=True)
            tokens = len(offsets["input_ids"])
            if tokens > left and found:
                break
            if tokens > left:
                passage = {**passage, "text": passage["text"][: offsets["offset_mapping"][left][0]], "cut": True}
                tokens = left
            found.append({**passage, "tokens": tokens})
            left -= tokens
            if left <= 0:
                break
        return found

    def state(self) -> dict[str, Any]:
        """What stands on the health page."""
        current = self.current
        status = "ok" if current is not None and self.fault is None else "degraded" if current else "failing"
        version = current.index.facts.version if current is not None else None
        return {"status": status, "index": self.name, "version": version, "fault": self.fault}


def load_encoder(folder: str) -> Any:
    """The encoder in a folder, as sentence-transformers loads it; nothing but safetensors, and no code of its own."""
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(folder, local_files_only=True, trust_remote_code=False)


def load_reranker(folder: str) -> Any:
    """The cross-encoder in a folder, which gives a pair of question and passage a score."""
    from sentence_transformers import CrossEncoder

    return CrossEncoder(folder, local_files_only=True, trust_remote_code=False)


def load_tokenizer(folder: str) -> Any:
    """The tokenizer of the model in a folder; FileNotFoundError or OSError where there is none."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
