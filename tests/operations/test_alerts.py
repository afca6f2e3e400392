"""What goes wrong is told once, and again when it is over; a dead daemon is noticed from outside."""

import json
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from llmops_assets.cli import app, common, guard
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations import alerts
from llmops_assets.operations.access import Actor
from llmops_assets.operations.errors import Forbidden, Unavailable
from llmops_assets.records.serving import DriftRecord
from llmops_assets.specs.alerts import AlertPolicy
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.alert_channels import Undelivered, deliver
from resources.catalog import Alert, Catalog, NotFound
from resources.catalog.alerts import Condition
from sensors import alerts as sensor
from tests.resources.samples import deployment, experiment

NOW = datetime.now(UTC)
SECRET = "T000/B000/geheim"
PASSWORD = "correct horse"


class Hook(HTTPServer):
    """A webhook that keeps what it was sent, and answers what it is told to."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.answer = 200


class _Handler(BaseHTTPRequestHandler):
    server: Hook

    def do_POST(self) -> None:
        self.server.paths.append(self.path)
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(self.server.answer)
        if self.server.answer == 302:
            self.send_header("Location", f"http://127.0.0.1:{self.server.server_port}/elsewhere")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Nothing: the test's output is its own."""


class Mailbox:
    """What an SMTP server took."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, list[str], str]] = []

    async def handle_DATA(self, _server: Any, _session: Any, envelope: Any) -> str:
        self.messages.append((envelope.mail_from, envelope.rcpt_tos, envelope.content.decode()))
        return "250 OK"


class OnAnyPort(Controller):
    """An SMTP server on a port that nobody else has."""

    @property
    def listens_on(self) -> int:
        return self.server.sockets[0].getsockname()[1]

    def _trigger_server(self) -> None:
        with socket.create_connection(("127.0.0.1", self.listens_on), timeout=10) as client:
            client.recv(1024)


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hook]:
    server = Hook()
    threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.02}).start()
    monkeypatch.setenv("TEST_WEBHOOK", f"http://127.0.0.1:{server.server_port}/services/{SECRET}")
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def mailbox() -> Iterator[tuple[Mailbox, int]]:
    box = Mailbox()
    controller = OnAnyPort(box, hostname="127.0.0.1", port=0)
    controller.start()
    yield box, controller.listens_on
    controller.stop()


@pytest.fixture
def wiring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wiring:
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path))
    found = Wiring(Settings(_env_file=None))
    prepare_home(found.settings)
    found.catalog.want_endpoint(deployment())
    return found


def with_channels(w: Wiring, *channels: dict[str, Any], **rules: Any) -> Wiring:
    policy = AlertPolicy.model_validate({"channels": list(channels), "quiet_minutes": 0, **rules})
    w.__dict__["policy"] = w.policy.model_copy(update={"alerts": policy})
    return w


WEBHOOK = {"type": "webhook", "name": "slack", "url_env": "TEST_WEBHOOK"}


def drift(w: Wiring, drifted: list[str]) -> None:
    record = DriftRecord(endpoint="desk", model_ref="m@1", requests=9, reference_rows=9, features={}, drifted=drifted)
    w.records.save("desk", record)


def test_it_is_told_once_and_again_when_it_is_over(wiring, hook):
    with_channels(wiring, WEBHOOK)
    assert alerts.look(wiring).delivered == 0
    drift(wiring, ["characters"])
    assert alerts.look(wiring).delivered == 1
    assert alerts.look(wiring).delivered == 0
    (body,) = hook.bodies
    assert body["text"].startswith("[WARNING] drift: desk\ndrifted: characters") and body["kind"] == "drift"
    drift(wiring, [])
    assert alerts.look(wiring).delivered == 1
    assert hook.bodies[-1]["text"].startswith("[RESOLVED] drift: desk") and hook.bodies[-1]["event"] == "resolved"
    assert alerts.list_alerts(wiring, "kim", is_open=True) == []
    drift(wiring, ["characters"])
    assert alerts.look(wiring).delivered == 1 and len(alerts.list_alerts(wiring, "kim")) == 2


def test_what_comes_and_goes_within_the_quiet_time_is_one_alert_with_one_message(wiring, hook):
    with_channels(wiring, WEBHOOK, quiet_minutes=60)
    for number in range(6):
        drift(wiring, ["characters"] if number % 2 == 0 else [])
        alerts.look(wiring, now=NOW + timedelta(minutes=5 * number))
    (alert,) = alerts.list_alerts(wiring, "kim")
    assert (alert.times, [body["event"] for body in hook.bodies]) == (3, ["raised"])
    alerts.look(wiring, now=NOW + timedelta(minutes=5 * 5 + 61))
    assert [body["event"] for body in hook.bodies] == ["raised", "resolved"]


def test_a_message_that_did_not_arrive_is_tried_again_and_at_last_named(wiring, hook):
    with_channels(wiring, {**WEBHOOK, "kinds": ["drift"]})
    drift(wiring, ["characters"])
    hook.answer = 503
    first = alerts.look(wiring, now=NOW)
    assert first.delivered == 0 and "answered 503" in first.undelivered[0] and SECRET not in first.undelivered[0]
    # Before its time it is not tried.
    assert alerts.look(wiring, now=NOW + timedelta(seconds=5)).undelivered == [] and len(hook.bodies) == 1
    hook.answer = 200
    assert alerts.look(wiring, now=NOW + timedelta(seconds=60)).delivered == 1
    assert alerts.look(wiring, now=NOW + timedelta(days=1)).delivered == 0 and len(hook.bodies) == 2
    drift(wiring, [])
    hook.answer = 500
    for hour in range(0, 100, 7):
        alerts.look(wiring, now=NOW + timedelta(days=2, hours=hour))
    (given_up,) = wiring.catalog.alerts.undelivered()
    assert given_up["attempts"] == 7 and "answered 500" in given_up["error"]


def test_a_webhook_is_asked_nowhere_else_and_its_address_is_in_no_error(wiring, hook, monkeypatch):
    with_channels(wiring, WEBHOOK)
    drift(wiring, ["characters"])
    hook.answer = 302
    assert "answered 302" in alerts.look(wiring).undelivered[0] and hook.paths == [f"/services/{SECRET}"]
    channel, alert = wiring.policy.alerts.channels[0], alerts.list_alerts(wiring, "kim")[0]
    for address, words in (
        (f"http://127.0.0.1:1/{SECRET}", "refused"),
        (f"http://no host/{SECRET}", "InvalidURL"),
        (f"file:///{SECRET}", "is no http address"),
        ("", "the environment has no TEST_WEBHOOK"),
    ):
        with pytest.raises(Undelivered) as error:
            deliver(channel, alert, "raised", {"TEST_WEBHOOK": address})
        assert words in str(error.value) and SECRET not in str(error.value)


def test_slack_gets_its_text_alone_where_it_wants_nothing_else(wiring, hook):
    with_channels(wiring, {**WEBHOOK, "fields": False})
    drift(wiring, ["characters"])
    alerts.look(wiring)
    assert set(hook.bodies[0]) == {"text"}


def test_an_e_mail_arrives_with_one_line_of_subject(wiring, mailbox):
    box, port = mailbox
    smtp = {"type": "smtp", "name": "mail", "host": "127.0.0.1", "port": port, "tls": "none"}
    smtp |= {"sender": "llmops@example.com", "recipients": ["ops@example.com", "kim@example.com"]}
    with_channels(wiring, smtp)
    at, text = NOW, "무엇이 잘못되었는지\n두 줄"
    alert = Alert(7, "run:x", "run", "x\r\nBcc: eve@example.com", "error", text, 1, at, at, None, None, None)
    deliver(wiring.policy.alerts.channels[0], alert, "raised")
    ((sender, recipients, content),) = box.messages
    assert (sender, recipients) == ("llmops@example.com", ["ops@example.com", "kim@example.com"])
    headers = content.partition("\r\n\r\n")[0]
    assert "Subject: [ERROR] run: x Bcc: eve@example.com" in headers and "\nBcc:" not in headers
    drift(wiring, ["characters"])
    assert alerts.look(wiring).delivered == 1 and "drift: desk" in box.messages[-1][2]


def test_a_mail_server_that_refuses_or_is_away_is_named_without_the_password():
    def check(_server: Any, _session: Any, _envelope: Any, _mechanism: str, _data: Any) -> AuthResult:
        return AuthResult(success=False, handled=False)

    values = {"type": "smtp", "name": "mail", "host": "127.0.0.1", "port": 1, "sender": "a@example.com"}
    values |= {"recipients": ["b@example.com"], "username": "u", "password_env": "TEST_PASSWORD"}
    (channel,) = AlertPolicy.model_validate({"channels": [values]}).channels
    alert = Alert(7, "run:x", "run", "x", "error", "t", 1, NOW, NOW, None, None, None)
    with pytest.raises(Undelivered, match="refused"):
        deliver(channel, alert, "raised", {"TEST_PASSWORD": PASSWORD})
    with pytest.raises(Undelivered, match="no TEST_PASSWORD"):
        deliver(channel, alert, "raised", {})
    controller = OnAnyPort(Mailbox(), hostname="127.0.0.1", port=0, authenticator=check)
    controller.start()
    try:
        port = controller.listens_on
        # It offers no STARTTLS: the password is not sent in the clear instead.
        with pytest.raises(Undelivered, match="STARTTLS") as error:
            deliver(channel.model_copy(update={"port": port}), alert, "raised", {"TEST_PASSWORD": PASSWORD})
        assert PASSWORD not in str(error.value)
    finally:
        controller.stop()


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ({"type": "smtp", "name": "m", "host": "h", "sender": "x", "recipients": ["a@b"]}, "is no e-mail address"),
        ({"type": "smtp", "name": "m", "host": "h", "sender": "a@b", "recipients": []}, "at least 1"),
        ({"type": "smtp", "name": "m", "host": "h", "sender": "a@b\nTo: c@d", "recipients": ["a@b"]}, "e-mail address"),
        ({"type": "webhook", "name": "w"}, "url_env"),
        ({"type": "webhook", "name": "w", "url": "http://x"}, "url"),
        ({"type": "pager", "name": "p"}, "pager"),
    ],
)
def test_a_channel_that_makes_no_sense_is_refused(channel, words):
    with pytest.raises(ValueError, match=words):
        AlertPolicy.model_validate({"channels": [channel]})


def test_a_channel_is_told_of_what_it_wants(wiring, hook):
    with_channels(wiring, {**WEBHOOK, "kinds": ["run"]}, {"type": "log", "name": "log", "at_least": "error"})
    drift(wiring, ["characters"])
    assert alerts.look(wiring).delivered == 0
    wiring.catalog.log("dagster", "run.failed", "desk@v1", run_id="r1", assets=["splits"], error="it broke\nat line 3")
    assert alerts.look(wiring).delivered == 2
    assert hook.bodies[0]["text"] == "[ERROR] run: splits of desk@v1\nrun r1 failed: it broke"


def test_what_waits_for_too_long_is_told_of(wiring):
    with_channels(wiring, {"type": "log", "name": "log"})
    kinds = lambda: {one.kind for one in alerts.list_alerts(wiring, "kim", is_open=True)}  # noqa: E731
    alerts.look(wiring, now=NOW + timedelta(minutes=30))
    assert kinds() == set()
    alerts.look(wiring, now=NOW + timedelta(hours=3))
    assert kinds() == {"intent"}
    wiring.catalog.intents.withdraw("deploy", "desk", "kim")
    alerts.look(wiring, now=NOW + timedelta(hours=4))
    assert kinds() == set()


def test_an_arm_that_lost_its_users_is_told_of_until_its_test_ends(wiring):
    wiring.catalog.create_experiment(experiment())
    wiring.catalog.dropped_arms.note(
        "base-or-tuned", "desk@1", endpoint="desk", phase=1, reason="9 of 10 failed", figures={}, actor="gateway"
    )
    (raised,) = alerts.look(wiring).changed.raised
    assert (raised.kind, raised.subject) == ("breaker", "desk@1 in base-or-tuned") and "9 of 10 failed" in raised.text
    wiring.catalog.decide_experiment("base-or-tuned", "rollback", "it failed", {}, carry_out=lambda found: found.spec)
    assert raised.id in [alert.id for alert in alerts.look(wiring).changed.resolved]


def test_a_kind_that_cannot_be_looked_at_silences_no_other_and_resolves_nothing(wiring):
    with_channels(wiring, {"type": "log", "name": "log"})
    drift(wiring, ["characters"])
    alerts.look(wiring)
    wiring.records.path(DriftRecord, "desk").write_text("{")
    looked = alerts.look(wiring, now=NOW + timedelta(hours=3))
    assert any(fault.startswith("drift:") for fault in looked.faults)
    assert {one.kind for one in alerts.list_alerts(wiring, "kim", is_open=True)} == {"drift", "intent"}


def test_somebody_takes_an_alert_on_once(wiring):
    with_channels(wiring, {"type": "log", "name": "log"})
    drift(wiring, ["characters"])
    alerts.look(wiring)
    (alert,) = alerts.list_alerts(wiring, "kim")
    assert [alerts.ack(wiring, name, alert.id) for name in ("kim", "lee")] == [True, False]
    assert alerts.list_alerts(wiring, "kim")[0].acked_by == "kim"
    with pytest.raises(NotFound, match="llmops alerts list"):
        alerts.ack(wiring, "kim", 99)
    with pytest.raises(Forbidden):
        alerts.ack(wiring, Actor("lee", ["viewer"]), alert.id)
    assert [a["action"] for a in wiring.catalog.audit_log() if a["target"] == alert.key] == ["alert.ack"]


def test_a_dead_daemon_is_noticed_from_outside_and_so_is_its_return(wiring, hook):
    with_channels(wiring, WEBHOOK, heartbeat_seconds=60)
    with pytest.raises(Unavailable, match="no sign ever"):
        alerts.assert_alive(wiring)
    with dg.DagsterInstance.ephemeral() as instance:
        found = sensor.make(5, wiring)(dg.build_sensor_context(instance=instance))
    assert isinstance(found, dg.SkipReason) and "0 began" in found.skip_message
    last = alerts.assert_alive(wiring)
    assert alerts.watch_heartbeat(wiring).delivered == 0
    later = last + timedelta(seconds=61)
    assert alerts.watch_heartbeat(wiring, now=later).delivered == 1
    assert "gave no sign since" in hook.bodies[-1]["text"]
    # What only looks at other kinds leaves it as it is.
    alerts.look(wiring, now=later)
    assert [one.kind for one in alerts.list_alerts(wiring, "kim", is_open=True)] == ["daemon"]
    wiring.catalog.alerts.beat(alerts.DAEMON, later)
    assert alerts.watch_heartbeat(wiring, now=later).delivered == 1
    assert hook.bodies[-1]["text"].startswith("[RESOLVED] daemon")


def test_the_command_lists_takes_on_and_watches(wiring, capsys):
    common.wiring.cache_clear()
    drift(wiring, ["characters"])
    assert guard(lambda: app(["alerts", "heartbeat"], standalone_mode=False)) == 5
    alerts.look(wiring)
    capsys.readouterr()
    assert guard(lambda: app(["alerts", "list", "--json"], standalone_mode=False)) == 0
    listed = {one["kind"]: one["id"] for one in json.loads(capsys.readouterr().out)}
    assert set(listed) == {"drift", "daemon"}
    assert guard(lambda: app(["alerts", "ack", str(listed["drift"])], standalone_mode=False)) == 0
    assert guard(lambda: app(["alerts", "ack", "99"], standalone_mode=False)) == 1
    alerts.beat(wiring)
    assert guard(lambda: app(["alerts", "heartbeat"], standalone_mode=False)) == 0


def test_two_who_look_at_once_raise_one_alert_and_send_one_message(wiring, hook):
    with_channels(wiring, WEBHOOK)
    drift(wiring, ["characters"])
    others = [Wiring(wiring.settings) for _ in range(4)]
    for one in others:
        one.__dict__["policy"] = wiring.policy
    threads = [threading.Thread(target=alerts.look, args=(one,)) for one in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(hook.bodies), len(alerts.list_alerts(wiring, "kim"))) == (1, 1)


def test_an_event_is_told_of_once_ever(tmp_path):
    kept = Catalog(f"sqlite:///{tmp_path / 'catalog.db'}").alerts
    event = Condition("decision", "ab (10:00)", "info", "promote", is_event=True)
    told = {"decision info": ["slack"]}
    for _ in range(3):
        kept.reconcile([event], ["decision"], told, quiet=timedelta(0))
    kept.reconcile([], ["decision"], told, quiet=timedelta(0))
    (message,) = kept.due(["slack"])
    assert message.event == "raised" and kept.alerts()[0].resolved_at is not None
