"""Writes answers as HTTP: the head of a whole one together with its body, and each of a stream's events as it comes."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from uvicorn.protocols.http.httptools_impl import (
    HEADER_RE,
    HEADER_VALUE_RE,
    STATUS_LINE,
    RequestResponseCycle,
)

_WITHOUT_BODY = (204, 304)


class AnswerOut(RequestResponseCycle):
    """One answer, in place of uvicorn's own, which writes head and body apart and looks at each header by itself.

    Each writing is a call of the system and a packet, and wakes the client. What comes in pieces goes in chunks; to who
    speaks HTTP/1.0, and so knows none, as it is until the connection ends.
    """

    held = b""
    has_length = False
    _told: Callable[[], object] | None = None

    def when_gone(self, told: Callable[[], object]) -> None:
        """Have `told` called once, as soon as the client leaves before it has the whole answer.

        To wait for that by `receive` takes a task, which costs a request more than a layer does.
        """
        self._told = told
        # A connection that is not read is never seen to end.
        self.flow.resume_reading()
        if self.disconnected:
            self.gone()

    def nobody_asks(self) -> None:
        """Call nobody any more. Who is called refers to this: kept, the two would wait for the collector."""
        self._told = None

    def gone(self) -> None:
        """The client left."""
        told, self._told = self._told, None
        if told is not None:
            told()

    async def send(self, message: Any) -> None:
        if self.flow.write_paused and not self.disconnected:
            await self.flow.drain()
        if self.disconnected:
            return
        if not self.response_started:
            self._begin(message)
        elif not self.response_complete:
            self._go_on(message)
        else:
            raise RuntimeError(f"{message['type']!r} came after the answer was complete")

    def _begin(self, message: dict[str, Any]) -> None:
        if message["type"] != "http.response.start":
            raise RuntimeError(f"an answer begins with its head, not with {message['type']!r}")
        status, headers, is_closed = message["status"], message.get("headers", ()), False
        self.response_started, self.waiting_for_100_continue = True, False
        lines = [STATUS_LINE[status], _usual_lines(tuple(self.default_headers))]
        for name, value in headers:
            lines += (_beginning(name), value, b"\r\n")
            if name == b"content-length":
                self.expected_content_length, self.has_length = int(value), True
            elif name == b"connection" and b"close" in value.lower():
                self.keep_alive, is_closed = False, True
        if HEADER_VALUE_RE.search(b"\t".join([value for _, value in headers])):
            raise RuntimeError("a header of an answer holds what none may")
        is_chunked = False
        if not self.has_length and self.scope["method"] != "HEAD" and status not in _WITHOUT_BODY:
            is_chunked = self.scope["http_version"] != "1.0"
            if is_chunked:
                lines.append(b"transfer-encoding: chunked\r\n")
        self.chunked_encoding = is_chunked
        if not self.keep_alive and not is_closed:
            lines.append(b"connection: close\r\n")
        lines.append(b"\r\n")
        head = b"".join(lines)
        if self.has_length:
            self.held = head
        else:
            # The length of a stream is not known, and its beginning not waited for.
            self.transport.write(head)

    def _go_on(self, message: dict[str, Any]) -> None:
        if message["type"] != "http.response.body":
            raise RuntimeError(f"a body was to come, not {message['type']!r}")
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        if self.scope["method"] == "HEAD":
            body = b""
        elif self.has_length:
            self.expected_content_length -= len(body)
            if self.expected_content_length < 0 or (is_last and self.expected_content_length):
                raise RuntimeError("a body of another length than its head says")
        elif self.chunked_encoding:
            body = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            if is_last:
                body += b"0\r\n\r\n"
        if self.held or body:
            self.transport.write(self.held + body if self.held else body)
            self.held = b""
        if is_last:
            self.response_complete = True
            self.message_event.set()
            if not self.keep_alive:
                self.transport.close()
            self.on_response()


@lru_cache(256)
def _beginning(name: bytes) -> bytes:
    """A header's name and what follows it."""
    if HEADER_RE.search(name):
        raise RuntimeError(f"{name!r} is no name of a header")
    return name.lower() + b": "


@lru_cache(8)
def _usual_lines(headers: tuple[tuple[bytes, bytes], ...]) -> bytes:
    """The lines of the headers that every answer has, which change once a second."""
    return b"".join([_beginning(name) + value + b"\r\n" for name, value in headers])
