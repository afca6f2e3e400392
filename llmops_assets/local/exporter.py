"""Shows the platform's figures to Prometheus: `python -m llmops_assets.local.exporter --host H --port P`."""

import argparse
import logging
import signal
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily

from llmops_assets.operations.metrics import measure
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring

UNREADABLE = "llmops_metric_unreadable"
AGE_SECONDS = 5.0
"""What was read a moment ago is not read again: two Prometheus servers cost the databases no more than one."""


class Exporter:
    """Collects the figures of one installation; as a collector of prometheus_client it can be registered."""

    def __init__(self, wiring: Wiring) -> None:
        self.wiring = wiring
        self._lock = threading.Lock()
        self._page: tuple[float, bytes] | None = None
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Every metric, and for each whether it could be read: one that is missing is never taken for 0."""
        unreadable = GaugeMetricFamily(
            UNREADABLE, "1 for a figure that could not be read: the log of the exporter says why", labels=["metric"]
        )
        for metric, values in measure(self.wiring):
            family = GaugeMetricFamily(metric.name, metric.help, labels=list(metric.labels))
            for labels, value in (values or {}).items():
                family.add_metric(list(labels), value)
            unreadable.add_metric([metric.name], 1.0 if values is None else 0.0)
            yield family
        yield unreadable

    def describe(self) -> list[GaugeMetricFamily]:
        """Nothing: registering asks for what a scrape would, and no database shall be needed for that."""
        return []

    def page(self) -> bytes:
        """The text that Prometheus reads."""
        with self._lock:
            if self._page is None or time.monotonic() - self._page[0] > AGE_SECONDS:
                self._page = time.monotonic(), generate_latest(self.registry)
            return self._page[1]


def server(exporter: Exporter, host: str, port: int) -> ThreadingHTTPServer:
    """An HTTP server that answers `/metrics`, and `/healthz` without reading anything."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            pages = {"/metrics": exporter.page, "/healthz": lambda: b"ok\n"}
            found = pages.get(self.path.partition("?")[0])
            body = found() if found else b"there are /metrics and /healthz\n"
            self.send_response(200 if found else 404)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each request: Prometheus asks four times a minute, for ever."""

    return ThreadingHTTPServer((host, port), Handler)


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = Settings()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default=settings.host)
    parser.add_argument("--port", type=int, default=9110)
    a = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with server(Exporter(Wiring(settings)), a.host, a.port) as serving:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=serving.shutdown, daemon=True).start())
        serving.serve_forever()


if __name__ == "__main__":
    main()
