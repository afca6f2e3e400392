"""What is wrong with an installation is said of the part that it is wrong with, and hides nothing else."""

import json
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from typer.testing import CliRunner

from llmops_assets.cli import app, common
from llmops_assets.local.stack import prepare_home
from llmops_assets.operations import doctor
from llmops_assets.operations import doctor_processes as processes
from llmops_assets.operations.doctor import Diagnosis, examine, worst
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.catalog import tables
from resources.encryption import NO_KEYS
from resources.traffic.spool import Spool
from tests.resources.samples import dataset
from tests.serving.conftest import backend, deployment_spec, free_port
from tests.serving.test_spool import exposure


def wiring(home: Path, **settings: object) -> Wiring:
    ports = {name: free_port() for name in ("gateway_port", "console_port", "dagster_port", "gateway_admin_port")}
    return Wiring(Settings(home=home, _env_file=None, **(ports | settings)))


def prepared(home: Path, **settings: object) -> Wiring:
    found = wiring(home, **settings)
    prepare_home(found.settings)
    found.catalog.open()
    return found


def of(findings: list[Diagnosis], part: str) -> list[tuple[str, str]]:
    return [(found.state, found.what) for found in findings if found.part == part]


def test_nothing_is_wrong_with_a_new_installation_nor_with_none(tmp_path: Path):
    nothing = wiring(tmp_path / "none")
    findings = examine(nothing, is_running=False)
    assert worst(findings) in ("note", "warning"), "a full disk of the test's machine is no fault of it"
    assert of(findings, "catalog")[0][0] == "note" and not (tmp_path / "none").exists(), "to look makes nothing"
    findings = examine(prepared(tmp_path / "home"), is_running=False)
    assert [f for f in findings if f.state in ("warning", "fault") and f.part != "disk"] == []
    assert of(findings, "home") == [("ok", str(tmp_path / "home"))]


def mode(w: Wiring) -> str:
    w.settings.root.chmod(0o755)
    return "others may look into"


def disk(w: Wiring) -> str:
    # Set back by the fixture that set it first.
    doctor.LEAST_FREE_BYTES = 1 << 60
    return "GiB free at"


def clock(w: Wiring) -> str:
    with w.catalog.database.engine.begin() as connection:
        line = {
            "at": datetime.now(UTC) + timedelta(hours=2),
            "actor": "kim",
            "action": "x.y",
            "target": "z",
            "detail": {},
        }
        connection.execute(tables.audit.insert().values(line))
    return "in the future"


def stuck(w: Wiring) -> str:
    w.catalog.register_dataset(dataset("v1"), "v1")
    long_ago = datetime.now(UTC) - timedelta(hours=3)
    with w.catalog.database.engine.begin() as connection:
        connection.execute(sa.update(tables.intents).values(requested_at=long_ago))
    return r"ingest:desk@v1:1 is wanted for 3.0 h: no run works on it"


def unshipped(w: Wiring) -> str:
    spool = Spool(w.settings.root / "spool", NO_KEYS)
    spool.append(exposure(1))
    spool.close()
    for path in (w.settings.root / "spool").glob("*/*.log"):
        os.utime(path, (time.time() - 600, time.time() - 600))
    # 600 s, or some more where the machine is busy.
    return "the gateway's log waits to be shipped, its oldest part for 6"


def foreign_key(w: Wiring) -> str:
    other = wiring(w.settings.root, encryption_key="cd" * 32)
    other.artifacts.write_text("x", "reports", "r.html")
    return f"1 files are sealed with key {other.keys.ids[0]}, which is not here"


def later_schema(w: Wiring) -> str:
    with w.catalog.database.engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    return "has the schema 9999, later than"


def no_database(w: Wiring) -> str:
    w.catalog.database.engine.dispose()
    for path in w.settings.root.glob("catalog.db*"):
        path.unlink() if path.is_file() else None
    (w.settings.root / "catalog.db").write_bytes(b"no database at all, but a text" * 50)
    return "file is not a database"


