"""Who keeps model servers as they are wanted: one at a time, killed at any line, no server lost or there twice."""

import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from resources.backends import processes, reconcile
from resources.backends.service import Service
from resources.catalog import Catalog, Lease, LeaseLost
from resources.model_server import ModelServers, ServerError
from tests.serving.conftest import backend, deployment_spec, until
from tests.serving.stand_in import in_a_process


def routed(catalog: Catalog, model: Path, *ids: str) -> None:
    """Have the endpoint desk want and route to servers."""
    catalog.want_endpoint(deployment_spec())
    for id in ids:
        catalog.want_backend(backend(id, path=model))
    catalog.set_routes("desk", [{"backend_id": id, "model_ref": "desk@1", "weight": 100 / len(ids)} for id in ids])


def running(tmp_path: Path, id: str = "b1") -> list[psutil.Process]:
    return processes.marked(f"{tmp_path / 'servers'}:{id}")


def order(tmp_path: Path, text: str, id: str = "b1") -> None:
    folder = tmp_path / "servers" / id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "orders").write_text(text)


def test_a_server_that_nothing_routes_to_is_stopped_and_named(catalog: Catalog, stand_ins, stand_in_model: Path):
    servers = stand_ins()
    assert servers.reconcile() == []
    catalog.want_endpoint(deployment_spec())
    catalog.add_backend(backend("desk-0", path=stand_in_model, state="stopped"))
    assert servers.reconcile(wait=False) == ["stopped desk-0, which desk does not route to"]
    assert catalog.backends("desk") == []


def test_an_endpoint_whose_deployment_was_cut_off_does_not_stay_deploying(catalog: Catalog, stand_ins):
    servers = stand_ins()
    catalog.want_endpoint(deployment_spec())
    catalog.update_endpoint("desk", state="deploying")
    with servers.exclusively("desk"):
        # Whoever deploys holds the lock.
        assert stand_ins().reconcile() == []
        assert catalog.endpoint("desk").state == "deploying"
    assert servers.reconcile() == ["desk: its last deployment was cut off"]
    endpoint = catalog.endpoint("desk")
    assert (endpoint.state, "another run" in endpoint.message) == ("pending", True)


def test_what_a_deployment_wants_is_started_by_the_reconciler_while_the_deployment_waits(
    catalog: Catalog, stand_ins, stand_in_model: Path, tmp_path: Path
):
    service, run = stand_ins(), stand_ins()
    run.acts = False
    stop = threading.Event()
    thread = threading.Thread(target=Service(service).run, args=(stop,))
    thread.start()
    try:
        catalog.want_endpoint(deployment_spec())
        with run.exclusively("desk"):
            run.want(backend("b1", path=stand_in_model))
            assert run.wait_observed("b1").text == "hi"
            assert run.local.children._started == {}, "the server is the reconciler's child: the run may go"
            catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
        first = catalog.backend("b1")
        os.kill(first.pid, signal.SIGKILL)
        until(lambda: catalog.backend("b1").pid != first.pid and catalog.backend("b1").state == "healthy")
        with run.exclusively("desk"):
            run.want(backend("b2", path=stand_in_model))
            order(tmp_path, "die", "b2")
            with pytest.raises(ServerError, match=r"b2 ended while it started; its log (.|\n)*does not fit"):
                run.wait_observed("b2")
            run.unwant(["b2"])
            assert run.wait_gone(["b2"]) == []
    finally:
        stop.set()
        thread.join(20)
    assert not thread.is_alive() and running(tmp_path), "the servers go on when the reconciler ends"


def test_a_wanted_server_without_any_reconciler_is_named_as_such(catalog: Catalog, stand_ins, stand_in_model: Path):
    run = stand_ins(start_timeout_seconds=0.1)
    run.acts, run.lease.seconds = False, 0.1
    catalog.want_endpoint(deployment_spec())
    run.want(backend("b1", path=stand_in_model))
    with pytest.raises(ServerError, match="b1 is wanted after 0 s and no reconciler is at work"):
        run.wait_observed("b1")


