"""Several workers on one port are one gateway: limits hold across them, and a killed one costs its requests alone."""

import os
import signal
import threading
import time

import httpx
import psutil
import pytest

from images.gateway.merged import merged_metrics, merged_state
from tests.gateway.model import Model, ask
from tests.gateway.redis_server import RedisServer
from tests.serving.conftest import RunningGateway, until


def two_workers(redis_server: RedisServer, **more: str) -> dict[str, str]:
    settings = {"LLMOPS_GATEWAY_WORKERS": "2", "LLMOPS_GATEWAY_STORE_URL": redis_server.url}
    return settings | {"LLMOPS_GATEWAY_ACCESS": "on"} | more


def key_of(catalog, **changes) -> str:
    return catalog.api_keys.create("kim", **{"owner": "lee", "role": "viewer", **changes})[1]


def workers(gateway: RunningGateway) -> list[dict]:
    return gateway.routes()["workers"]


def statuses_of(gateway: RunningGateway, key: str, count: int) -> list[int]:
    """So many requests at once, each on a connection of its own."""
    found: list[int] = []

    def one() -> None:
        headers = {"Authorization": f"Bearer {key}"}
        try:
            found.append(httpx.get(f"{gateway.url}/v1/models", headers=headers, timeout=30).status_code)
        except httpx.HTTPError:
            found.append(0)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def pair(catalog, model: Model, start_gateway, redis_server):
    """A gateway of two workers that both answer, and keys by name: of any rate, of 30 a minute, of 100 tokens."""
    keys = {
        "any": key_of(catalog, requests_per_minute=100_000),
        "limited": key_of(catalog, requests_per_minute=30),
        "frugal": key_of(catalog, monthly_tokens=100, requests_per_minute=500),
    }
    gateway = start_gateway(**two_workers(redis_server))
    until(lambda: [w["ready"] for w in workers(gateway)] == [True, True], 60)
    return gateway, keys


def test_a_gateway_of_two_workers(catalog, model, pair, redis_server):
    gateway, keys = pair
    key = keys["any"]
    # Limits are exact, whichever worker is asked.
    found = statuses_of(gateway, keys["limited"], 60)
    assert (found.count(200), found.count(429)) == (30, 30)

    # A budget too: 15 tokens an answer, one answer beyond it at most.
    answered = [ask(gateway.url, keys["frugal"], max_tokens=10).status_code for _ in range(10)]
    assert answered == [200] * 7 + [429] * 3

    # What is counted of each is added up.
    pids = [worker["pid"] for worker in workers(gateway)]
    total = sum(
        float(line.rsplit(" ", 1)[1])
        for line in gateway.metrics().splitlines()
        if line.startswith("llmops_gateway_requests_total") and 'status="200"' in line
    )
    assert total == 7

    # One is killed in the middle of its requests: the other goes on, its places come back, it is started again.
    model.is_held = True
    outcomes: list[int] = []

    def held() -> None:
        try:
            outcomes.append(ask(gateway.url, key).status_code)
        except httpx.HTTPError:
            outcomes.append(0)

    threads = [threading.Thread(target=held) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: gateway.routes()["endpoints"]["desk"]["in_flight"] == 8)
    assert ask(gateway.url, key).json()["error"]["code"] == "busy"
    os.kill(pids[0], signal.SIGKILL)
    killed_at = time.monotonic()
    until(lambda: [w["ready"] for w in workers(gateway)] == [True, True] and workers(gateway)[0]["pid"] != pids[0], 60)
    lost = outcomes.count(0)
    assert len(outcomes) == lost < 8
    model.is_held = False
    for thread in threads:
        thread.join()
    assert outcomes.count(200) == 8 - lost
    assert set(statuses_of(gateway, key, 20)) == {200}
    model.is_held = True
    outcomes.clear()
    again = [threading.Thread(target=held) for _ in range(8)]
    # The leases of the killed one end by themselves, and all eight places are there again.
    until(lambda: time.monotonic() - killed_at > 6 or lost == 0, 60)
    for thread in again:
        thread.start()
    until(lambda: gateway.routes()["endpoints"]["desk"]["in_flight"] == 8, 60)
    model.is_held = False
    for thread in again:
        thread.join()
    assert outcomes == [200] * 8

    # The store is gone: nothing hangs, health says so, and it is back when it is.
    redis_server.kill()
    begun = time.monotonic()
    assert set(statuses_of(gateway, key, 10)) == {200}
    assert time.monotonic() - begun < 10
    until(
        lambda: (
            "each worker counts by itself"
            in httpx.get(f"{gateway.url}/readyz").json().get("access", {}).get("limits", "")
        )
    )
    redis_server.start()
    until(lambda: statuses_of(gateway, key, 1) == [200] and all_well(gateway))

    # And all end together.
    children = [worker["pid"] for worker in workers(gateway)]
    assert gateway.stop() == 0
    until(lambda: not any(psutil.pid_exists(pid) for pid in children))


def all_well(gateway: RunningGateway) -> bool:
    """Whether every worker says that all is well: each connection may be another's."""
    return all(httpx.get(f"{gateway.url}/readyz").json()["status"] == "ok" for _ in range(12))


def test_workers_end_with_a_supervisor_that_is_killed(pair):
    gateway, _keys = pair
    children = [worker["pid"] for worker in workers(gateway)]
    gateway.process.kill()
    gateway.process.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in children), 30)


def test_workers_that_do_not_start_are_given_up_with_the_reason(catalog, start_gateway, redis_server):
    catalog.open()
    with pytest.raises(AssertionError) as error:
        # Access is on, and there is no key.
        start_gateway(**two_workers(redis_server))
    assert "llmops key create" in str(error.value) and "ended before it answered, 1 times" in str(error.value)


def test_what_workers_say_is_added_up_and_an_endpoint_is_as_far_as_the_slowest():
    def state(phase: int, in_flight: int, **more) -> dict:
        endpoints = {"desk": {"phase": phase, "in_flight": in_flight, "routes": [phase]}, **more}
        return {"endpoints": endpoints, "in_flight": {"b": in_flight}, "queued": 1, "faults": {}}

    merged = merged_state([state(3, 2), state(2, 5, new={"phase": 1, "in_flight": 0, "routes": []})])
    assert merged["endpoints"] == {"desk": {"phase": 2, "in_flight": 7, "routes": [2]}}
    assert (merged["in_flight"], merged["queued"]) == ({"b": 7}, 2)
    assert merged_state([])["endpoints"] == {}


def test_counts_of_workers_are_added_up_and_of_a_state_the_worst_stands():
    page = (
        "# HELP requests_total Requests\n# TYPE requests_total counter\n"
        'requests_total{endpoint="a b",status="200"} 3.0\n'
        "# HELP stale Stale\n# TYPE stale gauge\nstale {0}\n"
        "# HELP x_in_flight In flight\n# TYPE x_in_flight gauge\nx_in_flight 2.0\n"
    )
    merged = merged_metrics([page.replace("{0}", "0.0"), page.replace("{0}", "1.0")])
    assert 'requests_total{endpoint="a b",status="200"} 6.0\n' in merged
    assert "\nstale 1.0\n" in merged and "\nx_in_flight 4.0\n" in merged
    assert merged.count("# TYPE stale gauge") == 1
