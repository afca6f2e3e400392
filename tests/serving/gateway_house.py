"""A gateway in a thread, over endpoints whose model servers do what tests ask of them; cheap enough for a module."""

import asyncio
import contextlib
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import uvicorn

from images.gateway import server
from images.gateway.app import App, create_app
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from tests.serving.conftest import ADMIN_TOKEN, backend, deployment_spec, free_port, until


@dataclass
class Served:
    """An application on a port of loopback, in a thread with a loop of its own."""

    url: str
    loop: asyncio.AbstractEventLoop
    stop: Callable[[], None]


def serve(app: Any, **changes: Any) -> Served:
    """Serve an ASGI application as the gateway itself is served."""
    port, loop = free_port(), asyncio.new_event_loop()
    configured = server.config(app, "127.0.0.1", port, **changes)
    configured.timeout_graceful_shutdown = 1
    running = uvicorn.Server(configured)
    thread = threading.Thread(target=loop.run_until_complete, args=(running.serve(),), daemon=True)
    thread.start()
    until(lambda: running.started)

    def stop() -> None:
        running.should_exit = True
        thread.join(20)
        loop.close()

    return Served(f"http://127.0.0.1:{port}", loop, stop)


@dataclass
class Request:
    """What a scripted server was asked."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def said(self) -> str:
        """The last message, prompt or input."""
        if "messages" in self.body:
            content = self.body["messages"][-1]["content"]
            return content if isinstance(content, str) else content[0]["text"]
        return self.body.get("prompt") or self.body.get("input") or ""


class Connection:
    """One answer of a scripted server: what it writes is on the wire at once."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer

    async def raw(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def whole(self, body: Any, status: int = 200) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
        await self.raw(head.encode() + data)

    async def begin_events(self) -> None:
        await self.raw(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")

    async def piece(self, data: bytes) -> None:
        await self.raw(b"%x\r\n%s\r\n" % (len(data), data))

    async def event(self, content: str | None = None, finish: str | None = None, **more: Any) -> None:
        await self.piece(event(content, finish, **more))

    async def end(self) -> None:
        await self.raw(b"0\r\n\r\n")


def event(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    """An event of a chat completion."""
    delta = {} if content is None else {"content": content}
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "secret", "choices": [choice]}
    return f"data: {json.dumps(chunk | more)}\n\n".encode()


def completion(text: str, **more: Any) -> dict[str, Any]:
    """A whole chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    return {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "secret",
        "choices": [choice],
        "usage": usage,
    } | more


Script = Callable[[Request, Connection], Awaitable[bool | None]]
"""How a server answers a request; False: the connection ends with it."""


@dataclass
class Scripted:
    """A model server on a bare socket, that answers by a script and knows when its client closes the connection."""

    script: Script
    asked: list[Request] = field(default_factory=list)
    left: int = 0
    connections: int = 0
    is_healthy: bool = True
    url: str = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.strip().split("\r\n")
                headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines)}
                length = int(headers.get("content-length", 0))
                data = await reader.readexactly(length)
                answer = Connection(writer)
                if first.startswith("GET"):
                    await answer.whole({}, 200 if self.is_healthy else 503)
                    continue
                request = Request(first.split()[1], headers, json.loads(data))
                self.asked.append(request)
                working = asyncio.ensure_future(self.script(request, answer))
                gone = asyncio.ensure_future(reader.read(1))
                await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not working.done():
                    self.left += 1
                    working.cancel()
                    break
                gone.cancel()
                if working.result() is False:
                    break
                with contextlib.suppress(asyncio.CancelledError):
                    await gone
        writer.close()


class House:
    """A gateway over a catalog of its own, and scripted model servers behind its endpoints."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.catalog = Catalog(f"sqlite:///{folder / 'catalog.db'}")
        self.catalog.open()
        self.loop = asyncio.new_event_loop()
        self._servers: list[asyncio.AbstractServer] = []
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        settings = Settings(home=folder / "home", gateway_admin_token=ADMIN_TOKEN, _env_file=None)
        self.app: App = create_app(self.catalog, settings=settings, **({"mask": str} | changes))
        self.gateway = serve(self.app)
        self.url = self.gateway.url

    def server(self, script: Script) -> Scripted:
        """Start a scripted model server."""
        scripted = Scripted(script)

        async def start() -> int:
            running = await asyncio.start_server(scripted.serve, "127.0.0.1", 0, limit=2**24)
            self._servers.append(running)
            return running.sockets[0].getsockname()[1]

        scripted.url = f"http://127.0.0.1:{asyncio.run_coroutine_threadsafe(start(), self.loop).result(10)}"
        return scripted

    def endpoint(
        self,
        name: str,
        *groups: list[Scripted],
        engine: str = "vllm",
        of_backend: dict[str, Any] | None = None,
        **runtime: Any,
    ) -> None:
        """An endpoint with a route a group of servers: replicas of one model. The first route has all users.

        `of_backend` is the runtime of its backends' records.
        """
        self.catalog.want_endpoint(deployment_spec(name, engine=engine, runtime=runtime))
        routes = []
        for number, group in enumerate(groups):
            ids = [f"{name}-{number}-{replica}" for replica in range(len(group))]
            for id, scripted in zip(ids, group, strict=True):
                ref = f"{name}{number}@1"
                made = backend(id, endpoint=name, model_ref=ref, url=scripted.url, engine=engine)
                self.catalog.add_backend(replace(made, runtime=of_backend or {}))
            route = {"backend_id": ids[0], "backend_ids": ids, "model_ref": f"{name}{number}@1"}
            routes.append(route | {"weight": 0 if number else 100})
        self.catalog.set_routes(name, routes, "a test")
        known = self.app.gateway.table
        until(lambda: name in known.endpoints and len(known.endpoints[name].routes) == len(groups))

    def settled(self, endpoint: str) -> int:
        """How many exposures the endpoint has, once those of earlier requests are all on record."""
        until(lambda: self.app.gateway.exposures.waiting == 0)
        return self.catalog.request_count(endpoint=endpoint)

    def logged(self, endpoint: str, count: int) -> list[dict[str, Any]]:
        """The endpoint's exposures, oldest first, once there are so many."""
        until(lambda: self.catalog.request_count(endpoint=endpoint) >= count)
        return self.catalog.exposures(endpoint=endpoint).sort("at").rows(named=True)

    def close(self) -> None:
        self.gateway.stop()
        for running in self._servers:
            self.loop.call_soon_threadsafe(running.close)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)


@contextlib.contextmanager
def house(folder: Path, **changes: Any) -> Iterator[House]:
    """A gateway and its servers for the time of the block."""
    made = House(folder, **changes)
    try:
        yield made
    finally:
        made.close()
