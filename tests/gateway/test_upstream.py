"""The gateway's own client of model servers: whatever a server does on the wire, no answer is mixed up or invented."""

import asyncio
import contextlib
import datetime
import gzip
import socket
import ssl
import struct
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from images.gateway.upstream import pool as pools
from images.gateway.upstream.address import address_of
from images.gateway.upstream.faults import Disconnected, NotHttp, Unreachable, UpstreamFailed
from images.gateway.upstream.pool import Pool
from images.gateway.upstream.response import HIGH_WATER_BYTES, Response

MOST = 1 << 26


def whole(body: bytes, *more: str) -> bytes:
    lines = "".join(f"{line}\r\n" for line in more)
    return f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n{lines}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Server:
    """A server on a bare socket: `script` writes what it likes for each request that is read, with its number."""

    def __init__(self, script: Callable[["Server", int, asyncio.StreamWriter], Awaitable[bool | None]]) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.ended = 0
        self.url = ""

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(next((x.split(b":")[1] for x in head.split(b"\r\n") if x.startswith(b"Content-Le")), 0))
                self.requests.append(head + await reader.readexactly(length))
                if await self.script(self, len(self.requests), writer) is False:
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.ended += 1
        finally:
            writer.close()


@contextlib.asynccontextmanager
async def served(script: Any, **more: Any) -> AsyncIterator[Server]:
    server = Server(script)
    running = await asyncio.start_server(server, "127.0.0.1", 0, **more)
    server.url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        running.close()


def says(*pieces: bytes, ends: bool = False) -> Any:
    """A script that writes the same pieces for every request."""

    async def script(_server: Server, _number: int, writer: asyncio.StreamWriter) -> bool | None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        return False if ends else None

    return script


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.005)


async def asked(pool: Pool, server: Server | str, body: bytes = b"{}", again: list[int] | None = None) -> bytes:
    url = server if isinstance(server, str) else server.url
    response = await pool.post(url, "/x", body, {"x-a": "b"}, lambda: None if again is None else again.append(1))
    try:
        return await response.read_all(MOST)
    finally:
        response.release()


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Any], Any]:
    """Runs a coroutine in the loop of tests and in that of the gateway."""
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def on(coroutine: Any) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(coroutine)

    return on


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n"
PACKED = gzip.compress(b"abcde")
DEFLATED = zlib.compress(b"abcde")
GOOD = {
    "whole": (whole(b"abcde"),),
    "byte by byte": tuple(bytes([byte]) for byte in whole(b"abcde")),
    "chunked": (CHUNKED,),
    "chunked byte by byte": tuple(bytes([byte]) for byte in CHUNKED),
    "after a 100": (b"HTTP/1.1 100 Continue\r\nX: y\r\n\r\n" + whole(b"abcde"),),
    "after a 103": (b"HTTP/1.1 103 Early Hints\r\nContent-Type: x/y\r\n\r\n", whole(b"abcde")),
    "packed": (whole(PACKED, "Content-Encoding: gzip"),),
    "deflated": tuple(bytes([byte]) for byte in whole(DEFLATED, "Content-Encoding: deflate")),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nabcde",),
    "odd case": (b"HTTP/1.1 200 OK\r\ncoNTent-LENgth:5\r\n\r\nabcde",),
}


@pytest.mark.parametrize("how", GOOD)
def test_answers_come_whole_and_their_connection_is_used_again(run: Any, how: str):
    async def ask() -> None:
        async with served(says(*GOOD[how])) as server, Pool(read_seconds=10) as pool:
            assert [await asked(pool, server) for _ in range(3)] == [b"abcde"] * 3
            assert server.connections == 1
            assert server.requests[0].startswith(b"POST /x HTTP/1.1\r\nHost: 127.0.0.1:")
            assert b"\r\nx-a: b\r\nContent-Length: 2\r\n\r\n{}" in server.requests[2]

    run(ask())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\nabcde",
        b"HTTP/1.0 200 OK\r\n\r\nabcde",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nabcde",
    ],
)
def test_an_answer_that_ends_with_its_connection_is_whole_and_the_next_one_gets_another(run: Any, answer: bytes):
    async def ask() -> None:
        async with served(says(answer, ends=True)) as server, Pool(read_seconds=10) as pool:
            again: list[int] = []
            assert [await asked(pool, server, again=again) for _ in range(2)] == [b"abcde"] * 2
            assert server.connections == 2 and not again

    run(ask())


