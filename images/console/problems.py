"""Errors as RFC 9457 has them: `application/problem+json`, with the path of every field that is wrong."""

import errno
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from llmops_assets.operations.errors import Failed, Forbidden, InUse, Refused, Unavailable, Withheld
from llmops_assets.specs.base import SpecError, dotted, words_of
from resources.catalog import Busy, Conflict, NotFound
from resources.prompts import UnknownPrompt
from resources.tracking import UnknownModel

log = logging.getLogger("console")
KIND = "application/problem+json"
TITLES = {
    400: "the request cannot be read",
    401: "nobody is known by this token",
    403: "this may not be asked for",
    404: "there is no such thing",
    405: "this method is not for this address",
    409: "this contradicts what is on record",
    412: "it has changed meanwhile",
    413: "this is too large",
    415: "this type of content is not read here",
    422: "what was sent is not valid",
    424: "it was begun and did not succeed",
    429: "too many requests",
    500: "the platform failed",
    503: "what this needs is busy or away",
}


_FULL = (errno.ENOSPC, errno.EDQUOT)


class Fault(BaseModel):
    """One thing that is wrong in a request."""

    field: str
    message: str
    hint: str


class ProblemBody(BaseModel):
    """The body of every error."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Fault] = Field(default_factory=list)


DOCUMENTED: dict[int | str, dict[str, Any]] = {
    status: {"description": words, "content": {KIND: {"schema": {"$ref": "#/components/schemas/ProblemBody"}}}}
    for status, words in TITLES.items()
    if status not in (405, 412)
}
"""Errors of every route, as the description of the interface has them."""


class Problem(Exception):
    """An error with its status, as a route raises it."""

    def __init__(self, status: int, detail: str, **headers: str) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def problem(
    status: int, detail: str, errors: Sequence[Mapping[str, Any]] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that tells of an error; `errors` has one entry a field: field, message, hint."""
    body: dict[str, Any] = {"type": "about:blank", "title": TITLES.get(status, ""), "status": status, "detail": detail}
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status, dict(headers or {}), media_type=KIND)


def status_of(error: Exception) -> int | None:
    """The status of an error that is the caller's to mend, or passes; None for a fault of the platform's."""
    codes: Sequence[tuple[tuple[type[Exception], ...], int]] = (
        ((NotFound, UnknownModel, UnknownPrompt), 404),
        ((Forbidden,), 403),
        ((Conflict, Withheld, InUse), 409),
        ((Failed,), 424),
        ((Unavailable, Busy), 503),
        ((Refused, SpecError), 422),
    )
    return next((code for kinds, code in codes if isinstance(error, kinds)), None)


def of_request(error: RequestValidationError) -> tuple[str, list[dict[str, str]]]:
    """What is wrong with a request that was read and is not what its route takes: as words, and by field."""
    faults = []
    for one in error.errors():
        # Where FastAPI found it ("body", "query") is no field of the caller's.
        message, hint = words_of(one)
        faults.append({"field": dotted(one["loc"][1:]), "message": message, "hint": hint})
    return "; ".join(f"{f['field']}: {f['message']}" if f["field"] else f["message"] for f in faults), faults


def answer_to(error: Exception) -> JSONResponse:
    """The answer to an error of an operation; one of the platform's own goes to the log, and not to the caller."""
    if isinstance(error, Problem):
        return problem(error.status, error.detail, headers=error.headers)
    if isinstance(error, SpecError):
        faults = [{"field": f.field, "message": f.message, "hint": f.hint} for f in error.faults]
        return problem(422, str(error), faults)
    if isinstance(error, OSError) and error.errno in _FULL:
        log.error("a disk is full", exc_info=error)
        where = f" ({error.filename})" if error.filename else ""
        detail = f"a disk of the platform is full{where}: free space there (llmops doctor), and send it again"
        return problem(503, detail, headers={"Retry-After": "60"})
    status = status_of(error)
    if status is None:
        log.error("a request failed", exc_info=error)
        return problem(500, "the platform's log says what happened; asking again may help")
    return problem(status, str(error), headers={"Retry-After": "5"} if status == 503 else None)


def install(app: FastAPI) -> None:
    """Have every error of an application answered so."""

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        is_unreadable = any(one["type"] == "json_invalid" for one in error.errors())
        return problem(400 if is_unreadable else 422, *of_request(error))

    async def http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return problem(error.status_code, str(error.detail), headers=error.headers)

    async def other(_request: Request, error: Exception) -> JSONResponse:
        return answer_to(error)

    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, http)
    own = (Problem, SpecError, Refused, Withheld, Failed, Unavailable)
    for kind in (*own, Conflict, NotFound, UnknownModel, UnknownPrompt, Busy):
        app.add_exception_handler(kind, other)
    app.add_exception_handler(Exception, other)
