"""Routes of endpoints: want, look at, delete, and ask one."""

import asyncio
from dataclasses import asdict
from typing import Annotated, Any, Literal

import aiohttp
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.background import BackgroundTask

from images.console import translate
from images.console.api.datasets import OPERATIONS
from images.console.bodies import EndpointBody
from images.console.pages import Cursor, Limit, page, tagged
from images.console.problems import Problem
from images.console.state import Asking, Here, State
from llmops_assets.operations import endpoints, rollouts
from llmops_assets.operations.access import authorise
from llmops_assets.operations.forms import endpoint_spec
from llmops_assets.operations.refused_requests import refused_requests
from llmops_assets.operations.shadows import shadow_report

Days = Annotated[int, Query(ge=1, le=365)]
router = APIRouter(prefix="/serving/endpoints", tags=["serving"])
serve = APIRouter(prefix="/serve", tags=["serving"])
STATUS = {"live": "healthy", "deploying": "deploying", "failed": "failed", "deleting": "deleting"}
"""What other programs wait for, by the state of an endpoint; any other is `pending`."""


def plain(endpoint: Any) -> dict[str, Any]:
    """An endpoint as JSON."""
    is_behind = endpoint.observed_revision < endpoint.revision
    status = STATUS.get(endpoint.state, "pending")
    return {
        "id": endpoint.name,
        "name": endpoint.name,
        # It serves, and not yet what was wanted last.
        "status": "deploying" if status == "healthy" and is_behind else status,
        "state": endpoint.state,
        "message": endpoint.message,
        "environment": endpoint.spec.environment,
        "model_ref": endpoint.spec.model_ref,
        "revision": endpoint.revision,
        "observed_revision": endpoint.observed_revision,
        "traffic": [{"model_ref": r["model_ref"], "weight": r["weight"]} for r in endpoint.routes],
        "chat": f"/llm-ops/v1/serve/{endpoint.name}/chat",
        "created_at": endpoint.created_at,
        "updated_at": endpoint.updated_at,
    }


def want(here: State, actor: str, body: EndpointBody) -> dict[str, Any]:
    """Say what an endpoint shall serve; the endpoint as it stands then, with notes."""
    form, notes = translate.endpoint(body)
    spec = endpoint_spec(here.wiring, form)
    wanted = endpoints.want_endpoint(here.wiring, actor, spec)
    found = here.wiring.catalog.endpoint(wanted.endpoint)
    return {**plain(found), "notes": [*notes, *spec.notes()]}


