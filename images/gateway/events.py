"""Server-sent events of a model server: whole ones only, read strictly, under the endpoint's name."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from functools import lru_cache
from typing import Any

import msgspec

from images.gateway.upstream.faults import UpstreamFailed
from images.gateway.upstream.response import Response

_MODEL = re.compile(rb'"model":\s*"(?:[^"\\]|\\.)*"')
_CONTENT = re.compile(rb'"(?:content|text|reasoning_content)":\s*"[^"]')
# Some servers write an empty one into every event.
_FINISHED = re.compile(rb'"finish_reason":\s*"[^"]')
DONE = b"data: [DONE]\n\n"
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
MAX_EVENT_BYTES = 8 * 1024 * 1024
"""An event may hold a picture or the logprobs of many choices; what goes on for longer without an end is none."""
STALL_SECONDS = 60.0
"""How long a model server may send nothing of an answer that it has begun: then it is dead, not busy."""


class BackendFailed(Exception):
    """A model server did not answer, or not rightly.

    `may_ask_again`: nothing of an answer has come, so that another server may be asked. `waited_in_vain`: all that is
    known is that nothing came in time, so the request may be under way still, and is not sent again.
    """

    def __init__(self, message: str, *, may_ask_again: bool = True, waited_in_vain: bool = False) -> None:
        super().__init__(message)
        self.may_ask_again = may_ask_again and not waited_in_vain
        self.waited_in_vain = waited_in_vain


class _Choice(msgspec.Struct):
    index: int = 0
    finish_reason: str | None = None


class _Chunk(msgspec.Struct):
    choices: list[_Choice] | None = None
    error: Any = None


_read_chunk = msgspec.json.Decoder(_Chunk).decode


@lru_cache(4096)
def renamed(name: str) -> bytes:
    """The replacement for the model's name in an answer."""
    # A template of `re.sub`: a backslash in the JSON string is doubled.
    return b'"model":' + msgspec.json.encode(name).replace(b"\\", b"\\\\")


def with_name(body: bytes, name: bytes) -> bytes:
    """A whole answer under the endpoint's name instead of the model server's; `name` from `renamed`."""
    return _MODEL.sub(name, body, count=1)


def has_text(events: bytes) -> bool:
    """Whether a part of a stream holds the beginning of some text (the first event often names the role only)."""
    return _CONTENT.search(events) is not None


