"""Carries out a request that is sent again under the same Idempotency-Key once, and answers the others alike."""

import hashlib
import json
import re
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from images.console.callers import Callers
from images.console.problems import Problem, answer_to, problem
from resources.catalog import Catalog, Conflict

LARGEST_BODY = 1024 * 1024
"""Bytes of a JSON body; files go by upload, which has a limit of its own."""
LONGEST_KEY = 200
_CHANGES = ("POST", "PATCH", "PUT", "DELETE")
_PIECE_OF_A_FILE = re.compile(r"/catalog/datasets/[^/]+/files/[^/]+$")
"""Path of a PUT whose body is no JSON, whatever its type: curl and requests send a file without any."""


class OncePerKey:
    """An ASGI application around another: holds JSON bodies to their largest size, and keyed requests to one time."""

    def __init__(self, app: ASGIApp, catalog: Catalog, callers: Callers) -> None:
        self.app, self.catalog, self.callers = app, catalog, callers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] not in _CHANGES:
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        is_piece = scope["method"] == "PUT" and _PIECE_OF_A_FILE.search(scope["path"])
        if is_piece or not headers.get("content-type", "application/json").startswith("application/json"):
            return await self.app(scope, receive, send)
        try:
            body = await _read(receive, headers)
        except Problem as error:
            return await answer_to(error)(scope, receive, send)
        key = headers.get("idempotency-key")
        if key is None:
            return await self.app(scope, _again(body, receive), send)
        if not 0 < len(key) <= LONGEST_KEY:
            wrong = problem(400, f"Idempotency-Key should have 1 to {LONGEST_KEY} characters")
            return await wrong(scope, receive, send)
        try:
            peer = scope["client"][0] if scope.get("client") else None
            actor = self.callers.identify(peer, headers, scope["method"]).name
            given = f"{scope['method']} {scope['path']}?{scope['query_string'].decode('latin-1')}\n".encode()
            digest = hashlib.sha256(given + body).hexdigest()
            known = await run_in_threadpool(self.catalog.answered.begin, actor, key, digest)
        except (Problem, Conflict) as error:
            return await answer_to(error)(scope, receive, send)
        if known is not None:
            again = JSONResponse(known.body, known.status, {"Idempotent-Replayed": "true"})
            return await again(scope, receive, send)
        answer = _Answer(send)
        try:
            await self.app(scope, _again(body, receive), answer)
        finally:
            if (kept := answer.kept()) is not None:
                await run_in_threadpool(self.catalog.answered.finish, actor, key, *kept)
            else:
                await run_in_threadpool(self.catalog.answered.abandon, actor, key)


class _Answer:
    """Passes an answer on, and keeps it."""

    def __init__(self, send: Send) -> None:
        self._send, self._status, self._body, self._is_whole = send, 0, bytearray(), False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
        elif message["type"] == "http.response.body" and len(self._body) <= LARGEST_BODY:
            self._body += message.get("body", b"")
            self._is_whole = not message.get("more_body", False)
        await self._send(message)

    def kept(self) -> tuple[int, Any] | None:
        """Status and body of what was carried out; None of a failure, after which the same may be asked again."""
        if not self._is_whole or not 200 <= self._status < 300 or len(self._body) > LARGEST_BODY:
            return None
        try:
            return self._status, json.loads(self._body) if self._body else None
        except ValueError:
            return None


async def _read(receive: Receive, headers: dict[str, str]) -> bytes:
    length = headers.get("content-length", "0")
    too_large = Problem(413, f"a JSON body may have {LARGEST_BODY:,} bytes; files go to …/upload")
    if length.isdigit() and int(length) > LARGEST_BODY:
        raise too_large
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Problem(400, "the request broke off")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > LARGEST_BODY:
            raise too_large
    return bytes(body)


def _again(body: bytes, receive: Receive) -> Receive:
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
