"""Which backends an endpoint's users are sent to: a copy of the catalog's route tables, renewed twice a second."""

import hashlib
import json
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime

from pydantic import ValidationError

from llmops_assets.experiments.assignment import assign, assign_anew
from llmops_assets.records.prompts import ResolvedPrompt
from llmops_assets.specs.cache import Cache
from llmops_assets.specs.deployment import RagServing
from llmops_assets.specs.guards import Guards
from llmops_assets.specs.shadow import Shadow
from resources.catalog import Backend, Catalog, NotFound
from resources.catalog import Endpoint as CatalogEndpoint

log = logging.getLogger("gateway.routes")

SERVED_NAME = "model"
"""What our own servers call their model, so that no answer tells which variant gave it."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One of the servers of a route; `url` is None while its backend is not on record.

    `model` is what it calls its model; `key_variable` names the variable of the environment with the key that it wants.
    """

    backend: str
    url: str | None
    model: str = SERVED_NAME
    key_variable: str | None = None


@dataclass(frozen=True, slots=True)
class Route:
    """A model and its share of the users, served by one backend or by several that are alike."""

    index: int
    model_ref: str
    weight: float
    engine: str
    replicas: tuple[Replica, ...]
    is_holdout: bool = False
    """Whether its users stay on the model from before, and take part in no comparison."""
    serving: str = ""
    """What is served there, in 16 hex digits: the model's files, the engine and how it runs."""

    @property
    def backend(self) -> str:
        """The id of its first backend."""
        return self.replicas[0].backend

    @property
    def urls(self) -> tuple[str, ...]:
        return tuple(replica.url for replica in self.replicas if replica.url is not None)

    @property
    def backends(self) -> frozenset[str]:
        return frozenset(replica.backend for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class Retriever:
    """What finds the passages for a route's model, and how they are asked for; `url` is None while it is not there."""

    backend: str
    url: str | None
    rag: RagServing


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
    guards: Guards = field(default_factory=Guards)
    retrieval: Mapping[str, Retriever] = field(default_factory=dict)
    cache: Cache | None = None
    shadow: Shadow | None = None
    prompt: ResolvedPrompt | None = None
    control: str | None = None
    """The model in place of the running experiment."""
    draw: int = 0
    """How often its users were drawn anew, each time that one model has had them all."""
    dropped: frozenset[str] = frozenset()
    """Treatments whose users have the control for now."""
    only: Route | None = field(init=False, default=None)
    """The route of all users, where no other has weight."""

    def __post_init__(self) -> None:
        with_weight = [route for route, weight in zip(self.routes, self.weights, strict=True) if weight > 0]
        if len(with_weight) == 1:
            object.__setattr__(self, "only", with_weight[0])

    @property
    def serves(self) -> bool:
        """Whether anybody's requests go to some route."""
        return self.only is not None or any(weight > 0 for weight in self.weights)

    def exposed(self, assigned: Route) -> tuple[Route, str | None]:
        """The route that takes the requests of a user of `assigned`, and the experiment that they count for.

        What a dropped treatment's users get from the control counts for neither arm.
        """
        if assigned.is_holdout or assigned.model_ref not in self.dropped:
            return assigned, self.experiment
        place = next((route for route in self.routes if route.model_ref == self.control), None)
        return (assigned, self.experiment) if place is None else (place, None)

    def assigned(self, user: str) -> Route:
        """The route of a user, the same as long as the phase lasts; ValueError when no route has weight."""
        if self.only is not None:
            return self.only
        if self.draw == 0:
            return self.routes[assign(self.salt, user, self.weights)]
        held = [route.is_holdout for route in self.routes]
        return self.routes[assign_anew(self.salt, user, self.weights, held, self.draw)]

    def instead_of(self, failed: Route, is_usable: Callable[[Replica], bool]) -> Route | None:
        """Another route for a request that `failed` could not take: one of the same model if there is one.

        Routes without a usable replica come last.
        """
        others = [r for r in self.routes if r.index != failed.index and r.urls]
        order = sorted(
            others,
            key=lambda r: (
                not any(map(is_usable, r.replicas)),
                r.model_ref != failed.model_ref,
                -r.weight,
            ),
        )
        return order[0] if order else None


class UnusableRoutes(ValueError):
    """An endpoint's entry in the catalog that nobody can be sent by; the message says what is wrong with it."""


@dataclass
class RouteTable:
    """The endpoints by name; `loaded_at` is on the monotonic clock, None before the first success.

    `fault` is why the catalog cannot be read, and `faults` what is wrong with single endpoints, by name: these stay as
    they were last read rightly, while the others go on.
    """

    endpoints: dict[str, Endpoint] = field(default_factory=dict)
    loaded_at: float | None = None
    fault: str | None = None
    faults: dict[str, str] = field(default_factory=dict)

    def refresh(self, catalog: Catalog) -> None:
        """Read the catalog once; what cannot be read of it stays as it was. Never raises."""
        faults: dict[str, str] = {}
        try:
            prompts = catalog.prompts.all()
            # In this order: a backend is on record before a route table names it.
            entries = _entries(catalog, faults)
            backends = {b.id: b for b in catalog.backends()}
            running = catalog.running_controls()
            dropped = catalog.dropped_arms.in_force()
            if catalog.prompts.all() != prompts:
                # Routes and prompt may have changed together meanwhile: half of that is served to nobody.
                return
        except Exception as error:  # noqa: BLE001  whatever the catalog's driver raises, answering goes on
            if self.fault is None:
                log.error("the catalog cannot be read, the routes stay as they were: %s", error)
            self.fault = str(error)
            return
        endpoints: dict[str, Endpoint] = {}
        for entry in entries:
            try:
                found = _endpoint(entry, backends, running.get(entry.name), prompts.get(entry.name))
                endpoints[entry.name] = _without(found, dropped.get(entry.name, {}))
            except Exception as error:  # noqa: BLE001  one endpoint's entry, whatever it holds, stops no other's
                faults[entry.name] = _reason(error)
        for name, reason in faults.items():
            if self.faults.get(name) != reason:
                kept = "its last good routes are kept" if name in self.endpoints else "it is not served"
                log.error("endpoint %s cannot be read, %s: %s", name, kept, reason)
            if name in self.endpoints:
                endpoints[name] = self.endpoints[name]
        for name in self.faults.keys() - faults.keys():
            log.info("endpoint %s can be read again", name)
        self.endpoints, self.faults = endpoints, faults
        self.loaded_at, self.fault = time.monotonic(), None


def _entries(catalog: Catalog, faults: dict[str, str]) -> list[CatalogEndpoint]:
    """The endpoints in the catalog; those that cannot be read are named in `faults` instead."""
    try:
        return catalog.endpoints()
    except (ValueError, TypeError, KeyError):
        # Some entry is no endpoint. Which one, only reading one after another tells.
        entries = []
        for name in catalog.endpoint_names():
            try:
                entries.append(catalog.endpoint(name))
            except NotFound:
                continue
            except (ValueError, TypeError, KeyError) as error:
                faults[name] = _reason(error)
        return entries


def _reason(error: Exception) -> str:
    """The error in one line. What pydantic adds of the input and its own web pages is left out."""
    if isinstance(error, ValidationError):
        found = error.errors(include_url=False, include_input=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, fault['loc'])) or 'spec'}: {fault['msg']}" for fault in found[:3])
    return str(error) if isinstance(error, UnusableRoutes) else f"{type(error).__name__}: {error}"