def test_restarts_pause_longer_each_time_end_at_the_limit_and_say_why(
    catalog: Catalog, stand_ins, stand_in_model: Path, tmp_path: Path
):
    servers = stand_ins(max_restarts=2)
    routed(catalog, stand_in_model, "b1")
    servers.reconcile()
    catalog.update_endpoint("desk", state="live")
    order(tmp_path, "die")
    lease = servers.lease
    assert lease.acquire()

    def look(**more: Any) -> list[str]:
        until(lambda: not running(tmp_path))
        return servers.reconciler.step("desk", lease, **more)

    os.kill(catalog.backend("b1").pid, signal.SIGKILL)
    assert look() == ["started b1 of desk again: it was gone"]
    assert look() == [], "it is not started again at once"
    pause = catalog.backend("b1").retry_at - datetime.now(UTC)
    assert timedelta(seconds=2) < pause <= timedelta(seconds=5)
    assert look(hurry=True) == ["started b1 of desk again: it was gone"]
    assert catalog.backend("b1").retry_at - datetime.now(UTC) > timedelta(seconds=7)
    (said,) = look(hurry=True)
    assert "was started again 2 times and was gone again" in said and "does not fit" in said
    endpoint = catalog.endpoint("desk")
    assert endpoint.state == "failed" and "does not fit" in endpoint.message and "llmops deploy" in endpoint.message
    assert look(hurry=True) == [] and catalog.backend("b1").state == "failed"
    # Wanted anew, it is tried anew.
    order(tmp_path, "")
    lease.release()
    servers.want(backend("b1", path=stand_in_model))
    assert servers.wait_observed("b1").text == "hi"
    assert catalog.backend("b1").restarts == 0


def test_a_server_that_was_healthy_for_long_has_no_restarts_behind_it(
    catalog: Catalog, stand_ins, stand_in_model: Path
):
    servers = stand_ins()
    routed(catalog, stand_in_model, "b1")
    servers.reconcile()
    catalog.observe_backend("b1", restarts=4)
    servers.reconcile()
    assert catalog.backend("b1").restarts == 4
    catalog.observe_backend("b1", changed_at=datetime.now(UTC) - timedelta(seconds=reconcile.SETTLED_SECONDS + 1))
    servers.reconcile()
    assert catalog.backend("b1").restarts == 0


