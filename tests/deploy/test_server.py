"""A server without containers: PostgreSQL, Redis, nginx and the processes of compose.yaml, asked over TLS by users."""

import json
import os
import re
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import sqlalchemy as sa
import yaml
from starlette.applications import Starlette
from starlette.routing import Route

from llmops_assets.local.stack import REPOSITORY, free_port
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.deploy.door import Door, nginx
from tests.deploy.processes import NOTES_CALLS, Processes, ended, services, until
from tests.gateway.model import Model
from tests.gateway.redis_server import RedisServer
from tests.serving.conftest import Upstream, backend, deployment_spec

pytestmark = pytest.mark.timeout(900)

ROWS = "question,answer\n" + "".join(f"질문 {n}번은 무엇인가요?,{n}번 창구에서 알려 드립니다.\n" for n in range(60))
PORTS = {
    "gateway": "8080", "admin": "8081", "console": "8090", "webserver": "3000", "mlflow": "5000", "code": "4000",
    "exporter": "9110",
}  # fmt: skip
"""Where each listens in its container."""


@pytest.fixture(scope="module")
def databases(postgres: str) -> dict[str, str]:
    """A database for each of the three, as its URL."""
    found, engine = {}, sa.create_engine(postgres, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for name in ("catalog", "dagster", "mlflow"):
            own = f"{name}_{uuid.uuid4().hex[:12]}"
            connection.execute(sa.text(f"CREATE DATABASE {own}"))
            driver = "postgresql+psycopg" if name == "catalog" else "postgresql+psycopg2"
            found[name] = sa.make_url(postgres).set(database=own, drivername=driver).render_as_string(False)
    engine.dispose()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    subprocess.run([sys.executable, "deploy/server.py", str(folder)], cwd=REPOSITORY, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port("127.0.0.1") for name in PORTS}


@pytest.fixture(scope="module")
def processes(
    folder: Path, ports: dict[str, int], databases: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Processes]:
    """All services of compose.yaml that are ours, set up as `setup` does and started."""
    logs = tmp_path_factory.mktemp("logs")
    workspace = (REPOSITORY / "deploy" / "workspace.yaml").read_text().replace("code", "127.0.0.1")
    (logs / "workspace.yaml").write_text(workspace.replace("4000", str(ports["code"])))
    redis = RedisServer(logs)
    names = {
        "/etc/llmops/workspace.yaml": str(logs / "workspace.yaml"),
        "/etc/llmops/dagster.yaml": str(REPOSITORY / "deploy" / "dagster.yaml"),
        "/run/secrets": str(folder / "secrets"),
        "/var/lib/llmops": str(folder / "home"),
        "redis://redis:6379/0": redis.url,
        "http://console:8090": f"http://127.0.0.1:{ports['console']}",
        "http://webserver:3000": f"http://127.0.0.1:{ports['webserver']}",
        "https://${LLMOPS_SERVER_NAME}:${LLMOPS_HTTPS_PORT}": "https://localhost",
        "0.0.0.0": "127.0.0.1",
        "${LLMOPS_PROXY}": "127.0.0.1",
        "${LLMOPS_GATEWAY_WORKERS}": "2",
        "${LLMOPS_SERVER_NAME},${LLMOPS_SERVER_NAME}:${LLMOPS_HTTPS_PORT}": "localhost,localhost:*",
        **{number: str(ports[name]) for name, number in PORTS.items()},
    }
    own = {
        "LLMOPS_CATALOG_URL": databases["catalog"],
        "LLMOPS_DAGSTER_DATABASE_URL": databases["dagster"],
        "LLMOPS_MLFLOW_TRACKING_URI": databases["mlflow"],
        "LLMOPS_GATEWAY_HOST": "127.0.0.1",
        "LLMOPS_HOST": "127.0.0.1",
        "LLMOPS_GATEWAY_PORT": str(ports["gateway"]),
        "LLMOPS_GATEWAY_ADMIN_PORT": str(ports["admin"]),
        "LLMOPS_SENSOR_INTERVAL_SECONDS": "1",
    }
    with ended(Processes(logs, sys.executable, names, own)) as processes:
        setup = processes.start("setup")
        assert setup.wait(240) == 0, processes.log("setup").read_text()
        del processes.running["setup"]
        for name in ("code", "gateway", "shipper", "reconciler", "console", "webserver", "exporter"):
            processes.start(name)
        until(lambda: processes.alive() and answers(ports["code"]), "the code location")
        processes.start("daemon")
        yield processes
    redis.kill()


def answers(port: int) -> bool:
    """Whether somebody listens."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(scope="module")
def door(folder: Path, ports: dict[str, int], processes: Processes) -> Iterator[Door]:
    with nginx(folder, folder / "secrets", ports) as door, door.client() as client:
        for path in ("/healthz", "/llm-ops/v1/health"):
            until(lambda path=path: processes.alive() and client.get(path).status_code == 200, path)
        yield door


@pytest.fixture(scope="module")
def client(door: Door, folder: Path) -> Iterator[httpx.Client]:
    """Somebody who holds the first key of the installation."""
    with door.client() as client:
        key = (folder / "home" / "first-admin.key").read_text().strip()
        client.headers["Authorization"] = f"Bearer {key}"
        yield client


@pytest.fixture(scope="module")
def wiring(folder: Path, databases: dict[str, str]) -> Wiring:
    return Wiring(
        Settings(
            home=folder / "home",
            catalog_url=databases["catalog"],
            encryption_key_file=folder / "secrets" / "encryption.key",
            _env_file=None,
        )
    )


def upload(client: httpx.Client, name: str) -> str:
    """Register and upload a dataset; its id."""
    about = {"name": name, "version": "v1", "type": "sft_pair", "owner_team": "support"}
    answer = client.post("/llm-ops/v1/catalog/datasets", json=about)
    assert answer.status_code in (200, 201), answer.text
    id = answer.json()["id"]
    files = {"files": ("rows.csv", ROWS.encode(), "text/csv")}
    answer = client.post(f"/llm-ops/v1/catalog/datasets/{id}/upload", files=files)
    if answer.status_code == 202:
        place = answer.headers["Location"]
        until(lambda: (found := client.get(place)).is_success and found.json().get("status") != "running", "the upload")
        answer = client.get(place)
    assert answer.is_success, answer.text
    return id


def status(client: httpx.Client, id: str) -> dict[str, Any]:
    answer = client.get(f"/llm-ops/v1/catalog/datasets/{id}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_data_is_taken_in_by_runs_on_postgresql_although_daemon_and_code_location_are_killed(
    client: httpx.Client, processes: Processes, ports: dict[str, int]
) -> None:
    def runs(state: str) -> float:
        page = httpx.get(f"http://127.0.0.1:{ports['exporter']}/metrics", trust_env=False, timeout=60).text
        return float(re.search(rf'llmops_runs\{{status="{state}"\}} (\S+)', page)[1])

    id = upload(client, "desk")
    until(lambda: processes.alive() and runs("STARTED"), "the run that takes it in")
    processes.kill("daemon")
    # The run, its child, goes with it.
    processes.kill("code")
    # What users and programs see of the platform goes on while what does the work is away.
    assert status(client, id)["status"] == "ingesting"
    processes.start("code")
    until(lambda: processes.alive() and answers(ports["code"]), "the code location")
    assert "was cut off: it is taken up again" in processes.log("code").read_text()
    processes.start("daemon")
    until(lambda: processes.alive() and status(client, id)["status"] == "ready", "the dataset")


def workers_of(gateway: psutil.Process) -> list[psutil.Process]:
    """The processes of a gateway that take requests, of those that live."""
    living = [one for one in gateway.children() if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in living if "--listen-fd" in one.cmdline()]


def test_users_chat_through_the_door_and_a_killed_worker_of_the_gateway_comes_back(
    client: httpx.Client, door: Door, wiring: Wiring, processes: Processes
) -> None:
    model = Model()
    upstream = Upstream(Starlette(routes=[Route("/v1/chat/completions", model.complete, methods=["POST"])]))
    try:
        catalog = wiring.catalog
        catalog.want_endpoint(deployment_spec("chat"))
        catalog.add_backend(backend("chat-1", endpoint="chat", url=upstream.url, engine="vllm"))
        catalog.set_routes("chat", [{"backend_id": "chat-1", "model_ref": "desk@1", "weight": 1}])
        body = {"model": "chat", "messages": [{"role": "user", "content": "제 번호는 010-1234-5678 입니다"}]}
        until(lambda: client.post("/v1/chat/completions", json=body).status_code == 200, "the route")
        with door.client() as stranger:
            assert stranger.post("/v1/chat/completions", json=body).status_code == 401

        def streamed() -> list[str]:
            with client.stream("POST", "/v1/chat/completions", json={**body, "stream": True}) as answer:
                return [line for line in answer.iter_lines() if line.startswith("data: ")]

        # Another worker may answer this one, which hears of the route within its next look.
        events = until(streamed, "the route")
        assert len(events) == 12 and events[-1] == "data: [DONE]"

        gateway = psutil.Process(processes.running["gateway"].pid)
        # What ships the log is a process of the gateway's, too.
        workers = workers_of(gateway)
        assert len(workers) == 2
        workers[0].kill()
        # The one that is left may have been asked nothing yet, and not have heard of the route.
        until(lambda: client.post("/v1/chat/completions", json=body).status_code == 200, "the route at the other")
        codes = [client.post("/v1/chat/completions", json=body).status_code for _ in range(10)]
        assert set(codes) <= {200, 502}, codes
        until(lambda: workers[0] not in (now := workers_of(gateway)) and len(now) == 2, "the worker")
        # The log has gone through the spool, masked, to PostgreSQL.
        until(lambda: catalog.request_count(endpoint="chat") >= 2, "the log")
        assert "010-1234-5678" not in str(catalog.exposures(endpoint="chat")["query"].to_list())
    finally:
        upstream.stop()


def test_pages_are_there_for_who_has_logged_in(door: Door, client: httpx.Client) -> None:
    with door.client() as stranger:
        admin = client
        assert stranger.get("/dagster/server_info").status_code == 401
        told = until(
            lambda: (found := admin.get("/dagster/server_info")).status_code == 200 and found.json(), "Dagster"
        )
        assert told["dagster_webserver_version"]
        query = {"query": "{ workspaceOrError { ... on Workspace { locationEntries { loadStatus } } } }"}
        entries = admin.post("/dagster/graphql", json=query).json()["data"]["workspaceOrError"]["locationEntries"]
        assert [entry["loadStatus"] for entry in entries] == ["LOADED"]


def test_figures_of_both_doors_are_there_for_prometheus(folder: Path, ports: dict[str, int]) -> None:
    token = (folder / "secrets" / "gateway-admin.token").read_text().strip()
    with httpx.Client(trust_env=False, timeout=30) as client:
        platform = client.get(f"http://127.0.0.1:{ports['exporter']}/metrics").text
        gateway = client.get(f"http://127.0.0.1:{ports['admin']}/metrics", headers={"Authorization": f"Bearer {token}"})
    assert not re.findall(r"llmops_metric_unreadable\{.*\} 1.0", platform)
    done = float(re.search(r'llmops_runs\{status="SUCCESS"\} (\S+)', platform)[1])
    assert done >= 1 and 'llmops_gateway_requests_total{endpoint="chat"' in gateway.text


def test_connections_stay_within_the_account_of_the_guide(postgres: str, databases: dict[str, str]) -> None:
    """What is open now, by database, is no more than docs/operate.md says of an idle server; and all of it fits."""
    text = (REPOSITORY / "docs" / "operate.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w[\w ,]*) \| (\d+) \| (\d+) \| (\d+) \|$", text, re.MULTILINE)
    assert len(rows) >= 8
    account = {name: int(count) * int(each) for name, count, each, _sum in rows}
    assert all(int(total) == account[name] for name, _, _, total in rows)
    limit = int(services()["postgres"]["environment"]["POSTGRES_MAX_CONNECTIONS"])
    reserved = 3
    assert sum(account.values()) <= limit - reserved
    runs = yaml.safe_load((REPOSITORY / "deploy" / "dagster.yaml").read_text())["concurrency"]["runs"]
    assert f"| runs | {runs['max_concurrent_runs']} |" in text
    engine = sa.create_engine(postgres)
    names = [sa.make_url(url).database for url in databases.values()]
    with engine.connect() as connection:
        statement = sa.text("SELECT count(*) FROM pg_stat_activity WHERE datname = ANY(:names)")
        open_now = connection.execute(statement, {"names": names}).scalar()
    engine.dispose()
    assert 0 < open_now <= sum(count for name, count in account.items() if name != "runs")


def test_no_secret_is_in_a_command_a_variable_or_a_log(folder: Path, processes: Processes) -> None:
    kinds = (".key", ".token", ".password")
    secrets = [path.read_text().strip() for path in (folder / "secrets").iterdir() if path.suffix in kinds]
    secrets += [(folder / "home" / "first-admin.key").read_text().strip()]
    secrets = [secret for secret in secrets if "BEGIN" not in secret]
    assert len(secrets) >= 4
    looked_at = 0
    for running in processes.running.values():
        for process in [parent := psutil.Process(running.pid), *parent.children(recursive=True)]:
            text = json.dumps([process.cmdline(), process.environ()])
            assert not [secret for secret in secrets if secret in text], process
            looked_at += 1
    assert looked_at >= 9
    for log in processes.folder.glob("*.log"):
        text = log.read_text(errors="replace")
        assert not [secret for secret in secrets if secret in text], log


def test_nobody_beyond_this_machine_is_called(processes: Processes) -> None:
    """Not by Dagster, MLflow or us, in all that the tests above have done; what one tries here is seen."""
    program = "import socket; s = socket.socket(); s.settimeout(0.1); s.connect(('192.0.2.1', 9))"
    tried = processes.folder / "tried"
    environment = {**os.environ, "PYTHONPATH": str(NOTES_CALLS), "TEST_CALLS_OUTSIDE": str(tried)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True).returncode == 1
    assert "socket.connect '192.0.2.1'" in tried.read_text()
    for running in processes.running.values():
        assert psutil.Process(running.pid).environ()["TEST_CALLS_OUTSIDE"] == str(processes.calls)
    assert not processes.calls.exists(), processes.calls.read_text()