def broken_endpoint(w: Wiring) -> str:
    w.catalog.want_endpoint(deployment_spec("desk"))
    w.catalog.add_backend(replace(backend("desk-a"), state="failed", message="out of memory"))
    w.catalog.set_routes("desk", [{"backend_id": "desk-a", "model_ref": "a@1", "weight": 100}])
    return "desk-a is failed: out of memory"


def earlier_schema(w: Wiring) -> str:
    w.catalog.database.migrate("0011")
    return "has the schema 0011, and this version"


def earlier_mlflow(w: Wiring) -> str:
    with closing(sqlite3.connect(w.settings.root / "mlflow.db")) as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('abc')")
        connection.commit()
    return "has the schema abc, and the MLflow that is installed"


def open_key(w: Wiring) -> str:
    (w.settings.root / "erasure.key").write_bytes(b"k")
    (w.settings.root / "erasure.key").chmod(0o640)
    return "(mode 640)"


def dead_daemon(w: Wiring) -> str:
    from dagster import DagsterInstance
    from dagster._daemon.types import DaemonHeartbeat

    with DagsterInstance.from_config(str(w.settings.dagster_home)) as instance:
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time(), "SENSOR", "a"))
        instance.add_daemon_heartbeat(DaemonHeartbeat(time.time() - 720, "QUEUED_RUN_COORDINATOR", "a"))
    return "(queued_run_coordinator for 12 min): nothing that is wanted begins"


@pytest.mark.parametrize(
    ("part", "state", "breaks"),
    [
        ("catalog", "warning", earlier_schema),
        ("MLflow", "warning", earlier_mlflow),
        ("keys", "warning", open_key),
        ("daemon", "fault", dead_daemon),
        ("home", "warning", mode),
        ("disk", "fault", disk),
        ("clock", "fault", clock),
        ("intents", "warning", stuck),
        ("gateway's log", "warning", unshipped),
        ("keys", "fault", foreign_key),
        ("catalog", "fault", later_schema),
        ("catalog", "fault", no_database),
        ("endpoint desk", "fault", broken_endpoint),
    ],
)
def test_each_fault_is_said_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str, state: str, breaks: Callable[[Wiring], str]
):
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(doctor, "FEW_FREE_BYTES", 0)
    w = prepared(tmp_path / "home")
    words = breaks(w)
    findings = examine(wiring(tmp_path / "home"), is_running=part.startswith(("endpoint", "daemon")))
    (found,) = [f for f in findings if f.part == part and f.state not in ("ok", "note")]
    assert found.state == state and words in found.what and found.advice
    assert {f.part for f in findings} >= {"versions", "policy", "home", "disk", "MLflow", "gateway"}


def test_a_certificate_that_ends_soon_is_named_in_time(tmp_path: Path):
    w, file = prepared(tmp_path / "home"), tmp_path / "tls.crt"
    w.settings.tls_certificate = file
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", str(tmp_path / "tls.key")]
    for days, state in ((13, "warning"), (15, "ok")):
        made = ["openssl", "req", "-x509", "-days", str(days), *key, "-subj", "/CN=desk", "-out", str(file)]
        subprocess.run(made, capture_output=True, check=True)
        (found,) = [f for f in examine(w, is_running=False) if f.part == "certificate"]
        assert found.state == state and found.what.startswith(f"the certificate {file} ends 2")
        assert bool(found.advice) == (state != "ok")


def test_on_a_server_components_are_asked_where_they_are_and_their_logs_are_named(tmp_path: Path):
    away = f"http://127.0.0.1:{free_port()}"
    elsewhere = {"console_server": away, "dagster_webserver": f"{away}/dagster", "reconciler": "service"}
    findings = examine(prepared(tmp_path / "home", **elsewhere), is_running=True)
    for part, url, service in (("console", away, "console"), ("Dagster", f"{away}/dagster/server_info", "webserver")):
        (found,) = [f for f in findings if f.part == part]
        assert found.state == "fault" and found.what.startswith(url)
        assert found.advice == f"make server-logs SERVICE={service}"


