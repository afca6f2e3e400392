"""Reads the body of a request as strict JSON, and refuses what no model server reads."""

import asyncio
import json
import math
import re
from typing import Any

import msgspec

from images.gateway.call import Call
from images.gateway.errors import ApiError

MAX_BODY_BYTES = 4 * 1024 * 1024
# Who is answered while still sending finds the connection reset, and never reads why: what is too much is read on, and
# thrown away, up to here.
_MOST_DRAINED_BYTES = 64 * 1024 * 1024
MAX_DEPTH = 64
"""Levels of JSON below each other: a tool's schema has a dozen; a model server gives up at some hundred."""
_JSON_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"\s*:?|[\[\]{}]')
_SEARCHED_BYTES = 64 * 1024
# Some clients write one before what they read from a file (RFC 8259, 8.1: it may be passed over).
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_SURROGATE = re.compile("[\ud800-\udfff]")
_LEAST, _MOST = -(2**63), 2**63
BODY_SECONDS = 60.0
"""From the end of the headers to the end of the body."""


class ClientGone(Exception):
    """The client went away while it sent its request."""


async def _read(call: Call) -> bytes:
    """All bytes of the body; ApiError 413 when they are too many."""
    parts, size, more = [], 0, True
    while more and size <= _MOST_DRAINED_BYTES:
        message = await call.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size <= MAX_BODY_BYTES:
            parts.append(part)
        more = message.get("more_body", False)
    call.is_read, call.is_reading = not more, False
    if size > MAX_BODY_BYTES:
        # What was not read to its end would be taken for the next request.
        raise ApiError(
            413,
            f"the request is larger than {MAX_BODY_BYTES} bytes",
            extra={"Connection": "close"} if size > _MOST_DRAINED_BYTES else None,
        )
    return b"".join(parts)


async def read_json(call: Call) -> dict[str, Any]:
    """The request's body as a JSON object of limited size; a field that is null is as one that is not there.

    Raises ApiError for what no model server reads (a key given twice, numbers without an end, nesting without an end),
    413 for what is too large and 408 for what comes too slowly.
    """
    encoding = call.header(b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in ("", "identity"):
        raise ApiError(400, "a body is taken as it is: send no `content-encoding`", param="content-encoding")
    coding = call.header(b"transfer-encoding")
    if coding is not None and coding.strip().lower() != "chunked":
        raise ApiError(400, "a body comes whole or in chunks, in no other coding", param="transfer-encoding")
    call.is_reading = True
    try:
        data = await _read(call)
    except asyncio.CancelledError as error:
        if not call.is_overdue:
            raise
        asyncio.current_task().uncancel()
        raise ApiError(
            408, f"the body of the request did not come within {BODY_SECONDS:g} s", extra={"Connection": "close"}
        ) from error
    data = data.removeprefix(_BYTE_ORDER_MARK)
    try:
        body = _decoded(data)
    except _TwiceGiven as error:
        raise ApiError(400, f"`{error}` is given twice in one object of the request", param=str(error)) from error
    except RecursionError as error:
        raise _too_deep(_deep_field(data)) from error
    except (ValueError, UnicodeDecodeError) as error:
        raise ApiError(400, f"the request's body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ApiError(400, "the request's body should be a JSON object")
    body = {key: value for key, value in body.items() if value is not None}
    _check_values(body)
    return body


def _decoded(data: bytes) -> Any:
    """The value that some JSON says; _TwiceGiven where an object of it has a key twice.

    msgspec is the faster of the two, but takes the last of equal keys in silence: where there are as many colons as
    keys, none is gone. What it does not take, or has colons in its texts, is read by the other, whose errors are told.
    """
    try:
        found = msgspec.json.decode(data)
        if _keys(found) == data.count(b":"):
            return found
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    return _decoder.decode(data.decode("utf-8"))


def _keys(value: Any) -> int:
    """Keys of all objects in a decoded value."""
    count, todo = 0, [value]
    while todo:
        value = todo.pop()
        if type(value) is dict:
            count += len(value)
            value = value.values()
        elif type(value) is not list:
            continue
        todo += [inner for inner in value if type(inner) is dict or type(inner) is list]
    return count


class _TwiceGiven(ValueError):
    """A key that an object has twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        keys = [key for key, _ in pairs]
        raise _TwiceGiven(next(key for key in keys if keys.count(key) > 1))
    return found


_decoder = json.JSONDecoder(object_pairs_hook=_object)


def _too_deep(name: str | None) -> ApiError:
    where = f"`{name}`" if name else "the request's body"
    return ApiError(400, f"{where} is nested more than {MAX_DEPTH} levels deep", param=name)


def _deep_field(data: bytes) -> str | None:
    """The field of the outermost object whose value is nested too deep, where it is among the first bytes."""
    depth, name = 0, None
    for match in _JSON_TOKEN.finditer(data[:_SEARCHED_BYTES]):
        token = match.group()
        if token in (b"[", b"{"):
            depth += 1
        elif token in (b"]", b"}"):
            depth -= 1
        elif depth == 1:
            name = token.rstrip(b" :")[1:-1].decode("utf-8", "replace")
        if depth > MAX_DEPTH:
            return name
    return None


def _check_values(body: dict[str, Any]) -> None:
    """Raise ApiError where a value is nested too deep or is a number that JSON has no room for on its way further."""
    for name, value in body.items():
        if type(value) is bool or (type(value) is str and value.isascii()):
            continue
        # A level after the other: what the decoder makes is of these types and no others.
        level, depth = [value], 1
        while level:
            depth += 1
            below: list[Any] = []
            for value in level:
                kind = type(value)
                if kind is str:
                    if not value.isascii() and _SURROGATE.search(value):
                        raise ApiError(400, f"`{name}` holds half a character (a lone surrogate)", param=name)
                elif kind is dict:
                    below.append(value.values())
                elif kind is list:
                    below.append(value)
                elif kind is float:
                    if not math.isfinite(value):
                        raise ApiError(400, f"`{name}` holds {value}, which is no number of JSON", param=name)
                elif kind is int and not _LEAST <= value < _MOST:
                    raise ApiError(400, f"`{name}` holds a whole number of more than 64 bits", param=name)
            if below and depth > MAX_DEPTH:
                raise _too_deep(name)
            level = [inner for values in below for inner in values]
