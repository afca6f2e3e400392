"""A rollout in steps: it goes on, waits and goes back by its traffic, acts once, and is killed at no user's expense."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmops_assets.operations.errors import Refused
from llmops_assets.operations.rollouts import (
    advance_rollout,
    hold_rollout,
    look_at_rollout,
    promote,
    roll_back,
    rollout_of,
)
from llmops_assets.serving.rollout import Target, carry_out, plan, shares, target_of
from llmops_assets.serving.rollout_steps import Step, judge, step_of
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.rollout import Analysis
from resources.backends.completions import complete
from resources.catalog import Catalog, Conflict
from resources.gateway import GatewayAdmin
from resources.model_server import ModelServers
from tests.serving.conftest import deployment_spec
from tests.serving.stand_in import in_a_process
from tests.serving.test_assets import exposure

STEPS = {"strategy": "canary", "steps": [10, 50, 100], "pause_seconds": 0, "warm_seconds": 600}
NOBODY = "http://127.0.0.1:1"


def target(model_ref: str, model: Path, share: int = 100, warm: float = 0.0) -> Target:
    runtime = {"max_input_tokens": 512, "max_output_tokens": 64, "device": "cpu", "dtype": "float32"}
    return Target("desk", model_ref, str(model), "", "transformers", runtime, share=share, warm_seconds=warm)


def switch(catalog: Catalog, servers: ModelServers, to: Target, probe: Callable[..., str | None] = lambda b: None):
    """As the asset `deployment` carries a plan out."""
    # Their folder holds no weights: what of files is looked at, tests of admission show.
    with servers.exclusively("desk"):
        routes, known = catalog.endpoint("desk").routes, [one.id for one in catalog.backends("desk")]
        gateway = GatewayAdmin(catalog, NOBODY, admin_url=NOBODY, token="unused")
        return carry_out(
            to,
            plan(to, routes, known),
            catalog=catalog,
            servers=servers,
            gateway=gateway,
            say=lambda _: None,
            probe=probe,
        )


@pytest.fixture(autouse=True)
def unregistered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The folders of the stand-ins hold no weights, and so no hash."""
    monkeypatch.setattr("llmops_assets.serving.rollout.with_content", lambda runtime, _hash: dict(runtime))


class House:
    """An endpoint whose intents are carried out as a run would, without its checks."""

    def __init__(self, catalog: Catalog, servers: ModelServers, model: Path) -> None:
        self.catalog, self.servers, self.model = catalog, servers, model
        tracking = SimpleNamespace(
            model=lambda ref: SimpleNamespace(
                ref=ref, family="llama", job_type="SFT", path=str(model), content_hash=""
            ),
            version=lambda ref: SimpleNamespace(ref=ref, tags={}),
        )
        policy = load_policy()
        self.wiring: Any = SimpleNamespace(catalog=catalog, servers=servers, tracking=tracking, policy=policy)

    def want(self, model_ref: str, **rollout: Any) -> None:
        self.catalog.want_endpoint(deployment_spec(model_ref=model_ref, rollout=rollout))
        self.run()

    def run(self) -> dict[str, float]:
        """Carry out what is wanted; the shares of the models then."""
        endpoint, wanted = self.catalog.endpoint("desk"), self.catalog.intents.newest("deploy", "desk")
        model = self.wiring.tracking.model(endpoint.spec.model_ref)
        switch(self.catalog, self.servers, target_of(endpoint.spec, model, step_of(wanted)))
        self.catalog.conclude_deployment("desk", endpoint.revision, state="live")
        return shares(self.catalog.endpoint("desk").routes)

    def traffic(self, model_ref: str, requests: int, failures: int = 0) -> None:
        number = self.catalog.request_count(endpoint="desk")
        rows = [
            exposure(number + n, "질문") | {"model_ref": model_ref, "at": datetime.now(UTC)} for n in range(requests)
        ]
        for row in rows[:failures]:
            row["status"] = 502
        self.catalog.add_exposures(rows)


@pytest.fixture
def house(catalog: Catalog, stand_ins, stand_in_model: Path) -> House:
    return House(catalog, stand_ins(), stand_in_model)


