"""The connections to all model servers: kept ones, and fresh ones where a kept one turned out to be closed."""

import asyncio
from collections.abc import Callable, Mapping
from socket import SOCK_STREAM
from types import TracebackType
from typing import Self

import aiohappyeyeballs

from images.gateway.upstream.address import Address, address_of, tls
from images.gateway.upstream.connection import Connection
from images.gateway.upstream.faults import Disconnected, Unreachable
from images.gateway.upstream.response import Response

CONNECT_SECONDS = 3.0
IDLE_SECONDS = 3.0
"""Servers end a connection that is not used after five seconds and more: what is sent just then is lost."""
_HEALTH_SECONDS = 3.0
_NEXT_ADDRESS_SECONDS = 0.25


class Pool:
    """A model server ends a kept connection when it likes (after an error, after some idle seconds); what is sent on it
    just then is lost, which says nothing about the server: that request is sent once more, on a fresh one.
    """

    def __init__(self, *, read_seconds: float, connect_seconds: float = CONNECT_SECONDS) -> None:
        self._read_seconds = read_seconds
        self._connect_seconds = connect_seconds
        self._idle: dict[tuple[str, int, bool], list[Connection]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._is_closed = False

    async def __aenter__(self) -> Self:
        # Asked for at each use it costs a call of the system.
        self._loop = asyncio.get_running_loop()
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    async def post(
        self, url: str, path: str, data: bytes, headers: Mapping[str, str], on_reconnect: Callable[[], object]
    ) -> Response:
        """The beginning of the answer to a POST; sent once more, after `on_reconnect`, where a kept connection ended.

        Only while nothing was sent back; a server that ends a fresh connection is not asked again. Raises
        UpstreamFailed, and TimeoutError where the server was waited for in vain.
        """
        address = address_of(url)
        request = address.head("POST", path) + _headers(headers) + b"Content-Length: %d\r\n\r\n" % len(data) + data
        if (kept := self._kept(address)) is not None:
            response = kept.ask(request)
            try:
                return await _begun(response)
            except Disconnected:
                if not response.is_untouched:
                    raise
            on_reconnect()
        return await _begun((await self._connect(address)).ask(request))

    async def is_healthy(self, url: str) -> bool:
        """Whether the server at `url` answers its health page (or says that it has none)."""
        response: Response | None = None
        try:
            async with asyncio.timeout(_HEALTH_SECONDS):
                address = address_of(url)
                request = address.head("GET", "/health") + b"Connection: close\r\n\r\n"
                response = await _begun((await self._connect(address)).ask(request))
                return response.status < 500
        except Exception:  # noqa: BLE001  whatever is wrong with it, it is not healthy
            return False
        finally:
            if response is not None:
                response.close()

    def _kept(self, address: Address) -> Connection | None:
        """The connection that was used last, if one is still open."""
        connections = self._idle.get(address.key)
        oldest = self._loop.time() - IDLE_SECONDS
        while connections:
            connection = connections.pop()
            if connection.is_open and connection.idle_since > oldest:
                return connection
            connection.close()
        return None

    async def _connect(self, address: Address) -> Connection:
        loop = asyncio.get_running_loop()

        def made() -> Connection:
            return Connection(self._read_seconds, lambda connection: self._keep(address, connection))

        secure = {"ssl": tls(), "server_hostname": address.host} if address.is_tls else {}
        try:
            async with asyncio.timeout(self._connect_seconds):
                if address.is_numeric:
                    _, connection = await loop.create_connection(made, address.host, address.port, **secure)
                    return connection
                # A name may have addresses that lead nowhere: they are tried one after the other, none for long.
                found = await loop.getaddrinfo(address.host, address.port, type=SOCK_STREAM)
                sock = await aiohappyeyeballs.start_connection(found, happy_eyeballs_delay=_NEXT_ADDRESS_SECONDS)
                try:
                    _, connection = await loop.create_connection(made, sock=sock, **secure)
                except BaseException:
                    sock.close()
                    raise
                return connection
        except TimeoutError as error:
            raise Unreachable(f"no connection within {self._connect_seconds:g} s") from error
        except OSError as error:
            raise Unreachable(str(error) or repr(error)) from error

    def _keep(self, address: Address, connection: Connection) -> None:
        if self._is_closed:
            connection.close()
            return
        self._idle.setdefault(address.key, []).append(connection)
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(IDLE_SECONDS, self._sweep)

    def _sweep(self) -> None:
        """Close what was not used for too long; the first of each list are the longest there."""
        loop, self._sweeper = asyncio.get_running_loop(), None
        oldest = loop.time() - IDLE_SECONDS
        for key, connections in list(self._idle.items()):
            fresh = [one for one in connections if one.is_open and one.idle_since > oldest]
            for connection in connections:
                if connection not in fresh:
                    connection.close()
            if fresh:
                self._idle[key] = fresh
            else:
                del self._idle[key]
        if self._idle:
            self._sweeper = loop.call_later(IDLE_SECONDS, self._sweep)


async def _begun(response: Response) -> Response:
    """A response once its head is there. Who does not wait for it any more ends the connection."""
    try:
        await response.head()
    except BaseException:
        response.close()
        raise
    return response


def _headers(headers: Mapping[str, str]) -> bytes:
    text = "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) or text.count("\r") != len(headers):
        raise ValueError("a header holds the end of a line")
    return text.encode("latin-1")
