"""A connection that is kept ends between requests, never under one; and who is refused can read why."""

import asyncio
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import uvicorn
import uvloop

from benchmarks.http_load import Load, send_evenly
from images.gateway import server
from tests.serving.conftest import free_port, until

ASKED = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
KEPT_SECONDS = 0.3


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


class Held:
    """A server as the gateway's are, on the loop that they run on, which can be held up."""

    def __init__(self) -> None:
        self.port, self.loop = free_port(), uvloop.new_event_loop()
        configured = server.config(app, "127.0.0.1", self.port, keep_alive_seconds=KEPT_SECONDS, lifespan="off")
        self.server = uvicorn.Server(configured)
        self.thread = threading.Thread(target=self.loop.run_until_complete, args=(self.server.serve(),), daemon=True)
        self.thread.start()
        until(lambda: self.server.started)

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=20)

    def while_held_up(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something while the server is busy reading from somebody else, for at least so long: it looks at what is
        due before it reads again."""
        entered, done = threading.Event(), threading.Event()

        class Busy(asyncio.Protocol):
            def data_received(self, data: bytes) -> None:
                begun = time.monotonic()
                entered.set()
                done.wait(20)
                threading.Event().wait(max(0.0, begun + seconds - time.monotonic()))

        async def listen() -> asyncio.Server:
            return await self.loop.create_server(Busy, "127.0.0.1", 0)

        listening = asyncio.run_coroutine_threadsafe(listen(), self.loop).result(20)
        with socket.create_connection(listening.sockets[0].getsockname()) as other:
            other.sendall(b"x")
            assert entered.wait(20)
            act()
            done.set()
        self.loop.call_soon_threadsafe(listening.close)

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(20)
        self.loop.close()


@pytest.fixture
def held() -> Iterator[Held]:
    made = Held()
    yield made
    made.stop()


def read(client: socket.socket) -> bytes:
    """One answer with its body; what there was of it where the connection ended."""
    data = b""
    while not data.endswith(b"\r\n\r\nok") and (part := client.recv(65536)):
        data += part
    return data


def test_a_request_that_has_come_when_the_time_of_its_connection_is_up_is_answered(held: Held):
    with held.connect() as client:
        client.sendall(ASKED)
        assert b"keep-alive: timeout=0" in read(client).lower()
        held.while_held_up(KEPT_SECONDS + 0.1, lambda: client.sendall(ASKED))
        assert read(client).endswith(b"ok")
        # With nothing asked, it ends.
        assert client.recv(1) == b""


def test_a_request_that_has_come_when_the_gateway_is_told_to_end_is_answered(held: Held):
    with held.connect() as kept, held.connect() as fresh, held.connect() as half, held.connect() as idle:
        kept.sendall(ASKED)
        read(kept)
        half.sendall(ASKED[:10])
        until(lambda: any(one._header_bytes == 10 for one in held.server.server_state.connections))

        def ask() -> None:
            held.server.should_exit = True
            kept.sendall(ASKED)
            fresh.sendall(ASKED)

        held.while_held_up(0.2, ask)
        assert idle.recv(1) == b""
        half.sendall(ASKED[10:])
        for client in (kept, fresh, half):
            answer = read(client).lower()
            assert answer.endswith(b"ok") and b"connection: close" in answer
            assert client.recv(1) == b""
    held.thread.join(20)
    assert not held.thread.is_alive()


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nx: " + b"y" * 8_000_000, b"no http\r\n\r\n" + b"y" * 8_000_000])
def test_who_is_refused_while_still_sending_reads_why(held: Held, sent: bytes):
    with held.connect() as client:
        client.sendall(sent)
        data = b""
        while part := client.recv(65536):
            data += part
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.split()[1] in (b"400", b"431")
    assert json.loads(body)["error"]["type"] == "invalid_request_error"


class Ending:
    """A server that ends each connection: behind its answer, or instead of one."""

    def __init__(self, answer: bytes) -> None:
        self.answer, self.listener = answer, socket.create_server(("127.0.0.1", 0), backlog=100)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                client = self.listener.accept()[0]
            except OSError:
                return
            with client:
                client.recv(65536)
                # The answer and the end of the connection in one packet: nothing can be asked between them.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_CORK, 1)
                client.sendall(self.answer)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join(20)


def test_the_load_tells_a_connection_that_ended_between_requests_from_one_that_ended_under_one():
    body = b'{"choices": [{"finish_reason": "stop"}]}'
    well = Ending(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
    badly = Ending(b"")
    try:
        load = send_evenly(Load(well.url), 200, 0.3)
        assert len(load.seconds) >= 30 and not load.failed
        lost = send_evenly(Load(badly.url), 200, 0.1)
        assert lost.failed and not lost.seconds
    finally:
        well.close()
        badly.close()
