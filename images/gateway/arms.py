"""Watches the arms of running experiments, and gives a treatment's users to the control at once where it fails them."""

import logging
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from images.gateway.call import Call
from images.gateway.routes import Endpoint, Route, RouteTable
from llmops_assets.experiments.breaker import LAST_REQUESTS, Outcome, Recent, outcome_of, tripped
from llmops_assets.specs.experiment_rules import Breaker
from resources.catalog import Catalog

log = logging.getLogger("gateway.arms")

_Arm = tuple[str, str, str]
"""Endpoint, experiment, model."""


@dataclass(frozen=True, slots=True)
class _Trip:
    endpoint: str
    phase: int
    experiment: str
    model_ref: str
    reason: str
    figures: dict[str, Any]


class Arms:
    """The last requests of each arm that this process saw, and those that wait for an answer.

    What trips is heeded here at once, noted in the catalog as soon as that takes it, and heeded by the other gateways
    when they read their routes. It decides nothing: the experiment's next report does.
    """

    def __init__(self, rule: Breaker, table: RouteTable) -> None:
        self._rule = rule
        self._table = table
        self._recent: dict[_Arm, deque[Outcome]] = {}
        self._waiting: dict[str, tuple[_Arm, Call]] = {}
        self._trips: list[_Trip] = []

    def watch(self, call: Call, endpoint: Endpoint, route: Route) -> None:
        """Count a request of an experiment from here to its end."""
        arm = (endpoint.name, endpoint.experiment or "", route.model_ref)
        self._waiting[call.request_id] = (arm, call)
        call.on_close(lambda: self._ended(call, arm))

    def look(self) -> None:
        """Heed requests that wait for too long already: of a server that hangs none comes to an end."""
        for arm in {arm for arm, call in self._waiting.values() if _seconds(call) * 1000 > self._rule.slow_ms}:
            self._judge(arm)

    def note(self, catalog: Catalog) -> None:
        """Write what tripped to the catalog; what it cannot take now is tried again. Never raises."""
        for trip in list(self._trips):
            try:
                catalog.dropped_arms.note(
                    trip.experiment,
                    trip.model_ref,
                    endpoint=trip.endpoint,
                    phase=trip.phase,
                    reason=trip.reason,
                    figures=trip.figures,
                    actor="gateway",
                )
            except Exception as error:  # noqa: BLE001  whatever the catalog's driver raises, users have the control
                log.error("that %s was dropped cannot be noted yet: %s", trip.model_ref, error)
                return
            self._trips.remove(trip)

    def heed(self) -> None:
        """Apply to the routes what is not in the catalog yet, and forget the arms that are no more."""
        for trip in list(self._trips):
            endpoint = self._table.endpoints.get(trip.endpoint)
            if endpoint is not None and endpoint.phase == trip.phase and trip.model_ref not in endpoint.dropped:
                self._table.endpoints[trip.endpoint] = without(endpoint, trip.model_ref)
        running = {(e.name, e.experiment) for e in self._table.endpoints.values() if e.experiment is not None}
        for arm in [arm for arm in self._recent if arm[:2] not in running]:
            del self._recent[arm]

    def _ended(self, call: Call, arm: _Arm) -> None:
        self._waiting.pop(call.request_id, None)
        exposure = call.exposure
        if exposure is None or exposure.source == "cache" or call.is_probe:
            return
        milliseconds = exposure.ttft_ms if exposure.ttft_ms is not None else 1000 * _seconds(call)
        error = exposure.error or call.error
        outcome = outcome_of(exposure.user, call.status or 0, error, milliseconds, self._rule.slow_ms)
        if outcome is None:
            return
        self._recent.setdefault(arm, deque(maxlen=LAST_REQUESTS)).append(outcome)
        if outcome.failed or outcome.slow:
            self._judge(arm)

    def _judge(self, arm: _Arm) -> None:
        name, experiment, model = arm
        endpoint = self._table.endpoints.get(name)
        if endpoint is None or endpoint.experiment != experiment or model in endpoint.dropped:
            return
        if endpoint.control is None or model == endpoint.control:
            return
        treatment, control = self._of(arm), self._of((name, experiment, endpoint.control))
        reason = tripped(model, treatment, control, self._rule)
        if reason is None:
            return
        log.error("%s: experiment %s: %s; its users have %s from now on", name, experiment, reason, endpoint.control)
        figures = {
            arm: {field: getattr(recent, field) for field in Recent.__slots__}
            for arm, recent in (("treatment", treatment), ("control", control))
        }
        self._trips.append(_Trip(name, endpoint.phase, experiment, model, reason, figures))
        self._table.endpoints[name] = without(endpoint, model)

    def _of(self, arm: _Arm) -> Recent:
        """The last requests of an arm, those among them that wait too long already."""
        return Recent.of([*self._recent.get(arm, ()), *self._late(arm)])

    def _late(self, arm: _Arm) -> Iterator[Outcome]:
        for other, call in self._waiting.values():
            exposure = call.exposure
            if other != arm or exposure is None or exposure.ttft_ms is not None:
                continue
            if 1000 * _seconds(call) > self._rule.slow_ms:
                yield Outcome(exposure.user, False, True)


def without(endpoint: Endpoint, model_ref: str) -> Endpoint:
    """The endpoint with a treatment whose users have the control."""
    return replace(endpoint, dropped=endpoint.dropped | {model_ref})


def _seconds(call: Call) -> float:
    return time.monotonic() - call.begun
