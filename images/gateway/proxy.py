"""Asks a model server on behalf of a user."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import msgspec

from images.gateway.errors import ApiError
from images.gateway.events import STALL_SECONDS, BackendFailed, Stream, first_error, with_name
from images.gateway.upstream.faults import Unreachable, UpstreamFailed
from images.gateway.upstream.pool import Pool
from images.gateway.upstream.response import Response

log = logging.getLogger("gateway.proxy")

MAX_ANSWER_BYTES = 64 * 1024 * 1024
_MAX_REFUSAL_BYTES = 64 * 1024


@dataclass(slots=True)
class Whole:
    """A complete answer; `content` is that of a completion, decoded."""

    status: int
    body: bytes
    content: dict[str, Any] | None = None


class _Embeddings(msgspec.Struct):
    data: list[dict[str, msgspec.Raw]]


_read_embeddings = msgspec.json.Decoder(_Embeddings).decode


@dataclass(slots=True)
class Question:
    """What a model server is asked: an operation's path and kind, the encoded body, and what to make of the answer.

    `name` is the endpoint's, as `renamed` gives it; `choices` is how many answers the request asks for.
    """

    path: str
    kind: str
    payload: bytes
    request_id: str
    name: bytes
    is_streamed: bool
    choices: int = 1
    stall_seconds: float = STALL_SECONDS
    key: str | None = field(default=None, repr=False)


async def ask(
    connections: Pool,
    backend: str,
    url: str,
    question: Question,
    *,
    on_reconnect: Callable[[], object],
    on_advance: Callable[[], object] = lambda: None,
) -> Whole | Stream:
    """Send a request to the server at `url`, which serves `backend`.

    A stream is returned once its first bytes are there. Raises BackendFailed when there is no answer, one with a
    status of 500 or above, or what is no answer to the request; ApiError when the model server refuses the request.
    """
    headers = {"Content-Type": "application/json", "x-request-id": question.request_id}
    if question.key is not None:
        headers["Authorization"] = f"Bearer {question.key}"
    response: Response | None = None
    is_begun = is_passed_on = False
    try:
        response = await connections.post(url, question.path, question.payload, headers, on_reconnect)
        if response.status >= 500:
            start = (await response.read_all(500))[:500].decode("utf-8", "replace")
            raise BackendFailed(f"backend {backend} answered {response.status}: {start}")
        if response.status in (401, 403):
            raise BackendFailed(f"backend {backend} refuses the gateway ({response.status})")
        if response.status in (404, 405):
            raise ApiError(400, f"the model server of this endpoint has no {question.path}", param="model")
        if response.status >= 400:
            body = (await response.read_all(_MAX_REFUSAL_BYTES))[:_MAX_REFUSAL_BYTES]
            refusal = _refusal(response.status, body)
            # It knows when it has room again.
            refusal.retry_after = refusal.retry_after if response.retry_after is None else response.retry_after
            raise refusal
        if response.status != 200:
            raise BackendFailed(f"backend {backend} answered {response.status}, which is no answer")
        if question.is_streamed and response.content_type == "text/event-stream":
            first = await response.read_some()
            if not first:
                raise BackendFailed(f"backend {backend} sent an empty stream")
            if (error := first_error(first)) is not None:
                # Nothing was sent yet: it gets a status, and where it is the server's fault another one is asked.
                raise _begun_with(error, backend)
            is_passed_on = True
            return Stream(
                response,
                first,
                name=question.name,
                choices=question.choices,
                on_advance=on_advance,
                stall_seconds=question.stall_seconds,
            )
        is_begun = True
        body, content = await _whole(response, backend, question.kind)
        return Whole(200, with_name(body, question.name), content)
    except (Unreachable, ValueError) as error:
        # A key or an address that cannot be sent or found is no fault of the request's.
        raise BackendFailed(f"backend {backend} cannot be reached: {error!r}") from error
    except TimeoutError as error:
        raise BackendFailed(f"backend {backend} did not answer in time", waited_in_vain=True) from error
    except UpstreamFailed as error:
        raise BackendFailed(f"backend {backend} did not answer: {error!r}", may_ask_again=not is_begun) from error
    finally:
        if response is not None and not is_passed_on:
            # What was read to its end is kept; anything else is closed, which tells the server to end.
            response.release()


async def _whole(response: Response, backend: str, kind: str) -> tuple[bytes, dict[str, Any] | None]:
    """The body of an answer, once it is seen to be one, and of a completion what it says."""
    body = b""
    size = response.content_length or 0
    if size <= MAX_ANSWER_BYTES:
        body = await response.read_all(MAX_ANSWER_BYTES)
        size = len(body)
    if size > MAX_ANSWER_BYTES:
        raise BackendFailed(f"backend {backend} answered more than {MAX_ANSWER_BYTES} bytes", may_ask_again=False)
    try:
        if kind == "embeddings":
            # Their numbers are nobody's business here.
            if not body.isascii():
                body.decode()
            _read_embeddings(body)
            return body, None
        content = msgspec.json.decode(body)
        if _is_completion(kind, content):
            return body, content
        start = body[:100].decode("utf-8", "replace")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        start = body[:100].decode("utf-8", "replace")
    if (error := first_error(b"data:" + body.replace(b"\n", b" ") + b"\n\n")) is not None:
        raise _begun_with(error, backend)
    raise BackendFailed(f"backend {backend} answered what is no answer: {start}", may_ask_again=False)


def _is_completion(kind: str, found: Any) -> bool:
    """Whether each choice of a completion, of which there is one at least, says something, be it nothing."""
    choices = found.get("choices") if isinstance(found, dict) else None
    if not isinstance(choices, list) or not choices:
        return False
    name, type_ = ("message", dict) if kind == "chat" else ("text", str)
    return all([isinstance(choice, dict) and isinstance(choice.get(name), type_) for choice in choices])


def _begun_with(error: dict[str, Any], backend: str) -> Exception:
    """A stream's error in its first event, which some servers send with the status 200."""
    found = error["error"]
    code = found.get("code") if isinstance(found, dict) else 400 if error.get("error_type") == "validation" else None
    status = int(code) if str(code).isascii() and str(code).isdigit() else 500
    if 400 <= status < 500 and status not in (401, 403, 404, 405, 408):
        return _refusal(status, msgspec.json.encode(error))
    message = found.get("message", found) if isinstance(found, dict) else found
    return BackendFailed(f"backend {backend} sent an error: {str(message)[:500]}")


