"""The answer to one request on a connection, while it arrives."""

import asyncio
import math
import zlib
from collections.abc import Awaitable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Protocol

import httptools

from images.gateway.upstream.faults import Disconnected, NotHttp

MAX_HEAD_BYTES = 64 * 1024
MAX_UNPACKED_BYTES = 64 * 1024 * 1024
"""What one piece of a packed answer may become."""
HIGH_WATER_BYTES = 256 * 1024
"""So much of an answer is held for who reads it; more is left to the server to keep."""
_MOST_DRAINED_BYTES = 64 * 1024
_PACKED = (b"gzip", b"x-gzip", b"deflate")


class Carrier(Protocol):
    """The connection that an answer arrives on."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def give_back(self, response: "Response", *, is_reusable: bool) -> None: ...

    def drain(self, response: "Response") -> None: ...


def _seconds(name: bytes, value: bytes) -> int | None:
    """How long a server asks to wait, in whole seconds up to a day and more; None where it does not say."""
    if value.isdigit() and len(value) < 9:
        asked = int(value) if name == b"retry-after" else -(-int(value) // 1000)
        return asked if asked < 100_000 else None
    try:
        # RFC 9110, 10.2.3: a date stands there, too.
        until = parsedate_to_datetime(value.decode("latin-1"))
        asked = (until - datetime.now(UTC)).total_seconds()
    except (ValueError, TypeError):
        return None
    return max(1, math.ceil(asked)) if asked < 100_000 else None


class Response:
    """What has come of an answer. Who has it calls `release` or `close` at the end, or `finish` for a stream.

    `is_untouched`: no byte of it has come. `read_some` and `read_all` raise UpstreamFailed where it breaks off, and
    TimeoutError where the server says nothing for too long.
    """

    __slots__ = (
        "_carrier", "_ends_with_connection", "_fault", "_head_bytes", "_held", "_is_drained", "_is_paused", "_keeps",
        "_loop", "_parser", "_parts", "_unpack", "_waiter", "content_length", "content_type", "has_head", "is_complete",
        "is_untouched", "retry_after", "status",
    )  # fmt: skip

    def __init__(self, carrier: Carrier, loop: asyncio.AbstractEventLoop) -> None:
        self._carrier: Carrier | None = carrier
        self._loop = loop
        self._parser: httptools.HttpResponseParser | None = httptools.HttpResponseParser(self)
        self._parts: list[bytes] = []
        self._held = 0
        self._head_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._fault: Exception | None = None
        self._unpack: zlib._Decompress | None = None
        self._ends_with_connection = True
        self._keeps = False
        self._is_paused = False
        self._is_drained = False
        self.status = 0
        self.retry_after: int | None = None
        self.content_type = ""
        self.content_length: int | None = None
        self.has_head = False
        self.is_complete = False
        self.is_untouched = True

    # What the connection calls.

    def feed(self, data: bytes) -> None:
        """Take what came on the connection."""
        self.is_untouched = False
        if self._parser is None:
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.fail(NotHttp("the server changes to another protocol"))
        except httptools.HttpParserError as error:
            # What stands behind a whole answer makes it no worse; the connection is not used again.
            self._keeps = False
            self.fail(NotHttp(f"no HTTP: {error}"))
        if not self.has_head:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.fail(NotHttp(f"a head of more than {MAX_HEAD_BYTES} bytes"))
        if self.is_complete:
            self._over()

    def lost(self, error: Exception | None) -> None:
        """The connection ended."""
        if self.has_head and self._ends_with_connection and error is None:
            self.is_complete = True
            self._over()
            self._wake()
        else:
            self.fail(Disconnected("the server ended the connection" + (f": {error!r}" if error else "")))

    def fail(self, error: Exception) -> None:
        """Have who reads it hear of an error, once what came before is read."""
        if not self.is_complete and self._fault is None:
            self._fault = error
            self._parser = None
            self._wake()

    # What the parser calls.

    def on_message_begin(self) -> None:
        if self.is_complete:
            raise ValueError("something stands behind the answer")

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.has_head:
            # Trailers, which say nothing here.
            self._head_bytes += len(name) + len(value)
            if self._head_bytes > MAX_HEAD_BYTES:
                raise ValueError("trailers without an end")
            return
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.partition(b";")[0].strip().lower().decode("latin-1")
        elif name == b"content-length":
            self.content_length, self._ends_with_connection = int(value), False
        elif name in (b"retry-after", b"retry-after-ms") and (seconds := _seconds(name, value.strip())) is not None:
            self.retry_after = seconds
        elif name == b"transfer-encoding":
            self._ends_with_connection = value.rpartition(b",")[2].strip().lower() != b"chunked"
            if value.strip().lower() != b"chunked":
                raise ValueError("a transfer encoding that was not asked for")
        elif name == b"content-encoding" and (how := value.strip().lower()) not in (b"", b"identity"):
            if how not in _PACKED:
                raise ValueError("a content encoding that was not asked for")
            self._unpack = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if 100 <= status < 200:
            # Said in between; the answer follows.
            self.content_type, self.content_length, self._ends_with_connection = "", None, True
            return
        self.status, self.has_head = status, True
        self._wake()

    def on_body(self, data: bytes) -> None:
        if self._unpack is not None and not (data := self._unpacked(data)):
            return
        if self._is_drained:
            self._held += len(data)
            if self._held > _MOST_DRAINED_BYTES:
                self.close()
            return
        self._parts.append(data)
        self._held += len(data)
        if self._held > HIGH_WATER_BYTES and not self._is_paused and self._carrier is not None:
            self._is_paused = True
            self._carrier.pause()
        self._wake()

    def on_message_complete(self) -> None:
        if self.has_head and self._parser is not None:
            if self._unpack is not None and not self._unpack.eof:
                raise ValueError("a packed answer that is cut")
            self.is_complete = True
            self._keeps = self._parser.should_keep_alive()
            self._wake()

    # What who asked calls.

    async def head(self) -> None:
        """Wait until `status` and what is known of the body are there."""
        while not self.has_head:
            if self._fault is not None:
                raise self._fault
            await self._wait()

    async def read_some(self) -> bytes:
        """What has come since the last reading, as soon as there is something; empty at the end."""
        while not self._parts:
            if self._fault is not None:
                raise self._fault
            if self.is_complete:
                return b""
            await self._wait()
        data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        self._parts.clear()
        self._held = 0
        if self._is_paused and self._carrier is not None:
            self._is_paused = False
            self._carrier.resume()
        return data

    async def read_all(self, most: int) -> bytes:
        """All that is left of the body; one piece more than `most` bytes where it is longer."""
        if self.is_complete:
            return b"".join(self._parts)
        parts, size = [], 0
        while size <= most and (part := await self.read_some()):
            parts.append(part)
            size += len(part)
        return b"".join(parts)

    def release(self) -> None:
        """Give the connection back for the next request, or close it where more of this answer would come on it."""
        if self.is_complete:
            self._leave(is_reusable=self._keeps)
        else:
            self.close()

    def finish(self) -> None:
        """The same, where the end of the body says nothing that is not known: what is on its way is waited for."""
        self._is_drained = True
        self._parts.clear()
        self._held = 0
        if self.is_complete or self._fault is not None or self._carrier is None:
            self.release()
        elif self._is_paused:
            self.close()
        else:
            self._carrier.drain(self)

    def close(self) -> None:
        """End the connection, which tells the server to work on the answer no further."""
        self.fail(Disconnected("the gateway ended the connection"))
        self._leave(is_reusable=False)

    def _over(self) -> None:
        """Nothing more is taken. A parser refers to what it calls: kept, the two would wait for the collector."""
        self._parser = None
        if self._is_drained:
            self.release()

    def _leave(self, *, is_reusable: bool) -> None:
        carrier, self._carrier, self._parser = self._carrier, None, None
        if carrier is not None:
            carrier.give_back(self, is_reusable=is_reusable)

    def _unpacked(self, data: bytes) -> bytes:
        unpacked = self._unpack.decompress(data, MAX_UNPACKED_BYTES)
        if self._unpack.unconsumed_tail:
            raise ValueError("a packed answer without an end")
        return unpacked

    def _wait(self) -> Awaitable[None]:
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
