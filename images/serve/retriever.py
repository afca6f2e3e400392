"""Finds passages for a gateway over HTTP: the encoder and the index of one name, in a process of their own."""

import argparse
import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import msgspec
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from images.serve.passage_search import NotReady, Retriever, Search, load_reranker, load_tokenizer
from llmops_assets.specs.settings import Settings
from resources.retrieval.engine import EngineUnavailable
from resources.retrieval.indexes import IndexCorrupt, open_indexes

LOOK_SECONDS = 0.5
"""How often it is looked whether the name stands for another version."""
MOST_TEXTS = 64


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
            asked = msgspec.json.decode(await request.body(), type=Search)
        except (msgspec.DecodeError, msgspec.ValidationError, UnicodeDecodeError) as error:
            return _error(400, str(error))
        if (fault := asked.fault()) is not None:
            return _error(400, fault)
        try:
            found = await run_in_threadpool(retriever.search, asked)
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
                await asyncio.sleep(LOOK_SECONDS)
                await run_in_threadpool(retriever.refresh)

        # Nobody is answered before: whoever watches takes "not yet" for "never".
        await run_in_threadpool(retriever.refresh)
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


def _error(status: int, message: str) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "code": None}}, status_code=status)


def main(arguments: list[str] | None = None) -> None:
    """Serve one index until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m images.serve.retriever", description=__doc__)
    parser.add_argument("--engine", choices=["retriever"], default="retriever")
    parser.add_argument("--model", help="as other engines have it; what is loaded is what the index names")
    parser.add_argument("--index", required=True, help="the name of the index")
    parser.add_argument("--reranker", help="folder of a cross-encoder that orders anew what was found")
    parser.add_argument("--tokenizer", help="folder of the model that reads the passages, to count its tokens")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--drain-seconds", type=int, default=15, help="for requests in flight, after SIGTERM")
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    reranker = load_reranker(a.reranker) if a.reranker else None
    tokenizer = load_tokenizer(a.tokenizer) if a.tokenizer else None
    app = create_app(Retriever(open_indexes(Settings()), a.index, reranker, tokenizer))
    uvicorn.run(
        app, host=a.host, port=a.port, access_log=False, server_header=False, timeout_graceful_shutdown=a.drain_seconds
    )


if __name__ == "__main__":
    main()
