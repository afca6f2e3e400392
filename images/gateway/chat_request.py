"""Reads a chat request: who asks, what of it goes to the model server, and what the limits of the endpoint say."""

import os
import re
from typing import Any

import msgspec
from starlette.requests import cookie_parser

from images.gateway.call import Call, EndUser
from images.gateway.errors import ApiError
from images.gateway.messages import texts_of
from images.gateway.routes import Endpoint

SESSION_COOKIE = "llmops_session"

# No tokenizer in use packs more bytes into a token on average; what is longer by this measure is too long by any. The
# model server counts exactly and refuses the rest.
_MOST_BYTES_PER_TOKEN = 8
# What is for us or for OpenAI's own service, and none of a model's business.
KEPT_BACK = frozenset(
    {
        "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention",
        "prompt_variables",
    }
)  # fmt: skip
_LENGTHS = ("max_tokens", "max_completion_tokens")
_IDENTIFIER = re.compile(r"[\w.@:+-]{1,200}")


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


INPUTS = {"chat": "messages", "completions": "prompt", "embeddings": "input"}
"""The field that holds what a model is to read, by the kind of operation."""


def with_usage(sent: dict[str, Any], engine: str) -> dict[str, Any]:
    """What a model server is sent, so that it counts tokens of a stream too, for the log.

    `transformers serve` counts always; the others where they are asked. Whether the client gets it is `shaping`'s.
    """
    if engine == "transformers" or not sent.get("stream"):
        return sent
    return sent | {"stream_options": {**(sent.get("stream_options") or {}), "include_usage": True}}


def for_upstream(body: dict[str, Any], endpoint: Endpoint, kind: str = "chat") -> dict[str, Any]:
    """What a model server is sent: one name for all models, and no longer an answer than the endpoint allows.

    `kind` is the operation's: `chat`, `completions` or `embeddings`. Raises ApiError when the input is far too long.
    """
    field = INPUTS[kind]
    if kind != "embeddings" and endpoint.max_input_tokens is not None:
        size = len(msgspec.json.encode(texts_of(body[field])))
        if size > endpoint.max_input_tokens * _MOST_BYTES_PER_TOKEN:
            raise ApiError(
                400,
                f"`{field}` has {size} bytes, certainly more than the {endpoint.max_input_tokens} tokens that "
                f"{endpoint.name} takes: shorten it",
                code="context_length_exceeded",
                param=field,
            )
    sent = {key: value for key, value in body.items() if key not in KEPT_BACK}
    sent["model"] = "model"
    if endpoint.max_output_tokens is not None and kind != "embeddings":
        for name in [name for name in _LENGTHS if name in sent] or ["max_tokens"]:
            sent[name] = min(sent.get(name, endpoint.max_output_tokens), endpoint.max_output_tokens)
    return sent
