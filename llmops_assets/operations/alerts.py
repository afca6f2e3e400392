"""Alerts: what is wrong at present, told once, and again when it is over."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from llmops_assets.drift.verdicts import like_before, like_training
from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Unavailable
from llmops_assets.operations.retrainings import preview
from llmops_assets.records.serving import DriftRecord
from llmops_assets.specs.alerts import SEVERITIES, AlertKind
from llmops_assets.wiring import Wiring
from resources.alert_channels import Undelivered, deliver
from resources.catalog import Alert
from resources.catalog.alerts import Changed, Condition, Message

DAEMON = "daemon"
"""Whose heartbeat it is: Dagster's daemon, which evaluates the sensor that notes it."""
_SINCE = timedelta(days=7)
"""How far back failed runs are looked at: what nobody mended for so long is known."""


@dataclass
class Looked:
    """What a look came to: alerts that began and ended, messages that went out, and why others did not."""

    changed: Changed
    delivered: int = 0
    undelivered: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Kinds that could not be looked at, with the reason; their alerts stay as they are."""


def look(wiring: Wiring, *, now: datetime | None = None) -> Looked:
    """Raise and resolve alerts by what is so now, and deliver the messages that are due.

    A kind that cannot be looked at is named, and its alerts stay as they are: not knowing is no recovery.
    """
    moment = now or datetime.now(UTC)
    rules = wiring.policy.alerts
    found: list[Condition] = []
    kinds: list[AlertKind] = []
    faults: list[str] = []
    for kind, conditions in _LOOKS.items():
        try:
            found += conditions(wiring, moment)
            kinds.append(kind)
        except Exception as error:  # noqa: BLE001 - one that cannot be looked at must not silence the others
            faults.append(f"{kind}: {type(error).__name__}: {error}")
    changed = wiring.catalog.alerts.reconcile(
        found, kinds, _channels(wiring), quiet=timedelta(minutes=rules.quiet_minutes), at=moment
    )
    looked = Looked(changed, faults=faults)
    _deliver(wiring, looked, moment)
    return looked


def beat(wiring: Wiring) -> None:
    """Note that the daemon lives."""
    wiring.catalog.alerts.beat(DAEMON)


def watch_heartbeat(wiring: Wiring, *, now: datetime | None = None) -> Looked:
    """Look at the daemon's heartbeat and nothing else, from outside of it; raise or resolve the alert on it."""
    moment = now or datetime.now(UTC)
    condition = heartbeat(wiring, moment)
    quiet = timedelta(minutes=wiring.policy.alerts.quiet_minutes)
    found = [condition] if condition else []
    looked = Looked(wiring.catalog.alerts.reconcile(found, [DAEMON], _channels(wiring), quiet=quiet, at=moment))
    _deliver(wiring, looked, moment)
    return looked


def assert_alive(wiring: Wiring, *, now: datetime | None = None) -> datetime:
    """When the daemon last gave a sign; raises Unavailable when that is too long ago, or never was."""
    condition = heartbeat(wiring, now or datetime.now(UTC))
    last = wiring.catalog.alerts.last_beat(DAEMON)
    if condition is not None or last is None:
        raise Unavailable(condition.text if condition else "the daemon never gave a sign")
    return last


def heartbeat(wiring: Wiring, now: datetime) -> Condition | None:
    """What is wrong with the daemon; None while it gives signs."""
    last, longest = wiring.catalog.alerts.last_beat(DAEMON), wiring.policy.alerts.heartbeat_seconds
    if last is not None and (now - last).total_seconds() <= longest:
        return None
    since = f"since {last:%Y-%m-%d %H:%M:%S} UTC" if last else "ever"
    text = f"Dagster's daemon gave no sign {since}: nothing is trained, decided or retried. Start it, and read its log"
    return Condition(DAEMON, "sensors", "error", text)


def list_alerts(wiring: Wiring, actor: str, *, is_open: bool | None = None, limit: int = 200) -> list[Alert]:
    """Alerts, those that are so first."""
    authorise(wiring, actor, "alert.read")
    return wiring.catalog.alerts.alerts(is_open=is_open, limit=limit)


def ack(wiring: Wiring, actor: str, id: int) -> bool:
    """Take an alert on; False when somebody had. NotFound where there is none."""
    authorise(wiring, actor, "alert.ack")
    return wiring.catalog.alerts.ack(id, actor)


def _channels(wiring: Wiring) -> Mapping[str, list[str]]:
    channels = wiring.policy.alerts.channels
    return {
        f"{kind} {severity}": [channel.name for channel in channels if channel.wants(kind, severity)]
        for kind in (*_LOOKS, DAEMON)
        for severity in SEVERITIES
    }


def _deliver(wiring: Wiring, looked: Looked, now: datetime) -> None:
    channels = {channel.name: channel for channel in wiring.policy.alerts.channels}
    alerts = wiring.catalog.alerts
    blocked: set[str] = set()
    for message in alerts.due(list(channels), now):
        if message.channel in blocked or not alerts.claim(message, now):
            continue
        try:
            deliver(channels[message.channel], message.alert, message.event)
        except Undelivered as error:
            # What waits behind it is tried at the next look: a server that is away is asked once a look.
            blocked.add(message.channel)
            alerts.failed(message, str(error))
            looked.undelivered.append(_undelivered(message, error))
        else:
            alerts.delivered(message, now)
            looked.delivered += 1


