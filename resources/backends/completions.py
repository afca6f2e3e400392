"""Asks model servers over the OpenAI protocol: their health page, and a completion."""

import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from resources.backends.protocol import Health, ServerError
from resources.catalog import Backend

SERVED_NAME = "model"
"""What our own servers call their model, so that no answer tells which variant gave it."""


@dataclass(frozen=True)
class Answer:
    """A completion: its text, its length in tokens, and the seconds that it took.

    `prompt_ids` and `token_ids` are what the model saw and said, where that was asked for and the engine tells.
    """

    text: str
    tokens: int
    seconds: float
    finish_reason: str | None = None
    prompt_ids: tuple[int, ...] | None = None
    token_ids: tuple[int, ...] | None = None


def answer_of(completion: dict[str, Any], seconds: float) -> Answer:
    """The answer in a chat completion of the OpenAI protocol; LookupError or TypeError when it is none."""
    choice = completion["choices"][0]
    prompt_ids, token_ids = completion.get("prompt_token_ids"), choice.get("token_ids")
    return Answer(
        choice["message"]["content"],
        completion["usage"]["completion_tokens"],
        seconds,
        choice.get("finish_reason"),
        None if prompt_ids is None else tuple(prompt_ids),
        None if token_ids is None else tuple(token_ids),
    )


def health_page(url: str, timeout: float, headers: Mapping[str, str] | None = None) -> Health:
    """What a page says of its server: ok, failing where it answers with an error, silent where it does not answer."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=dict(headers or {})), timeout=timeout) as reply:
            return "ok" if reply.status == 200 else "failing"
    except urllib.error.HTTPError:
        return "failing"
    except (OSError, ValueError):
        return "silent"


def complete(
    backend: Backend,
    messages: list[dict[str, Any]],
    *,
    max_tokens: int = 16,
    token_ids: bool = False,
    tools: list[dict[str, Any]] | None = None,
    greedy: bool = True,
    timeout: float = 60,
    log: str = "",
) -> Answer:
    """Ask a backend itself, past the gateway, for a greedy completion, or for what a request gets that does not say
    how to sample (`greedy` False); raises ServerError, ending with `log`, when it gives none."""
    body: dict[str, Any] = {"model": _name(backend), "messages": messages, "max_tokens": max_tokens}
    if greedy:
        body["temperature"] = 0
    if token_ids:
        body["return_token_ids"] = True
    if tools:
        body["tools"] = tools
    begun = time.monotonic()
    reply = _posted(backend, body, timeout, log)
    try:
        answer = answer_of(reply, time.monotonic() - begun)
    except (LookupError, TypeError) as error:
        raise ServerError(f"the model server {backend.id} gave no completion: {error!r}{log}") from error
    if not isinstance(answer.text, str) or not answer.tokens:
        raise ServerError(f"the model server {backend.id} generated nothing{log}")
    return answer


def prompt_tokens(backend: Backend, messages: list[dict[str, Any]], *, timeout: float = 60) -> int | None:
    """How many tokens a backend makes of a conversation, by its own count; None where it does not count. Raises
    ServerError, with its own words, where it refuses the conversation."""
    reply = _posted(backend, {"model": _name(backend), "messages": messages, "max_tokens": 1}, timeout, "")
    usage = reply.get("usage") if isinstance(reply, dict) else None
    found = usage.get("prompt_tokens") if isinstance(usage, dict) else None
    return found if isinstance(found, int) else None


def listed(backend: Backend, *, timeout: float = 10) -> dict[str, Any]:
    """What a backend's own list of models says of the model that it is asked for; empty where it says nothing."""
    request = urllib.request.Request(f"{backend.url}/v1/models", headers=authorization(backend))
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            page = json.load(response)
    except (OSError, ValueError):
        return {}
    models = page.get("data") if isinstance(page, dict) else None
    mine = (one for one in models or [] if isinstance(one, dict) and one.get("id") == _name(backend))
    return next(mine, {})


def _name(backend: Backend) -> str:
    return str(backend.runtime.get("model", SERVED_NAME))


def _posted(backend: Backend, body: dict[str, Any], timeout: float, log: str) -> Any:
    """The reply to a request for a chat completion."""
    headers = {"Content-Type": "application/json", **authorization(backend)}
    request = urllib.request.Request(f"{backend.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        reply = error.read(2000).decode("utf-8", "replace")
        raise ServerError(f"the model server {backend.id} answered {error.code}: {reply}{log}") from error
    except (OSError, ValueError) as error:
        raise ServerError(f"the model server {backend.id} gave no completion: {error!r}{log}") from error


def authorization(backend: Backend) -> dict[str, str]:
    """The header that a backend wants, from the variable or file that its spec names; ServerError where that is not
    set."""
    variable = backend.runtime.get("api_key_variable")
    if not variable:
        return {}
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ServerError(f"the model server {backend.id} wants a key: set the variable {variable} that its spec names")
    return {"Authorization": f"Bearer {key}"}
