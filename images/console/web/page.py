"""What every page shares: its language, its policy, its errors as a page, and the token of its forms."""

import hashlib
import json
import math
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import jinja2
import yaml
from fastapi import APIRouter, Depends, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from markdown_it import MarkdownIt
from markupsafe import Markup
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from images.console import problems
from images.console.login.page import login_address
from images.console.problems import Problem
from images.console.state import Asking, Here, State
from images.console.web import forms
from images.console.web.i18n import COOKIE, N_, STATES, language_of, tone, translations
from images.console.web.reasons import said
from llmops_assets.specs.base import SpecError

FOLDER = Path(__file__).parent
PER_PAGE = 25
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "frame-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    # Without an origin, a browser sends none with a form either, and ours could not be told from a stranger's.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
LOGIN, LOGOUT = "/login", "/logout"
DONE = {
    "entered": N_("It is entered."),
    "registered": N_("The files are registered; the state below says when they are read."),
    "requested": N_("The training is requested."),
    "stopped": N_("The training was asked to stop; it saves a checkpoint."),
    "resumed": N_("The training goes on from its last whole checkpoint."),
    "approved": N_("The model is approved."),
    "archived": N_("The model is out of use."),
    "promoted": N_("The model is promoted."),
    "wanted": N_("The endpoint is wanted so; its state shows when it serves."),
    "advanced": N_("The rollout goes on to its next step."),
    "held": N_("The rollout waits until somebody advances it."),
    "rolled_back": N_("The endpoint goes back to the model before."),
    "deleted": N_("The endpoint is deleted."),
    "test_started": N_("The test runs."),
    "test_stopped": N_("The test is over, without a winner."),
    "test_concluded": N_("The test is concluded."),
    "stated": N_("What you state is on record, with your name and the date."),
    "reviewed": N_("The review is on record."),
    "erased": N_("The erasure is carried out."),
    "taken_on": N_("You have taken the alert on; others see that."),
}
"""What a page says after something was done, by the word in its address."""


@cache
def digest(name: str) -> str:
    """What an asset's address ends with, so that browsers may keep it for ever."""
    return hashlib.sha256((FOLDER / "static" / name).read_bytes()).hexdigest()[:12]


def asset(name: str) -> str:
    """The address of a file of the pages."""
    return f"/static/{name}?v={digest(name)}"


def when(at: datetime | float | str | None) -> Markup:
    """A moment, as the table of a page shows it (UTC)."""
    if at is None:
        return Markup()
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    moment = datetime.fromtimestamp(at, UTC) if isinstance(at, float) else at.astimezone(UTC)
    return Markup('<time datetime="{:%Y-%m-%dT%H:%M:%SZ}">{:%Y-%m-%d %H:%M}</time>').format(moment, moment)


def number(value: float | None, digits: int = 3) -> str:
    """A figure for people: no more digits than say something; a dash where there is none."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.{digits}f}" if 1e-3 <= abs(value) < 1e6 or value == 0 else f"{value:.2e}"


def probability(value: float | None) -> str:
    """A p-value behind its `p`: no p-value is 0."""
    if value is None or not math.isfinite(value):
        return "= –"
    return "< 0.001" if value < 1e-3 else f"= {value:.3f}"


def share(weight: float, routes: Sequence[Mapping[str, Any]]) -> str:
    """The share of its users that a route of an endpoint gets: weights count against each other, whatever their sum."""
    total = sum(route["weight"] for route in routes)
    return f"{100 * weight / total:.0f} %" if total else "–"


def plainly(value: Any) -> str:
    """A value of the audit log: text as it is, anything else as JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def size(count: float | None) -> str:
    """Bytes for people."""
    if not count:
        return "–"
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:,.1f} {unit}"
    return f"{count:.0f} B"


def span(seconds: float | None) -> str:
    """A time in hours, minutes and seconds."""
    if seconds is None:
        return "–"
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"


