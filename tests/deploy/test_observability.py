"""Alert rules and dashboards ask for what is exported, and the figures are those of the platform."""

import json
import re
import shutil
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, build_opener

import pytest
import sqlalchemy as sa
import yaml
from cryptography import x509
from prometheus_client.parser import text_string_to_metric_families

from deploy.server import render as server_folder
from images.gateway.metrics import Metrics
from llmops_assets.local.exporter import UNREADABLE, Exporter, server
from llmops_assets.local.stack import REPOSITORY, prepare_home
from llmops_assets.operations.doctor import examine
from llmops_assets.operations.metrics import METRICS
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import tables
from resources.certificates import ends_at
from resources.gpus import usage
from resources.traffic.spool import Position
from resources.traffic.spool_lag import waiting_since
from tests.debian import program
from tests.resources.samples import dataset, deployment

DEPLOY = REPOSITORY / "deploy"
PROMETHEUS_OWN = {"up"}
"""What Prometheus itself says of each that it asks."""


@pytest.fixture
def wiring(tmp_path: Path) -> Wiring:
    wiring = Wiring(Settings(home=tmp_path / "home", _env_file=None))
    prepare_home(wiring.settings)
    return wiring


def expressions() -> list[tuple[str, str]]:
    """(where, expression) of every rule and every panel."""
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    found = [(rule["alert"], rule["expr"]) for group in rules["groups"] for rule in group["rules"]]
    for file in (DEPLOY / "grafana" / "dashboards").glob("*.json"):
        for panel in json.loads(file.read_text(encoding="utf-8"))["panels"]:
            found += [(f"{file.name}: {panel['title']}", target["expr"]) for target in panel["targets"]]
    return found


def exported(wiring: Wiring) -> dict[str, set[str]]:
    """Names of all series that are exported, as Prometheus has them, with their labels."""
    names = {metric.name: set(metric.labels) for metric in METRICS} | {UNREADABLE: {"metric"}}
    for family in Metrics().registry.collect():
        # A counter is exported with _total, a histogram as three series.
        suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count")}.get(family.type, ("",))
        for suffix in suffixes:
            names[f"{family.name}{suffix}"] = {"le"} if suffix == "_bucket" else set()
    return names


@pytest.mark.parametrize(("where", "expression"), expressions())
def test_what_a_rule_or_a_panel_asks_for_is_exported(wiring: Wiring, where: str, expression: str) -> None:
    asked = set(re.findall(r"\b(llmops_\w+)", expression)) | (PROMETHEUS_OWN & set(re.findall(r"\b\w+\b", expression)))
    assert asked, where
    assert asked - exported(wiring).keys() - PROMETHEUS_OWN == set(), where


def test_every_figure_is_looked_at_by_a_rule_or_a_panel(wiring: Wiring) -> None:
    text = " ".join(expression for _, expression in expressions())
    assert [metric.name for metric in METRICS if not re.search(rf"\b{metric.name}\b", text)] == []


def test_labels_that_are_asked_for_are_there() -> None:
    known = {metric.name: set(metric.labels) for metric in METRICS}
    for where, expression in expressions():
        for name, labels in re.findall(r"\b(llmops_\w+)\{([^}]*)\}", expression):
            wanted = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", labels))
            assert name not in known or wanted <= known[name], where


