"""How many tokens a call used: what the model server counted, else the best estimate of it."""

from typing import Any

import msgspec

from images.gateway.call import CLIENT_LEFT, Call

_BYTES_PER_TOKEN = 4
_USUAL_ANSWER = 1024


class _Usage(msgspec.Struct):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class _Answer(msgspec.Struct):
    usage: _Usage | None = None


_decoder = msgspec.json.Decoder(_Answer)


def counted_of(answer: bytes | dict[str, Any]) -> dict[str, Any] | None:
    """What a whole answer, as it came or decoded, says that it used; None where it does not."""
    try:
        found = (_decoder.decode(answer) if isinstance(answer, bytes) else msgspec.convert(answer, _Answer)).usage
    except (msgspec.ValidationError, msgspec.DecodeError, RecursionError):
        return None
    if found is None:
        return None
    return {"prompt_tokens": found.prompt_tokens or 0, "completion_tokens": found.completion_tokens or 0}


def counted_in(events: bytes) -> dict[str, Any] | None:
    """What the last of some events that says so counted; None where none does."""
    found = [counted_of(line[5:]) for line in events.split(b"\n") if line.startswith(b"data:") and b'"usage"' in line]
    return next((usage for usage in reversed(found) if usage is not None), None)


def estimated(call: Call, pieces: int) -> dict[str, Any]:
    """What a stream that broke off used: a token an event with text, and the prompt by its length."""
    return {"prompt_tokens": _prompt_tokens(call), "completion_tokens": pieces, "estimated": True}


def asked_tokens(call: Call) -> int:
    """What a call may use at most, as far as that can be told before: its prompt, and the longest answer it may get."""
    allowed = call.endpoint.max_output_tokens if call.endpoint is not None else None
    asked = call.body.get("max_completion_tokens", call.body.get("max_tokens", allowed or _USUAL_ANSWER))
    answers = call.body.get("n", 1)
    return _prompt_tokens(call) + min(asked, allowed or asked) * answers


def tokens_of(call: Call) -> tuple[int, int, bool]:
    """Tokens of the prompt and of the answer, and whether they are estimated; of a call that is over counted once."""
    if call.used is None or not call.is_over:
        call.used = _tokens_of(call)
    return call.used


def _tokens_of(call: Call) -> tuple[int, int, bool]:
    usage = call.usage
    if usage is None:
        # The client left: the server had read the prompt, and of what it wrote is known what came back.
        pieces = call.notes.get("pieces", 0)
        if pieces or (call.status == CLIENT_LEFT and "asked" in call.timings):
            return _prompt_tokens(call), pieces, True
        return 0, 0, False
    prompt, completion = usage.get("prompt_tokens"), usage.get("completion_tokens")
    is_estimated = bool(usage.get("estimated")) or not isinstance(prompt, int)
    return (
        prompt if isinstance(prompt, int) else _prompt_tokens(call),
        completion if isinstance(completion, int) else 0,
        is_estimated,
    )


def _prompt_tokens(call: Call) -> int:
    return max(1, len(msgspec.json.encode(call.body.get("messages") or call.body)) // _BYTES_PER_TOKEN)
