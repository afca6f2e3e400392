"""Asks a model server on behalf of a user, and turns to another one when the first does not answer."""

import logging
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp
import msgspec

from images.gateway.errors import ApiError
from images.gateway.routes import Route

log = logging.getLogger("gateway.proxy")

_MODEL = re.compile(rb'"model":\s*"(?:[^"\\]|\\.)*"')
_CONTENT = re.compile(rb'"content":\s*"[^"]')
_DONE = b"data: [DONE]"


class BackendFailed(Exception):
    """A model server did not answer; nothing of an answer has been passed on yet."""


@dataclass(slots=True)
class Whole:
    """A complete answer."""

    status: int
    body: bytes


class Stream:
    """An answer that arrives in server-sent events, of which the first are there already."""

    def __init__(self, response: aiohttp.ClientResponse, first: bytes, name: bytes) -> None:
        self._response = response
        self._first = first
        self._name = name
        self.is_done = False

    async def lines(self) -> AsyncIterator[bytes]:
        """Whole lines as they come, each event under the endpoint's name instead of the model server's.

        Ends with OpenAI's end mark even where the server sends none. Raises BackendFailed when the server breaks off.
        """
        rest = b""
        try:
            chunk = self._first
            while chunk:
                rest += chunk
                cut = rest.rfind(b"\n") + 1
                if cut:
                    whole, rest = rest[:cut], rest[cut:]
                    self.is_done = self.is_done or _DONE in whole
                    yield _MODEL.sub(self._name, whole)
                chunk = await self._response.content.readany()
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            raise BackendFailed(f"the model server broke off: {error!r}") from error
        if rest:
            yield _MODEL.sub(self._name, rest) + b"\n\n"
        if not self.is_done:
            self.is_done = True
            yield _DONE + b"\n\n"

    def close(self) -> None:
        """Drop the connection, which tells the server to generate no further."""
        self._response.close()


class Connections:
    """The connections to all model servers: kept ones, and fresh ones for where a kept one turned out to be closed.

    A model server ends a kept connection when it likes (after an error, after some idle seconds); what is sent on it
    just then is lost, which says nothing about the server.
    """

    def __init__(self, timeout: aiohttp.ClientTimeout) -> None:
        reuse = aiohttp.TraceConfig()
        reuse.on_connection_reuseconn.append(_note_reuse)
        self._kept = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=3), trace_configs=[reuse]
        )
        self._fresh = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0, force_close=True))

    async def __aenter__(self) -> "Connections":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._kept.close()
        await self._fresh.close()

    async def post(
        self, url: str, data: bytes, headers: dict[str, str], on_reconnect: Callable[[], object]
    ) -> aiohttp.ClientResponse:
        """The beginning of the answer to a POST; sent once more, after `on_reconnect`, where a kept connection ended.

        Only while nothing was sent back; a server that ends a fresh connection is not asked again.
        """
        is_kept: list[bool] = []
        try:
            return await self._kept.post(url, data=data, headers=headers, trace_request_ctx=is_kept)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError, ConnectionError):
            if not is_kept:
                raise
        on_reconnect()
        return await self._fresh.post(url, data=data, headers=headers)


async def _note_reuse(_session: aiohttp.ClientSession, context: SimpleNamespace, _parameters: object) -> None:
    context.trace_request_ctx.append(True)


def renamed(name: str) -> bytes:
    """The replacement for the model's name in an answer."""
    # A template of `re.sub`: a backslash in the JSON string is doubled.
    return b'"model":' + msgspec.json.encode(name).replace(b"\\", b"\\\\")


def has_text(chunk: bytes) -> bool:
    """Whether a part of a stream holds the beginning of some text (the first event often names the role only)."""
    return _CONTENT.search(chunk) is not None


async def ask(
    connections: Connections,
    route: Route,
    payload: bytes,
    *,
    request_id: str,
    name: bytes,
    streamed: bool,
    on_reconnect: Callable[[], object],
) -> Whole | Stream:
    """Send a chat request to the backend of `route`.

    A stream is returned once its first bytes are there. Raises BackendFailed when there is no answer, or one with a
    status of 500 or above; ApiError when the model server refuses the request.
    """
    if route.url is None:
        raise BackendFailed(f"backend {route.backend} is not running")
    headers = {"Content-Type": "application/json", "x-request-id": request_id}
    response = None
    try:
        response = await connections.post(f"{route.url}/v1/chat/completions", payload, headers, on_reconnect)
        if response.status >= 500:
            start = (await response.content.read(500)).decode("utf-8", "replace")
            raise BackendFailed(f"backend {route.backend} answered {response.status}: {start}")
        if response.status >= 400:
            raise _refusal(response.status, await response.read())
        if streamed and response.content_type == "text/event-stream":
            first = await response.content.readany()
            if not first:
                raise BackendFailed(f"backend {route.backend} sent an empty stream")
            stream, response = Stream(response, first, name), None
            return stream
        body = _MODEL.sub(name, await response.read(), count=1)
        return Whole(response.status, body)
    except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
        raise BackendFailed(f"backend {route.backend} did not answer: {error!r}") from error
    finally:
        if response is not None:
            response.release()


def _refusal(status: int, body: bytes) -> ApiError:
    """A model server's refusal in OpenAI's shape, whichever shape it had."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        answer = {}
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, dict):
        message, code, param = error.get("message"), error.get("code"), error.get("param")
        return ApiError(status, str(message), code=None if code is None else str(code), param=param)
    detail = answer.get("detail") if isinstance(answer, dict) else None
    message = detail if isinstance(detail, str) else error if isinstance(error, str) else None
    # FastAPI says 422 where OpenAI's API says 400.
    return ApiError(400 if status == 422 else status, message or f"the model server refused the request ({status})")
