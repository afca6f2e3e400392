"""While the database is away the gateway serves what it served last, and nothing of what is said meanwhile is lost."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from images.gateway.last_routes import LastRoutes
from images.gateway.routes import RouteTable
from resources.catalog import Catalog
from resources.encryption import NO_KEYS, Keyring
from tests.serving.conftest import RunningGateway, backend, deployment_spec, get, until
from tests.serving.test_gateway import Model, client_of, post, say, split, user_of_split, written

TABLES = ("endpoints", "exposures", "feedback", "user_statistics")


@contextmanager
def away(catalog: Catalog) -> Iterator[None]:
    """The catalog as it is when nothing can be read of it or written to it."""
    for old, new in (("{}", "{}_away"), ("{}_away", "{}")):
        with catalog.database.engine.begin() as connection:
            for table in TABLES:
                connection.exec_driver_sql(f"ALTER TABLE {old.format(table)} RENAME TO {new.format(table)}")
        if old == "{}":
            yield


@pytest.fixture
def served(catalog: Catalog, start_upstream: Callable) -> Catalog:
    catalog.want_endpoint(deployment_spec(runtime={"max_concurrent_requests": 3}))
    for name in "ab":
        url = start_upstream(Model(name).app()).url
        catalog.add_backend(backend(f"desk-{name}", model_ref=f"{name}@1", url=url))
    catalog.set_routes("desk", split(75, 25))
    return catalog


def test_nothing_is_lost_from_an_outage_through_a_kill_and_a_start_without_a_database(
    served: Catalog, start_gateway: Callable[..., RunningGateway], tmp_path: Path
):
    gateway = start_gateway()
    user = user_of_split(served, "b")
    create = client_of(gateway).chat.completions.with_raw_response.create
    before = create(model="desk", messages=[{"role": "user", "content": "before"}], user=user).headers["x-request-id"]
    written(served, 1)
    until(lambda: (tmp_path / "spool" / "routes.json").exists())
    with away(served):
        until(lambda: get(f"{gateway.url}/readyz")["status"] == "degraded")
        for number in range(5):
            assert say(client_of(gateway), f"in the outage {number}", user) == f"b: in the outage {number}"
        rating = {"request_id": before, "rating": 2, "user": user, "correction": "better", "scores": {"tone": 0.5}}
        assert post(f"{gateway.url}/v1/feedback", rating)[0] == 201
        until(lambda: "cannot be written yet" in str(get(f"{gateway.url}/readyz").get("log")))
        assert get(f"{gateway.url}/readyz")["status"] == "degraded"
        until(lambda: "llmops_gateway_spool_waiting 6.0" in gateway.metrics())
        assert 'llmops_gateway_spool_fault{what="catalog"} 1.0' in gateway.metrics()
        assert gateway.routes()["queued"] == 0
        gateway.process.kill()
        gateway.process.wait()
        # Nothing but the folder of the spool is left to start from.
        again = start_gateway(status="degraded", LLMOPS_CATALOG_URL="sqlite:////proc/nothing/catalog.db")
        assert say(client_of(again), "without a database", user) == "b: without a database"
        assert again.stop() in (0, -15)
    environment = os.environ | {"LLMOPS_HOME": str(tmp_path), "LLMOPS_CATALOG_URL": served.url}
    command = [sys.executable, "-m", "images.gateway.ship", "--once"]
    assert subprocess.run(command, env=environment, timeout=60).returncode == 0
    rows = served.exposures(endpoint="desk")
    said = ["before", *(f"in the outage {number}" for number in range(5)), "without a database"]
    assert rows.sort("at")["query"].to_list() == said
    (rated,) = served.feedback(endpoint="desk").rows(named=True)
    assert (rated["rating"], rated["user"], rated["correction"]) == (2, user, "better")
    assert json.loads(rated["scores"]) == {"tone": 0.5}
    assert served.user_statistics(endpoint="desk")["rated_2"].sum() == 1
    assert not list((tmp_path / "spool").glob("*/lock"))


def test_a_process_beside_the_gateway_ships_its_log_and_outlives_a_kill(
    served: Catalog, start_gateway: Callable[..., RunningGateway], tmp_path: Path
):
    gateway = start_gateway()
    gateway_process = psutil.Process(gateway.process.pid)
    (shipper,) = gateway_process.children()
    until(lambda: shipper.nice() > gateway_process.nice())
    say(client_of(gateway), "first", "u")
    written(served, 1)
    # It holds the turn, so that nobody else ships while it stands still.
    shipper.suspend()
    say(client_of(gateway), "second", "u")
    until(lambda: "llmops_gateway_spool_waiting 1.0" in gateway.metrics())
    until(lambda: gateway.routes()["queued"] == 0)
    gateway.process.kill()
    gateway.process.wait()
    assert served.request_count(endpoint="desk") == 1
    shipper.resume()
    written(served, 2)
    until(lambda: not shipper.is_running() or shipper.status() == psutil.STATUS_ZOMBIE)
    assert not list((tmp_path / "spool").glob("*/lock"))
    # Where it is gone itself, the gateway ships.
    again = start_gateway()
    (shipper,) = psutil.Process(again.process.pid).children()
    shipper.kill()
    say(client_of(again), "third", "u")
    assert written(served, 3)["query"].to_list() == ["first", "second", "third"]


def test_routes_of_before_that_cannot_be_read_take_no_others_with_them(served: Catalog, tmp_path: Path):
    served.want_endpoint(deployment_spec("help"))
    table, keys = RouteTable(), Keyring([b"k" * 32])
    table.refresh(served)
    kept = LastRoutes(tmp_path, keys)
    kept.keep(table)
    assert b"desk" not in (tmp_path / "routes.json").read_bytes()
    again = RouteTable()
    assert kept.restore(again) == 2 and again.endpoints == table.endpoints and again.loaded_at is None
    found = json.loads(keys.open((tmp_path / "routes.json").read_bytes()))
    found["desk"]["routes"] = [{"backend": 3}]
    (tmp_path / "routes.json").write_bytes(keys.seal(json.dumps(found).encode()))
    again = RouteTable()
    assert kept.restore(again) == 1 and set(again.endpoints) == {"help"}
    for rubbish in (b"", b"{", b"[1]", keys.seal(b"{}")[:-3], Keyring([b"o" * 32]).seal(b"{}")):
        (tmp_path / "routes.json").write_bytes(rubbish)
        assert kept.restore(RouteTable()) == 0
    assert LastRoutes(tmp_path / "nowhere", NO_KEYS).restore(RouteTable()) == 0


def test_faulty_feedback_is_told_what_is_wrong_with_it(served: Catalog, start_gateway: Callable[..., RunningGateway]):
    gateway = start_gateway()
    url = f"{gateway.url}/v1/feedback"
    for field, value in [
        ("correction", 3),
        ("correction", "x" * 20_001),
        ("scores", [1]),
        ("scores", {"tone": "high"}),
        ("scores", {"tone": True}),
        ("scores", {"": 1}),
        ("scores", {f"s{n}": 1 for n in range(17)}),
    ]:
        status, body, _ = post(url, {"request_id": "req-1", "rating": 3, field: value})
        assert (status, body["error"]["param"]) == (400, field)
    # It is well formed, and of no worker: it is looked for a moment, and not found.
    assert post(url, {"request_id": f"req-{'0' * 32}", "rating": 3})[0] == 404