BAD = {
    "no http": b"SSH-2.0-OpenSSH_9.2\r\n",
    "html": b"<html>",
    "upgrade": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
    "cut whole": b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
    "cut chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nabc",
    "cut between chunks": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    "cut head": b"HTTP/1.1 200 OK\r\nContent-",
    "nothing": b"",
    "endless head": b"HTTP/1.1 200 OK\r\n" + b"X-Y: zzzzzzzzzzzz\r\n" * 10_000,
    "endless line": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 200_000,
    "endless trailers": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n" + b"X-Y: zzzzzzzzzz\r\n" * 10_000,
    "other transfer": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "other packing": whole(b"abcde", "Content-Encoding: br"),
    "not packed": whole(b"abcde", "Content-Encoding: gzip"),
    "bomb": whole(gzip.compress(b"\0" * (65 << 20)), "Content-Encoding: gzip"),
}


@pytest.mark.parametrize("how", BAD)
def test_what_is_no_whole_answer_fails_and_its_connection_ends(run: Any, how: str):
    async def ask() -> None:
        async with served(says(BAD[how], ends=True)) as server, Pool(read_seconds=10) as pool:
            with pytest.raises(UpstreamFailed):
                await asked(pool, server)
            # Sent once: it was a fresh connection, or something of an answer had come.
            assert len(server.requests) == server.connections == 1
            server.script = says(whole(b"good"))
            assert await asked(pool, server) == b"good"

    run(ask())


@pytest.mark.parametrize("reset", [False, True])
def test_a_request_that_found_its_kept_connection_closed_is_sent_once_more(run: Any, reset: bool):
    async def script(_server: Server, number: int, writer: asyncio.StreamWriter) -> bool | None:
        if number in (2, 5, 6):
            if reset:
                linger = struct.pack("ii", 1, 0)
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            return False
        writer.write(whole(b"%d" % number))
        return None

    async def ask() -> None:
        again: list[int] = []
        async with served(script) as server, Pool(read_seconds=10) as pool:
            assert await asked(pool, server, again=again) == b"1" and not again
            assert await asked(pool, server, again=again) == b"3" and len(again) == 1
            assert await asked(pool, server, again=again) == b"4" and len(again) == 1
            # The fresh connection ends too: that is the server's answer.
            with pytest.raises(Disconnected):
                await asked(pool, server, again=again)
            assert len(server.requests) == 6

    run(ask())


def test_nothing_is_sent_again_once_a_part_of_the_answer_came(run: Any):
    async def script(_server: Server, number: int, writer: asyncio.StreamWriter) -> bool | None:
        writer.write(whole(b"good") if number == 1 else b"HTTP/1.1 2")
        return None if number == 1 else False

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=10) as pool:
            assert await asked(pool, server) == b"good"
            with pytest.raises(Disconnected):
                await asked(pool, server)
            assert len(server.requests) == 2

    run(ask())


def test_what_stands_behind_an_answer_is_never_the_next_one(run: Any):
    async def script(_server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"%d" % number) + (whole(b"somebody else's") if number < 3 else b""))

    async def late(_server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(whole(b"%d" % number))
        await writer.drain()
        await asyncio.sleep(0.02)
        writer.write(whole(b"somebody else's"))

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=10) as pool:
            assert [await asked(pool, server) for _ in range(4)] == [b"1", b"2", b"3", b"4"]
            assert server.connections == 3
            server.script = late
            first = await asked(pool, server)
            # It comes while nobody has asked for anything.
            await until(lambda: not any(one.is_open for kept in pool._idle.values() for one in kept))
            assert [first, await asked(pool, server)] == [b"5", b"6"]

    run(ask())


