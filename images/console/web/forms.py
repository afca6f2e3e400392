"""Forms of the pages: read within a limit, and taken from our own pages alone."""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from urllib.parse import parse_qsl

from fastapi import Request

from images.console.callers import Caller
from images.console.problems import Problem
from images.console.state import State

COOKIE = "llmops_form"
FIELD = "csrf"
HEADER = "x-csrf-token"
LARGEST = 256 * 1024
"""Bytes of a form without files."""
_FALLBACK = secrets.token_hex(32)


class Form(dict[str, str]):
    """The fields of a form: the last value of each name, without spaces around it; what is missing is empty."""

    def __missing__(self, name: str) -> str:
        return ""

    def given(self, name: str) -> str | None:
        """A field that was filled in, else None."""
        return self[name] or None

    def is_on(self, name: str) -> bool:
        """Whether a box is ticked."""
        return self[name] in ("on", "true", "1")


def token(here: State, caller: Caller, nonce: str) -> str:
    """What a form of ours carries: nobody else's page knows the nonce, and no other user's token fits it."""
    key = (here.wiring.settings.admin_token or _FALLBACK).encode()
    return hmac.new(key, f"form\0{caller.user}\0{nonce}".encode(), hashlib.sha256).hexdigest()


def nonce_of(request: Request) -> str:
    """The nonce of a browser; a new one where it has none."""
    found = request.cookies.get(COOKIE, "")
    return found if len(found) == 43 and found.isascii() else secrets.token_urlsafe(32)


def check(here: State, caller: Caller, request: Request, given: str) -> None:
    """Raise Problem 403 unless a form came from a page that was made for this user in this browser."""
    nonce = request.cookies.get(COOKIE, "")
    given = given or request.headers.get(HEADER, "")
    if not nonce or not hmac.compare_digest(token(here, caller, nonce).encode(), given.encode()):
        raise Problem(403, "this form is not one that was made for you here, or it is too old: load its page again")


async def read_form(request: Request, here: State, caller: Caller) -> Form:
    """The fields of an urlencoded form that was checked. Raises Problem 403, 413 and 415."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise Problem(415, "this is sent as a form of its page: application/x-www-form-urlencoded")
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > LARGEST:
            raise Problem(413, f"a form may have {LARGEST:,} bytes")
    try:
        pairs = parse_qsl(bytes(body).decode("utf-8"), keep_blank_values=True, max_num_fields=500)
    except ValueError as error:
        raise Problem(400, f"this is no form: {error}") from error
    form = fields(dict(pairs))
    check(here, caller, request, form.pop(FIELD, ""))
    return form


def fields(values: Mapping[str, str]) -> Form:
    """The fields of a form, without spaces around them; line breaks as we write them."""
    return Form({name: value.replace("\r\n", "\n").strip() for name, value in values.items()})
