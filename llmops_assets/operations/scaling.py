"""Adds servers to a route that has more to do than its servers can, and takes them away again when it has not."""

import math
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from llmops_assets.serving.before_traffic import BeforeTraffic
from llmops_assets.specs.deployment import Replicas
from llmops_assets.wiring import Wiring
from resources.backends.reconcile import replicas_of
from resources.catalog import Backend, Endpoint
from resources.gateway import GatewayError

SCALER = "scaler"
"""The actor of what is done here."""
FOLLOW = timedelta(seconds=3)
"""As long as a gateway takes at most to read routes anew: it does twice a second."""
_LATENCY_WINDOW = timedelta(minutes=1)


def wanted_replicas(running: int, in_flight: int, latency_ms: float | None, rules: Replicas) -> int:
    """How many servers a route shall have, between min and max: as many as requests in flight by `target_in_flight`,
    and one more than now where answers take longer than `target_latency_ms`."""
    need = math.ceil(in_flight / rules.target_in_flight)
    if rules.target_latency_ms is not None and latency_ms is not None and latency_ms > rules.target_latency_ms:
        need = max(need, running + 1)
    return min(rules.max, max(rules.min, need))


@dataclass
class Scaler:
    """Looks at the endpoints of an installation; one change of an endpoint in `cooldown_seconds`.

    Where it starts anew it waits that long first, as it does not know of an earlier change.
    """

    wiring: Wiring
    _changed: dict[str, float] = field(default_factory=dict)
    _leaving: set[str] = field(default_factory=set)

    def look(self, name: str) -> list[str]:
        """One look at an endpoint: what was done, a sentence each."""
        catalog = self.wiring.catalog
        if name not in catalog.endpoint_names():
            return []
        endpoint = catalog.endpoint(name)
        rules = endpoint.spec.replicas
        if endpoint.state != "live" or rules.max <= rules.min or endpoint.spec.runtime.backend == "url":
            return []
        with self.wiring.servers.exclusively(name, wait=False) as ours:
            if not ours:
                return []
            endpoint = catalog.endpoint(name)
            backends = {backend.id: backend for backend in catalog.backends(name)}
            return [line for route in endpoint.routes for line in self._look_at(endpoint, route, backends)]

    def _look_at(self, endpoint: Endpoint, route: dict[str, Any], backends: dict[str, Backend]) -> list[str]:
        routed = replicas_of(route)
        family = routed[0].rpartition("-")[0]
        coming = [
            one
            for id, one in backends.items()
            if id not in routed and id.rpartition("-")[0] == family and one.wanted == "running"
            if id not in self._leaving
        ]
        if coming:
            return self._add(endpoint, route, coming[0], routed)
        now = time.monotonic()
        if now - self._changed.setdefault(endpoint.name, now) < endpoint.spec.replicas.cooldown_seconds:
            return []
        wanted = self._wanted(endpoint, route, routed)
        if wanted > len(routed) and routed[0] in backends:
            return self._start(endpoint, backends, routed, family)
        if wanted < len(routed):
            return self._remove(endpoint, route, routed)
        return []

    def _wanted(self, endpoint: Endpoint, route: dict[str, Any], routed: list[str]) -> int:
        try:
            state = self.wiring.gateway.state()
        except GatewayError:
            state = None
        if state is None:
            # Nothing is known of what is asked: nothing changes.
            return len(routed)
        in_flight = sum(int(state["in_flight"].get(id, 0)) for id in routed)
        since = datetime.now(UTC) - _LATENCY_WINDOW
        seen = self.wiring.catalog.outcomes(endpoint=endpoint.name, since=since).get(route["model_ref"])
        latency = seen["latency_ms"] if seen is not None and seen["requests"] > seen["failures"] else None
        return wanted_replicas(len(routed), in_flight, latency, endpoint.spec.replicas)

    def _start(self, endpoint: Endpoint, backends: dict[str, Backend], routed: list[str], family: str) -> list[str]:
        """Want one more server like those of the route; it gets users once it has answered as evaluated."""
        free = [n for n in range(endpoint.spec.replicas.max) if f"{family}-{n}" not in backends]
        if not free:
            # One that leaves still answers.
            return []
        number = free[0]
        # Nothing routes to it while it starts.
        until = datetime.now(UTC) + timedelta(seconds=2 * self.wiring.policy.serving.start_timeout_seconds)
        one = replace(backends[routed[0]], id=f"{family}-{number}", url="", pid=None, pid_started=None, log_path=None)
        self._leaving.discard(one.id)
        self.wiring.catalog.want_backend(replace(one, created_at=datetime.now(UTC), warm_until=until), SCALER)
        self._changed[endpoint.name] = time.monotonic()
        return [f"{endpoint.name}: starts {one.id} beside {', '.join(routed)}"]

    def _add(self, endpoint: Endpoint, route: dict[str, Any], one: Backend, routed: list[str]) -> list[str]:
        """Let a server that came up share the users of its route, if it may have them; else let it go."""
        catalog, wiring = self.wiring.catalog, self.wiring
        if one.state not in ("healthy", "failed"):
            return []
        refusal: str | None = one.message
        if one.state == "healthy":
            model = wiring.tracking.model(one.model_ref)
            refusal = BeforeTraffic(wiring.records, wiring.store, wiring.servers).refusal(model, [one])
        if refusal is not None:
            catalog.unwant_backends([one.id], SCALER)
            self._changed[endpoint.name] = time.monotonic()
            return [f"{endpoint.name}: {one.id} gets no users: {refusal}"]
        ids = [*routed, one.id]
        added = catalog.set_replicas(
            endpoint.name, route["model_ref"], ids, expected_phase=endpoint.phase, actor=SCALER
        )
        return [f"{endpoint.name}: {', '.join(ids)} share the users of {route['model_ref']}"] if added else []

    def _remove(self, endpoint: Endpoint, route: dict[str, Any], routed: list[str]) -> list[str]:
        """Take the last server off a route; it answers what it has, and is gone then."""
        *left, last = routed
        removed = self.wiring.catalog.set_replicas(
            endpoint.name, route["model_ref"], left, expected_phase=endpoint.phase, actor=SCALER
        )
        if not removed:
            return []
        # The gateway may send to it until it has read the routes anew.
        self._leaving.add(last)
        self.wiring.catalog.unwant_backends([last], SCALER, warm_until=datetime.now(UTC) + FOLLOW)
        self._changed[endpoint.name] = time.monotonic()
        return [f"{endpoint.name}: {last} gets no more users, {', '.join(left)} suffice"]
