"""What the gateway writes on a connection: an answer that is whole at once goes out in one piece."""

import asyncio
from collections.abc import Sequence
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

    def can_write_eof(self) -> bool:
        return False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


def written(messages: list[Any], requests: bytes = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n") -> Written:
    """What is written where an application sends `messages` for each request; an exception among them is raised."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            if isinstance(message, Exception):
                raise message
            await send(message)

    return transport_of(app, [requests])


def transport_of(app: Any, pieces: Sequence[bytes]) -> Written:
    """The transport of a connection on which these pieces arrived for an application."""

    async def run() -> Written:
        settings, transport = config(app, "127.0.0.1", 0), Written()
        settings.load()
        protocol = settings.http_protocol_class(
            config=settings, server_state=ServerState(), app_state={}, _loop=asyncio.get_running_loop()
        )
        protocol.connection_made(transport)
        for piece in pieces:
            protocol.data_received(piece)
            for _ in range(20):
                await asyncio.sleep(0)
        protocol.connection_lost(None)
        return transport

    return asyncio.run(run())


def answered(*pieces: bytes) -> bytes:
    """What is answered where these pieces arrive after each other, by an application that says what it was asked."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        found, more = scope["path"].encode() + b":", True
        while more:
            message = await receive()
            found, more = found + message.get("body", b""), message.get("more_body", False)
        names = {name for name, _ in scope["headers"]}
        assert not names & {b"upgrade", b"http2-settings"} or scope["method"] == "CONNECT"
        await send({**WHOLE, "headers": [(b"content-length", b"%d" % len(found))]})
        await send(body(found))

    return b"".join(transport_of(app, pieces).pieces)


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


def test_who_speaks_an_http_without_chunks_gets_a_stream_as_it_is_until_the_connection_ends():
    found = written([STREAM, body(b"data: 1\n\n", more=True), body(b"")], b"GET / HTTP/1.0\r\n\r\n")
    head, *rest = found.pieces
    assert b"transfer-encoding" not in head and head.endswith(b"connection: close\r\n\r\n")
    assert (rest, found.is_closed) == ([b"data: 1\n\n"], True)


@pytest.mark.parametrize(
    "header", [(b"x-a", b"1\r\nset-cookie: a=b"), (b"x-a", b"1\x00"), (b"x-a:", b"1"), (b"x a", b"1")]
)
def test_no_header_of_an_answer_makes_another_one(header: tuple[bytes, bytes]):
    found = written([{**STREAM, "headers": [header]}, body(b"")]).pieces
    assert b"set-cookie" not in b"".join(found) and b"\x00" not in b"".join(found)


@pytest.mark.parametrize("parts", [[b"hell"], [b"hello!"], [b"hel", b"lo!"]])
def test_a_body_of_another_length_than_its_head_says_ends_the_connection(parts: list[bytes]):
    assert written([WHOLE, *(body(part, more=part is not parts[-1]) for part in parts)]).is_closed


def test_what_fails_behind_its_head_ends_the_connection():
    assert written([WHOLE, RuntimeError("x")]).is_closed


OFFER = (
    b"POST /a HTTP/1.1\r\nhost: x\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
)


def test_who_offers_http_2_is_read_and_answered_in_the_protocol_that_there_is():
    # Java's clients offer it with every first request; httptools leaves the body out then (uvicorn's issue 2722).
    assert answered(OFFER + b"content-length: 5\r\n\r\nhello").endswith(b"\r\n\r\n/a:hello")
    assert answered(OFFER + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").endswith(b"/a:abc")
    again = b"POST /b HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi"
    found = answered(OFFER[:30], OFFER[30:] + b"content-length: 5\r\n\r\nhe", b"llo" + again)
    assert found.count(b"HTTP/1.1 200 OK") == 2
    assert found.index(b"/a:hello") < found.index(b"/b:hi")


def test_who_offers_a_websocket_goes_on_on_the_same_connection():
    offer = b"GET /w HTTP/1.1\r\nhost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    found = answered(offer, b"GET /2 HTTP/1.1\r\nhost: x\r\n\r\n")
    assert found.index(b"/w:") < found.index(b"/2:")
    closing = answered(offer.replace(b"Upgrade\r\nUp", b"close, Upgrade\r\nUp"))
    assert b"connection: close" in closing


def test_a_tunnel_is_none_here_and_ends_nothing():
    assert answered(b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n").startswith(b"HTTP/1.1 ")
    assert answered(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").startswith(b"HTTP/1.1 400")
