"""An answer as it is kept, and whether one may be."""

import re
from dataclasses import dataclass

import msgspec

MAX_BYTES = 1024 * 1024
"""Larger answers are not kept."""
_WHOLE = frozenset(("stop", "tool_calls", "function_call"))
_DATA = re.compile(rb"^data: ?(.+)$", re.MULTILINE)


class Kept(msgspec.Struct):
    """An answer and the id of the request that it was made for; `events` are the blocks of a stream, in order."""

    request_id: str
    body: bytes | None
    events: list[bytes] | None
    content_type: str
    headers: dict[str, str]

    @property
    def size(self) -> int:
        return len(self.body or b"") + sum(map(len, self.events or ()))

    def for_request(self, request_id: str) -> "Kept":
        """The same under the id of another request: who rates it rates that one."""
        old, new = self.request_id.encode(), request_id.encode()
        body = None if self.body is None else self.body.replace(old, new)
        events = None if self.events is None else [event.replace(old, new) for event in self.events]
        return Kept(request_id, body, events, self.content_type, self.headers)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Kept)


def encoded(kept: Kept) -> bytes:
    """For a store outside of this process."""
    return _encoder.encode(kept)


def decoded(data: bytes) -> Kept:
    """ValueError where it is none, or one of another release."""
    return _decoder.decode(data)


@dataclass
class _Ends:
    """What the choices of an answer came to."""

    finished: dict[int, str]
    is_faulty: bool = False


def is_complete(body: bytes | None, events: list[bytes] | None, choices: int) -> bool:
    """Whether an answer is whole: every choice that was asked for ended by itself, and nothing was said of an error."""
    ends = _Ends({})
    if body is not None:
        _look(body, ends)
    else:
        text = b"".join(events or ())
        if not text.rstrip().endswith(b"data: [DONE]"):
            return False
        for match in _DATA.finditer(text):
            if match[1].strip() != b"[DONE]":
                _look(match[1], ends)
    reasons = list(ends.finished.values())
    return not ends.is_faulty and len(reasons) == choices and all(reason in _WHOLE for reason in reasons)


def _look(data: bytes, ends: _Ends) -> None:
    try:
        part = msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        ends.is_faulty = True
        return
    if not isinstance(part, dict) or part.get("error") is not None:
        ends.is_faulty = True
        return
    for number, choice in enumerate(part.get("choices") or ()):
        if isinstance(choice, dict) and isinstance(choice.get("finish_reason"), str):
            ends.finished[choice.get("index", number)] = choice["finish_reason"]