def test_a_canary_goes_on_by_its_traffic_step_after_step_and_keeps_the_old_model_warm(house: House):
    catalog, wiring = house.catalog, house.wiring
    house.want("desk@1")
    house.want("desk@2", **STEPS)
    assert shares(catalog.endpoint("desk").routes) == {"desk@1": 90, "desk@2": 10}
    assert look_at_rollout(wiring, "desk") == [], "nobody asked the new model yet"
    house.traffic("desk@2", 50)
    (said,) = look_at_rollout(wiring, "desk")
    assert said == "desk: 50 % of the users to desk@2: desk@2: 0 of 50 requests failed"
    assert look_at_rollout(wiring, "desk") == [], "looked at twice, it is asked for once"
    assert house.run() == {"desk@1": 50, "desk@2": 50}
    assert look_at_rollout(wiring, "desk") == [], "what came before a step says nothing of it"
    house.traffic("desk@2", 50)
    look_at_rollout(wiring, "desk")
    assert house.run() == {"desk@2": 100}
    # The old one has no users and stays, for a way back; the reconciler lets it be, until its time is over.
    house.servers.reconcile()
    (old,) = [one for one in catalog.backends("desk") if one.model_ref == "desk@1"]
    assert (old.wanted, old.state) == ("running", "healthy") and old.warm_until > datetime.now(UTC)
    house.traffic("desk@2", 60, failures=12)
    (said,) = look_at_rollout(wiring, "desk")
    assert said == "desk: back to desk@1 for all users: desk@2: 12 of 60 requests failed, more than 2.0%"
    pid = old.pid
    assert house.run() == {"desk@1": 100}
    assert [(one.model_ref, one.pid) for one in catalog.backends("desk")] == [("desk@1", pid)], "it was there at once"


def test_what_was_kept_warm_goes_when_its_time_is_over(house: House):
    house.want("desk@1")
    house.want("desk@2", strategy="blue-green", warm_seconds=600)
    (old,) = [one for one in house.catalog.backends("desk") if one.model_ref == "desk@1"]
    house.catalog.observe_backend(old.id, warm_until=datetime.now(UTC) - timedelta(seconds=1))
    assert house.servers.reconcile() == [f"stopped {old.id}, which desk does not route to"]


def test_a_rollout_by_hand_goes_on_only_when_it_is_asked_to_and_a_paused_one_too(house: House):
    wiring = house.wiring
    house.want("desk@1")
    house.want("desk@2", **{**STEPS, "advance": "manual"})
    house.traffic("desk@2", 80)
    assert look_at_rollout(wiring, "desk") == []
    assert rollout_of(wiring, "desk").waits == "it goes on by hand: llmops endpoint advance"
    first = advance_rollout(wiring, "kim", "desk", operation="a-1")
    assert advance_rollout(wiring, "kim", "desk", operation="a-1") == first
    with pytest.raises(Refused, match="in no step that another one follows: it is pending"):
        advance_rollout(wiring, "kim", "desk", operation="a-2")
    assert house.run() == {"desk@1": 50, "desk@2": 50}
    assert advance_rollout(wiring, "kim", "desk", operation="a-1") == first, "and no further afterwards"
    with pytest.raises(Conflict, match="'a-1' was to advance 'desk'"):
        roll_back(wiring, "kim", "desk", operation="a-1")

    house.want("desk@3", **STEPS)
    assert hold_rollout(wiring, "kim", "desk") and not hold_rollout(wiring, "kim", "desk")
    house.traffic("desk@3", 80)
    assert look_at_rollout(wiring, "desk") == []
    assert rollout_of(wiring, "desk").waits == "kim paused it"
    advance_rollout(wiring, "kim", "desk")
    house.run()
    assert rollout_of(wiring, "desk").waits is None


def test_promoting_and_rolling_back_act_once_under_an_operation(house: House):
    wiring, catalog = house.wiring, house.catalog
    house.want("desk@1")
    with pytest.raises(Refused, match="served no other model than desk@1 before"):
        roll_back(wiring, "kim", "desk")
    house.want("desk@2", **STEPS)
    done = promote(wiring, "kim", "desk", operation="p")
    assert house.run() == {"desk@2": 100}
    back = roll_back(wiring, "kim", "desk", operation="r")
    assert (back.model_ref, back.revision) == ("desk@1", done.revision + 1)
    assert house.run() == {"desk@1": 100}
    assert roll_back(wiring, "kim", "desk", operation="r").revision == back.revision
    assert promote(wiring, "kim", "desk", operation="p").revision == done.revision
    assert catalog.endpoint("desk").revision == back.revision, "asked for again, nothing more was wanted"
    with pytest.raises(Conflict, match="something else is wanted"):
        catalog.want_endpoint_once(
            deployment_spec(), "lee", kind="rollback", operation="late", expected_revision=back.revision - 1
        )