def test_what_cannot_be_reached_is_named_where_it_is_needed(tmp_path: Path):
    away = f"http://127.0.0.1:{free_port()}"
    w = prepared(
        tmp_path / "home",
        qdrant_url=away,
        gateway_store_url=f"redis://127.0.0.1:{free_port()}",
        mlflow_tracking_uri=away,
        encryption_key_file=tmp_path / "no key",
        cerbos_url=away,
    )
    findings = examine(w, is_running=True)
    assert of(findings, "Cerbos")[0][0] == "fault"
    assert of(findings, "MLflow")[0][0] == of(findings, "stores")[0][0] == of(findings, "gateway")[0][0] == "fault"
    assert "names" in of(findings, "settings")[0][1] and of(findings, "keys")[0][0] == "fault"
    assert worst(findings) == "fault"


def test_who_holds_the_catalog_or_a_port_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(processes, "LOCKED_SECONDS", 0.2)
    w = prepared(tmp_path / "home")
    with (
        closing(sqlite3.connect(tmp_path / "home" / "catalog.db", isolation_level=None)) as connection,
        closing(socket.create_server(("127.0.0.1", 0))) as other,
    ):
        connection.execute("BEGIN IMMEDIATE")
        taken = wiring(tmp_path / "home", console_port=other.getsockname()[1])
        findings = [f for f in examine(taken, is_running=False) if f.state in ("warning", "fault") and f.part != "disk"]
        assert {f.part for f in findings} == {"catalog", "ports"}
        lock, port = (next(f for f in findings if f.part == part) for part in ("catalog", "ports"))
        assert lock.state == "fault" and f"(process {os.getpid()}) has open: nobody else can write" in lock.what
        assert "is taken by" in port.what and f"(process {os.getpid()})" in port.what
        assert port.advice.endswith("LLMOPS_CONSOLE_PORT")
    assert w.catalog.audit_log(1) == []


def test_a_session_that_left_a_transaction_open_is_named(
    tmp_path: Path, database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(processes, "IDLE_SECONDS", 0.0)
    w = prepared(tmp_path / "home", catalog_url=database())
    engine = sa.create_engine(w.settings.catalog, connect_args={"application_name": "somebody"})
    with engine.connect() as connection:
        pid = connection.execute(sa.text("SELECT pg_backend_pid()")).scalar()
        found = [f for f in examine(w, is_running=False) if "somebody" in f.what]
        assert found[0].part == "catalog" and f"pg_terminate_backend({pid})" in found[0].advice
    engine.dispose()


def test_an_unreachable_server_of_databases_is_named_by_every_part_that_needs_it(tmp_path: Path):
    away = f"postgresql+psycopg://catalog:secret@127.0.0.1:{free_port()}/catalog"
    findings = examine(wiring(tmp_path / "home", catalog_url=away), is_running=False)
    faults = [f for f in findings if f.state == "fault"]
    assert {f.part for f in faults} >= {"catalog", "clock", "intents", "serving"}
    assert all(f.advice and "secret" not in f.what for f in faults)
    assert "LLMOPS_CATALOG_URL" in next(f.advice for f in faults if f.part == "catalog")


def test_the_command_has_an_exit_code_for_a_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LLMOPS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LLMOPS_GATEWAY_PORT", str(free_port()))
    monkeypatch.setattr(doctor, "LEAST_FREE_BYTES", 0)
    monkeypatch.setattr(doctor, "FEW_FREE_BYTES", 0)
    prepared(tmp_path / "home").catalog.database.engine.dispose()
    common.wiring.cache_clear()
    try:
        assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
        (tmp_path / "home").chmod(0o755)
        assert CliRunner().invoke(app, ["doctor"]).exit_code == 0
        assert CliRunner().invoke(app, ["doctor", "--strict"]).exit_code == common.Exit.FAILED
        with closing(sqlite3.connect(tmp_path / "home" / "catalog.db")) as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
            connection.commit()
        done = CliRunner().invoke(app, ["doctor", "--json"])
        assert done.exit_code == common.Exit.FAILED and json.loads(done.output)["state"] == "fault"
    finally:
        common.wiring.cache_clear()
