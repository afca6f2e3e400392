"""What the gateway counts, for Prometheus."""

from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from images.gateway.guards.verdict import Verdict

# Seconds. Fine around the objective of two seconds, with room for a CPU's long answers.
_BUCKETS = (0.025, 0.05, 0.1, 0.25, 0.5, 0.75, 1, 1.5, 2, 3, 5, 10, 30, 60, 120)

_MOST_VALUES = 200


class Metrics:
    """The metrics of one gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "llmops_gateway_requests",
            "Chat requests that ended; 499: the client went away",
            ["endpoint", "variant", "status"],
            registry=self.registry,
        )
        self.refusals = Counter(
            "llmops_gateway_refusals",
            "Requests that were refused before a variant was assigned, by the code of the error",
            ["endpoint", "reason"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "llmops_gateway_request_seconds",
            "Time from a chat request to the end of its answer",
            ["endpoint", "variant"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.first_token = Histogram(
            "llmops_gateway_first_token_seconds",
            "Time from a streamed chat request to its first token",
            ["endpoint", "variant"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.between_tokens = Histogram(
            "llmops_gateway_between_tokens_seconds",
            "Mean time between the tokens of a streamed answer",
            ["endpoint", "variant"],
            buckets=(0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2),
            registry=self.registry,
        )
        self.tokens = Counter(
            "llmops_gateway_tokens",
            "Tokens of prompts (in) and of answers (out), as model servers counted them",
            ["endpoint", "variant", "direction"],
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "llmops_gateway_in_flight", "Chat requests in flight", ["endpoint"], registry=self.registry
        )
        self.retries = Counter(
            "llmops_gateway_retries",
            "Chat requests that another backend took over",
            ["endpoint"],
            registry=self.registry,
        )
        self.route_faults = Gauge(
            "llmops_gateway_route_faults",
            "1 for an endpoint whose entry in the catalog cannot be read: it is served as it was before",
            ["endpoint"],
            registry=self.registry,
        )
        self.stale = Gauge(
            "llmops_gateway_routes_stale", "1 while the catalog cannot be read at all", registry=self.registry
        )
        self.reconnects = Counter(
            "llmops_gateway_reconnects",
            "Chat requests sent again on a fresh connection, because the model server had closed the kept one",
            ["endpoint"],
            registry=self.registry,
        )
        self.verdicts = Counter(
            "llmops_gateway_guard_verdicts",
            "What guards judged, requests (in), answers (out) and passages (retrieved), by verdict: pass, mask, refuse",
            ["endpoint", "guard", "side", "verdict"],
            registry=self.registry,
        )
        self.cache = Counter(
            "llmops_gateway_cache",
            "Requests to endpoints with a cache: hit, miss, or bypass (sampled, or not wanted by the client)",
            ["endpoint", "outcome"],
            registry=self.registry,
        )
        self.shadows = Counter(
            "llmops_gateway_shadows",
            "Requests to be copied to a candidate after their answer, by what became of the copy",
            ["endpoint", "outcome"],
            registry=self.registry,
        )
        self.exposures = Counter("llmops_gateway_exposures", "Log rows written", registry=self.registry)
        self.dropped = Counter("llmops_gateway_exposures_dropped", "Log rows lost", ["reason"], registry=self.registry)
        for reason in ("queue full", "not spooled", "not written", "refused", "damaged"):
            self.dropped.labels(reason)
        self.spool_waiting = Gauge(
            "llmops_gateway_spool_waiting",
            "Log rows that are spooled and not in the catalog yet",
            registry=self.registry,
        )
        self.spool_faults = Gauge(
            "llmops_gateway_spool_fault",
            "1 while the spool cannot be written (spool), or what is in it cannot be shipped (catalog)",
            ["what"],
            registry=self.registry,
        )
        self.feedback = Counter("llmops_gateway_feedback", "Ratings received", ["rating"], registry=self.registry)
        # Requests count here, at a tenth of the cost; what is asked for is brought up to date first.
        self._counts: dict[tuple[Counter, tuple[str | int, ...]], float] = {}
        self._verdicts: dict[tuple[Any, ...], int] = {}
        self._requests: dict[tuple[str, str, int | None], list[int]] = {}
        self._values: dict[tuple[Histogram, tuple[str, ...]], list[float]] = {}

    def count(self, counter: Counter, *labels: str | int, by: float = 1) -> None:
        """Add to a counter; from the event loop's thread alone."""
        key = (counter, labels)
        self._counts[key] = self._counts.get(key, 0) + by

    def count_verdicts(self, endpoint: str, verdicts: Iterable[Verdict]) -> None:
        """Count what guards decided about one side of a request, all at once: nearly always it is the same."""
        key = (endpoint, *[(verdict.guard, verdict.side, verdict.outcome) for verdict in verdicts])
        self._verdicts[key] = self._verdicts.get(key, 0) + 1

    def count_request(self, endpoint: str, model: str, status: int | None, prompt: int, completion: int) -> None:
        """Count a request that reached a model, with its tokens."""
        key = (endpoint, model, status)
        counted = self._requests.get(key)
        if counted is None:
            counted = self._requests[key] = [0, 0, 0]
        counted[0] += 1
        counted[1] += prompt
        counted[2] += completion

    def observe(self, histogram: Histogram, value: float, *labels: str) -> None:
        """Note a value (seconds); from the event loop's thread alone."""
        values = self._values.get((histogram, labels))
        if values is None:
            values = self._values[histogram, labels] = []
        values.append(value)
        if len(values) >= _MOST_VALUES:
            self._add_up()

    def _add_up(self) -> None:
        for (endpoint, *verdicts), by in self._verdicts.items():
            for verdict in verdicts:
                self.verdicts.labels(endpoint, *verdict).inc(by)
        for (endpoint, model, status), (count, prompt, completion) in self._requests.items():
            self.requests.labels(endpoint, model, status).inc(count)
            self.tokens.labels(endpoint, model, "in").inc(prompt)
            self.tokens.labels(endpoint, model, "out").inc(completion)
        for (counter, labels), by in self._counts.items():
            counter.labels(*labels).inc(by)
        for (histogram, labels), values in self._values.items():
            child = histogram.labels(*labels)
            for value in values:
                child.observe(value)
        self._counts.clear()
        self._verdicts.clear()
        self._requests.clear()
        self._values.clear()

    def routes_read(self, fault: str | None, faults: Iterable[str]) -> None:
        """Note what the last reading of the catalog could not read: all of it, or single endpoints by name."""
        self.stale.set(fault is not None)
        self.route_faults.clear()
        for endpoint in faults:
            self.route_faults.labels(endpoint).set(1)

    def spool(self, waiting: int, spool_fault: str | None, ship_fault: str | None) -> None:
        """Note how many log rows wait, and whether writing or shipping them fails."""
        self.spool_waiting.set(waiting)
        self.spool_faults.labels("spool").set(spool_fault is not None)
        self.spool_faults.labels("catalog").set(ship_fault is not None)

    def text(self, in_flight: Mapping[str, int] | None = None) -> bytes:
        """All metrics in Prometheus' text format, with how many requests are in flight by endpoint."""
        self._add_up()
        for endpoint, count in (in_flight or {}).items():
            self.in_flight.labels(endpoint).set(count)
        return generate_latest(self.registry)
