"""The platform's own figures, one function a fact: for Prometheus, for pages and for whoever looks after it."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from llmops_assets.operations.disks import disks_of
from llmops_assets.wiring import Wiring
from resources.certificates import left_seconds
from resources.gpus import usage as gpu_usage
from resources.traffic import spool
from resources.traffic.spool_lag import waiting_since

log = logging.getLogger("metrics")

Values = Mapping[tuple[str, ...], float]
"""What was found, by the values of the metric's labels, in their order."""
RUN_STATES = ("QUEUED", "STARTING", "STARTED", "CANCELING", "SUCCESS", "FAILURE", "CANCELED")
RECENT = timedelta(hours=1)


@dataclass(frozen=True)
class Metric:
    """A figure of the platform: its name in Prometheus, what it says, its labels, and who reads it."""

    name: str
    help: str
    labels: tuple[str, ...]
    read: Callable[[Wiring], Values]


def runs(wiring: Wiring) -> Values:
    """How many runs Dagster has on record, by status."""
    counts = dict.fromkeys(RUN_STATES, 0) | wiring.run_log.counts()
    return {(status,): float(count) for status, count in counts.items()}


def runs_waiting_seconds(wiring: Wiring) -> Values:
    """How long the run has waited that waits longest for its turn, in seconds; 0 where none does."""
    oldest = wiring.run_log.oldest("QUEUED")
    return {(): max(0.0, _now().timestamp() - oldest) if oldest is not None else 0.0}


def runs_failed_recently(wiring: Wiring) -> Values:
    """How many runs failed within the last hour."""
    return {(): float(wiring.run_log.ended_since("FAILURE", (_now() - RECENT).timestamp()))}


def intents_open(wiring: Wiring) -> Values:
    """What is wanted and not done yet, by kind."""
    found = Counter(intent.kind for intent in wiring.catalog.intents.open())
    return {(kind,): float(count) for kind, count in found.items()}


def intents_oldest_seconds(wiring: Wiring) -> Values:
    """For how long the oldest open wish of each kind has been wanted, in seconds."""
    oldest: dict[str, datetime] = {}
    for intent in wiring.catalog.intents.open():
        oldest.setdefault(intent.kind, intent.requested_at)
    return {(kind,): (_now() - since).total_seconds() for kind, since in oldest.items()}


def intents_failing(wiring: Wiring) -> Values:
    """Open wishes of which something that was tried has failed, by kind: the reason is on record with each."""
    found = Counter(intent.kind for intent in wiring.catalog.intents.open() if intent.reason)
    return {(kind,): float(count) for kind, count in found.items()}


def datasets(wiring: Wiring) -> Values:
    """Registered dataset versions, by status."""
    found = Counter(entry.status for entry in wiring.catalog.datasets())
    return {(status,): float(count) for status, count in found.items()}


def trainings_requested(wiring: Wiring) -> Values:
    """How many trainings were ever asked for."""
    return {(): float(len(wiring.catalog.training_requests()))}


def endpoints(wiring: Wiring) -> Values:
    """Each endpoint with its state; 1 for the state that it is in."""
    return {(endpoint.name, endpoint.state): 1.0 for endpoint in wiring.catalog.endpoints()}


def endpoint_lag(wiring: Wiring) -> Values:
    """By how many revisions what is served is behind what is wanted, by endpoint."""
    return {(e.name,): float(e.revision - e.observed_revision) for e in wiring.catalog.endpoints()}


def backends(wiring: Wiring) -> Values:
    """Model servers by endpoint and state."""
    found = Counter((backend.endpoint, backend.state) for backend in wiring.catalog.backends())
    return {labels: float(count) for labels, count in found.items()}


def backend_restarts(wiring: Wiring) -> Values:
    """How often in a row the model servers of an endpoint were started again without being healthy between."""
    found: Counter[str] = Counter()
    for backend in wiring.catalog.backends():
        found[backend.endpoint] += backend.restarts
    return {(endpoint,): float(count) for endpoint, count in found.items()}


def reconciler_beats(wiring: Wiring) -> Values:
    """How often the reconciler's lease was renewed: while it grows, one is at work.

    Who is on record as its holder may have been killed, and says nothing.
    """
    return {(): float(wiring.servers.lease.beats())}


