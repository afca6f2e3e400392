"""What a reverse proxy asks about a request before it passes it on to a page without a login of its own."""

from typing import Annotated

from fastapi import APIRouter, Header, Request
from starlette.responses import Response

from images.console.callers import NEEDED_ROLE
from images.console.login.page import login_address
from images.console.login.services import asked_of
from images.console.problems import Problem
from images.console.state import Here
from llmops_assets.operations.access import allowed, authorise
from llmops_assets.operations.downloads import note_download

router = APIRouter(tags=["login"], include_in_schema=False)


@router.get("/auth")
def auth(
    request: Request,
    here: Here,
    x_service: Annotated[str, Header(max_length=50)],
    x_original_method: Annotated[str, Header(max_length=20)] = "GET",
    x_original_uri: Annotated[str, Header(max_length=20_000)] = "/",
) -> Response:
    """200 with who asks, 401 for nobody, 403 for somebody who may not; a changed page or file goes to the audit log.

    With 401, `X-LLMOps-Login` is where a browser logs in and comes back from: a proxy could not encode the address.
    `X-LLMOps-Webserver` says which of Dagster's webservers it is for: `full`, or `read-only`, which refuses changes.
    """
    peer = request.client.host if request.client else None
    try:
        caller = here.callers.identify(peer, request.headers, x_original_method)
    except Problem as problem:
        if problem.status == 401:
            problem.headers["X-LLMOps-Login"] = login_address(x_original_uri, x_original_method)
        raise
    asked = asked_of(x_service, x_original_method, x_original_uri)
    if asked is None:
        raise Problem(403, f"there is no page {x_service!r} behind this login")
    actor = caller.name
    authorise(here.wiring, actor, asked.action)
    if asked.file is not None:
        note_download(here.wiring, actor, asked.file, x_service)
    elif x_original_method not in ("GET", "HEAD", "OPTIONS") and asked.action in ("mlflow.change", "dagster.launch"):
        path = x_original_uri.partition("?")[0]
        here.wiring.catalog.log(actor, asked.action, x_service, method=x_original_method, path=path[:500])
    may_launch = allowed(here.wiring, actor, "dagster.launch")
    roles = sorted(caller.roles or ({"admin"} if caller.roles is None else set()))
    return Response(
        status_code=200,
        headers={
            # A name may be in Hangul, and a header is bytes.
            "X-User-Id": caller.user.encode().decode("latin-1"),
            "X-User-Roles": ",".join([NEEDED_ROLE, *roles]).encode().decode("latin-1"),
            "X-LLMOps-Webserver": "full" if may_launch else "read-only",
            "Cache-Control": "no-store",
        },
    )
