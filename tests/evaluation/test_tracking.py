"""The MLflow client: true run status, an idempotent registry, aliases, and many processes on one SQLite file."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
import urllib.request
from pathlib import Path

import pytest

from resources.tracking import Tracking, UnknownModel

LINEAGE = {
    "dataset": "desk@v1",
    "recipe": "desk-0a1b2c3d",
    "content_hash": "h1",
    "family": "llama",
    "job_type": "SFT",
    "card": "/models/card.md",
}


@pytest.fixture(scope="module")
def tracking(tmp_path_factory: pytest.TempPathFactory) -> Tracking:
    return Tracking(f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db")


def test_a_run_keeps_parameters_metrics_and_artifacts(tracking: Tracking, tmp_path: Path) -> None:
    report = tmp_path / "보고서.html"
    report.write_text("<p>가</p>", encoding="utf-8")
    params, tags = {"lr": 1e-3, "long": "x" * 7000}, {"dataset": "desk@v1"}
    with tracking.run(lambda: tracking.start_run("desk", "first", params, tags)) as opened:
        run_id = opened.id()
        tracking.log_metrics(run_id, [("loss", 1 / (step + 1), step) for step in range(2500)])
        tracking.log_artifact(run_id, report)
        assert tracking.run_status(run_id) == "RUNNING"
    assert tracking.run_status(run_id) == "FINISHED"
    assert tracking.run_metrics(run_id)["loss"] == pytest.approx(1 / 2500)
    run = tracking._client.get_run(run_id)
    assert run.data.params["lr"] == "0.001" and run.data.tags["dataset"] == "desk@v1"
    assert len(tracking._client.get_metric_history(run_id, "loss")) == 2500
    assert [a.path for a in tracking._client.list_artifacts(run_id)] == ["보고서.html"]
    # By the root of the installation, so that the store can be moved with it.
    assert run.info.artifact_uri == f"llmops:/home/mlflow-artifacts/desk/{run_id}/artifacts"
    assert (Path(tracking.artifact_root) / "desk" / run_id / "artifacts" / report.name).is_file()
    assert tracking.run_url(run_id, "http://127.0.0.1:5000/").endswith(f"/runs/{run_id}")


def test_a_run_that_raises_is_failed_and_one_that_is_interrupted_is_killed(tracking: Tracking) -> None:
    with pytest.raises(ZeroDivisionError), tracking.run(lambda: tracking.start_run("desk", "fails")) as failed:
        _ = 1 / 0
    assert tracking.run_status(failed.id()) == "FAILED"
    with pytest.raises(KeyboardInterrupt), tracking.run(lambda: tracking.start_run("desk", "interrupted")) as killed:
        raise KeyboardInterrupt
    assert tracking.run_status(killed.id()) == "KILLED"
    with tracking.run(failed.id) as again:
        assert again.id() == failed.id() and tracking.run_status(failed.id()) == "RUNNING"
    assert tracking.run_status(failed.id()) == "FINISHED"
    with pytest.raises(LookupError, match="no MLflow run"):
        tracking.resume("0" * 32)


def test_a_run_is_opened_beside_its_body_and_once_more_where_that_failed(tracking: Tracking) -> None:
    begun, tried = threading.Event(), []

    def open_run() -> str:
        # It can only go on because the body does.
        assert begun.wait(60)
        tried.append(1)
        if len(tried) == 1:
            raise OSError("the store is away for a moment")
        return tracking.start_run("desk", "beside")

    with tracking.run(open_run) as opened:
        begun.set()
    assert len(tried) == 2 and tracking.run_status(opened.id()) == "FINISHED"

    def away() -> str:
        raise OSError("the store is away")

    with pytest.raises(OSError, match="away"), tracking.run(away):
        pass
    with pytest.raises(ZeroDivisionError), tracking.run(away):
        _ = 1 / 0


def test_the_same_content_is_the_same_version(tracking: Tracking, tmp_path: Path) -> None:
    first = tracking.register("desk", tmp_path, None, LINEAGE, "one")
    assert tracking.register("desk", tmp_path, None, LINEAGE | {"card": "/new/card.md"}, "two") == first
    assert tracking.model(f"desk@{first}").card == "/new/card.md"
    assert tracking.version(f"desk@{first}").description == "two"
    second = tracking.register("desk", tmp_path, None, LINEAGE | {"content_hash": "h2"})
    assert second == first + 1
    with pytest.raises(ValueError, match="lineage tags recipe"):
        tracking.register("desk", tmp_path, None, {k: v for k, v in LINEAGE.items() if k != "recipe"})


def test_models_are_listed_without_mlflow_just_as_it_lists_them(tracking: Tracking, tmp_path: Path) -> None:
    one = tracking.register("listed", tmp_path, None, LINEAGE, "one")
    two = tracking.register("listed", tmp_path, None, LINEAGE | {"content_hash": "h2"})
    tracking.register("listed", tmp_path, None, LINEAGE | {"content_hash": "h3"})
    tracking.set_alias("listed", "staging", two)
    tracking.set_alias("listed", "production", two)
    tracking.tag("listed", one, "state", "archived")
    tracking._client.delete_model_version("listed", "3")
    tracking._client.register_prompt("greeting", "Hello {{name}}")
    for name in (None, "listed", "nobody"):
        aliases = tracking._aliases(name)
        by_mlflow = [tracking._entry(found, aliases) for found in tracking._versions(name)]
        assert {v.ref: v for v in tracking.models(name)} == {v.ref: v for v in by_mlflow}
    assert [(v.version, v.state) for v in tracking.models("listed")] == [(two, "production"), (one, "archived")]
    script = f"""
        import sys
        from resources.tracking import Tracking
        found = Tracking({tracking.uri!r}).models("listed")
        print(len(found), "mlflow" in sys.modules)
        print(len(Tracking("sqlite:///{tmp_path}/new.db").models()), "mlflow" in sys.modules)
    """
    ran = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["2", "False", "0", "False"]
    assert not (tmp_path / "new.db").exists(), "looking makes no store"


def test_an_alias_moves_and_a_wrong_reference_names_what_there_is(tracking: Tracking, tmp_path: Path) -> None:
    one = tracking.register("aliased", tmp_path, None, LINEAGE)
    two = tracking.register("aliased", tmp_path, None, LINEAGE | {"content_hash": "h2"})
    assert tracking.version(f"aliased@{one}").state == "draft"
    tracking.tag("aliased", one, "state", "approved")
    assert tracking.version(f"aliased@{one}").state == "approved"
    tracking.set_alias("aliased", "production", one)
    assert tracking.model("aliased@production").ref == f"aliased@{one}"
    tracking.set_alias("aliased", "production", two)
    assert tracking.model("aliased@production").ref == f"aliased@{two}"
    assert tracking.version("aliased@production").state == "production"
    tracking.delete_alias("aliased", "production")
    with pytest.raises(UnknownModel, match="no version or alias 'production'"):
        tracking.model("aliased@production")
    with pytest.raises(UnknownModel, match="no model 'nobody'"):
        tracking.model("nobody@1")
    with pytest.raises(ValueError, match="NAME@VERSION"):
        tracking.model("aliased")


def test_a_hundred_versions_are_listed_newest_first_within_a_cpu_second(tracking: Tracking, tmp_path: Path) -> None:
    for number in range(100):
        tracking._client.create_registered_model("many") if number == 0 else None
        tracking._client.create_model_version("many", str(tmp_path), tags=LINEAGE | {"content_hash": f"h{number}"})
    started = time.process_time()
    listed = tracking.models("many")
    assert time.process_time() - started < 1
    assert [m.version for m in listed] == list(range(100, 0, -1))
    assert {m.name for m in tracking.models()} >= {"many"}


def test_a_local_model_is_uploaded_to_an_mlflow_server(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    stores = [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/m.db",
        "--artifacts-destination",
        str(tmp_path / "artifacts"),
    ]
    with open(tmp_path / "log", "w") as log:
        whole = [sys.executable, "-m", "mlflow", *command, *stores]
        server = subprocess.Popen(whole, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                urllib.request.urlopen(f"{address}/health", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.2)
        (tmp_path / "model").mkdir()
        (tmp_path / "model" / "config.json").write_text("{}")
        tracking = Tracking(address)
        with tracking.run(lambda: tracking.start_run("desk", "first")) as opened:
            run_id = opened.id()
            tracking.log_metrics(run_id, [("loss", 1.0, 0)])
        with pytest.raises(ValueError, match="only with a run"):
            tracking.register("desk", tmp_path / "model", None, LINEAGE)
        version = tracking.register("desk", tmp_path / "model", run_id, LINEAGE)
        assert tracking.register("desk", tmp_path / "model", run_id, LINEAGE) == version
        assert tracking.model(f"desk@{version}").path == str(tmp_path / "model")
        assert list((tmp_path / "artifacts").rglob("config.json"))
    finally:
        # On SIGTERM it waits for job runners of its own that do not end.
        os.killpg(server.pid, signal.SIGKILL)
        server.wait(timeout=30)


def test_processes_that_meet_on_a_new_store_all_succeed(tmp_path: Path) -> None:
    body = textwrap.dedent(
        """
        import sys
        from resources.tracking import Tracking
        tracking = Tracking(sys.argv[1])
        tags = dict(dataset="d@v1", recipe="r", content_hash="same", family="llama", job_type="SFT")
        for _ in range(5):
            with tracking.run(lambda: tracking.start_run("shared", sys.argv[2])) as opened:
                run_id = opened.id()
                tracking.log_metrics(run_id, [("loss", 1.0, step) for step in range(50)])
        print(tracking.register("shared", "/tmp", run_id, tags))
        """
    )
    uri = f"sqlite:///{tmp_path}/new/mlflow.db"
    workers = [
        subprocess.Popen([sys.executable, "-c", body, uri, f"w{n}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for n in range(3)
    ]
    outcomes = [worker.communicate(timeout=120) for worker in workers]
    assert [w.returncode for w in workers] == [0, 0, 0], b"\n".join(err for _, err in outcomes).decode()[-4000:]
    assert [out.split() for out, _ in outcomes] == [[b"1"]] * 3
    tracking = Tracking(uri)
    runs = tracking._client.search_runs([tracking._experiment("shared")])
    assert len(runs) == 15 and {r.info.status for r in runs} == {"FINISHED"}
