"""Reads the messages of a chat request: their shape, what the user asks, and what else than text is in them."""

import ipaddress
import socket
from typing import Any
from urllib.parse import urlsplit

from images.gateway.errors import ApiError
from images.gateway.fields import is_a, objects

ROLES = frozenset({"system", "developer", "user", "assistant", "tool", "function"})
_FIELDS = (
    ("name", is_a(str), "a text"),
    ("tool_call_id", is_a(str), "a text"),
    ("tool_calls", objects, "a list of objects"),
    ("reasoning_content", is_a(str), "a text"),
    ("refusal", is_a(str), "a text"),
)
# Where a part of a message names what a model server would load.
_LOADED = ("image_url", "video_url", "audio_url")
_NOT_PUBLIC = (".local", ".internal", ".localhost", ".localdomain", ".svc", ".lan", ".home", ".corp")


def check_messages(body: dict[str, Any]) -> str:
    """Check the shape of `messages` and return the text of the user's last one."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "`messages` should be a list of at least one message", param="messages")
    query = ""
    for index, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ApiError(400, f"message {index} should be an object with a role", param=f"messages[{index}]")
        role = message["role"]
        if role not in ROLES:
            where = f"messages[{index}].role"
            raise ApiError(400, f"`{where}` should be one of {', '.join(sorted(ROLES))}, not {role!r}", param=where)
        text = _text(message.get("content"), f"messages[{index}].content")
        if text is None and role != "assistant":
            raise ApiError(400, f"the content of message {index} should be text", param=f"messages[{index}].content")
        for name, is_right, description in _FIELDS:
            if message.get(name) is not None and not is_right(message[name]):
                where = f"messages[{index}].{name}"
                raise ApiError(400, f"`{where}` should be {description}", param=where)
        if role == "user" and text:
            query = text
    return query


def _text(content: Any, where: str) -> str | None:
    """A message's text, given as a string or in parts (others than text have none); None where there is no content.

    Raises ApiError for what is no content at all.
    """
    if content is None or isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        raise ApiError(400, f"`{where}` should be text, or a list of parts", param=where)
    texts = []
    for number, part in enumerate(content):
        at = f"{where}[{number}]"
        if not isinstance(part, dict) or not isinstance(part.get("type"), str):
            raise ApiError(400, f"`{at}` should be an object with a type", param=at)
        if part["type"] in ("text", "refusal"):
            text = part.get(part["type"])
            if not isinstance(text, str):
                raise ApiError(400, f"`{at}.{part['type']}` should be text", param=f"{at}.{part['type']}")
            texts.append(text)
        else:
            _check_loaded(part, at)
    return " ".join(texts)


def other_part(messages: list[dict[str, Any]]) -> tuple[str, str] | None:
    """Where the first part stands that is no text, and its type; None where all are."""
    for index, message in enumerate(messages):
        if isinstance(message.get("content"), list):
            for number, part in enumerate(message["content"]):
                if part["type"] not in ("text", "refusal"):
                    return f"messages[{index}].content[{number}]", part["type"]
    return None


def texts_of(value: Any) -> Any:
    """Messages without the parts that are no text, whose bytes say nothing about tokens; anything else as it is."""
    if not isinstance(value, list) or not any(
        isinstance(m, dict) and isinstance(m.get("content"), list) for m in value
    ):
        return value
    return [
        {**m, "content": [part for part in m["content"] if part.get("type") in ("text", "refusal")]}
        if isinstance(m, dict) and isinstance(m.get("content"), list)
        else m
        for m in value
    ]


def _check_loaded(part: dict[str, Any], at: str) -> None:
    """Raise ApiError where a part would have a model server load what is not public."""
    for name in _LOADED:
        if (value := part.get(name)) is None:
            continue
        url = value.get("url") if isinstance(value, dict) else value
        where = f"{at}.{name}"
        if not isinstance(url, str):
            raise ApiError(400, f"`{where}` should be an object with a url", param=where)
        if not url.startswith("data:") and not is_public(url):
            raise ApiError(400, f"`{where}` should be a data: URL, or of a public https server", param=where)


def is_public(url: str) -> bool:
    """Whether a URL is of a server on the internet by its looks: no path into this network, no file."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host or parts.username is not None or "\\" in url:
        return False
    if any(ord(c) <= 32 for c in url):
        return False
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_global
    except ValueError:
        pass
    try:
        # What a resolver takes for an address: 127.1, 0x7f.0.0.1, 2130706433.
        return ipaddress.ip_address(socket.inet_aton(host)).is_global
    except (OSError, UnicodeEncodeError):
        pass
    name = host.rstrip(".").lower()
    return name.isascii() and "." in name and not name.endswith(_NOT_PUBLIC)
