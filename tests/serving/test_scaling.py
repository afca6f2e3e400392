"""Servers are added to a route and taken away by what it has to do, and nobody's model or share changes."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmops_assets.operations import scaling
from llmops_assets.operations.scaling import Scaler, wanted_replicas
from llmops_assets.serving import rollout
from llmops_assets.specs.deployment import Replicas
from llmops_assets.specs.policy import load_policy
from resources.catalog import Catalog
from tests.serving.conftest import backend, deployment_spec


@pytest.mark.parametrize(
    ("running", "in_flight", "latency", "wanted"),
    [
        (1, 0, None, 1),
        (1, 8, None, 1),
        (1, 9, None, 2),
        (1, 1000, None, 4),
        (4, 0, None, 1),
        (2, 3, 900.0, 3),
        (4, 3, 900.0, 4),
        (2, 3, 100.0, 1),
    ],
)
def test_servers_follow_requests_in_flight_and_time_between_their_bounds(running, in_flight, latency, wanted):
    rules = Replicas(min=1, max=4, target_in_flight=8, target_latency_ms=500)
    assert wanted_replicas(running, in_flight, latency, rules) == wanted


def test_a_route_gets_a_server_that_answers_as_evaluated_and_loses_it_again(
    catalog: Catalog, stand_ins, stand_in_model: Path, monkeypatch: pytest.MonkeyPatch
):
    servers, refusals = stand_ins(), [None]
    in_flight: dict[str, int] = {}
    catalog.want_endpoint(deployment_spec(replicas={"min": 1, "max": 3, "cooldown_seconds": 60}))
    servers.want(backend("desk-c0ffee-0", path=stand_in_model))
    catalog.set_routes("desk", [{"backend_id": "desk-c0ffee-0", "model_ref": "desk@1", "weight": 100}])
    servers.reconcile()
    catalog.update_endpoint("desk", state="live")
    phase = catalog.endpoint("desk").phase
    asked: list[str] = []

    class Checks:
        def __init__(self, *_parts: Any) -> None:
            pass

        def refusal(self, _model: Any, backends: list[Any]) -> str | None:
            asked.extend(one.id for one in backends)
            return refusals[0]

    monkeypatch.setattr(scaling, "BeforeTraffic", Checks)
    wiring: Any = SimpleNamespace(
        catalog=catalog,
        servers=servers,
        policy=load_policy(),
        records=None,
        store=None,
        tracking=SimpleNamespace(model=lambda ref: ref),
        gateway=SimpleNamespace(state=lambda: {"in_flight": in_flight}),
    )
    scaler = Scaler(wiring)

    def look() -> list[str]:
        return scaler.look("desk")

    def cooled() -> None:
        scaler._changed["desk"] = time.monotonic() - 61

    in_flight["desk-c0ffee-0"] = 20
    assert look() == [], "it does not know when the last change was"
    cooled()
    assert look() == ["desk: starts desk-c0ffee-1 beside desk-c0ffee-0"]
    servers.reconcile()
    assert catalog.backend("desk-c0ffee-1").state == "healthy", "nothing routes to it, and it is kept"
    refusals[0] = "answers_as_evaluated: 0 of 8"
    assert look() == ["desk: desk-c0ffee-1 gets no users: answers_as_evaluated: 0 of 8"]
    servers.reconcile()
    assert [one.id for one in catalog.backends("desk")] == ["desk-c0ffee-0"]

    refusals[0] = None
    assert look() == [], "cooling down"
    cooled()
    look()
    servers.reconcile()
    assert look() == ["desk: desk-c0ffee-0, desk-c0ffee-1 share the users of desk@1"]
    (route,) = catalog.endpoint("desk").routes
    assert route == {
        "backend_id": "desk-c0ffee-0",
        "model_ref": "desk@1",
        "weight": 100,
        "backend_ids": ["desk-c0ffee-0", "desk-c0ffee-1"],
    }
    assert catalog.endpoint("desk").phase == phase, "nobody's share changed"
    assert asked == ["desk-c0ffee-1"] * 2
    assert servers.reconcile() == []

    in_flight["desk-c0ffee-0"] = 2
    cooled()
    assert look() == ["desk: desk-c0ffee-1 gets no more users, desk-c0ffee-0 suffice"]
    assert look() == [] and servers.reconcile() == [], "the gateway has to read it first"
    catalog.observe_backend("desk-c0ffee-1", warm_until=datetime.now(UTC) - timedelta(seconds=1))
    assert servers.reconcile() == ["stopped desk-c0ffee-1, which desk does not route to"]
    assert "backend_ids" not in catalog.endpoint("desk").routes[0]


def test_a_deployment_takes_away_no_server_that_was_added_for_its_load():
    target = rollout.Target("desk", "desk@1", "/m", "h", "transformers", {})
    ids = [rollout.backend_id(target, number) for number in range(3)]
    grown = [{"backend_id": ids[0], "backend_ids": ids, "model_ref": "desk@1", "weight": 100}]
    again = rollout.plan(rollout.as_grown(target, grown, 4), grown, ids)
    assert (again.routes, again.retire) == (grown, ())
    assert rollout.as_grown(target, [], 4) == target
