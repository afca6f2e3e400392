"""HTTP as uvicorn speaks it, with ends to what a client may send slowly, or without end, or read too slowly."""

import array
import asyncio
import contextlib
import fcntl
import os
import socket
import termios

import httptools
import msgspec
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from images.gateway.answer_out import AnswerOut

HEADER_SECONDS = 15.0
"""From the beginning of a connection, or of a request on it, to the end of the request's headers."""
MAX_HEADER_BYTES = 64 * 1024
_OF_UPGRADES = frozenset((b"connection", b"upgrade", b"http2-settings"))
WRITE_SECONDS = 60.0
"""How long a client may take nothing of an answer that is ready for it."""
_LINGER_SECONDS = 1.0
"""How long what a client still sends is thrown away once it was refused: a reset would take the reason from it."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection. What is no HTTP is answered in the shape of OpenAI's errors."""

    _in_headers = True
    _asks_upgrade = False
    _header_bytes = 0
    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None
    _idle_since: float | None = None
    _is_ending = False
    _is_refused = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        self._unset_keepalive_if_required()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)
        self._tell()

    def on_message_begin(self) -> None:
        self._in_headers, self._header_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._in_headers = False
        if self._header_timer is not None:
            self._disarm()
        # What asks for a tunnel has nothing beside it to be read.
        self._asks_upgrade = self.parser.should_upgrade() and self.parser.get_method() != b"CONNECT"
        if self._asks_upgrade:
            # The parser takes what follows for another protocol: the request is read anew, without its offer.
            return
        super().on_headers_complete()
        if self._is_ending:
            self.cycle.keep_alive = False
        if type(self.cycle) is RequestResponseCycle:
            # Uvicorn makes its own, which is asked nothing before this call is over.
            self.cycle.__class__ = AnswerOut

    def on_message_complete(self) -> None:
        if not self._asks_upgrade:
            super().on_message_complete()

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        self._idle_since = None
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.send_400_response("")
            return
        except httptools.HttpParserUpgrade as offer:
            if self._asks_upgrade:
                self._go_on_without(data[offer.args[0] :])
            return
        # Nearly always the headers of a request come at once, and no timer is needed.
        if self._in_headers and not self.transport.is_closing():
            self._header_bytes += len(data)
            if self._header_bytes > MAX_HEADER_BYTES:
                self._refuse(431, f"the headers of a request may have {MAX_HEADER_BYTES} bytes")
            elif self._header_timer is None:
                self._header_timer = self.loop.call_later(HEADER_SECONDS, self._too_slow)

    def on_response_complete(self) -> None:
        # What comes next begins a request; until then the connection is watched as one that is not used.
        self._header_bytes = 0
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
            return
        self._idle_since = self.loop.time()
        # One that is set already looks again later: to end it and set another costs each request more than that.
        if self.timeout_keep_alive_task is None:
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """End a connection that nothing is asked on, unless a request has come that was not read yet.

        Timers are looked at before what has arrived: of a process that was held up they are both due, and closing would
        reset a connection on which a request lies.
        """
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left = self.timeout_keep_alive - (self.loop.time() - self._idle_since)
        if left > 0:
            self.timeout_keep_alive_task = self.loop.call_later(left, self.timeout_keep_alive_handler)
        elif self._has_arrived():
            self.timeout_keep_alive_task = self.loop.call_later(_LINGER_SECONDS, self.timeout_keep_alive_handler)
        else:
            self._say_end()
            super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """End a connection, after the answer to a request that has come, be it in the kernel or half read."""
        self._is_ending = True
        is_half_read = self._in_headers and self._header_bytes > 0
        if not is_half_read and not self._has_arrived():
            super().shutdown()
        elif self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _say_end(self) -> None:
        """Tell the client now, not in the loop's next turn: what it sends in between would be lost."""
        sock = None if self.transport.is_closing() else self.transport.get_extra_info("socket")
        if sock is not None and not self.transport.get_write_buffer_size():
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(sock.fileno())) as same:
                same.shutdown(socket.SHUT_WR)

    def _has_arrived(self) -> bool:
        """Whether bytes lie in the kernel that were not read yet."""
        sock = None if self.transport.is_closing() else self.transport.get_extra_info("socket")
        if sock is None:
            return False
        found = array.array("i", [0])
        try:
            fcntl.ioctl(sock.fileno(), termios.FIONREAD, found)
        except OSError:
            return False
        return found[0] > 0

    def _tell(self) -> None:
        """Tell whoever works on an answer that its client is gone."""
        if isinstance(self.cycle, AnswerOut) and self.cycle.disconnected:
            self.cycle.gone()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "the request is no HTTP that can be understood")

    def _go_on_without(self, rest: bytes) -> None:
        """Read a request that offers another protocol (HTTP/2, as Java's clients do) as what it is in this one."""
        ends = any(b"close" in value.lower() for name, value in self.headers if name == b"connection")
        kept = [(name, value) for name, value in self.headers if name not in _OF_UPGRADES]
        lines = [b"%b: %b\r\n" % one for one in (*kept, (b"connection", b"close" if ends else b"keep-alive"))]
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (self.parser.get_method(), self.url, b"".join(lines))
        self._asks_upgrade, self.parser = False, httptools.HttpRequestParser(self)
        self.data_received(head + rest)

    def _too_slow(self) -> None:
        self._header_timer = None
        if not self.transport.is_closing():
            self._refuse(408, f"the headers of the request did not come within {HEADER_SECONDS:g} s")

    def _disarm(self) -> None:
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is not even a request, and end the connection."""
        self._disarm()
        if self.cycle is not None and not self.cycle.response_complete:
            # Whoever works on an answer is told that the client is gone.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
            self._tell()
            if self.cycle.response_started:
                # Another answer in the middle of one would be taken for a part of it.
                self.transport.close()
                return
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": None}
        body = msgspec.json.encode({"error": error})
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(STATUS_LINE[status] + head + body)
        if not self.transport.can_write_eof():
            self.transport.close()
            return
        self._is_refused = True
        self.transport.write_eof()
        self.flow.resume_reading()
        self.loop.call_later(_LINGER_SECONDS, self.transport.close)
