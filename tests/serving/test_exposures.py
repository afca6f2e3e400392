"""The log of exposures: it never waits, loses nothing that it need not, and counts what it loses."""

import sqlite3
import threading
import time
from pathlib import Path

import pytest

from images.gateway.exposures import Exposure, ExposureLog, now
from images.gateway.metrics import Metrics
from resources.catalog import Catalog
from tests.serving.conftest import until


def exposure(number: int, query: str = "hi") -> Exposure:
    return Exposure(
        request_id=f"req-{number}",
        at=now(),
        endpoint="desk",
        salt="s",
        experiment=None,
        phase=1,
        variant=0,
        backend="desk-a",
        model_ref="a@1",
        user="lee",
        session=None,
        query=query,
        streamed=False,
        latency_ms=1.0,
    )


def dropped(metrics: Metrics, reason: str) -> float:
    return metrics.registry.get_sample_value("llmops_gateway_exposures_dropped_total", {"reason": reason})


def test_a_row_that_cannot_be_written_takes_no_other_with_it(catalog: Catalog):
    def mask(text: str) -> str:
        if text == "unmaskable":
            raise ValueError("no")
        return text

    metrics = Metrics()
    log = ExposureLog(catalog, mask, metrics)
    log.put(exposure(1))
    until(lambda: not log.is_pending("req-1"))
    for number, query in ((2, "hi"), (1, "again"), (3, "unmaskable"), (4, "hi")):
        log.put(exposure(number, query))
    log.close()
    assert catalog.exposures(endpoint="desk")["request_id"].sort().to_list() == ["req-1", "req-2", "req-4"]
    # The one that came twice was written once, and the one that cannot be masked is counted.
    assert dropped(metrics, "refused") == 1


def test_what_the_catalog_cannot_take_now_is_written_later(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "catalog.db"
    catalog, metrics = Catalog(f"sqlite:///{path}"), Metrics()
    catalog.open()
    other = sqlite3.connect(path)
    other.execute("ALTER TABLE exposures RENAME TO away")
    log = ExposureLog(catalog, str, metrics)
    begun = time.monotonic()
    for number in range(500):
        log.put(exposure(number))
    assert time.monotonic() - begun < 1
    until(lambda: "cannot be written yet" in caplog.text)
    assert log.is_pending("req-0")
    other.execute("ALTER TABLE away RENAME TO exposures")
    log.close()
    assert catalog.request_count(endpoint="desk") == 500
    assert sum(dropped(metrics, reason) for reason in ("queue full", "not written", "refused")) == 0


def test_a_full_queue_drops_and_counts(catalog: Catalog):
    gate, metrics = threading.Event(), Metrics()

    def mask(text: str) -> str:
        gate.wait(20)
        return text

    log = ExposureLog(catalog, mask, metrics, capacity=10)
    log.put(exposure(0))
    until(lambda: log.queued == 0)
    for number in range(1, 30):
        log.put(exposure(number))
    gate.set()
    log.close()
    # One is in the writer's hands, with as many as it took along at once; ten are in the queue.
    written = catalog.request_count(endpoint="desk")
    assert dropped(metrics, "queue full") == 30 - written
    assert 11 <= written < 30


@pytest.mark.parametrize("user", ["lee", "사용자 7"])
def test_a_name_without_personal_data_is_kept(catalog: Catalog, user: str):
    log = ExposureLog(catalog, str, Metrics())
    assert log.pseudonym(user, "salt") == user
    log.close()