def test_promtool_takes_the_configuration_and_the_rules_call_whom_they_should(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    text = (DEPLOY / "prometheus" / "prometheus.yml").read_text(encoding="utf-8")
    (tmp_path / "token").write_text("x")
    text = text.replace("/etc/llmops", str(DEPLOY / "prometheus")).replace(
        "/run/secrets/gateway-admin.token", f"{tmp_path}/token"
    )
    (tmp_path / "prometheus.yml").write_text(text)
    for command in (["check", "config", str(tmp_path / "prometheus.yml")], ["test", "rules", "rules.test.yml"]):
        done = subprocess.run(
            [promtool, *command], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_rule_says_what_it_means_and_what_to_do() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus" / "rules.yml").read_text(encoding="utf-8"))
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert rule["labels"]["severity"] in ("page", "warn")
        assert rule["annotations"]["summary"].endswith(".") and rule["annotations"]["command"]


def figures(page: bytes) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def value(page: bytes, name: str, **labels: str) -> float:
    return figures(page)[f"llmops_{name}", tuple(sorted(labels.items()))]


def test_figures_are_those_of_the_catalog(wiring: Wiring) -> None:
    catalog = wiring.catalog
    for version in ("v1", "v2"):
        catalog.register_dataset(dataset(version), version)
    catalog.want_endpoint(deployment())
    catalog.add_recipe("recipe", {"method": "lora"}, "kim")
    catalog.request_training("desk@v1", "recipe", "kim")
    catalog.intents.note_failure("ingest", "desk@v1", "no space", "run")
    hour_ago = datetime.now(UTC) - timedelta(hours=1)
    with catalog.database.write("test") as transaction:
        late = tables.intents.update().where(tables.intents.c.kind == "deploy")
        transaction.execute(late.values(requested_at=hour_ago))
    page = Exporter(wiring).page()
    assert value(page, "intents_open", kind="ingest") == 2
    assert value(page, "intents_failing", kind="ingest") == 1
    assert 3600 <= value(page, "intents_oldest_seconds", kind="deploy") < 3700
    assert value(page, "trainings_requested") == 1
    assert value(page, "endpoint_state", endpoint="desk", state="pending") == 1
    assert value(page, "endpoint_lag_revisions", endpoint="desk") == 1
    assert sum(v for (name, _), v in figures(page).items() if name == "llmops_datasets") == 2
    assert value(page, "disk_free_bytes", disk="home") <= value(page, "disk_bytes", disk="home")
    assert "llmops_certificate_left_seconds" not in {name for name, _ in figures(page)}


def test_the_artifacts_disk_is_watched_where_it_is_another(wiring: Wiring) -> None:
    others = Path("/dev/shm/llmops-not-made-yet")
    assert others.parent.stat().st_dev != wiring.settings.root.stat().st_dev
    wiring.settings.artifact_root = str(others)
    page = Exporter(wiring).page()
    memory = shutil.disk_usage(others.parent).total
    assert value(page, "disk_bytes", disk="artifacts") == memory != value(page, "disk_bytes", disk="home")
    seen = [found.what for found in examine(wiring, is_running=False) if found.part == "disk"]
    assert len(seen) == 2 and seen[1].endswith(f"free at {others}")
    wiring.settings.artifact_root = "s3://artifacts"
    watched = [labels for name, labels in figures(Exporter(wiring).page()) if name == "llmops_disk_bytes"]
    assert watched == [(("disk", "home"),)]


def test_the_end_of_the_certificate_that_ends_first_is_among_the_figures(wiring: Wiring, tmp_path: Path) -> None:
    server_folder(tmp_path / "a", {})
    server_folder(tmp_path / "b", {})
    chain = tmp_path / "tls.crt"
    chain.write_bytes((tmp_path / "a/secrets/tls.crt").read_bytes() + (tmp_path / "b/secrets/tls.crt").read_bytes())
    first = x509.load_pem_x509_certificate((tmp_path / "a/secrets/tls.crt").read_bytes()).not_valid_after_utc
    assert ends_at(chain) == first
    wiring.settings.tls_certificate = chain
    assert 364 * 86400 < value(Exporter(wiring).page(), "certificate_left_seconds") <= 365 * 86400
    chain.write_text("-----BEGIN CERTIFICATE-----\nno\n")
    assert value(Exporter(wiring).page(), "metric_unreadable", metric="llmops_certificate_left_seconds") == 1
    with pytest.raises(ValueError, match=f"{chain} holds no certificate"):
        ends_at(chain)


def test_a_reconciler_that_was_killed_beats_no_more(wiring: Wiring) -> None:
    lease = wiring.servers.lease
    assert lease.acquire()
    first = lease.beats()
    assert lease.renew() and lease.beats() == first + 1
    # It stays on record as the one that has the lease.
    assert lease.holder() is not None and wiring.servers.lease.beats() == first + 1


def test_runs_are_counted_on_both_databases(postgres: str, tmp_path: Path) -> None:
    import dagster as dg
    from dagster._core.test_utils import create_run_for_test

    name = f"runs_{tmp_path.name.replace('-', '_')}"
    engine = sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f'CREATE DATABASE "{name}"'))
    engine.dispose()
    url = sa.make_url(postgres).set(database=name, drivername="postgresql+psycopg2")
    for kind in ("sqlite", "postgresql"):
        wiring = Wiring(Settings(home=tmp_path / kind, _env_file=None))
        prepare_home(wiring.settings)
        if kind == "postgresql":
            text = (
                (DEPLOY / "dagster.yaml")
                .read_text()
                .replace("{env: LLMOPS_DAGSTER_DATABASE_URL}", json.dumps(url.render_as_string(hide_password=False)))
            )
            (wiring.settings.dagster_home / "dagster.yaml").write_text(text)
        with dg.DagsterInstance.from_config(str(wiring.settings.dagster_home)) as instance:
            began = time.time()
            queued = create_run_for_test(instance, status=dg.DagsterRunStatus.NOT_STARTED)
            with instance.run_storage.connect() as connection:
                status = sa.text("UPDATE runs SET status = 'QUEUED' WHERE run_id = :id")
                connection.execute(status, {"id": queued.run_id})
            failed = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
            instance.report_run_failed(failed)
        page = Exporter(wiring).page()
        assert value(page, "runs", status="QUEUED") == value(page, "runs", status="FAILURE") == 1, kind
        assert value(page, "runs", status="STARTED") == 0
        assert value(page, "runs_failed_recently") == 1
        assert 0 <= value(page, "runs_waiting_seconds") <= time.time() - began + 1


