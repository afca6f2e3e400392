"""A model server that answers a fixed text at once, and users that ask one: both cheap beside what is measured."""

import argparse
import asyncio
import json
import select
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import httptools
import uvloop

ANSWER = "서울 영업소의 통행료는 1,200원입니다. 하이패스로 내시면 할인을 받으실 수 있습니다."
CHUNKS = 100
_EVENT = {"id": "x", "object": "chat.completion.chunk", "created": 1, "model": "model"}
_CHOICE = {"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}


def _data(*choices: dict, **more: object) -> bytes:
    return f"data: {json.dumps({**_EVENT, 'choices': list(choices), **more}, ensure_ascii=False)}\n\n".encode()


def _chunked(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


_USAGE = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
_WHOLE = json.dumps(
    {**_EVENT, "object": "chat.completion", "choices": [_CHOICE], "usage": _USAGE}, ensure_ascii=False
).encode()
_WHOLE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(_WHOLE), _WHOLE)
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PIECE = _chunked(_data({"index": 0, "delta": {"content": "통행료"}, "finish_reason": None}))
_LAST = _chunked(
    _data({"index": 0, "delta": {}, "finish_reason": "stop"}) + _data(usage=_USAGE) + b"data: [DONE]\n\n"
) + _chunked(b"")


class _Model(asyncio.Protocol):
    """One connection of the model server."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        self.loop = asyncio.get_running_loop()
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        self.body = b""

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        if b'"stream":true' not in self.body.replace(b" ", b""):
            self.transport.write(_WHOLE)
            return
        self.transport.write(_HEAD)
        self.loop.call_soon(self._piece, CHUNKS)

    def _piece(self, left: int) -> None:
        # Each in a turn of its own, so that it is sent on its own, as tokens are.
        if self.transport.is_closing():
            return
        if left:
            self.transport.write(_PIECE)
            self.loop.call_soon(self._piece, left - 1)
        else:
            self.transport.write(_LAST)


async def serve_model(port: int) -> None:
    """Answer on a port of loopback until cancelled."""
    server = await asyncio.get_running_loop().create_server(_Model, "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


@dataclass
class Load:
    """What users send, and what came of it: `seconds` of each request that was answered well, `failed` what was not.

    `ended` is how many kept connections the server closed while nothing was asked on them, as it may.
    """

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    is_streamed: bool = False
    seconds: list[float] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    ended: int = 0

    def __post_init__(self) -> None:
        host, _, port = self.url.removeprefix("http://").partition(":")
        self.address = (host, int(port))
        more = "".join(f"{name}: {value}\r\n" for name, value in self.headers.items())
        self._requests = []
        for number in range(500):
            messages = [{"role": "user", "content": "서울에서 통행료가 얼마인가요?"}]
            body = {"model": "desk", "messages": messages, "user": f"user-{number}", "stream": self.is_streamed}
            data = json.dumps(body).encode()
            head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: {host}:{port}\r\ncontent-type: application/json\r\n"
            head += f"{more}content-length: {len(data)}\r\n\r\n"
            self._requests.append(head.encode() + data)

    def request(self, number: int) -> bytes:
        """The bytes of one of them."""
        return self._requests[number % len(self._requests)]


class _User(asyncio.Protocol):
    """One connection, which asks again as soon as it is answered, while there are numbers left."""

    def __init__(self, load: Load, numbers: Iterator[int], done: asyncio.Future[None]) -> None:
        self.load, self.numbers, self.done = load, numbers, done
        self.parser: httptools.HttpResponseParser | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = transport
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._next()

    def _next(self) -> None:
        number = next(self.numbers, None)
        if number is None:
            self._end()
            return
        self.parser, self.tail = httptools.HttpResponseParser(self), b""
        self.begun = time.perf_counter()
        self.transport.write(self.load.request(number))

    def data_received(self, data: bytes) -> None:
        if self.parser is not None:
            self.parser.feed_data(data)

    def on_body(self, data: bytes) -> None:
        self.tail = (self.tail + data)[-2000:]

    def on_message_complete(self) -> None:
        status = self.parser.get_status_code() if self.parser is not None else 0
        is_whole = self.tail.endswith(b"[DONE]\n\n") if self.load.is_streamed else b'"finish_reason"' in self.tail
        if status == 200 and is_whole:
            self.load.seconds.append(time.perf_counter() - self.begun)
        else:
            self.load.failed.append(f"{status}: {self.tail[-200:].decode('utf-8', 'replace')}")
        self._next()

    def _end(self) -> None:
        self.parser = None
        if not self.done.done():
            self.done.set_result(None)
        self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.parser is not None:
            self.load.failed.append(f"connection lost: {exc!r}")
        if not self.done.done():
            self.done.set_result(None)


async def _send(load: Load, requests: int, at_once: int) -> None:
    loop, numbers = asyncio.get_running_loop(), iter(range(requests))
    ends = [loop.create_future() for _ in range(at_once)]
    for end in ends:
        await loop.create_connection(lambda end=end: _User(load, numbers, end), *load.address)
    await asyncio.gather(*ends)


def send(load: Load, requests: int, at_once: int) -> Load:
    """Send `requests` requests, `at_once` of them in flight."""
    uvloop.run(_send(load, requests, at_once))
    return load


async def _send_evenly(load: Load, rate: float, seconds: float) -> None:
    """A request every 1/`rate` seconds whatever becomes of those before, over connections that are kept."""
    loop = asyncio.get_running_loop()
    idle: list[_Paced] = []
    out: set[asyncio.Future[None]] = set()
    begun, number = loop.time(), 0
    while (at := loop.time() - begun) < seconds:
        while number < at * rate:
            number += 1
            if (user := _kept(idle)) is not None:
                user.ask(number)
                continue
            made = asyncio.ensure_future(loop.create_connection(lambda: _Paced(load, idle), *load.address))
            out.add(made)
            made.add_done_callback(lambda done, number=number: (out.discard(done), done.result()[1].ask(number)))
        await asyncio.sleep(0.001)
    deadline = loop.time() + 10
    while len(load.seconds) + len(load.failed) < number and loop.time() < deadline:
        await asyncio.sleep(0.05)
    load.failed += ["not answered"] * (number - len(load.seconds) - len(load.failed))
    while idle:
        idle.pop().transport.close()


def _kept(idle: list["_Paced"]) -> "_Paced | None":
    """The connection that was used last, unless its end has come: clients of HTTP look before they send."""
    while idle:
        user = idle.pop()
        descriptor = user.transport.get_extra_info("socket").fileno()
        if descriptor >= 0 and not select.select([descriptor], [], [], 0)[0]:
            return user
        user.load.ended += 1
        user.transport.close()
    return None


class _Paced(_User):
    """One connection that is used again and again, when it is its turn."""

    def __init__(self, load: Load, idle: list["_Paced"]) -> None:
        super().__init__(load, iter(()), asyncio.get_running_loop().create_future())
        self.idle = idle

    def ask(self, number: int) -> None:
        self.parser, self.tail = httptools.HttpResponseParser(self), b""
        self.begun = time.perf_counter()
        self.transport.write(self.load.request(number))

    def _next(self) -> None:
        if self.parser is not None:
            self.parser = None
            self.idle.append(self)

    def connection_lost(self, exc: Exception | None) -> None:
        # What is asked on it is lost with it; where nothing is, nobody takes it up again.
        super().connection_lost(exc)
        if self in self.idle:
            self.idle.remove(self)
            self.load.ended += 1


def send_evenly(load: Load, rate: float, seconds: float) -> Load:
    """Send `rate` requests a second for so many seconds, none later because one before it is slow."""
    uvloop.run(_send_evenly(load, rate, seconds))
    return load


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve_model(parser.parse_args().port))