def _endpoint(
    entry: CatalogEndpoint,
    backends: dict,
    experiment: tuple[str, str] | None,
    prompt: ResolvedPrompt | None = None,
) -> Endpoint:
    """The endpoint of a catalog entry; UnusableRoutes where its routes are not as `set_routes` writes them."""
    if not isinstance(entry.routes, list):
        raise UnusableRoutes(f"its routes should be a list, and are {type(entry.routes).__name__}")
    routes = tuple(_route(index, route, backends) for index, route in enumerate(entry.routes))
    runtime = entry.spec.runtime
    # An experiment begins when its second model is routed; what was answered before is none of its exposures.
    compared = len({route.model_ref for route in routes if route.weight > 0 and not route.is_holdout}) > 1
    running, control = experiment if experiment is not None and compared else (None, None)
    return Endpoint(
        name=entry.name,
        phase=entry.phase,
        salt=entry.salt,
        routes=routes,
        weights=tuple(route.weight for route in routes),
        experiment=running,
        max_concurrent_requests=runtime.max_concurrent_requests,
        max_input_tokens=runtime.max_input_tokens,
        max_output_tokens=runtime.max_output_tokens,
        created_at=entry.created_at,
        guards=entry.spec.guards,
        retrieval=_retrieval(entry.routes, backends),
        cache=entry.spec.cache,
        shadow=entry.spec.shadow,
        prompt=_prompt(entry, prompt),
        control=control,
        draw=_draw(entry.routes),
    )