def test_a_figure_that_cannot_be_read_is_said_to_be_missing_and_hides_no_other(wiring: Wiring) -> None:
    with wiring.catalog.database.write("test") as transaction:
        transaction.execute(sa.text("DROP TABLE experiments"))
    page = Exporter(wiring).page()
    assert value(page, "metric_unreadable", metric="llmops_experiments") == 1
    assert value(page, "metric_unreadable", metric="llmops_runs") == 0
    assert not [name for name, _ in figures(page) if name == "llmops_experiments"]


def test_it_answers_over_http(wiring: Wiring) -> None:
    ask: Any = build_opener(ProxyHandler({})).open
    with server(Exporter(wiring), "127.0.0.1", 0) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{serving.server_port}"
        with ask(f"{url}/healthz") as healthy, ask(f"{url}/metrics") as found:
            assert healthy.read() == b"ok\n" and b"llmops_runs{" in found.read()
        serving.shutdown()


def test_what_waits_in_the_spool_is_seen_until_it_is_shipped(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    (folder / "lock").touch()
    assert waiting_since(tmp_path) is None
    (folder / "1.log").write_bytes(b"x" * 10)
    (folder / "2.log").write_bytes(b"x" * 4)
    written = (folder / "1.log").stat().st_mtime
    assert waiting_since(tmp_path) == written
    Position(segment=1, offset=10).write(folder)
    assert waiting_since(tmp_path) == (folder / "2.log").stat().st_mtime
    Position(segment=2, offset=4).write(folder)
    assert waiting_since(tmp_path) is None


def test_gpus_say_what_they_do_and_what_their_driver_does_not_know() -> None:
    busy, quiet = usage(lambda: "GPU-a, NVIDIA H200, 87, 40960, 61\nGPU-b, NVIDIA A10, [N/A], [N/A], [N/A]\n")
    assert (busy.id, busy.utilisation, busy.used_bytes, busy.celsius) == ("GPU-a", 0.87, 40 << 30, 61.0)
    assert (quiet.utilisation, quiet.used_bytes, quiet.celsius) == (None, None, None)