def address(*parts: str) -> str:
    """A path of ours with its parts quoted."""
    return "/" + "/".join(quote(part, safe="@~:") for part in parts)


@cache
def _markdown() -> MarkdownIt:
    return MarkdownIt("commonmark", {"html": False}).enable("table")


def markdown(text: str) -> Markup:
    """Markdown as HTML: tags in it are text, and links lead to the web or to a picture that it holds itself."""
    if text.startswith("---\n"):
        # What a hub reads of a card is YAML before its text.
        head, _, rest = text[4:].partition("\n---\n")
        text = f"```yaml\n{head}\n```\n{rest}" if rest else text
    return Markup(_markdown().render(text))


def zipped(names: Iterable[str]) -> list[tuple[str, str]]:
    """Options of a choice that are shown as they are."""
    return [(name, name) for name in names]


@cache
def environment(language: str) -> jinja2.Environment:
    """The templates in one language; what is put into them is text, and never markup."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.i18n"],
        auto_reload=False,
    )
    words = translations(language)
    found.install_gettext_callables(words.gettext, words.ngettext, newstyle=True)  # type: ignore[attr-defined]
    found.filters |= {
        "when": when,
        "number": number,
        "size": size,
        "span": span,
        "p": probability,
        "share": share,
        "plainly": plainly,
        "state": lambda state: words.gettext(STATES[state]) if state in STATES else str(state),
        "tone": tone,
        "markdown": markdown,
        "yaml": lambda value: yaml.safe_dump(value, sort_keys=False, allow_unicode=True),
        "reason": lambda text, longest=None: said(text, language, longest),
        "t": lambda message: words.gettext(message) if message else "",
    }
    found.globals |= {"asset": asset, "address": address, "language": language, "zipped": zipped}
    return found


@dataclass(frozen=True)
class Page:
    """One request for a page: who asks, and in which language."""

    request: Request
    here: State
    caller: Any
    language: str

    @property
    def name(self) -> str:
        """The actor that operations take."""
        return self.caller.name

    def t(self, message: str) -> str:
        """A text in the language of the page."""
        return translations(self.language).gettext(message)

    async def form(self) -> forms.Form:
        """The fields that were sent, once it is known that a page of ours sent them."""
        return await forms.read_form(self.request, self.here, self.caller)

    def part(self, template: str, **values: Any) -> str:
        """A part of a page, as text."""
        return environment(self.language).get_template(template).render(page=self, **values)

    def show(self, template: str, *, code: int = 200, **values: Any) -> Response:
        """A page, or a part of one that htmx puts into it."""
        nonce = forms.nonce_of(self.request)
        shared = {
            "page": self,
            "csrf": forms.token(self.here, self.caller, nonce),
            "done": DONE.get(self.request.query_params.get("done", "")),
            "path": self.request.url.path,
            "logout": LOGOUT if self.caller.roles is not None and has_route(self.request, LOGOUT) else None,
        }
        text = environment(self.language).get_template(template).render(**shared, **values)
        answer = HTMLResponse(text, code, headers={**HEADERS, "Content-Language": self.language, "Vary": "Cookie"})
        if self.request.cookies.get(forms.COOKIE) != nonce:
            is_secure = self.request.url.scheme == "https" or getattr(self.here, "secure", False)
            answer.set_cookie(forms.COOKIE, nonce, httponly=True, samesite="strict", secure=is_secure)
        return answer


def _page(request: Request, here: Here, asking: Asking) -> Page:
    return Page(request, here, asking, _language(request))


Asked = Annotated[Page, Depends(_page)]


async def _posted(page: Asked) -> forms.Form:
    return await page.form()


Posted = Annotated[forms.Form, Depends(_posted)]
"""The fields of a form, once it is known that a page of ours sent them."""


def _language(request: Request) -> str:
    return language_of(request.cookies.get(COOKIE), request.headers.get("accept-language", ""))


def router() -> APIRouter:
    """Routes of pages: their errors are pages, and the description of the interface does not name them."""
    return APIRouter(route_class=PageRoute, include_in_schema=False, default_response_class=HTMLResponse)


REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'self'; sandbox"


def report(text: str) -> Response:
    """A report that is one HTML file: shown inside of a page of ours, where nothing in it can run or fetch."""
    return HTMLResponse(text, headers={**HEADERS, "Content-Security-Policy": REPORT_POLICY})


def go(path: str, done: str | None = None) -> RedirectResponse:
    """To another page, which says what was done (a key of DONE)."""
    return RedirectResponse(f"{path}?done={done}" if done else path, 303, HEADERS)


def has_route(request: Request, path: str) -> bool:
    """Whether the application has a route at an address: users log in where there is somebody to log in."""
    open_ones = list(request.app.routes)
    while open_ones:
        route = open_ones.pop()
        if getattr(route, "path", None) == path:
            return True
        # FastAPI keeps a router that was included as one route of its own.
        open_ones += getattr(getattr(route, "original_router", None), "routes", [])
    return False


class PageRoute(APIRoute):
    """A route whose errors are pages: what was wrong, which fields, and what to do."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler, with every error of an operation shown as a page."""
        handle = super().get_route_handler()

        async def shown(request: Request) -> Response:
            try:
                return await handle(request)
            except ClientDisconnect:
                # Whoever asked went on: a form asks again with every letter, and leaves what it asked before.
                return Response(status_code=499)
            except Exception as error:  # noqa: BLE001
                return failed(request, error)

        return shown


