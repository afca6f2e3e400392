"""Reads a chat request: who asks, what of it goes to the model server, and what the limits of the endpoint say."""

import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.requests import cookie_parser

from images.gateway.call import Call
from images.gateway.errors import ApiError
from images.gateway.routes import Endpoint

SESSION_COOKIE = "llmops_session"

# No tokenizer in use packs more bytes into a token on average; what is longer by this measure is too long by any. The
# model server counts exactly and refuses the rest.
_MOST_BYTES_PER_TOKEN = 8
# What is for us or for OpenAI's own service, and none of a model's business.
_KEPT_BACK = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
# `transformers serve` decodes greedily whatever a request says; the answer's header tells which wishes were not met.
_IGNORED_BY_TRANSFORMERS = (
    "temperature", "top_p", "seed", "logit_bias", "frequency_penalty", "presence_penalty", "parallel_tool_calls",
    "reasoning_effort",
)  # fmt: skip
_LENGTHS = ("max_tokens", "max_completion_tokens")
_IDENTIFIER = re.compile(r"[\w.@:+-]{1,200}")


@dataclass(frozen=True, slots=True)
class EndUser:
    """Whom the answer is for: `user` decides the variant; `new_session` is a session id that the client is to keep."""

    user: str
    session: str | None
    new_session: str | None = None


def who_asks(call: Call, body: dict[str, Any]) -> EndUser:
    """The user a request names in its body or header, else its session; a stranger gets a session of their own.

    A client that keeps the session's cookie stays with its variant. One that does not is a new user with each request.
    """
    session = call.header(b"x-session-id") or _cookie(call)
    if session is not None and not _IDENTIFIER.fullmatch(session):
        raise ApiError(400, "a session id has up to 200 letters, digits and . _ @ : + -", param="x-session-id")
    user = body.get("user")
    if user is None or user == "":
        user = call.header(b"x-user-id") or None
    if user is not None:
        if not isinstance(user, str) or len(user) > 200:
            raise ApiError(400, "`user` should be a text of at most 200 characters", param="user")
        return EndUser(user, session)
    if session is not None:
        return EndUser(session, session)
    session = f"anonymous-{os.urandom(8).hex()}"
    return EndUser(session, session, new_session=session)


def _cookie(call: Call) -> str | None:
    header = call.header(b"cookie")
    return None if header is None or SESSION_COOKIE not in header else cookie_parser(header).get(SESSION_COOKIE)


def check_messages(body: dict[str, Any]) -> str:
    """Check the shape of `messages` and return the text of the user's last one."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "`messages` should be a list of at least one message", param="messages")
    query = ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, f"message {index} should be an object with a role", param=f"messages[{index}]")
        text = _text(message.get("content"))
        if text is None and message["role"] != "assistant":
            raise ApiError(400, f"the content of message {index} should be text", param=f"messages[{index}].content")
        for name, kind, description in _MESSAGE_FIELDS:
            if message.get(name) is not None and not kind(message[name]):
                where = f"messages[{index}].{name}"
                raise ApiError(400, f"`{where}` should be {description}", param=where)
        if message["role"] == "user" and text:
            query = text
    return query


def _text(content: Any) -> str | None:
    """A message's text, given as a string or as a list of text parts; None for anything else."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        return None
    return " ".join(texts)


def _number(low: float = -math.inf, high: float = math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _whole(low: float = -math.inf) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= low


def _is(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, kind)


def _objects(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, dict) for entry in value)


def _texts(value: Any) -> bool:
    return isinstance(value, str) or (isinstance(value, list) and all(isinstance(entry, str) for entry in value))


