"""Gives answers the shape that was asked for, where the model server does not: stop texts, and where usage stands."""

from collections.abc import Sequence
from typing import Any

import msgspec

_DONE = b"[DONE]"


class Shaper:
    """The answer to one request, whole or in events.

    Texts end before the first of `stop`, as OpenAI's do, also where one comes in several events. `wants_usage`: counts
    come in an event of their own, before the end mark, and are null in all others; without it they are not passed on.
    `usage` and `is_over` are for who relays: the counts as the server gave them, and whether no more need be read.
    """

    def __init__(
        self, stop: Sequence[str], *, wants_usage: bool, passes_usage: bool = False, kind: str = "chat"
    ) -> None:
        self._is_chat = kind == "chat"
        self._stop = [text for text in stop if text]
        self._wants_usage = wants_usage
        self._passes_usage = passes_usage
        self._held: dict[int, str] = {}
        self._ended: dict[int, bool] = {}
        self._events = 0
        self._head: dict[str, Any] = {}
        self.usage: dict[str, Any] | None = None
        self.is_over = False

    def whole(self, body: bytes) -> bytes:
        """A complete answer, cut at the first stop text."""
        if not self._stop:
            return body
        answer = _object(body)
        if answer is None:
            return body
        for choice in _choices(answer):
            message, key = (choice.get("message"), "content") if self._is_chat else (choice, "text")
            if isinstance(message, dict) and isinstance(message.get(key), str):
                at = self._first(message[key])
                if at is not None:
                    message[key] = message[key][:at]
                    choice["finish_reason"] = "stop"
        return msgspec.json.encode(answer)

    def feed(self, lines: bytes) -> bytes:
        """What the client gets for some whole lines of the server's; after `is_over` nothing more."""
        if self.is_over:
            return b""
        plain = self._passes_usage or (not self._wants_usage and b'"usage"' not in lines)
        if plain and not self._stop:
            return lines
        out = []
        for line in lines.split(b"\n"):
            line = line.rstrip(b"\r")
            if not line.startswith(b"data:"):
                out += [line, b"\n\n"] if line else []
                continue
            out.append(self._event(line[5:].strip()))
            if self.is_over:
                break
        return b"".join(out)

    @property
    def counted(self) -> dict[str, Any] | None:
        """What the server counted, or how many pieces came where a stop text cut it off before; None where neither is
        known.
        """
        return self.usage or ({"completion_tokens": self._events} if self.is_over and self._stop else None)

    @property
    def logged_usage(self) -> bytes:
        """An event for the log alone that holds what was counted."""
        return _written({"usage": self.counted}) if self.counted else b""

    def _event(self, data: bytes) -> bytes:
        if data == _DONE:
            self.is_over = True
            return self._end()
        chunk = _object(data)
        if chunk is None:
            return b"data: " + data + b"\n\n"
        if "choices" in chunk:
            self._head = {key: chunk[key] for key in ("id", "object", "created", "model") if key in chunk}
        if not self._passes_usage:
            usage = chunk.pop("usage", None)
            if isinstance(usage, dict):
                self.usage = usage
            if self._wants_usage:
                chunk["usage"] = None
        if "choices" not in chunk:
            return _written(chunk) if chunk.keys() - {"usage"} else b""
        had = _choices(chunk)
        if self._stop:
            chunk["choices"] = [choice for choice in had if self._passes(choice)]
        out = _written(chunk) if chunk["choices"] or (not had and self._passes_usage) else b""
        if self._ended and all(self._ended.values()) and (self.usage or not self._wants_usage):
            self.is_over = True
            return out + self._end()
        return out

    def _passes(self, choice: dict[str, Any]) -> bool:
        """Cut what of a choice is too much; whether anything is left of it."""
        index = choice.get("index", 0)
        delta, key = (choice.get("delta"), "content") if self._is_chat else (choice, "text")
        if self._ended.get(index):
            return False
        self._ended.setdefault(index, False)
        text = delta.get(key) if isinstance(delta, dict) else None
        ends = choice.get("finish_reason") is not None
        if not isinstance(text, str):
            if ends and self._held.get(index):
                held = {key: self._held.pop(index)}
                choice.update({"delta": {**(delta or {}), **held}} if self._is_chat else held)
            return True
        self._events += bool(text)
        text = self._held.pop(index, "") + text
        at = self._first(text)
        if at is not None:
            delta[key] = text[:at]
            choice["finish_reason"] = "stop"
            self._ended[index] = True
            return True
        kept = 0 if ends else self._beginning(text)
        delta[key] = text[: len(text) - kept]
        if kept:
            self._held[index] = text[len(text) - kept :]
        return bool(delta[key]) or ends or (self._is_chat and len(delta) > 1)

    def _first(self, text: str) -> int | None:
        places = [at for stop in self._stop if (at := text.find(stop)) >= 0]
        return min(places) if places else None

    def _beginning(self, text: str) -> int:
        """Characters at the end of `text` with which a stop text may begin."""
        most = min(len(text), max(map(len, self._stop)) - 1)
        return next((n for n in range(most, 0, -1) if any(s.startswith(text[-n:]) for s in self._stop)), 0)

    def _piece(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}} if self._is_chat else {"text": text}

    def _end(self) -> bytes:
        out = [
            _written(self._head | {"choices": [{"index": i, **self._piece(text), "finish_reason": None}]})
            for i, text in self._held.items()
            if not self._ended.get(i)
        ]
        if self._wants_usage and self.usage is not None and not self._passes_usage:
            out.append(_written(self._head | {"choices": [], "usage": self.usage}))
        return b"".join([*out, b"data: ", _DONE, b"\n\n"])


def shaper_of(body: dict[str, Any], kind: str = "chat") -> Shaper:
    """What a request asks of the shape of its answer; `kind` is the operation's."""
    stop, options = body.get("stop") or [], body.get("stream_options") or {}
    # vLLM's own wishes: the stop text in the answer, and counts on every event.
    stop = [] if body.get("include_stop_str_in_output") else [stop] if isinstance(stop, str) else stop
    return Shaper(
        stop,
        wants_usage=bool(options.get("include_usage")),
        passes_usage=bool(options.get("continuous_usage_stats")),
        kind=kind,
    )


def _object(data: bytes) -> dict[str, Any] | None:
    try:
        found = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _choices(answer: dict[str, Any]) -> list[dict[str, Any]]:
    found = answer.get("choices")
    return [choice for choice in found if isinstance(choice, dict)] if isinstance(found, list) else []


def _written(chunk: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
