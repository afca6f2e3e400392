"""Routes of logging in and out: a form, the provider's two ways, the end, and who one is."""

from typing import Any

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import RedirectResponse, Response

from images.console.callers import cookie_of, refuse_other_pages, refuse_unknown_pages
from images.console.login.page import login_page, target_of
from images.console.problems import Problem
from images.console.state import Asking, Here, State
from llmops_assets.operations.errors import Unavailable
from llmops_assets.operations.logins import (
    NotLoggedIn,
    TooManyTries,
    begin_at_provider,
    finish_at_provider,
    log_in,
    log_out,
)

router = APIRouter(tags=["login"], include_in_schema=False)
_BROWSER = "llmops-login"
"""The cookie by which a browser is known that comes back from the provider."""
_LARGEST_FORM = 16 * 1024


def _page(request: Request, here: State, **more: Any) -> Response:
    return login_page(request, has_passwords=True, has_provider=here.provider is not None, **more)


def _counted(request: Request, here: State) -> None:
    here.tries.check(here.address_of(request))


def _cookie(here: State, answer: Response, name: str, value: str, seconds: int | None = None, path: str = "/") -> None:
    answer.set_cookie(name, value, max_age=seconds, path=path, secure=here.secure, httponly=True, samesite="lax")


@router.get("/login")
def form(request: Request, here: Here, next: str | None = None, ended: bool = False) -> Response:
    """The login page."""
    return _page(request, here, target=target_of(next), word="ended" if ended else None)


@router.post("/login")
async def submitted(request: Request, here: Here) -> Response:
    """A name and a password: a session, or the page again."""
    refuse_other_pages(request.headers)
    refuse_unknown_pages(request.headers)
    _counted(request, here)
    if int(request.headers.get("content-length") or _LARGEST_FORM + 1) > _LARGEST_FORM:
        raise Problem(413, "a login is shorter than this")
    fields = await request.form(max_files=0, max_fields=10)
    name, password = str(fields.get("name", "")), str(fields.get("password", ""))
    target, language = target_of(str(fields.get("next", ""))), str(fields.get("lang", ""))
    before = cookie_of(request.headers, here.callers.cookie)
    try:
        secret = await run_in_threadpool(log_in, here.wiring, name, password, instead_of=before)
    except NotLoggedIn:
        return _page(request, here, target=target, word="wrong", status=401, language=language)
    except TooManyTries:
        return _page(request, here, target=target, word="wait", status=429, language=language)
    answer = RedirectResponse(target, 303, {"Cache-Control": "no-store"})
    _cookie(here, answer, here.callers.cookie, secret)
    return answer


@router.get("/login/provider")
async def begin(request: Request, here: Here, next: str | None = None) -> Response:
    """Send the browser to the provider."""
    if here.provider is None:
        raise Problem(404, "no provider of logins is set (LLMOPS_OIDC_ISSUER)")
    _counted(request, here)
    target = target_of(next)
    try:
        address, browser = await run_in_threadpool(begin_at_provider, here.wiring, here.provider, target)
    except Unavailable as error:
        return _page(request, here, target=target, word="away", detail=str(error), status=503)
    answer = RedirectResponse(address, 303, {"Cache-Control": "no-store"})
    _cookie(here, answer, _BROWSER, browser, 600, "/login")
    return answer


@router.get("/login/callback")
async def finish(request: Request, here: Here) -> Response:
    """Take back a browser from the provider."""
    if here.provider is None:
        raise Problem(404, "no provider of logins is set (LLMOPS_OIDC_ISSUER)")
    _counted(request, here)
    browser = cookie_of(request.headers, _BROWSER) or ""
    before = cookie_of(request.headers, here.callers.cookie)
    said = dict(request.query_params)
    try:
        secret, target = await run_in_threadpool(
            finish_at_provider, here.wiring, here.provider, said, browser, instead_of=before
        )
    except NotLoggedIn as error:
        return _page(request, here, target="/", word="refused", detail=str(error), status=401)
    except Unavailable as error:
        return _page(request, here, target="/", word="away", detail=str(error), status=503)
    answer = RedirectResponse(target_of(target), 303, {"Cache-Control": "no-store"})
    _cookie(here, answer, here.callers.cookie, secret)
    answer.delete_cookie(_BROWSER, path="/login")
    return answer


@router.post("/logout")
async def logout(request: Request, here: Here) -> Response:
    """End the session."""
    refuse_other_pages(request.headers)
    refuse_unknown_pages(request.headers)
    if (secret := cookie_of(request.headers, here.callers.cookie)) is not None:
        await run_in_threadpool(log_out, here.wiring, secret)
    answer = RedirectResponse("/login?ended=1", 303, {"Cache-Control": "no-store"})
    # What the browser keeps of pages of this session is forgotten, too.
    answer.headers["Clear-Site-Data"] = '"cache"'
    answer.delete_cookie(here.callers.cookie, path="/", secure=here.secure, httponly=True, samesite="lax")
    return answer


@router.get("/llm-ops/v1/session", include_in_schema=True)
def session(here: Here, asking: Asking) -> dict[str, Any]:
    """Who asks, with which roles, and what they may do."""
    table = here.wiring.policy.access
    roles = sorted(table.roles if asking.roles is None else asking.roles)
    actions = table.actions_of(["admin"] if asking.roles is None else roles)
    owns = asking.roles is None
    return {"user": asking.user, "roles": ["admin"] if owns else roles, "actions": sorted(actions)}
