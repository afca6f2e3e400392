"""Which backends an endpoint's users are sent to: a copy of the catalog's route tables, renewed twice a second."""

import logging
import time
from dataclasses import dataclass, field
from datetime import datetime

from llmops_assets.experiments.assignment import assign
from resources.catalog import Catalog
from resources.catalog import Endpoint as CatalogEndpoint

log = logging.getLogger("gateway.routes")


@dataclass(frozen=True, slots=True)
class Route:
    """A backend and its share of the users; `url` is None while the backend is not on record."""

    index: int
    backend: str
    model_ref: str
    weight: float
    url: str | None
    engine: str


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as the gateway serves it in one phase; lengths in tokens, None where there is no limit."""

    name: str
    phase: int
    salt: str
    routes: tuple[Route, ...]
    weights: tuple[float, ...]
    experiment: str | None
    max_concurrent_requests: int
    max_input_tokens: int | None
    max_output_tokens: int | None
    created_at: datetime

    def assigned(self, user: str) -> Route:
        """The route of a user, the same as long as the phase lasts; ValueError when no route has weight."""
        return self.routes[assign(self.salt, user, self.weights)]

    def instead_of(self, failed: Route, avoid: set[str]) -> Route | None:
        """Another backend for a request that `failed` could not take: one of the same model if there is one.

        Backends in `avoid` come last.
        """
        others = [r for r in self.routes if r.backend != failed.backend and r.url is not None]
        order = sorted(others, key=lambda r: (r.backend in avoid, r.model_ref != failed.model_ref, -r.weight))
        return order[0] if order else None


@dataclass
class RouteTable:
    """The endpoints by name; `loaded_at` is on the monotonic clock, None before the first success."""

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    loaded_at: float | None = None
    fault: str | None = None

    def refresh(self, catalog: Catalog) -> None:
        """Read the catalog once; when that fails the gateway goes on with what it knows."""
        try:
            # In this order: a backend is on record before a route table names it.
            endpoints = catalog.endpoints()
            backends = {b.id: b for b in catalog.backends()}
            running = {e.endpoint: e.name for e in catalog.experiments(state="running")}
        except Exception as error:  # noqa: BLE001  whatever the catalog's driver raises, answering goes on
            if self.fault is None:
                log.error("the catalog cannot be read, the routes stay as they were: %s", error)
            self.fault = str(error)
            return
        self.endpoints = {e.name: _endpoint(e, backends, running.get(e.name)) for e in endpoints}
        self.loaded_at, self.fault = time.monotonic(), None


def _endpoint(entry: CatalogEndpoint, backends: dict, experiment: str | None) -> Endpoint:
    routes = []
    for index, route in enumerate(entry.routes):
        backend = backends.get(route["backend_id"])
        routes.append(
            Route(
                index=index,
                backend=route["backend_id"],
                model_ref=route["model_ref"],
                weight=float(route["weight"]),
                url=backend.url if backend is not None and backend.url else None,
                engine=backend.engine if backend is not None else "",
            )
        )
    runtime = entry.spec.runtime
    # An experiment begins when its second model is routed; what was answered before is none of its exposures.
    compared = len({route.model_ref for route in routes if route.weight > 0}) > 1
    return Endpoint(
        name=entry.name,
        phase=entry.phase,
        salt=entry.salt,
        routes=tuple(routes),
        weights=tuple(route.weight for route in routes),
        experiment=experiment if compared else None,
        max_concurrent_requests=runtime.max_concurrent_requests,
        max_input_tokens=runtime.max_input_tokens,
        max_output_tokens=runtime.max_output_tokens,
        created_at=entry.created_at,
    )