class Stream:
    """An answer that arrives in server-sent events, of which the first are there already.

    `choices` is how many were asked for; `on_advance` is called as often as something comes.
    """

    def __init__(
        self,
        response: Response,
        first: bytes,
        *,
        name: bytes,
        choices: int = 1,
        on_advance: Callable[[], object] = lambda: None,
        stall_seconds: float = STALL_SECONDS,
    ) -> None:
        self._response = response
        self._first = first
        self._name = name
        self._choices = choices
        self._on_advance = on_advance
        self._stall_seconds = stall_seconds
        self._fault: BackendFailed | None = None
        self._finished: set[int] = set()
        self._is_done = False
        self._is_at_beginning = True
        self._stalled = False
        self._loop = asyncio.get_running_loop()
        # While the client is not ready for more, nothing is read, and the server is not waited for.
        self._waiting_since: float | None = None
        self._timer = self._loop.call_later(stall_seconds, self._look)

    async def events(self) -> AsyncIterator[bytes]:
        """Whole events as they come, one or more at once, each with the blank line that ends it.

        Ends with OpenAI's end mark where all choices finished, even where the server sends none. Raises BackendFailed
        where the server breaks off, ends before they did, sends an error, or what is no event of a completion.
        """
        rest = b""
        chunk = self._first
        while chunk:
            self._on_advance()
            rest = rest + chunk if rest else chunk
            if b"\r" in rest:
                rest = _plain_lines(rest)
            cut = rest.rfind(b"\n\n") + 2
            if cut > 1:
                whole, rest = rest[:cut], rest[cut:]
                if out := self._checked(whole):
                    yield out
                if self._is_done:
                    return
                if self._fault is not None:
                    raise self._fault
            elif len(rest) > MAX_EVENT_BYTES:
                raise _broken(f"sent an event of more than {MAX_EVENT_BYTES} bytes")
            self._waiting_since = self._loop.time()
            try:
                chunk = await self._response.read_some()
                self._waiting_since = None
            except (UpstreamFailed, TimeoutError) as error:
                if self._stalled or isinstance(error, TimeoutError):
                    raise BackendFailed(
                        f"the model server sent nothing for {self._stall_seconds:g} s in the middle of its answer",
                        may_ask_again=False,
                    ) from error
                raise _broken(f"broke off: {error!r}") from error
        # Some servers leave the last blank line out; half an event fails here.
        if rest.strip() and (out := self._checked(rest.rstrip(b"\r\n") + b"\n\n")):
            yield out
        if self._fault is not None:
            raise self._fault
        if not self._is_done:
            if len(self._finished) < self._choices:
                raise _broken("ended its answer without a finish_reason")
            yield DONE

    def _checked(self, events: bytes) -> bytes:
        """Events under the endpoint's name, once each was read; of what is broken those before it, and `_fault`."""
        if self._is_at_beginning:
            # Else its first event would be none, and what it says lost.
            self._is_at_beginning, events = False, events.removeprefix(_BYTE_ORDER_MARK)
        # Nearly always it is one: then nothing has to be taken apart.
        out: list[bytes] = []
        try:
            if events.count(b"\n") == 2 and events.startswith(b"data: {"):
                self._read(events[6:-2])
                return _MODEL.sub(self._name, events)
            self._check_each(events, out)
        except BackendFailed as fault:
            self._fault = fault
        return b"".join(out)

    def _check_each(self, events: bytes, out: list[bytes]) -> None:
        """Add each of several events to `out`; BackendFailed at the first that is none."""
        for event in events.split(b"\n\n"):
            data = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            joined = b"\n".join(data).strip()
            if not joined:
                # A comment or an event without data, which keep the connection alive.
                continue
            if joined == b"[DONE]":
                if len(self._finished) < self._choices:
                    raise _broken("ended its answer without a finish_reason")
                self._is_done = True
                out.append(DONE)
                break
            self._read(joined)
            out.append(b"data: " + _MODEL.sub(self._name, joined.replace(b"\n", b" ")) + b"\n\n")

    def _read(self, data: bytes) -> None:
        try:
            if not data.isascii():
                # What is passed over in it is not looked at otherwise, and the client could not read it.
                data.decode()
            chunk = _read_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _broken(f"sent what is no event of a completion: {data[:100].decode('utf-8', 'replace')}") from error
        if chunk.error is not None:
            message = chunk.error.get("message") if isinstance(chunk.error, dict) else chunk.error
            raise _broken(f"sent an error: {str(message)[:500]}")
        if _FINISHED.search(data) is not None:
            self._finished.update(choice.index for choice in chunk.choices or () if choice.finish_reason)

    def _look(self) -> None:
        idle = 0.0 if self._waiting_since is None else self._loop.time() - self._waiting_since
        if idle >= self._stall_seconds:
            self._stalled = True
            self.close()
        else:
            self._timer = self._loop.call_later(self._stall_seconds - idle, self._look)

    def close(self) -> None:
        """Drop the connection, which tells the server to generate no further; after the last event it is kept."""
        self._timer.cancel()
        if self._is_done:
            self._response.finish()
        else:
            self._response.close()


def first_error(first: bytes) -> dict[str, Any] | None:
    """What a stream that begins with an error says, as a body of an error; None where it begins otherwise."""
    if b'"error"' not in first:
        return None
    event, end, _ = _plain_lines(first).removeprefix(_BYTE_ORDER_MARK).lstrip().partition(b"\n\n")
    data = b"\n".join(line[5:] for line in event.split(b"\n") if line.startswith(b"data:"))
    try:
        found = msgspec.json.decode(data) if end else None
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) and found.get("error") is not None and not found.get("choices") else None


def _broken(what: str) -> BackendFailed:
    return BackendFailed(f"the model server {what}", may_ask_again=False)


def _plain_lines(data: bytes) -> bytes:
    """Lines that end in LF; a CR at the very end waits for what follows."""
    if data.endswith(b"\r"):
        return data[:-1].replace(b"\r\n", b"\n").replace(b"\r", b"\n") + b"\r"
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
