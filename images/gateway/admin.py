"""The administrative port: routes and metrics, for programs that hold its token, wherever they run."""

import hmac
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]


def holds_token(given: str | None, token: str | None) -> bool:
    """Whether `given` is the administrative token, compared in the same time whatever is wrong with it."""
    return bool(given and token) and hmac.compare_digest(given.encode(), token.encode())


class TokenAsked:
    """ASGI middleware around the whole application: 401 for every path without the token."""

    def __init__(self, app: Callable[..., Awaitable[None]], gateway: Any) -> None:
        self.app = app
        self.gateway = gateway

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scheme, _, given = Request(scope).headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not holds_token(given.strip(), self.gateway.admin_token):
                error = ApiError(401, "the gateway's administrative token is asked for, as a bearer token")
                await error.response({"WWW-Authenticate": "Bearer"})(scope, receive, send)
                return
        await self.app(scope, receive, send)


def admin_app(gateway: Gateway) -> Callable[..., Awaitable[None]]:
    """The application of the administrative port."""

    async def metrics(_request: Request) -> Response:
        """GET /metrics, for Prometheus."""
        return Response(gateway.metrics.text(gateway.in_flight), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def routes(_request: Request) -> Response:
        """GET /admin/routes: what is served in which phase, and what is in flight."""
        if not gateway.is_running:
            return JSONResponse({"error": "the gateway is starting"}, 503)
        return JSONResponse(state_of(gateway))

    return TokenAsked(Starlette(routes=[Route("/metrics", metrics), Route("/admin/routes", routes)]), gateway)


def state_of(gateway: Gateway) -> dict[str, Any]:
    """Endpoints with their phase, experiment and routes, requests in flight by backend, and what cannot be read."""
    endpoints = {
        e.name: {
            "phase": e.phase,
            "dropped": sorted(e.dropped),
            "experiment": e.experiment,
            "routes": [
                {
                    "backend": r.backend,
                    "backends": [replica.backend for replica in r.replicas],
                    "model_ref": r.model_ref,
                    "weight": r.weight,
                }
                for r in e.routes
            ],
            "in_flight": gateway.in_flight[e.name],
        }
        for e in gateway.table.endpoints.values()
    }
    return {
        "endpoints": endpoints,
        "in_flight": dict(gateway.breakers.outstanding),
        "queued": gateway.exposures.queued,
        "waiting": gateway.exposures.waiting,
        "faults": gateway.table.faults,
        "not_answering": gateway.breakers.open_ones(),
    }
