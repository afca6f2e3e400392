"""What the gateway writes on a connection: an answer that is whole at once goes out in one piece."""

import asyncio
from typing import Any

import pytest
from uvicorn.server import ServerState

from images.gateway.server import config

WHOLE = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]}
STREAM = {"type": "http.response.start", "status": 200, "headers": []}


class Written(asyncio.Transport):
    """A transport that keeps what is written, a writing a piece."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        self.pieces.append(bytes(data))

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def written(messages: list[Any], requests: bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") -> Written:
    """What is written where an application sends `messages` for each request; an exception among them is raised."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await send(message)

    async def run() -> Written:
        settings, transport = config(app, "127.0.0.1", 0), Written()
        settings.load()
        protocol = settings.http_protocol_class(
            config=settings, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        protocol.connection_made(transport)
        protocol.data_received(requests)
        for _ in range(20):
            await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport

    return asyncio.run(run())


def body(data: bytes, *, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


def test_a_whole_answer_is_one_writing():
    (piece,) = written([WHOLE, body(b"hello")]).pieces
    assert piece.startswith(b"HTTP/1.1 200 OK\r\n")
    assert piece.endswith(b"\r\n\r\nhello")


def test_the_head_of_a_stream_waits_for_nothing():
    head, *rest = written([STREAM, body(b"data: 1\n\n", more=True), body(b"")]).pieces
    assert head.endswith(b"transfer-encoding: chunked\r\n\r\n")
    assert rest == [b"9\r\ndata: 1\n\n\r\n", b"0\r\n\r\n"]
    assert written([STREAM]).pieces == [head]


def test_requests_behind_each_other_are_answered_each_in_one_writing_and_in_their_order():
    pieces = written([WHOLE, body(b"hello")], b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 3).pieces
    assert [piece[-5:] for piece in pieces] == [b"hello"] * 3


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_the_head_is_written_before_the_connection_is_closed(method: bytes):
    found = written([WHOLE, body(b"hello")], method + b" / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    assert b"".join(found.pieces).endswith(b"connection: close\r\n\r\n" + (b"" if method == b"HEAD" else b"hello"))
    assert found.is_closed


def test_an_answer_in_parts_is_written_as_it_comes():
    head, last = written([WHOLE, body(b"he", more=True), body(b"llo")]).pieces
    assert (head[-6:], last) == (b"\r\n\r\nhe", b"llo")


def test_what_fails_behind_its_head_ends_the_connection():
    assert written([WHOLE, RuntimeError("x")]).is_closed