@router.post("", status_code=202)
def create(body: EndpointBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Say what an endpoint shall serve; `status` of the endpoint is `healthy` once it does."""
    return want(here, asking.name, body)


@router.get("")
def list_(here: Here, asking: Asking, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Endpoints, newest first."""
    found = page(here.wiring.catalog.endpoints(), limit, cursor, lambda one: one.name)
    return {**found, "items": [plain(one) for one in found["items"]]}


@router.get("/{endpoint_id}")
def show(endpoint_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """One endpoint with its model servers, and what was refused there within a day, by reason."""
    catalog = here.wiring.catalog
    found = plain(catalog.endpoint(endpoint_id))
    servers = [{"id": b.id, "model_ref": b.model_ref, "state": b.state} for b in catalog.backends(endpoint_id)]
    refused = refused_requests(here.wiring, asking.name, endpoint_id, days=1).by_reason
    return tagged(request, {**found, "servers": servers, "refused": refused})


@router.get("/{endpoint_id}/routes")
def routes(endpoint_id: str, here: Here, asking: Asking) -> dict[str, Any]:
    """Which models an endpoint's users get, in which shares."""
    found = here.wiring.catalog.endpoint(endpoint_id)
    return {"id": found.name, "phase": found.phase, "routes": plain(found)["traffic"]}


@router.get("/{endpoint_id}/refused")
def refused(endpoint_id: str, here: Here, asking: Asking, days: Days = 7) -> dict[str, Any]:
    """Which requests reached no model: how many by reason; of whom, for who may read usage."""
    return asdict(refused_requests(here.wiring, asking.name, endpoint_id, days=days))


@router.get("/{endpoint_id}/shadow")
def shadow(
    endpoint_id: str, here: Here, asking: Asking, candidate: str | None = None, days: Days = 7
) -> dict[str, Any]:
    """What a candidate said to copies of the endpoint's requests; texts are there for who may decide on answers."""
    return asdict(shadow_report(here.wiring, asking.name, endpoint_id, candidate=candidate, days=days))


ROLLOUT = {
    "advance": rollouts.advance_rollout,
    "promote": rollouts.promote,
    "hold": rollouts.hold_rollout,
    "rollback": rollouts.roll_back,
}
"""What may be asked of an endpoint's rollout, by the last part of the address."""


@router.post("/{endpoint_id}/{action}", status_code=202)
def act(
    endpoint_id: str, action: Literal["advance", "promote", "hold", "rollback"], here: Here, asking: Asking
) -> dict[str, Any]:
    """Bring a rollout to its next step, give the new model all users, have it wait, or go back to the model before."""
    ROLLOUT[action](here.wiring, asking.name, endpoint_id)
    return plain(here.wiring.catalog.endpoint(endpoint_id))


@router.delete("/{endpoint_id}")
async def delete(endpoint_id: str, here: Here, asking: Asking, force: bool = False) -> JSONResponse:
    """Stop an endpoint's model servers and forget it; what could not be stopped stays on record, and is named.

    `force` ends a running A/B test on record first; without it the endpoint of one is not deleted.
    """

    def gone() -> dict[str, Any]:
        endpoints.delete_endpoint(here.wiring, asking.name, endpoint_id, force=force)
        return {"id": endpoint_id, "status": "deleted"}

    return await here.works.run(gone, OPERATIONS)


@serve.post("/{route_name}/chat")
async def chat(route_name: str, request: Request, here: Here, asking: Asking) -> Response:
    """Ask an endpoint through the gateway, which authenticates, limits and logs; the body is OpenAI's, less `model`."""
    authorise(here.wiring, asking.name, "endpoint.call")
    given = await _object(request)
    if given.get("model", route_name) != route_name:
        raise Problem(422, f"the route names endpoint {route_name!r}, and the body's `model` another: leave it out")
    body = {**given, "model": route_name}
    body.setdefault("user", asking.name)
    return await _pass_on(here, request, "/v1/chat/completions", body)


@serve.post("/{route_name}/feedback", status_code=201)
async def feedback(route_name: str, request: Request, here: Here, asking: Asking) -> Response:
    """Rate an answer: `request_id` (its x-request-id), `rating` 1 to 5, and `comment`, `correction`, `user`."""
    authorise(here.wiring, asking.name, "endpoint.call")
    body = await _object(request)
    here.wiring.catalog.endpoint(route_name)
    body.setdefault("user", asking.name)
    return await _pass_on(here, request, "/v1/feedback", body)


async def _object(request: Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict):
        raise Problem(422, "the body should be an object")
    return body


PASSED = frozenset(
    {
        "authorization", "x-request-id", "x-session-id", "cookie", "accept-language", "x-llmops-consent",
        "cache-control", "traceparent", "tracestate",
    }
)  # fmt: skip
"""What the gateway heeds of a request's headers. Who asks for whom, and what is a probe, the console says itself."""


def _is_passed_back(name: str) -> bool:
    return name.lower().startswith("x-") or name.lower() == "retry-after"


async def _until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _pass_on(here: State, request: Request, path: str, body: dict[str, Any]) -> Response:
    """What the gateway answers, as it comes. Who leaves before it does has the gateway, and so the model, told."""
    headers = {name: value for name, value in request.headers.items() if name in PASSED}
    session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=600))
    asked = asyncio.ensure_future(session.post(f"{here.wiring.settings.gateway_url}{path}", json=body, headers=headers))
    gone = asyncio.ensure_future(_until_gone(request))
    try:
        await asyncio.wait({asked, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asked.done():
            asked.cancel()
            await session.close()
            # Nobody reads it: the status is for the log of who stands before this.
            return Response(status_code=499)
        answer = await asked
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        await session.close()
        raise Problem(503, f"the gateway does not answer: {error}", **{"Retry-After": "5"}) from error
    finally:
        asked.cancel()
        gone.cancel()

    async def close() -> None:
        answer.close()
        await session.close()

    passed_back = {name: value for name, value in answer.headers.items() if _is_passed_back(name)}
    return StreamingResponse(
        answer.content.iter_any(),
        answer.status,
        {**passed_back, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        media_type=answer.content_type,
        background=BackgroundTask(close),
    )