# The fields of OpenAI's API and what each takes. Ranges only where every engine agrees; the engine knows its own, and
# fields that OpenAI has not are the engine's.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": (_number(0), "a number from 0 up"),
    "top_p": (_number(0, 1), "a number from 0 to 1"),
    "frequency_penalty": (_number(), "a number"),
    "presence_penalty": (_number(), "a number"),
    "max_tokens": (_whole(1), "a whole number above 0"),
    "max_completion_tokens": (_whole(1), "a whole number above 0"),
    "n": (_whole(1), "a whole number above 0"),
    "seed": (_whole(), "a whole number"),
    "top_logprobs": (_whole(0), "a whole number from 0 up"),
    "logprobs": (_is(bool), "true or false"),
    "stream": (_is(bool), "true or false"),
    "parallel_tool_calls": (_is(bool), "true or false"),
    "stop": (_texts, "a text or a list of texts"),
    "stream_options": (_is(dict), "an object"),
    "logit_bias": (_is(dict), "an object"),
    "response_format": (_is(dict), "an object with a type"),
    "tools": (_objects, "a list of objects"),
    "tool_choice": (lambda value: isinstance(value, str | dict), "a text or an object"),
    "reasoning_effort": (_is(str), "a text"),
}


_MESSAGE_FIELDS = (
    ("name", _is(str), "a text"),
    ("tool_call_id", _is(str), "a text"),
    ("tool_calls", _objects, "a list of objects"),
)


def check_fields(body: dict[str, Any]) -> None:
    """Raise ApiError, naming the field, where one of OpenAI's fields has another type than OpenAI's API takes."""
    for name in body.keys() & _FIELDS.keys():
        is_right, description = _FIELDS[name]
        if not is_right(body[name]):
            raise ApiError(400, f"`{name}` should be {description}", param=name)
    usage = (body.get("stream_options") or {}).get("include_usage")
    if usage is not None and not isinstance(usage, bool):
        raise ApiError(400, "`stream_options.include_usage` should be true or false", param="stream_options")
    form = body.get("response_format")
    if form is not None and not isinstance(form.get("type"), str):
        raise ApiError(400, "`response_format` should be an object with a type", param="response_format")


def with_usage(sent: dict[str, Any], engine: str) -> dict[str, Any]:
    """What a model server is sent, so that it counts tokens of a stream too, for the log.

    `transformers serve` counts always; the others where they are asked. Whether the client gets it is `shaping`'s.
    """
    if engine == "transformers" or not sent.get("stream"):
        return sent
    return sent | {"stream_options": {**(sent.get("stream_options") or {}), "include_usage": True}}


def for_upstream(body: dict[str, Any], endpoint: Endpoint, size: int) -> dict[str, Any]:
    """What a model server is sent: one name for all models, and no longer an answer than the endpoint allows.

    `size` is the length of the conversation in UTF-8 bytes. Raises ApiError when it is far too long.
    """
    if endpoint.max_input_tokens is not None and size > endpoint.max_input_tokens * _MOST_BYTES_PER_TOKEN:
        raise ApiError(
            400,
            f"the conversation has {size} bytes, certainly more than the {endpoint.max_input_tokens} tokens that "
            f"{endpoint.name} takes: shorten it",
            code="context_length_exceeded",
            param="messages",
        )
    sent = {key: value for key, value in body.items() if key not in _KEPT_BACK}
    sent["model"] = "model"
    if endpoint.max_output_tokens is not None:
        for name in [name for name in _LENGTHS if name in sent] or ["max_tokens"]:
            sent[name] = min(sent.get(name, endpoint.max_output_tokens), endpoint.max_output_tokens)
    return sent


def unmet_wishes(body: dict[str, Any], engine: str, *, is_probe: bool = False) -> list[str]:
    """The parameters of a request that the engine sets aside; ApiError where its answer would not be what was asked.

    A probe of the platform compares the text that a model writes when it is shown tools: it waits for no `tool_calls`.
    """
    if engine != "transformers":
        return []
    form = body.get("response_format")
    refused = {
        "n": (body.get("n") or 1) != 1,
        "logprobs": bool(body.get("logprobs")),
        "response_format": isinstance(form, dict) and form.get("type", "text") != "text",
        # It gives calls as text, unless the tokenizer says how to read them: whoever waits for `tool_calls` gets none.
        "tools": bool(body.get("tools")) and not is_probe,
        "tool_choice": body.get("tool_choice", "auto") not in ("auto", "none"),
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise ApiError(400, f"this endpoint's engine (transformers) has no `{name}`; vllm does", param=name)
    defaults = {"temperature": 0, "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1}
    return [
        name for name in _IGNORED_BY_TRANSFORMERS if body.get(name) is not None and body[name] != defaults.get(name)
    ]