def test_weights_are_held_while_an_experiment_runs(house: House):
    house.want("desk@1")
    house.want("desk@2", **STEPS)
    house.traffic("desk@2", 80)
    spec = {"name": "ab", "endpoint": "desk", "control": "desk@1", "treatment": "desk@2", "duration_hours": 1}
    house.catalog.create_experiment(ExperimentSpec.model_validate(spec), "kim")
    assert look_at_rollout(house.wiring, "desk") == []
    assert "the experiment ab runs on it" in rollout_of(house.wiring, "desk").waits
    for operation in (advance_rollout, promote):
        with pytest.raises(Refused, match="the experiment ab runs on endpoint 'desk'"):
            operation(house.wiring, "kim", "desk")


def outcomes(new: tuple[int, int], old: tuple[int, int], slow: float = 1.0) -> dict[str, dict[str, float]]:
    return {
        "n@2": {"requests": new[0], "failures": new[1], "latency_ms": 100.0 * slow},
        "n@1": {"requests": old[0], "failures": old[1], "latency_ms": 100.0},
    }


@pytest.mark.parametrize(
    ("new", "old", "slow", "decision"),
    [
        ((0, 0), (500, 0), 1.0, "wait"),
        ((49, 0), (500, 0), 1.0, "wait"),
        ((50, 0), (500, 0), 1.0, "pass"),
        ((20, 10), (500, 2), 1.0, "fail"),
        # One failure of few is chance, and so is what the old model has too.
        ((20, 1), (500, 2), 1.0, "wait"),
        ((100, 20), (100, 20), 1.0, "pass"),
        ((60, 30), (0, 0), 1.0, "fail"),
        ((100, 0), (100, 0), 3.0, "fail"),
        ((100, 0), (10, 0), 3.0, "pass"),
    ],
)
def test_an_analysis_fails_beyond_chance_and_passes_with_enough_traffic(new, old, slow, decision):
    step = Step(0, 2, 10.0, "n@2", "n@1", datetime.now(UTC))
    assert judge(outcomes(new, old, slow), step, Analysis(max_slowdown=2)).decision == decision


def asked(catalog: Catalog) -> set[str]:
    """Every model that the endpoint routes to, of which each server has to answer."""
    endpoint = catalog.endpoint("desk")
    for route in endpoint.routes:
        assert complete(catalog.backend(route["backend_id"]), [{"role": "user", "content": "hi"}], timeout=10).text
    return set(shares(endpoint.routes))


@pytest.mark.parametrize("refused", [False, True])
def test_a_switch_that_is_killed_at_any_line_leaves_every_routed_server_answering_and_is_finished_later(
    refused: bool, catalog: Catalog, stand_ins, stand_in_model: Path, tmp_path: Path
):
    servers = stand_ins(stop_timeout_seconds=2.0)
    url, policy, python = catalog.url, servers.policy, servers.local.python
    probe = (lambda backends: "it answers otherwise") if refused else (lambda backends: None)

    def deploy(ref: str) -> None:
        anew = Catalog(url)
        switch(
            anew,
            ModelServers(anew, tmp_path / "servers", policy=policy, python=python),
            target(ref, stand_in_model),
            probe,
        )

    catalog.want_endpoint(deployment_spec())
    switch(catalog, servers, target("desk@1", stand_in_model))
    refs = ("desk@2", "desk@1")
    killed = 0
    for number, line in enumerate(count(1, 4)):
        new, old = (refs[0], refs[1]) if refused else (refs[number % 2], refs[(number + 1) % 2])
        code = in_a_process(partial(deploy, new), line, "serving/rollout.py", "resources/gateway.py")
        killed += code == 9
        assert len(asked(catalog) & {old, new}) == 1
        servers.reconcile()
        assert {one.model_ref for one in catalog.backends("desk")} == asked(catalog), "nothing else was left running"
        if code != 9:
            assert asked(catalog) == {old if refused else new}
            break
        if not refused:
            switch(catalog, servers, target(new, stand_in_model))
            assert asked(catalog) == {new}
    assert killed > 10