def _draw(routes: list) -> int:
    """The round of drawing that a route table is of: the same in all routes but those of who is held out."""
    found = {route.get("draw", 0) for route in routes if not route.get("holdout")}
    if len(found) > 1 or any(not isinstance(draw, int) or isinstance(draw, bool) or draw < 0 for draw in found):
        raise UnusableRoutes(f"draw should be one number from 0 up in all its routes: {sorted(map(str, found))}")
    return found.pop() if found else 0


def _without(endpoint: Endpoint, dropped: Mapping[str, tuple[str, str]]) -> Endpoint:
    """The endpoint less its dropped treatments, (experiment, control) by model; the control may be none of a running
    experiment any more."""
    if not dropped:
        return endpoint
    control = endpoint.control or next(control for _, control in dropped.values())
    return replace(endpoint, dropped=frozenset(dropped), control=control)


def _retrieval(routes: list, backends: dict) -> dict[str, Retriever]:
    """The retriever of each route that has one, by the route's index as text, as JSON has keys.

    How it is asked stands in the route: the endpoint's spec says what is wanted from the next deployment on.
    """
    found = {}
    for index, route in enumerate(routes):
        if (id := route.get("retriever")) is None:
            continue
        backend = backends.get(id)
        url = backend.url if backend is not None and backend.url else None
        found[str(index)] = Retriever(id, url, RagServing.model_validate(route["rag"]))
    return found


def _route(index: int, route: object, backends: dict) -> Route:
    if not isinstance(route, dict):
        raise UnusableRoutes(f"route {index} should be an object with backend_id, model_ref and weight: {route!r}")
    backend_id, model_ref, weight = route.get("backend_id"), route.get("model_ref"), route.get("weight")
    several = route.get("backend_ids", [backend_id])
    if not isinstance(several, list) or not several:
        raise UnusableRoutes(f"backend_ids of route {index} should be a list of ids: {several!r}")
    for name, value in (*(("backend_id", id) for id in several), ("model_ref", model_ref)):
        if not isinstance(value, str) or not value:
            raise UnusableRoutes(f"{name} of route {index} should be a text: {value!r}")
    is_number = isinstance(weight, int | float) and not isinstance(weight, bool)
    if not is_number or not math.isfinite(weight) or weight < 0:
        raise UnusableRoutes(f"weight of route {index} should be a number from 0 up: {weight!r}")
    found = [backends.get(id) for id in several]
    return Route(
        index=index,
        model_ref=model_ref,
        weight=float(weight),
        engine=next((backend.engine for backend in found if backend is not None), ""),
        replicas=tuple(
            Replica(id, None)
            if backend is None
            else Replica(
                id,
                backend.url or None,
                str(backend.runtime.get("model") or SERVED_NAME),
                backend.runtime.get("api_key_variable"),
            )
            for id, backend in zip(several, found, strict=True)
        ),
        serving=_serving(found),
        is_holdout=bool(route.get("holdout")),
    )


def _serving(backends: list[Backend | None]) -> str:
    """The same for all replicas, which are alike: the first that is on record says it."""
    known = next((backend for backend in backends if backend is not None), None)
    if known is None:
        return ""
    parts = [known.model_path, known.engine, known.runtime]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def _prompt(entry: CatalogEndpoint, found: ResolvedPrompt | None) -> ResolvedPrompt | None:
    """The prompt version of an endpoint; UnusableRoutes where its spec names another prompt than was resolved.

    Of an endpoint that shall go back, spec and prompt differ until the run changes routes and prompt together: what is
    noted is what users have.
    """
    wanted = entry.spec.prompt
    if entry.state != "live" and entry.observed_revision > 0:
        return found
    if wanted is None:
        return None
    if found is None or found.name != wanted.name or wanted.version not in (None, found.version):
        raise UnusableRoutes(f"its prompt {wanted.ref} was not taken from the registry yet")
    return found
