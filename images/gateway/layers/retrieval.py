"""Gives the model the passages that an endpoint's index holds for a question, and says in the answer which."""

import logging
import re
import time
from collections.abc import Awaitable
from typing import Any

import aiohttp
import msgspec

from images.gateway import passages
from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.layers.guard import PASSAGES
from images.gateway.routes import Retriever
from llmops_assets.specs.deployment import RagServing

log = logging.getLogger("gateway.retrieval")

NOTE = "retrieval"
"""Name of what this layer notes of a call: index, version and the ids of its passages."""
_FOLDERS = re.compile(r"(?<!\S)/(?:[^\s/]+/)+")


class Retrieval(Layer):
    """Changes `call.payload["messages"]`, and puts the ids of the passages into the answer's metadata.

    The question is embedded and the index is searched by the endpoint's retriever, a process of its own. Where that
    does not answer, this endpoint is not there (503, naming the cause), and others go on.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3))

    async def close(self) -> None:
        await self._session.close()

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        retrievers = call.endpoint.retrieval
        retriever = retrievers.get(str(call.route.index)) if retrievers else None
        return proceed(call) if retriever is None else self._answer(call, retriever, proceed)

    async def _answer(self, call: Call, retriever: Retriever, proceed: Proceed) -> Answer:
        rag = retriever.rag
        if call.operation.kind != "chat":
            # What is asked by another way would be answered without the documents, and never refused.
            message = f"endpoint {call.endpoint.name!r} answers questions from documents: ask /v1/chat/completions"
            raise ApiError(400, message, code="chat_only", param="model")
        if not call.query.strip():
            raise ApiError(400, "the last message of the user holds no text to look for", param="messages")
        begun = time.monotonic()
        found = await self._find(call, retriever)
        call.timings[NOTE] = time.monotonic() - begun
        hits = found["passages"]
        if (judge := call.notes.get(PASSAGES)) is not None:
            hits = await judge(call, hits)
        ids = [hit["id"] for hit in hits]
        call.notes[NOTE] = {"index": found["index"], "version": found["version"], "passages": ids}
        call.headers["x-llmops-index"] = f"{found['index']}@{found['version']}"
        more: dict[str, Any] = {"citations": passages.citations(hits), NOTE: {**call.notes[NOTE], "refused": False}}
        is_refused = more[NOTE]["refused"] = not hits and rag.refuse_when_nothing
        if call.exposure is not None:
            call.exposure.retrieved = msgspec.json.encode(more[NOTE]).decode()
        if is_refused:
            return self._refused(call, rag, more)
        call.payload["messages"] = passages.with_passages(call.payload["messages"], rag.template, hits)
        answer = await proceed(call)
        if answer.events is not None:
            answer.events = passages.cited_events(answer.events, more)
        elif answer.status == 200:
            answer.body, answer.content = passages.cited(answer.body, more), None
        return answer

    async def _find(self, call: Call, retriever: Retriever) -> dict[str, Any]:
        """What the retriever finds; ApiError 503 with the reason where it finds nothing out."""
        rag = retriever.rag
        if retriever.url is None:
            raise self._away(call, rag, "its retriever is not running")
        asked = {"query": call.query, "top_k": rag.top_k, "min_score": rag.min_score, "mode": rag.mode}
        asked |= {"max_tokens": rag.max_passage_tokens, "rerank": rag.candidates if rag.reranker else None}
        timeout = aiohttp.ClientTimeout(total=rag.timeout_seconds)
        for attempt in (1, 2):
            try:
                headers = {"Content-Type": "application/json", "x-request-id": call.request_id}
                async with self._session.post(
                    f"{retriever.url}/v1/search", data=msgspec.json.encode(asked), headers=headers, timeout=timeout
                ) as response:
                    status, body = response.status, await response.read()
                break
            except TimeoutError as error:
                raise self._away(call, rag, f"no answer within {rag.timeout_seconds:g} s") from error
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError) as error:
                # A kept connection that the retriever closed meanwhile; to search twice does no harm.
                if attempt == 2:
                    raise self._away(call, rag, f"its retriever does not answer ({type(error).__name__})") from error
            except aiohttp.ClientError as error:
                raise self._away(call, rag, f"its retriever answers no HTTP ({type(error).__name__})") from error
        return self._read(call, rag, status, body)

    def _read(self, call: Call, rag: RagServing, status: int, body: bytes) -> dict[str, Any]:
        try:
            found = msgspec.json.decode(body)
        except (msgspec.DecodeError, RecursionError) as error:
            raise self._away(call, rag, f"its retriever answered {status} and no JSON") from error
        if status != 200:
            fault = found.get("error") if isinstance(found, dict) else None
            reason = fault.get("message") if isinstance(fault, dict) else None
            raise self._away(call, rag, str(reason or f"its retriever answered {status}"))
        hits = found.get("passages") if isinstance(found, dict) else None
        whole = isinstance(hits, list) and all(
            isinstance(hit, dict) and isinstance(hit.get("id"), str) and isinstance(hit.get("text"), str)
            for hit in hits
        )
        if not whole or not isinstance(found.get("version"), str):
            raise self._away(call, rag, "its retriever answered no passages")
        if found.get("index") != rag.index:
            # The endpoint was given another index, and its new retriever is on the way.
            raise self._away(call, rag, f"its retriever still searches {found.get('index')!r}")
        return found

    def _away(self, call: Call, rag: RagServing, reason: str) -> ApiError:
        name = call.endpoint.name
        log.warning("%s: index %s cannot be searched: %s", name, rag.index, reason)
        if call.exposure is not None:
            call.exposure.error = f"index {rag.index}: {reason}"
        # Where the files lie is for the log, and none of a client's business.
        shown = _FOLDERS.sub("", reason)
        message = f"endpoint {name!r} cannot search its index {rag.index!r}: {shown}"
        return ApiError(503, message, code="index_unavailable")

    def _refused(self, call: Call, rag: RagServing, more: dict[str, Any]) -> Answer:
        text = passages.refusal(call.query, rag.refusal)
        given = (call.request_id, int(time.time()), call.endpoint.name, text, more)
        call.headers["x-llmops-refused"] = "nothing-found"
        if not call.is_streamed:
            return Answer(200, passages.refused(*given))
        wants_usage = bool((call.body.get("stream_options") or {}).get("include_usage"))
        events = passages.refused_events(*given, wants_usage)
        headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
        return Answer(events=events, content_type="text/event-stream; charset=utf-8", headers=headers)


def _is_passage(hit: Any) -> bool:
    return isinstance(hit, dict) and isinstance(hit.get("id"), str) and isinstance(hit.get("text"), str)