def experiments(wiring: Wiring) -> Values:
    """Experiments by state."""
    found = Counter(experiment.state for experiment in wiring.catalog.experiments())
    return {(state,): float(count) for state, count in found.items()}


def spool_bytes(wiring: Wiring) -> Values:
    """Bytes of the gateway's log on this machine that are not removed yet, shipped or not."""
    return {(): float(spool.used_bytes(spool.spool_root(wiring.settings)))}


def spool_oldest_seconds(wiring: Wiring) -> Values:
    """For how long the gateway's log on this machine has waited to be shipped, in seconds; 0 where nothing waits."""
    since = waiting_since(spool.spool_root(wiring.settings))
    return {(): max(0.0, _now().timestamp() - since) if since is not None else 0.0}


def disk_free_bytes(wiring: Wiring) -> Values:
    """Free bytes of the disk that holds the home, and of that of the artifacts where it is another."""
    return {(disk.name,): float(disk.free) for disk in disks_of(wiring.settings)}


def disk_bytes(wiring: Wiring) -> Values:
    """Size of the same disks, in bytes."""
    return {(disk.name,): float(disk.size) for disk in disks_of(wiring.settings)}


def certificate_left_seconds(wiring: Wiring) -> Values:
    """For how long the certificate of the server's door is still valid, in seconds; none without one."""
    file = wiring.settings.tls_certificate
    return {(): left_seconds(file)} if file is not None else {}


def gpu_utilisation(wiring: Wiring) -> Values:
    """Share of the time that each GPU of this machine computed, from 0 to 1."""
    return {(gpu.id, gpu.name): gpu.utilisation for gpu in gpu_usage() if gpu.utilisation is not None}


def gpu_memory_used_bytes(wiring: Wiring) -> Values:
    """Memory in use of each GPU of this machine, in bytes."""
    return {(gpu.id, gpu.name): float(gpu.used_bytes) for gpu in gpu_usage() if gpu.used_bytes is not None}


def gpu_temperature_celsius(wiring: Wiring) -> Values:
    """Temperature of each GPU of this machine, in degrees Celsius."""
    return {(gpu.id, gpu.name): gpu.celsius for gpu in gpu_usage() if gpu.celsius is not None}


def _metric(name: str, read: Callable[[Wiring], Values], *labels: str) -> Metric:
    return Metric(f"llmops_{name}", (read.__doc__ or "").splitlines()[0].rstrip("."), labels, read)


METRICS = (
    _metric("runs", runs, "status"),
    _metric("runs_waiting_seconds", runs_waiting_seconds),
    _metric("runs_failed_recently", runs_failed_recently),
    _metric("intents_open", intents_open, "kind"),
    _metric("intents_oldest_seconds", intents_oldest_seconds, "kind"),
    _metric("intents_failing", intents_failing, "kind"),
    _metric("datasets", datasets, "status"),
    _metric("trainings_requested", trainings_requested),
    _metric("endpoint_state", endpoints, "endpoint", "state"),
    _metric("endpoint_lag_revisions", endpoint_lag, "endpoint"),
    _metric("backends", backends, "endpoint", "state"),
    _metric("backend_restarts", backend_restarts, "endpoint"),
    _metric("reconciler_beats", reconciler_beats),
    _metric("experiments", experiments, "state"),
    _metric("spool_bytes", spool_bytes),
    _metric("spool_oldest_seconds", spool_oldest_seconds),
    _metric("disk_free_bytes", disk_free_bytes, "disk"),
    _metric("disk_bytes", disk_bytes, "disk"),
    _metric("certificate_left_seconds", certificate_left_seconds),
    _metric("gpu_utilisation_ratio", gpu_utilisation, "gpu", "name"),
    _metric("gpu_memory_used_bytes", gpu_memory_used_bytes, "gpu", "name"),
    _metric("gpu_temperature_celsius", gpu_temperature_celsius, "gpu", "name"),
)
"""Every figure of the platform itself; those of the gateway are on its administrative port."""


def measure(wiring: Wiring) -> Iterator[tuple[Metric, Values | None]]:
    """Every metric with what it is now; None for one that cannot be read, which keeps no other from being read."""
    for metric in METRICS:
        try:
            yield metric, metric.read(wiring)
        except Exception:  # whatever a database or a driver raises: the others are still asked
            log.exception("%s cannot be read", metric.name)
            yield metric, None


def _now() -> datetime:
    return datetime.now(UTC)