def _undelivered(message: Message, error: Exception) -> str:
    return f"alert {message.alert.id} ({message.event}), attempt {message.attempt}: {error}"


def _runs(wiring: Wiring, now: datetime) -> list[Condition]:
    """Failed runs that were not followed by one of the same assets on the same partition that did better."""
    found: dict[str, Condition] = {}
    for line in wiring.catalog.audit_log(1000):
        if line["action"] != "run.failed" or line["at"] < now - _SINCE:
            continue
        detail = line["detail"]
        assets = detail.get("assets") or []
        subject = f"{', '.join(assets) or 'run'} of {line['target']}"
        if subject in found or _is_mended(wiring, line["target"], assets, str(detail.get("run_id"))):
            continue
        error = (detail.get("error") or "without an error").strip().splitlines()[0][:300]
        text = f"run {detail.get('run_id')} failed: {error}"
        found[subject] = Condition("run", subject, "error", text)
    return list(found.values())


def _is_mended(wiring: Wiring, partition: str, assets: list[str], run_id: str) -> bool:
    """Whether the newest run on a partition is another one that did not fail."""
    runs = wiring.run_log.runs([partition], assets)[partition] if assets else []
    return bool(runs) and runs[-1].id != run_id and (runs[-1].is_success or not runs[-1].is_finished)


def _checks(wiring: Wiring, now: datetime) -> list[Condition]:
    """Checks that failed when they were last evaluated, a warning or not; drift is told of by itself."""
    severity = {True: "warning", False: "error"}
    return [
        Condition(
            "check", f"{check.name} of {check.asset}, {partition}", severity[check.warning], check.description[:500]
        )
        for partition, check in wiring.run_log.failed_checks(since=now - _SINCE)
        if check.asset != "drift_report"
    ]


def _drift(wiring: Wiring, now: datetime) -> list[Condition]:
    here = {endpoint.name for endpoint in wiring.catalog.endpoints()}
    found = []
    for record in wiring.records.all(DriftRecord):
        failed = [verdict.text for verdict in (like_training(record), like_before(record)) if not verdict.passed]
        if failed and record.endpoint in here:
            found.append(Condition("drift", record.endpoint, "warning", "; ".join(failed)))
    return found


def _decisions(wiring: Wiring, now: datetime) -> list[Condition]:
    """Decisions of the last week, each told of once; a rollback and an invalid test as something to look at."""
    return [
        Condition(
            "decision",
            f"{one.name} ({one.decided_at:%Y-%m-%d %H:%M:%S})",
            "info" if one.decision in ("promote", "inconclusive", "no_difference") else "warning",
            f"{one.decision} on endpoint {one.endpoint}: {one.reason}",
            is_event=True,
        )
        for one in wiring.catalog.experiments("concluded")
        if one.decided_at is not None and one.decided_at > now - _SINCE
    ]


def _breakers(wiring: Wiring, now: datetime) -> list[Condition]:
    """Model servers that do not answer as they should, arms that lost their users, decisions that nobody acts on."""
    found = [
        Condition("breaker", f"{server.id} of {endpoint.name}", "error", server.message or f"it is {server.state}")
        for endpoint in wiring.catalog.endpoints()
        for server in wiring.catalog.backends(endpoint.name)
        if server.wanted == "running" and server.state in ("unhealthy", "failed")
    ]
    found += [
        Condition("breaker", f"{model} in {test.name}", "error", f"its users have the control: {arm.reason}")
        for test in wiring.catalog.experiments("running")
        for model, arm in wiring.catalog.dropped_arms.of(test.name).items()
    ]
    return found + [
        Condition("breaker", f"decision of {one.name}", "error", f"nobody acts on {one.decision}: {one.withheld}")
        for one in wiring.catalog.experiments("concluded")
        if one.withheld and one.acted_at is None
    ]


def _intents(wiring: Wiring, now: datetime) -> list[Condition]:
    longest = timedelta(minutes=wiring.policy.alerts.stuck_intent_minutes)
    return [
        Condition(
            "intent",
            intent.name,
            "warning",
            f"{intent.requested_by} asked for it at {intent.requested_at:%Y-%m-%d %H:%M} UTC, and it is not done: "
            f"{intent.reason or 'the sensor intents says what it waits for'}",
        )
        for intent in wiring.catalog.intents.open()
        if now - intent.requested_at > longest
    ]


def _retrainings(wiring: Wiring, now: datetime) -> list[Condition]:
    """Rules that have a reason to retrain and nothing to train on; a cool-down is no trouble of anybody's."""
    return [
        Condition("retraining", one.rule, "warning", one.reason) for one in preview(wiring, now) if one.needs_person
    ]


_LOOKS: Mapping[AlertKind, Callable[[Wiring, datetime], list[Condition]]] = {
    "run": _runs,
    "check": _checks,
    "drift": _drift,
    "decision": _decisions,
    "breaker": _breakers,
    "intent": _intents,
    "retraining": _retrainings,
}
