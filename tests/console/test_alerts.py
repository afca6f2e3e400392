"""Alerts over HTTP: listed, taken on by who may, and a heartbeat for who watches from outside."""

from starlette.testclient import TestClient

from llmops_assets.operations import alerts
from llmops_assets.records.serving import DriftRecord
from llmops_assets.wiring import Wiring
from tests.resources.samples import deployment


def test_alerts_are_listed_and_taken_on(api: TestClient, wiring: Wiring):
    wiring.catalog.want_endpoint(deployment())
    about = {"endpoint": "desk", "model_ref": "m@1", "requests": 9, "reference_rows": 9, "features": {}}
    wiring.records.save("desk", DriftRecord(**about, drifted=["characters"]))
    alerts.look(wiring)
    (shown,) = api.get("/llm-ops/v1/alerts", params={"open": True}).json()["items"]
    assert (shown["kind"], shown["subject"], shown["acked_by"]) == ("drift", "desk", None)
    answers = [api.post(f"/llm-ops/v1/alerts/{shown['id']}/ack") for _ in range(2)]
    assert [(a.status_code, a.json()["is_new"]) for a in answers] == [(200, True), (200, False)]
    assert api.get("/llm-ops/v1/alerts").json()["items"][0]["acked_by"] == "kim"
    assert api.post("/llm-ops/v1/alerts/99/ack").status_code == 404


def test_the_heartbeat_says_whether_the_daemon_lives(api: TestClient, wiring: Wiring):
    dead = api.get("/llm-ops/v1/alerts/heartbeat")
    assert dead.status_code == 503 and "gave no sign ever" in dead.json()["detail"]
    alerts.beat(wiring)
    assert api.get("/llm-ops/v1/alerts/heartbeat").json()["status"] == "alive"
