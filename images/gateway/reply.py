"""What goes to the client: an answer whole or in events, and company for one that waits."""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from functools import lru_cache
from typing import Any

from images.gateway import body
from images.gateway.answer_out import AnswerOut
from images.gateway.call import Answer, Call
from images.gateway.events import DONE

Send = Callable[[dict[str, Any]], Awaitable[None]]

PING = b": ping\n"
"""A comment, which every reader of events skips; proxies on the way see that the connection is alive.

No blank line ends it: some readers (openai-go's, openai-python's before 2.38) take one for an event without data.
"""
# In JSON they stand within texts alone, and readers that know Unicode's ends of lines would cut an event there.
_LINE_ENDS = {b"\xc2\x85": rb"\u0085", b"\xe2\x80\xa8": rb"\u2028", b"\xe2\x80\xa9": rb"\u2029"}
_EVENTS = "text/event-stream; charset=utf-8"
_EVENT_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
# An answer that is there by then needs nobody who watches whether the client is.
_WATCH_AFTER_SECONDS = 0.02
_MOST_PAUSE_SECONDS = 1.0


class Reply:
    """The one answer to a call. A stream may have begun, for company's sake, before there is an answer."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call = call
        self._send = send
        self._has_begun = False
        self._is_over = False
        self.written_at = call.begun

    async def whole(self, answer: Answer) -> None:
        """Send a whole answer; as an event where the stream has begun already."""
        if self._has_begun:
            await self.end(b"data: " + answer.body + b"\n\n" + (DONE if answer.status < 400 else b""))
            return
        self._has_begun = self._is_over = True
        headers = self._headers(answer.content_type, answer.headers)
        headers.append((b"content-length", str(len(answer.body)).encode()))
        await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await self._send({"type": "http.response.body", "body": answer.body})

    async def begin(self, answer: Answer) -> None:
        """Send the head of a stream, unless it is sent already."""
        if not self._has_begun:
            self._has_begun = True
            headers = self._headers(answer.content_type, answer.headers)
            await self._send({"type": "http.response.start", "status": answer.status, "headers": headers})

    async def events(self, events: bytes) -> None:
        self.written_at = asyncio.get_running_loop().time()
        if b"\xe2\x80" in events or b"\xc2\x85" in events:
            for character, escape in _LINE_ENDS.items():
                events = events.replace(character, escape)
        await self._send({"type": "http.response.body", "body": events, "more_body": True})

    async def end(self, events: bytes = b"") -> None:
        """End a stream, with some last events."""
        if not self._is_over:
            self._is_over = True
            await self._send({"type": "http.response.body", "body": events})

    async def ping(self) -> None:
        """Fill the silence; where nothing was sent yet, with the head of a stream before it."""
        await self.begin(Answer(content_type=_EVENTS, headers=_EVENT_HEADERS))
        if not self._is_over:
            await self.events(PING)

    def _headers(self, content_type: str, own: dict[str, str]) -> list[tuple[bytes, bytes]]:
        found = [(b"content-type", content_type.encode())]
        for headers in (self._call.headers, own):
            found += [(_name(name), value.encode("latin-1")) for name, value in headers.items()]
        return found


@lru_cache(256)
def _name(name: str) -> bytes:
    return name.lower().encode("latin-1")


class Soon:
    """Has what waits looked at once, a moment after it began, unless it has ended by then.

    One timer for all, as all of them wait equally long: a timer of its own costs each request more than a layer.
    """

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, Waiting]] = deque()
        self._timer: asyncio.TimerHandle | None = None

    def look_at(self, waiting: "Waiting", loop: asyncio.AbstractEventLoop) -> None:
        self._waiting.append((loop.time() + _WATCH_AFTER_SECONDS, waiting))
        if self._timer is None:
            self._timer = loop.call_later(_WATCH_AFTER_SECONDS, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer, now = None, loop.time()
        while self._waiting:
            due, waiting = self._waiting[0]
            if not waiting.is_over and due > now:
                self._timer = loop.call_later(due - now, self._look, loop)
                return
            self._waiting.popleft()
            if not waiting.is_over:
                waiting.begin()


class Waiting:
    """Looks after a client that waits: ends the call when it leaves, and fills the silence of a stream.

    Nobody looks in the first moments, in which most short answers are ready; a task for each would cost more than the
    rest of the gateway.
    """

    def __init__(self, call: Call, reply: Reply, ping_seconds: float, soon: Soon) -> None:
        self._call = call
        self._reply = reply
        self._ping_seconds = ping_seconds
        self._loop = loop = asyncio.get_running_loop()
        self._task = asyncio.current_task(loop)
        self._timer: asyncio.TimerHandle | None = None
        self._answer: AnswerOut | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._pinger: asyncio.Task[None] | None = None
        self.client_left = self.is_over = False
        soon.look_at(self, self._loop)

    def begin(self) -> None:
        # Until its body is read, what comes is the body's, and who reads it sees the client leave.
        if self._call.scope["method"] == "POST" and not self._call.is_read:
            waited = time.monotonic() - self._call.begun
            if waited >= body.BODY_SECONDS and self._call.is_reading:
                self._call.is_overdue = True
                self._task.cancel()
                return
            # Less and less often: of ten thousand that send slowly each would be looked at fifty times a second.
            pause = min(
                max(waited, _WATCH_AFTER_SECONDS),
                _MOST_PAUSE_SECONDS,
                max(body.BODY_SECONDS - waited, _WATCH_AFTER_SECONDS),
            )
            self._timer = self._loop.call_later(pause, self.begin)
            return
        answer = getattr(self._call.receive, "__self__", None)
        if isinstance(answer, AnswerOut):
            self._answer = answer
            answer.when_gone(self._gone)
        else:
            # Another server's than the gateway's own.
            self._watcher = self._loop.create_task(self._until_gone())
        if self._call.is_streamed:
            self._look()

    def _look(self) -> None:
        silent = self._loop.time() - self._reply.written_at
        if silent >= self._ping_seconds:
            if self._pinger is None or self._pinger.done():
                self._pinger = self._loop.create_task(self._reply.ping())
            silent = 0.0
        self._timer = self._loop.call_later(self._ping_seconds - silent, self._look)

    async def _until_gone(self) -> None:
        while (await self._call.receive())["type"] != "http.disconnect":
            pass
        self._gone()

    def _gone(self) -> None:
        self.client_left = True
        self._task.cancel()

    def stop(self) -> None:
        self.is_over = True
        if self._answer is not None:
            self._answer.nobody_asks()
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._watcher, self._pinger):
            if task is not None:
                task.cancel()
        # What is cancelled remembers where it was, and so this: kept, they would wait for the collector.
        self._timer = self._watcher = self._pinger = self._answer = None
