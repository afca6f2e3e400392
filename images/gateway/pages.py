"""What the gateway says of itself: the models that it serves, its health, its metrics and its routes."""

import time

from images.gateway.call import Answer, Call
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway
from images.gateway.routes import Endpoint

_STALE_SECONDS = 10.0


async def models(gateway: Gateway, call: Call) -> Answer:
    """GET /v1/models: the endpoints that serve a model, of those that the caller may call."""
    data = [
        _model(e)
        for e in sorted(gateway.table.endpoints.values(), key=lambda e: e.created_at, reverse=True)
        if e.routes and gateway.callers.may_call(call, e.name)
    ]
    return Answer.of({"object": "list", "data": data})


async def model(gateway: Gateway, call: Call) -> Answer:
    """GET /v1/models/{id}: one of them."""
    name = call.parameters["id"]
    endpoint = gateway.table.endpoints.get(name)
    if endpoint is None or not endpoint.routes or not gateway.callers.may_call(call, name):
        raise ApiError(404, f"there is no endpoint {name!r} that serves a model", code="model_not_found", param="model")
    return Answer.of(_model(endpoint))


def _model(endpoint: Endpoint) -> dict:
    created = int(endpoint.created_at.timestamp())
    return {"id": endpoint.name, "object": "model", "created": created, "owned_by": "llmops"}


async def alive(_gateway: Gateway, _call: Call) -> Answer:
    """GET /healthz: the process answers."""
    return Answer.of({"status": "ok"})


async def health(gateway: Gateway, _call: Call) -> Answer:
    """GET /readyz (and /health, its older name): 503 until the catalog was read once, or there are routes of before.

    `degraded` while it cannot be read, or while some endpoint's entry in it cannot (`faults`, by name), or while the
    store of the limits or the keys of tokens cannot be reached (`access`).
    """
    table = gateway.table
    if table.loaded_at is None and not table.endpoints:
        return Answer.of({"status": "starting", "fault": table.fault}, 503)
    # Started while the catalog was away, it serves what it served last.
    stale = table.loaded_at is None or time.monotonic() - table.loaded_at > _STALE_SECONDS
    access = gateway.callers.faults
    log_fault = gateway.exposures.spool.fault or gateway.exposures.fault
    is_degraded = stale or bool(table.faults) or bool(access) or log_fault is not None
    state: dict = {"status": "degraded" if is_degraded else "ok", "endpoints": len(table.endpoints)}
    if table.faults:
        state["faults"] = table.faults
    if access:
        state["access"] = access
    if log_fault is not None:
        state["log"] = log_fault
    return Answer.of(state)
