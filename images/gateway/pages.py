"""What the gateway says of itself: the models that it serves, its health, its metrics and its routes."""

import time

from images.gateway.call import Answer, Call
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway

_STALE_SECONDS = 10.0


async def models(gateway: Gateway, _call: Call) -> Answer:
    """GET /v1/models: the endpoints that serve a model."""
    data = [
        {"id": e.name, "object": "model", "created": int(e.created_at.timestamp()), "owned_by": "llmops"}
        for e in sorted(gateway.table.endpoints.values(), key=lambda e: e.created_at, reverse=True)
        if e.routes
    ]
    return Answer.of({"object": "list", "data": data})


async def alive(_gateway: Gateway, _call: Call) -> Answer:
    """GET /healthz: the process answers."""
    return Answer.of({"status": "ok"})


async def health(gateway: Gateway, _call: Call) -> Answer:
    """GET /readyz (and /health, its older name): 503 until the catalog was read once.

    `degraded` while it cannot be read, or while some endpoint's entry in it cannot (`faults`, by name).
    """
    table = gateway.table
    if table.loaded_at is None:
        return Answer.of({"status": "starting", "fault": table.fault}, 503)
    stale = time.monotonic() - table.loaded_at > _STALE_SECONDS
    is_degraded = stale or bool(table.faults)
    state: dict = {"status": "degraded" if is_degraded else "ok", "endpoints": len(table.endpoints)}
    if table.faults:
        state["faults"] = table.faults
    return Answer.of(state)


async def metrics(gateway: Gateway, _call: Call) -> Answer:
    """GET /metrics, for Prometheus."""
    return Answer(body=gateway.metrics.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


async def state(gateway: Gateway, call: Call) -> Answer:
    """GET /admin/routes, for this machine only: what is served in which phase, and what is in flight."""
    if not call.is_from_loopback:
        raise ApiError(403, "only for programs on the gateway's own machine")
    endpoints = {
        e.name: {
            "phase": e.phase,
            "experiment": e.experiment,
            "routes": [{"backend": r.backend, "model_ref": r.model_ref, "weight": r.weight} for r in e.routes],
            "in_flight": gateway.in_flight[e.name],
        }
        for e in gateway.table.endpoints.values()
    }
    on_backend = {backend: count for backend, count in gateway.on_backend.items() if count}
    return Answer.of(
        {
            "endpoints": endpoints,
            "in_flight": on_backend,
            "queued": gateway.exposures.queued,
            "faults": gateway.table.faults,
        }
    )