def failed(request: Request, error: Exception) -> Response:
    """An error as a page; one of the platform's own goes to the log."""
    status, detail, faults = explained(error)
    if status == 401 and request.method == "GET" and has_route(request, LOGIN):
        asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(login_address(asked), 303, HEADERS)
    language = _language(request)
    headers: Mapping[str, str] = error.headers if isinstance(error, Problem) else {}
    back = request.headers.get("referer", "")
    text = (
        environment(language)
        .get_template("error.html")
        .render(
            status=status,
            title=problems.TITLES.get(status, ""),
            detail=detail,
            faults=faults,
            back=back if back.startswith(f"{request.url.scheme}://{request.url.netloc}/") else "",
            fragment="hx-request" in request.headers,
            path=request.url.path,
            logout=None,
            csrf="",
            done=None,
        )
    )
    return HTMLResponse(text, status, headers={**HEADERS, **headers, "Content-Language": language})


def explained(error: Exception) -> tuple[int, str, list[Mapping[str, Any]]]:
    """Status, words and faults by field of an error; one that is the platform's own is logged."""
    if isinstance(error, Problem):
        return error.status, error.detail, []
    if isinstance(error, HTTPException):
        return error.status_code, str(error.detail), []
    if isinstance(error, SpecError):
        return 422, str(error), [{"field": f.field, "message": f.message, "hint": f.hint} for f in error.faults]
    if isinstance(error, RequestValidationError):
        return 422, *problems.of_request(error)
    status = problems.status_of(error)
    if status is None:
        problems.log.error("a page failed", exc_info=error)
        return 500, "the platform's log says what happened; asking again may help", []
    return status, str(error), []


@dataclass(frozen=True)
class Slice:
    """One page of a long list: `items` are from `start` on, of `total`, None where nobody counted."""

    items: list[Any]
    start: int
    total: int

    @property
    def before(self) -> int | None:
        """Where the page before begins; None on the first."""
        return max(0, self.start - PER_PAGE) if self.start else None

    @property
    def after(self) -> int | None:
        """Where the next page begins; None on the last."""
        return self.start + PER_PAGE if self.start + PER_PAGE < self.total else None


def start_of(request: Request) -> int:
    """Where the asked page of a list begins: `?start=`; 0 for what is no number."""
    given = request.query_params.get("start", "0")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 10 else 0
