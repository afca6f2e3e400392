"""Reads what a model server answered: the text and the figures of a chat completion, whole or streamed."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

_DATA = re.compile(rb"^data: ?(\{.*\})\s*$", re.MULTILINE)


@dataclass(slots=True)
class ParsedCompletion:
    """What an answer says: its text and its figures, None where it does not say."""

    text: str | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    error: str | None = None


def read_answer(body: bytes, streamed: bool) -> ParsedCompletion:
    """Read an OpenAI chat completion, or the events of a streamed one; what cannot be read is left out.

    Of several answers (`n`) it is the first: one behind the other they would be none that anybody gave.
    """
    completion = ParsedCompletion()
    texts: list[str] = []
    for part in _parts(body, streamed):
        error = part.get("error")
        if isinstance(error, str):
            completion.error = error
        for fault in _dicts([error]):
            completion.error = str(fault.get("message", fault))
        for choice in _dicts(part.get("choices")):
            if choice.get("index", 0) != 0:
                continue
            if isinstance(choice.get("text"), str):
                texts.append(choice["text"])
            for message in _dicts([choice.get("delta"), choice.get("message")]):
                if isinstance(message.get("content"), str):
                    texts.append(message["content"])
            if isinstance(choice.get("finish_reason"), str):
                completion.finish_reason = choice["finish_reason"]
        for usage in _dicts([part.get("usage")]):
            completion.prompt_tokens = _count(usage.get("prompt_tokens"), completion.prompt_tokens)
            completion.completion_tokens = _count(usage.get("completion_tokens"), completion.completion_tokens)
    completion.text = "".join(texts) if texts else None
    return completion


def _dicts(values: Any) -> list[dict[str, Any]]:
    """The objects in a list; of anything else none: a model server may write what it likes."""
    return [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []


def _count(value: Any, known: int | None) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else known


def _parts(body: bytes, streamed: bool) -> Iterable[dict[str, Any]]:
    for piece in _DATA.findall(body) if streamed else [body]:
        try:
            part = msgspec.json.decode(piece)
        except (msgspec.DecodeError, RecursionError):
            continue
        if isinstance(part, dict):
            yield part
