"""Reads a chat request: who asks, what of it goes to the model server, and what the limits of the endpoint say."""

import re
import uuid
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import Request

from images.gateway.errors import ApiError
from images.gateway.routes import Endpoint

MAX_BODY_BYTES = 4 * 1024 * 1024
SESSION_COOKIE = "llmops_session"

# No tokenizer in use packs more bytes into a token on average; what is longer by this measure is too long by any. The
# model server counts exactly and refuses the rest.
_MOST_BYTES_PER_TOKEN = 8
# What is for us or for OpenAI's own service, and none of a model's business.
_KEPT_BACK = ("user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key")
# `transformers serve` decodes greedily whatever a request says; the answer's header tells which wishes were not met.
_IGNORED_BY_TRANSFORMERS = (
    "temperature", "top_p", "seed", "stop", "logit_bias", "frequency_penalty", "presence_penalty", "tool_choice",
    "parallel_tool_calls", "reasoning_effort",
)  # fmt: skip
_IDENTIFIER = re.compile(r"[\w.@:+-]{1,200}")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whom the answer is for: `user` decides the variant; `new_session` is a session id that the client is to keep."""

    user: str
    session: str | None
    new_session: str | None = None


async def read_json(request: Request) -> dict[str, Any]:
    """The request's body as a JSON object of limited size."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise ApiError(413, f"the request is larger than {MAX_BODY_BYTES} bytes")
        parts.append(part)
    try:
        body = msgspec.json.decode(b"".join(parts))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the request's body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "the request's body should be a JSON object")
    return body


def who_asks(request: Request, body: dict[str, Any]) -> Caller:
    """The user a request names in its body or header, else its session; a stranger gets a session of their own.

    A client that keeps the session's cookie stays with its variant. One that does not is a new user with each request.
    """
    session = request.headers.get("x-session-id") or request.cookies.get(SESSION_COOKIE)
    if session is not None and not _IDENTIFIER.fullmatch(session):
        raise ApiError(400, "a session id has up to 200 letters, digits and . _ @ : + -", param="x-session-id")
    user = body.get("user")
    if user is None or user == "":
        user = request.headers.get("x-user-id") or None
    if user is not None:
        if not isinstance(user, str) or len(user) > 200:
            raise ApiError(400, "`user` should be a text of at most 200 characters", param="user")
        return Caller(user, session)
    if session is not None:
        return Caller(session, session)
    session = f"anonymous-{uuid.uuid4().hex[:16]}"
    return Caller(session, session, new_session=session)


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
    name = "max_completion_tokens" if "max_completion_tokens" in sent else "max_tokens"
    wanted = sent.get(name)
    if wanted is not None and (not isinstance(wanted, int) or isinstance(wanted, bool) or wanted < 1):
        raise ApiError(400, f"`{name}` should be a whole number above 0", param=name)
    if endpoint.max_output_tokens is not None:
        sent[name] = min(wanted or endpoint.max_output_tokens, endpoint.max_output_tokens)
    return sent


def unmet_wishes(body: dict[str, Any], engine: str) -> list[str]:
    """The parameters of a request that the engine sets aside; ApiError where its answer would not be what was asked."""
    if engine != "transformers":
        return []
    form = body.get("response_format")
    refused = {
        "n": (body.get("n") or 1) != 1,
        "logprobs": bool(body.get("logprobs")),
        "response_format": isinstance(form, dict) and form.get("type", "text") != "text",
    }
    for name, is_asked in refused.items():
        if is_asked:
            raise ApiError(400, f"this endpoint's engine (transformers) has no `{name}`; vllm does", param=name)
    defaults = {"temperature": 0, "tool_choice": "auto", "presence_penalty": 0, "frequency_penalty": 0, "top_p": 1}
    return [
        name for name in _IGNORED_BY_TRANSFORMERS if body.get(name) is not None and body[name] != defaults.get(name)
    ]
