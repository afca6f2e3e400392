"""The login page, and where a login may lead to."""

import secrets
from functools import cache
from pathlib import Path
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, Template, select_autoescape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from images.console.login.words import WORDS, language_of

HOME = "/"


@cache
def _template() -> Template:
    loader = FileSystemLoader(Path(__file__).parent)
    return Environment(loader=loader, autoescape=select_autoescape()).get_template("login.html")


def target_of(text: str | None) -> str:
    """The page of the console that a text names; its home for everything that could lead elsewhere."""
    if not text or len(text) > 2000 or not text.startswith("/") or text[1:2] in ("/", "\\"):
        return HOME
    # Browsers drop tabs and line breaks from an address, and then see another one.
    if "\\" in text or any(letter <= " " or letter == "\x7f" for letter in text):
        return HOME
    return text


def login_page(
    request: Request,
    *,
    has_passwords: bool,
    has_provider: bool,
    target: str,
    word: str | None = None,
    detail: str = "",
    status: int = 200,
    language: str | None = None,
) -> HTMLResponse:
    """The page; `word` names what it says above the form, `detail` is more of it, in English."""
    chosen = language_of(language or request.query_params.get("lang"), request.headers.get("accept-language", ""))
    words, nonce = WORDS[chosen], secrets.token_urlsafe(16)
    text = _template().render(
        words=words,
        language=chosen,
        other="en" if chosen == "ko" else "ko",
        message=words[word] if word else "",
        is_fault=word not in (None, "ended"),
        detail=detail,
        has_passwords=has_passwords,
        has_provider=has_provider,
        target=target,
        nonce=nonce,
    )
    return HTMLResponse(
        text,
        status,
        {
            "Content-Security-Policy": f"default-src 'none'; style-src 'nonce-{nonce}'; form-action 'self'; "
            "base-uri 'none'; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            # Without an origin a browser sends none with the form either, and ours could not be told from a stranger's.
            "Referrer-Policy": "same-origin",
            "X-Content-Type-Options": "nosniff",
        },
    )


def login_address(asked: str, method: str = "GET") -> str:
    """Where a browser goes that asked for a page (path and query, as it sent them) without being logged in.

    It comes back to that page: all of its query is one value here. What is no page to come back to leads home.
    """
    where = target_of(asked) if method in ("GET", "HEAD") else HOME
    return f"/login?next={quote(where, safe='')}"
