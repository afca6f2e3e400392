"""Finds passages for a gateway: the encoder and the index of one name, in a process of their own.

It follows the name: when that stands for another version, the version and the encoder that made it are loaded beside
the old ones and take their place in one step. What was erased is found by nobody from the moment that its tombstone is
written.
"""

import argparse
import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from llmops_assets.specs.settings import Settings
from resources import content
from resources.retrieval.bm25 import description, words
from resources.retrieval.engine import Engine, EngineUnavailable, search
from resources.retrieval.files import PassageIndex
from resources.retrieval.indexes import IndexCorrupt, Indexes, UnknownIndex, open_indexes

log = logging.getLogger("serve.retriever")

LOOK_SECONDS = 0.5
"""How often it is looked whether the name stands for another version."""
MOST_TEXT = 32_000
"""Characters of a question that are embedded: no encoder reads more."""
MOST_TEXTS = 64
MOST_PASSAGES = 50


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

    def __init__(self, indexes: Indexes, name: str) -> None:
        self.indexes, self.name = indexes, name
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
                    self._take(self._load(version))
                self._bury()
                self.fault = None
            except (UnknownIndex, IndexCorrupt, EngineUnavailable, content.ContentChanged, OSError) as error:
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
            f"what built the index {self.name!r} ({facts.encoder.ref})",
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

    def _take(self, loaded: Loaded) -> None:
        self._buried_at = None
        buried = self.indexes.tombstones()
        loaded.dead = frozenset(row for row, name in enumerate(loaded.tombstones) if name in buried)
        before, self.current = self.current, loaded
        if before is not None:
            before.engine.close()

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

    def search(self, question: str, limit: int, min_score: float | None, mode: Any) -> dict[str, Any]:
        """The passages that a question finds; those whose cosine is below `min_score` are left out."""
        self._bury()
        began = time.monotonic()
        loaded, vectors = self.embed([question])
        embedded = time.monotonic()
        if not np.isfinite(vectors).all():
            raise NotReady("the encoder gives no direction for this question")
        hits = search(
            loaded.engine,
            loaded.index,
            question[:MOST_TEXT],
            vectors[0],
            limit,
            mode=mode,
            excluded=sorted(loaded.dead),
        )
        facts = loaded.index.facts
        return {
            "index": self.name,
            "version": facts.version,
            "dataset": facts.dataset,
            "encoder": facts.encoder.content_hash,
            "passages": [
                {
                    **loaded.passages[hit.row],
                    "score": round(hit.score, 6),
                    "cosine": round(hit.cosine, 6),
                    "bm25": None if hit.sparse is None else round(hit.sparse, 4),
                }
                for hit in hits
                if min_score is None or hit.cosine >= min_score
            ],
            "seconds": {"embedding": embedded - began, "search": time.monotonic() - embedded},
        }

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


class _Search(msgspec.Struct, forbid_unknown_fields=True):
    query: str
    top_k: int = 5
    min_score: float | None = None
    mode: str = "hybrid"


class _Embed(msgspec.Struct):
    input: str | list[str]
    model: str = "model"
    prompt: str | None = None


def create_app(retriever: Retriever) -> Starlette:
    """The server: `/health`, `/v1/search` and `/v1/embeddings` (as OpenAI has it)."""

    async def health(_request: Request) -> JSONResponse:
        return JSONResponse(retriever.state(), status_code=200 if retriever.current is not None else 503)

    async def find(request: Request) -> JSONResponse:
        try:
            asked = msgspec.json.decode(await request.body(), type=_Search)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            return _error(400, str(error))
        if not asked.query.strip() or not 1 <= asked.top_k <= MOST_PASSAGES or asked.mode not in _MODES:
            return _error(400, f"query is a text, top_k 1 to {MOST_PASSAGES}, mode one of {', '.join(_MODES)}")
        try:
            found = await run_in_threadpool(retriever.search, asked.query, asked.top_k, asked.min_score, asked.mode)
        except (NotReady, EngineUnavailable, IndexCorrupt) as error:
            return _error(503, str(error))
        return JSONResponse(found)

    async def embeddings(request: Request) -> JSONResponse:
        try:
            asked = msgspec.json.decode(await request.body(), type=_Embed)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            return _error(400, str(error))
        texts = [asked.input] if isinstance(asked.input, str) else asked.input
        if not 1 <= len(texts) <= MOST_TEXTS or not all(text.strip() for text in texts):
            return _error(400, f"input is a text, or 1 to {MOST_TEXTS} of them, none empty")
        try:
            _, vectors = await run_in_threadpool(retriever.embed, texts, asked.prompt)
        except NotReady as error:
            return _error(503, str(error))
        data = [{"object": "embedding", "index": n, "embedding": v.tolist()} for n, v in enumerate(vectors)]
        return JSONResponse({"object": "list", "data": data, "model": asked.model})

    @contextlib.asynccontextmanager
    async def running(_app: Starlette) -> AsyncIterator[None]:
        async def follow() -> None:
            while True:
                await run_in_threadpool(retriever.refresh)
                await asyncio.sleep(LOOK_SECONDS)

        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            following.cancel()

    routes = [
        Route("/health", health),
        Route("/v1/search", find, methods=["POST"]),
        Route("/v1/embeddings", embeddings, methods=["POST"]),
    ]
    return Starlette(routes=routes, lifespan=running)


_MODES = ("hybrid", "dense", "sparse")


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": None}}, status_code=status)


def main(arguments: list[str] | None = None) -> None:
    """Serve one index until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m images.serve.retriever", description=__doc__)
    parser.add_argument("--index", required=True, help="the name of the index")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--drain-seconds", type=int, default=15, help="for requests in flight, after SIGTERM")
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    app = create_app(Retriever(open_indexes(Settings()), a.index))
    uvicorn.run(
        app, host=a.host, port=a.port, access_log=False, server_header=False, timeout_graceful_shutdown=a.drain_seconds
    )


if __name__ == "__main__":
    main()
