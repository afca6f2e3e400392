"""The first page, the files of the pages, the language, and the addresses that other documents name."""

from typing import Any
from urllib.parse import urlsplit

from fastapi import Request, Response
from fastapi.responses import RedirectResponse

from images.console.problems import Problem
from images.console.web.i18n import COOKIE, LANGUAGES
from images.console.web.page import FOLDER, HEADERS, Asked, Posted, go, router
from llmops_assets.operations import alerts
from llmops_assets.operations.overview import overview

pages = router()
KINDS = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
ELSEWHERE = {
    "/admin/training/datasets": "/catalog/datasets",
    "/admin/training/jobs": "/training/jobs",
    "/admin/training/experiments": "/training/experiments",
    "/admin/models": "/catalog/models",
    "/admin/ab-tests": "/ab-tests",
    "/admin": "/",
    "/console": "/",
}
"""Addresses that the documents of other programs name, and the pages that they are here."""


@pages.get("/")
def home(page: Asked) -> Response:
    """What runs, what waits for whom, and what went wrong."""
    return page.show("home.html", found=overview(page.here.wiring, page.name))


@pages.post("/alerts/{alert_id}/ack")
def ack(page: Asked, alert_id: int, form: Posted) -> Response:
    """Take an alert on."""
    alerts.ack(page.here.wiring, page.name, alert_id)
    return go("/", "taken_on")


@pages.get("/static/{name:path}")
def static(name: str) -> Response:
    """A file of the pages; its address changes with its content."""
    file = (FOLDER / "static" / name).resolve()
    kind = KINDS.get(file.suffix)
    if kind is None or not file.is_relative_to((FOLDER / "static").resolve()) or not file.is_file():
        raise Problem(404, f"there is no file {name!r} of the pages")
    kept = {"Cache-Control": "public, max-age=31536000, immutable", "X-Content-Type-Options": "nosniff"}
    return Response(file.read_bytes(), media_type=f"{kind}; charset=utf-8", headers=kept)


@pages.get("/language/{language}")
def language(language: str, request: Request, to: str = "/") -> Response:
    """Keep the language that somebody chose, and go back to their page."""
    if language not in LANGUAGES:
        raise Problem(404, f"the pages speak {', '.join(LANGUAGES)}, not {language[:20]!r}")
    parts = urlsplit(to)
    is_ours = to.startswith("/") and not to.startswith(("//", "/\\")) and not parts.scheme and not parts.netloc
    answer = RedirectResponse(to if is_ours else "/", 303, HEADERS)
    is_secure = request.url.scheme == "https"
    answer.set_cookie(COOKIE, language, max_age=365 * 86400, samesite="lax", secure=is_secure, httponly=True)
    return answer


def _to(place: str) -> Any:
    def there() -> Response:
        return RedirectResponse(place, 307)

    return there


for _given, _place in ELSEWHERE.items():
    pages.add_api_route(_given, _to(_place), methods=["GET"])