def test_who_waits_in_vain_hears_so_and_the_server_is_told(run: Any):
    async def script(_server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        writer.write([b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc"][number - 1])

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=0.2) as pool:
            for ended in (1, 2):
                with pytest.raises(TimeoutError):
                    await asked(pool, server)
                await until(lambda ended=ended: server.ended == ended)
            assert len(server.requests) == 2

    run(ask())


def test_a_server_that_goes_on_sending_is_not_timed_out(run: Any):
    async def script(_server: Server, _number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):
            await asyncio.sleep(0.05)
            writer.write(b"x")

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=0.3) as pool:
            assert await asked(pool, server) == b"x" * 10

    run(ask())


@pytest.mark.parametrize("at", ["before the head", "in the body"])
def test_who_leaves_ends_the_connection_at_once(run: Any, at: str):
    async def script(_server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        if number > 1:
            writer.write(whole(b"good"))
        elif at == "in the body":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc")

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=30) as pool:
            asking = asyncio.ensure_future(asked(pool, server))
            await until(lambda: len(server.requests) == 1)
            await asyncio.sleep(0.02)
            asking.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asking
            await until(lambda: server.ended == 1)
            assert await asked(pool, server) == b"good"
            assert server.connections == 2

    run(ask())


def test_a_server_that_does_not_read_is_left_all_the_same(run: Any):
    async def deaf(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.pause_reading()
        await asyncio.sleep(30)

    async def ask() -> None:
        running = await asyncio.start_server(deaf, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        async with Pool(read_seconds=0.3) as pool:
            with pytest.raises(TimeoutError):
                await asked(pool, url, b"x" * (32 << 20))
        running.close()

    run(ask())


def test_an_answer_before_the_request_was_read_counts_and_its_connection_does_not(run: Any):
    async def hasty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")
        with contextlib.suppress(ConnectionError):
            await writer.drain()
            while await reader.read(1 << 16):
                await asyncio.sleep(0.001)
        writer.close()

    async def ask() -> None:
        running = await asyncio.start_server(hasty, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{running.sockets[0].getsockname()[1]}"
        async with Pool(read_seconds=10) as pool:
            response = await pool.post(url, "/x", b"x" * (32 << 20), {}, lambda: None)
            assert (response.status, await response.read_all(MOST)) == (413, b"big")
            response.release()
            assert not any(pool._idle.values())
        running.close()

    run(ask())


def test_a_reader_that_is_slow_leaves_the_rest_to_the_server(run: Any):
    size, sent = 64 << 20, 0

    async def script(_server: Server, _number: int, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(64):
            writer.write(b"x" * (1 << 20))
            await writer.drain()
            sent += 1 << 20

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=0.5) as pool:
            response = await pool.post(server.url, "/x", b"", {}, lambda: None)
            before = -1
            while sent != before:
                before = sent
                await asyncio.sleep(0.3)
            assert response._held < HIGH_WATER_BYTES + (1 << 20) and sent < size
            # For longer than the server may be silent: it is not, it is held up.
            await asyncio.sleep(0.6)
            assert len(await response.read_all(2 * size)) == size
            response.release()
            assert server.connections == 1 and await asked(pool, server) is not None

    run(ask())


def test_a_stream_that_was_read_to_its_last_event_gives_its_connection_back(run: Any):
    async def script(_server: Server, number: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nend\r\n")
        await writer.drain()
        await asyncio.sleep(0.02)
        if number < 3:
            writer.write(b"0\r\n\r\n")
            return
        while True:
            writer.write(b"4000\r\n%b\r\n" % (b"x" * 0x4000))
            await writer.drain()
            await asyncio.sleep(0)

    async def stream(pool: Pool, server: Server) -> Response:
        response = await pool.post(server.url, "/x", b"", {}, lambda: None)
        assert (await response.read_some())[:3] == b"end"
        response.finish()
        return response

    async def ask() -> None:
        async with served(script) as server, Pool(read_seconds=10) as pool:
            for _ in range(2):
                await stream(pool, server)
                await until(lambda: any(pool._idle.values()))
            assert server.connections == 1
            # One that says the end and goes on for ever is not listened to for long.
            await stream(pool, server)
            await until(lambda: server.ended == 1)

    run(ask())


def test_connections_that_nobody_uses_are_closed(run: Any, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pools, "IDLE_SECONDS", 0.1)

    async def ask() -> None:
        async with served(says(whole(b"x"))) as server, Pool(read_seconds=10) as pool:
            await asyncio.gather(*(asked(pool, server) for _ in range(20)))
            assert server.connections == 20
            await until(lambda: server.ended == 20)
            assert not pool._idle
            assert await asked(pool, server) == b"x"

    run(ask())


def test_a_server_that_is_not_there_cannot_be_reached(run: Any):
    async def ask() -> None:
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            port = closed.getsockname()[1]
        async with Pool(read_seconds=10) as pool:
            for url in (f"http://127.0.0.1:{port}", f"http://localhost:{port}", "http://no-such-host.invalid:1"):
                with pytest.raises(Unreachable):
                    await asked(pool, url)
                assert not await pool.is_healthy(url)
            # A name with two addresses, of which one answers.
            async with served(says(whole(b"x"))) as server:
                assert await asked(pool, server.url.replace("127.0.0.1", "localhost")) == b"x"
                assert await pool.is_healthy(server.url)
                server.script = says(b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n")
                assert not await pool.is_healthy(server.url)

    run(ask())


def test_a_key_with_the_end_of_a_line_in_it_is_not_sent(run: Any):
    async def ask() -> None:
        async with served(says(whole(b"x"))) as server, Pool(read_seconds=10) as pool:
            for value in ("a\r\nx: y", "a\nb", "a\rb"):
                with pytest.raises(ValueError, match="end of a line"):
                    await pool.post(server.url, "/x", b"", {"Authorization": value}, lambda: None)
            assert server.connections == 0

    run(ask())


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://10.0.0.1:8000", ("10.0.0.1", 8000, False, "", "10.0.0.1:8000")),
        ("https://api.example.com/", ("api.example.com", 443, True, "", "api.example.com")),
        ("http://vllm.internal/a b/llm", ("vllm.internal", 80, False, "/a%20b/llm", "vllm.internal")),
        ("http://[::1]:80", ("::1", 80, False, "", "[::1]")),
        ("http://모델.kr:81", ("xn--bo1b89k.kr", 81, False, "", "xn--bo1b89k.kr:81")),
    ],
)
def test_addresses_are_taken_apart(url: str, expected: tuple):
    found = address_of(url)
    assert (found.host, found.port, found.is_tls, found.prefix, found.authority) == expected


@pytest.mark.parametrize("url", ["ftp://x", "http://", "x", "http://x:99999", "http://x:y"])
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(ValueError, match=r".+"):
        address_of(url)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    built = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    built = (
        built.serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
    )
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    signed = built.add_extension(names, critical=False).sign(key, hashes.SHA256())
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    path.write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + signed.public_bytes(pem))
    return path


def test_a_certificate_is_checked(run: Any, certificate: Path, monkeypatch: pytest.MonkeyPatch):
    async def ask() -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        async with served(says(whole(b"secret")), ssl=context) as server, Pool(read_seconds=10) as pool:
            url = server.url.replace("http:", "https:")
            with pytest.raises(Unreachable, match=r"(?i)certificate"):
                await asked(pool, url)
            trusting = ssl.create_default_context(cafile=certificate)
            monkeypatch.setattr(pools, "tls", lambda: trusting)
            assert [await asked(pool, url) for _ in range(2)] == [b"secret"] * 2
            # Plain where TLS is spoken, and the other way round.
            with pytest.raises(UpstreamFailed):
                await asked(pool, server)
        async with served(says(whole(b"x"))) as server, Pool(read_seconds=10) as pool:
            with pytest.raises((Unreachable, NotHttp)):
                await asked(pool, server.url.replace("http:", "https:"))

    run(ask())