def test_a_server_that_does_not_end_is_killed_and_what_cannot_be_killed_stays_on_record_with_the_reason(
    catalog: Catalog, stand_ins, stand_in_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    servers = stand_ins(stop_timeout_seconds=0.3)
    monkeypatch.setattr(reconcile, "KILL_SECONDS", 0.3)
    order(tmp_path, "deaf")
    routed(catalog, stand_in_model, "b1")
    servers.reconcile()
    catalog.set_routes("desk", [])
    send = processes.send
    monkeypatch.setattr(processes, "send", lambda p, number: None if number == signal.SIGKILL else send(p, number))
    (process,) = running(tmp_path)
    (said,) = servers.reconcile()
    assert said == f"b1: a model server does not end, even when killed: process {process.pid} is still there"
    assert (catalog.backend("b1").state, catalog.backend("b1").message) == ("stopping", said.removeprefix("b1: "))
    monkeypatch.setattr(processes, "send", send)
    assert servers.reconcile() == ["stopped b1, which desk does not route to"]
    assert running(tmp_path) == []


def test_one_endpoint_that_cannot_be_served_holds_up_no_other(
    catalog: Catalog, stand_ins, stand_in_model: Path, tmp_path: Path
):
    servers = stand_ins()
    routed(catalog, stand_in_model, "b1")
    catalog.want_endpoint(deployment_spec("broken"))
    catalog.want_backend(backend("x1", path=tmp_path / "nowhere", endpoint="broken"))
    catalog.set_routes("broken", [{"backend_id": "x1", "model_ref": "desk@1", "weight": 100}])
    (said,) = servers.reconcile()
    assert "nowhere holds no config.json" in said
    assert catalog.backend("b1").state == "healthy"
    assert (catalog.backend("x1").state, "config.json" in catalog.backend("x1").message) == ("failed", True)


def test_a_lease_has_one_holder_and_what_an_earlier_one_writes_is_refused(catalog: Catalog):
    first, second = Lease(catalog.database, "x", 0.2), Lease(catalog.database, "x", 0.2)
    assert first.acquire() and first.acquire()
    assert not second.acquire()
    until(lambda: second.acquire(), 5)
    assert second.token == first.token + 1
    assert not first.renew()
    with pytest.raises(LeaseLost), catalog.database.write("test") as transaction:
        first.verify(transaction)
    first.release()
    assert second.renew(), "who lost it cannot give it back"
    second.release()
    assert first.acquire()


def test_a_lease_is_kept_as_long_as_it_is_renewed_whatever_the_clock_says(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
):
    first, second = Lease(catalog.database, "x", 0.3), Lease(catalog.database, "x", 0.3)
    with first.held() as ours:
        assert ours and not second.acquire()
        beats = lambda: catalog.database.scalar(_beat())  # noqa: E731
        begun = beats()
        monkeypatch.setattr("time.time", lambda: 4e9)
        until(lambda: beats() > begun + 4)
        assert not second.acquire()
    assert second.acquire()


def _beat() -> Any:
    import sqlalchemy as sa

    from resources.catalog import tables

    return sa.select(tables.leases.c.beat).where(tables.leases.c.name == "x")


def test_a_lease_whose_holder_was_killed_on_this_machine_is_free_at_once(catalog: Catalog):
    catalog.open()
    url = catalog.url

    def hold() -> None:
        assert Lease(Catalog(url).database, "x", 600).acquire()

    assert in_a_process(hold) == 0
    assert Lease(catalog.database, "x", 600).acquire()


KILLED_IN = ("backends/reconcile.py", "backends/local.py", "resources/model_server.py")


@pytest.mark.parametrize("way", ["up", "again", "down"])
def test_a_reconciler_that_is_killed_at_any_line_goes_on_and_no_server_is_lost_or_there_twice(
    way: str, catalog: Catalog, stand_ins, stand_in_model: Path, tmp_path: Path
):
    servers = stand_ins(stop_timeout_seconds=2.0)
    url, make_anew = (
        catalog.url,
        lambda: ModelServers(Catalog(url), tmp_path / "servers", policy=servers.policy, python=servers.local.python),
    )
    routed(catalog, stand_in_model, "b1")
    for line in count(2, 9):
        if way == "up":
            servers.reconcile()
            catalog.set_routes("desk", [])
            servers.reconcile()
            assert running(tmp_path) == [] and catalog.backends() == []
            catalog.want_backend(backend("b1", path=stand_in_model))
            catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
        else:
            catalog.want_backend(backend("b1", path=stand_in_model))
            catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
            servers.reconcile()
            if way == "down":
                catalog.set_routes("desk", [])
            else:
                os.kill(catalog.backend("b1").pid, signal.SIGKILL)
                until(lambda: not running(tmp_path))
        code = in_a_process(lambda: make_anew().reconcile(), line, *KILLED_IN)
        assert code in (0, 9)
        assert len(running(tmp_path)) <= 1
        made = {process.pid for process in running(tmp_path)}
        servers.reconcile()
        if way == "down":
            assert running(tmp_path) == [] and catalog.backends() == []
        else:
            (process,) = running(tmp_path)
            assert (catalog.backend("b1").pid, catalog.backend("b1").state) == (process.pid, "healthy")
            assert made <= {process.pid}, "what was started before the kill was adopted"
        if code == 0:
            break
    assert line > 60
