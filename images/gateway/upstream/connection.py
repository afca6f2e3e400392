"""One connection to a model server: a request at a time, each with its answer."""

import asyncio
import socket
from collections.abc import Callable
from typing import cast

from images.gateway.upstream.faults import Disconnected
from images.gateway.upstream.response import Response

_DRAIN_SECONDS = 1.0
"""How long the end of an answer that is known already is waited for before the connection is given up."""


class Connection(asyncio.Protocol):
    """Made by the pool, which `on_idle` gives it back to after an answer, if it can carry another one.

    `read_seconds` without a byte of an answer that somebody waits for end it, with TimeoutError for who waits.
    """

    def __init__(self, read_seconds: float, on_idle: Callable[["Connection"], None]) -> None:
        self._read_seconds = read_seconds
        self._on_idle = on_idle
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._response: Response | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._heard_at = 0.0
        self._is_paused = False
        self.is_open = False
        self.idle_since = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's are transports by what they do, and not by their class.
        self._transport, self.is_open = cast(asyncio.Transport, transport), True
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self._response is None:
            # Nothing was asked: whatever it is, it must not be taken for the next answer.
            self.close()
            return
        self._heard_at = self._loop.time()
        self._response.feed(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._stop_timer()
        response, self._response = self._response, None
        if response is not None:
            response.lost(exc)

    def ask(self, request: bytes) -> Response:
        """Send a request; its answer is to come."""
        response = self._response = Response(self, self._loop)
        if not self.is_open or self._transport is None or self._transport.is_closing():
            self._response = None
            response.fail(Disconnected("the server ended the connection"))
            return response
        self._transport.write(request)
        self._heard_at = self._loop.time()
        if self._timer is None:
            self._timer = self._loop.call_later(self._read_seconds, self._look)
        return response

    def pause(self) -> None:
        """Read no more for now: the server is not waited for either."""
        if self._transport is not None and self.is_open:
            self._is_paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self.is_open and not self._transport.is_closing():
            self._is_paused = False
            self._heard_at = self._loop.time()
            self._transport.resume_reading()

    def give_back(self, response: Response, *, is_reusable: bool) -> None:
        """An answer is over, for who asked for it."""
        if self._response is not None and self._response is not response:
            return
        self._response = None
        if not self.is_open or self._transport is None or self._transport.is_closing():
            return
        if self._is_paused:
            self.resume()
        if is_reusable and not self._transport.get_write_buffer_size():
            self.idle_since = self._loop.time()
            self._on_idle(self)
        else:
            self.close()

    def drain(self, response: Response) -> None:
        """End the connection unless an answer that nobody reads any more ends soon by itself."""
        self._loop.call_later(_DRAIN_SECONDS, response.release)

    def close(self) -> None:
        self.is_open = False
        self._stop_timer()
        if self._transport is None:
            return
        if self._transport.get_write_buffer_size():
            # A server that does not read would be waited for.
            self._transport.abort()
        else:
            self._transport.close()

    def _look(self) -> None:
        self._timer = None
        if self._response is None:
            return
        left = self._read_seconds - (self._loop.time() - self._heard_at)
        if self._is_paused:
            left = self._read_seconds
        if left > 0:
            self._timer = self._loop.call_later(left, self._look)
            return
        self._response.fail(TimeoutError(f"nothing came for {self._read_seconds:g} s"))
        self.close()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
