"""A treatment that fails its users, or keeps them waiting, loses them at once; the report decides."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from llmops_assets.experiments.breaker import Outcome, Recent, outcome_of, tripped
from llmops_assets.specs.experiment_rules import Breaker
from llmops_assets.specs.policy import load_policy
from tests.experiments.traffic import spec
from tests.serving.conftest import until
from tests.serving.gateway_house import Connection, House, Request, Scripted, completion, house

BREAKER = Breaker(slow_ms=1500)


def policy():
    policy = load_policy()
    experiments = policy.experiments.model_copy(update={"breaker": BREAKER})
    return policy.model_copy(update={"experiments": experiments})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with house(tmp_path_factory.mktemp("arms"), policy=policy()) as made:
        yield made


async def well(request: Request, answer: Connection) -> None:
    await answer.whole(completion("yes"))


async def breaks_off(request: Request, answer: Connection) -> None:
    await answer.whole({"error": "out of memory"}, 500)


async def refuses(request: Request, answer: Connection) -> None:
    await answer.whole({"error": {"message": "too long"}}, 400)


released = threading.Event()


async def hangs(request: Request, answer: Connection) -> None:
    while not released.is_set():
        await asyncio.sleep(0.1)
    await well(request, answer)


def experiment(home: House, name: str, *scripts) -> list[Scripted]:
    """A running experiment on an endpoint of two models, half of the users each."""
    servers = [home.server(script) for script in scripts]
    home.endpoint(name, *([server] for server in servers))
    routes = home.catalog.endpoint(name).routes
    share = 100 / len(routes)
    home.catalog.set_routes(name, [{**route, "weight": share} for route in routes], "a test")
    home.catalog.create_experiment(spec(name=f"of-{name}", endpoint=name, control=f"{name}0@1", treatment=f"{name}1@1"))
    known = home.app.gateway.table
    until(lambda: known.endpoints[name].experiment == f"of-{name}")
    return servers


def ask(home: House, name: str, user: str) -> int:
    body = {"model": name, "messages": [{"role": "user", "content": "hm?"}], "user": user}
    return httpx.post(f"{home.url}/v1/chat/completions", json=body, timeout=60).status_code


def test_a_treatment_that_fails_loses_its_users_at_once_and_the_note_waits_for_the_report(home: House) -> None:
    _, treatment = experiment(home, "fails", well, breaks_off)
    users = [f"user-{number}" for number in range(40)]
    for _ in range(4):
        for user in users:
            # The other model answers instead: whom the treatment failed got an answer all the same.
            assert ask(home, "fails", user) == 200
        if home.app.gateway.table.endpoints["fails"].dropped:
            break
    assert home.app.gateway.table.endpoints["fails"].dropped == {"fails1@1"}
    before = len(treatment.asked)
    assert {ask(home, "fails", user) for user in users} == {200}
    assert len(treatment.asked) == before
    until(lambda: "fails1@1" in home.catalog.dropped_arms.of("of-fails"))
    note = home.catalog.dropped_arms.of("of-fails")["fails1@1"]
    assert "requests to fails1@1 failed (control: 0% of" in note.reason and note.noted_by == "gateway"
    assert note.figures["treatment"]["failed_users"] >= BREAKER.users
    # A gateway only notes: nothing is decided.
    assert home.catalog.experiment("of-fails").decision is None
    until(lambda: home.app.gateway.exposures.waiting == 0)
    # What the dropped users got from the control counts for neither arm.
    counted = home.catalog.exposures(experiment="of-fails")
    last = home.catalog.exposures(endpoint="fails").tail(40)
    endpoint = home.app.gateway.table.endpoints["fails"]
    dropped = sum(endpoint.assigned(user).model_ref == "fails1@1" for user in users)
    assert last["experiment"].null_count() == dropped > 0 and set(last["variant"]) == {0}
    assert counted.height < home.catalog.request_count(endpoint="fails")


def test_a_treatment_that_hangs_loses_its_users_before_one_request_has_ended(home: House) -> None:
    _, treatment = experiment(home, "hangs", well, hangs)
    endpoint = home.app.gateway.table.endpoints["hangs"]
    arms: list[list[str]] = [[], []]
    for user in (f"user-{number}" for number in range(70)):
        arms[endpoint.assigned(user).index].append(user)
    assert {ask(home, "hangs", user) for user in arms[0][:25]} == {200}
    with ThreadPoolExecutor(25) as pool:
        asked = [pool.submit(ask, home, "hangs", user) for user in arms[1][:25]]
        until(lambda: bool(home.app.gateway.table.endpoints["hangs"].dropped), 60)
        before = len(treatment.asked)
        assert {ask(home, "hangs", user) for user in arms[1][:5]} == {200}
        assert len(treatment.asked) == before and not any(one.done() for one in asked)
        released.set()
    until(lambda: "hangs1@1" in home.catalog.dropped_arms.of("of-hangs"))
    assert "took more than 1500 ms" in home.catalog.dropped_arms.of("of-hangs")["hangs1@1"].reason


def test_what_callers_get_wrong_and_one_user_alone_trip_nothing(home: House) -> None:
    experiment(home, "refuses", well, refuses)
    assert {ask(home, "refuses", f"user-{number}") for number in range(60)} == {200, 400}
    _, treatment = experiment(home, "unlucky", well, well)
    unlucky = next(f"u{n}" for n in range(50) if home.app.gateway.table.endpoints["unlucky"].assigned(f"u{n}").index)
    treatment.script = breaks_off
    for _ in range(40):
        ask(home, "unlucky", unlucky)
    for name in ("refuses", "unlucky"):
        assert not home.app.gateway.table.endpoints[name].dropped
        assert not home.catalog.dropped_arms.of(f"of-{name}")


def test_a_gateway_that_starts_anew_heeds_the_note_of_another(home: House, tmp_path: Path) -> None:
    from images.gateway.routes import RouteTable

    experiment(home, "noted", well, well)
    phase = home.catalog.endpoint("noted").phase
    home.catalog.dropped_arms.note(
        "of-noted", "noted1@1", endpoint="noted", phase=phase, reason="it failed", figures={}, actor="gateway"
    )

    def table() -> RouteTable:
        found = RouteTable()
        found.refresh(home.catalog)
        return found

    endpoint = table().endpoints["noted"]
    assert {endpoint.exposed(route)[0].index for route in endpoint.routes} == {0}
    assert [endpoint.exposed(route)[1] for route in endpoint.routes] == ["of-noted", None]
    # Decided, and not carried out yet: its users do not come back in between.
    home.catalog.decide_experiment("of-noted", "rollback", "it failed", {}, carry_out=lambda e: e.spec)
    endpoint = table().endpoints["noted"]
    assert {endpoint.exposed(route)[0].index for route in endpoint.routes} == {0}
    # The endpoint follows, and a later experiment is another one.
    home.catalog.mark_acted("of-noted")
    home.catalog.set_routes("noted", [{**r, "weight": 50.5 - r["weight"] % 1} for r in endpoint_routes(home, "noted")])
    assert not table().endpoints["noted"].dropped


def endpoint_routes(home: House, name: str) -> list[dict]:
    return home.catalog.endpoint(name).routes


RULE = Breaker()


def recent(requests: int, failed: int = 0, users: int = 10, slow: int = 0) -> Recent:
    return Recent.of(
        Outcome(f"u{n % users}", n < failed, None if n < failed else n < failed + slow) for n in range(requests)
    )


@pytest.mark.parametrize(
    ("treatment", "control", "trips"),
    [
        (recent(20, failed=6), recent(20), True),
        (recent(20, failed=5), recent(20), False),
        (recent(19, failed=19), recent(20), False),
        (recent(50, failed=50, users=2), recent(50), False),
        # What fails both is no fault of the treatment's.
        (recent(50, failed=30), recent(50, failed=20), False),
        (recent(50, failed=50), recent(0), True),
        (recent(20, slow=10), recent(20), True),
        (recent(20, slow=10), recent(20, slow=3), False),
        (recent(20, slow=20), recent(5), False),
        (recent(20, slow=9), recent(20), False),
    ],
)
def test_what_trips_and_what_does_not(treatment: Recent, control: Recent, trips: bool) -> None:
    assert (tripped("b@1", treatment, control, RULE) is not None) is trips


@pytest.mark.parametrize(
    ("status", "error", "milliseconds", "expected"),
    [
        (200, None, 10, Outcome("u", False, False)),
        (200, None, 9000, Outcome("u", False, True)),
        (200, "b answered instead", 10, Outcome("u", True, None)),
        (502, "x", 10, Outcome("u", True, None)),
        (429, None, 10, Outcome("u", True, None)),
        (400, "bad", 10, None),
        (499, "left", 10, Outcome("u", False, None)),
        (499, "left", 9000, Outcome("u", False, True)),
    ],
)
def test_how_a_request_counts(status: int, error: str | None, milliseconds: float, expected: Outcome | None) -> None:
    assert outcome_of("u", status, error, milliseconds, 4000) == expected