def _refusal(status: int, body: bytes) -> ApiError:
    """A model server's refusal in OpenAI's shape, whichever shape it had."""
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        answer = {}
    error = answer.get("error") if isinstance(answer, dict) else None
    if error is None and isinstance(answer, dict) and isinstance(answer.get("message"), str):
        # Of older servers the body is the error itself.
        error = answer
    # Servers say 422 where OpenAI's API says 400; that they know no such model, path or key is no fault of the client.
    if isinstance(error, dict):
        message, code, param = error.get("message"), error.get("code"), error.get("param")
        return ApiError(
            400 if status == 422 else status,
            str(message),
            code=None if code is None else str(code),
            param=param if isinstance(param, str) else None,
        )
    message = error if isinstance(error, str) else _detail(answer) if isinstance(answer, dict) else None
    return ApiError(400 if status == 422 else status, message or f"the model server refused the request ({status})")


def _detail(answer: dict[str, Any]) -> str | None:
    """What a problem (RFC 9457) or an error of FastAPI says: a text, or what is wrong with each field."""
    detail = answer.get("detail") or answer.get("title")
    if isinstance(detail, str):
        return detail
    faults = [fault for fault in detail if isinstance(fault, dict)] if isinstance(detail, list) else []
    told = [(fault.get("loc") or [], fault["msg"]) for fault in faults if isinstance(fault.get("msg"), str)]
    return "; ".join(f"{'.'.join(map(str, loc))}: {msg}" if isinstance(loc, list) and loc else msg for loc, msg in told)
