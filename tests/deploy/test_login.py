"""Behind nginx as it is delivered and the console as it runs: who reaches Dagster's and MLflow's pages, and as what."""

import html
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
import uvicorn

from images.console.__main__ import state_of
from images.console.app import create_app
from images.console.login.services import asked_of
from llmops_assets.local.stack import REPOSITORY, free_port, prepare_home
from llmops_assets.operations.users import create_user, disable_user
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from tests.deploy.door import Door, nginx
from tests.deploy.test_door import Echo

PASSWORD = "a password of twelve"
LAUNCH = """mutation Launch($executionParams: ExecutionParams!) {
  launchRun(executionParams: $executionParams) { __typename ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message } ... on UnauthorizedError { message } } }"""

END = 'terminateRun(runId: "x") { __typename }'
FRAGMENT = f"fragment F on Mutation {{ {END} }}"
DEEP = b'{"query": "' + b"{a" * 50_000 + b'"}'


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    found = Settings(
        home=home,
        trusted_proxies="127.0.0.1",
        public_url="https://localhost",
        dagster_webserver=f"http://127.0.0.1:{free_port('127.0.0.1')}/dagster",
        _env_file=None,
    )
    prepare_home(found)
    wiring = Wiring(found)
    for name, role in (("김철수", "operator"), ("viewer", "viewer"), ("boss", "admin")):
        create_user(wiring, "root", name, [role], PASSWORD)
    return found


@pytest.fixture(scope="module")
def wiring(settings: Settings) -> Wiring:
    return Wiring(settings)


@pytest.fixture(scope="module")
def webservers(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """Real webservers of Dagster."""
    folder = tmp_path_factory.mktemp("dagster")
    (folder / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    full = int(settings.dagster_webserver.rsplit(":", 1)[1].partition("/")[0])
    ports = {"webserver": full, "webserver-readonly": free_port("127.0.0.1")}
    command = [sys.executable, str(Path(__file__).with_name("webservers.py")), *map(str, ports.values())]
    environment = {**os.environ, "DAGSTER_HOME": str(folder), "PYTHONPATH": str(REPOSITORY)}
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=folder)
    try:
        deadline = time.monotonic() + 120
        for port in ports.values():
            while True:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()[-3000:]
                try:
                    if httpx.get(f"http://127.0.0.1:{port}/dagster/server_info", trust_env=False).status_code == 200:
                        break
                except httpx.HTTPError:
                    time.sleep(0.1)
        yield ports
    finally:
        process.terminate()
        process.wait(60)


@pytest.fixture(scope="module")
def door(settings: Settings, webservers: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    folder = tmp_path_factory.mktemp("server")
    subprocess.run([sys.executable, "deploy/server.py", str(folder)], cwd=REPOSITORY, check=True, capture_output=True)
    port = free_port("127.0.0.1")
    app = create_app(state_of(settings, "127.0.0.1"))
    console = uvicorn.Server(uvicorn.Config(app, port=port, log_level="warning", access_log=False))
    echo = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threads = [threading.Thread(target=run) for run in (console.run, echo.serve_forever)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    # nginx asks it about every request, and is up before it.
    while not console.started:
        assert time.monotonic() < deadline and threads[0].is_alive(), "the console does not start"
        time.sleep(0.05)
    try:
        behind = {"console": port, "mlflow": echo.server_port, "prometheus": echo.server_port, **webservers}
        with nginx(folder, folder / "secrets", behind) as found:
            yield found
    finally:
        console.should_exit = True
        echo.shutdown()
        for thread in threads:
            thread.join()
        echo.server_close()


@contextmanager
def logged_in(door: Door, name: str) -> Iterator[httpx.Client]:
    with door.client() as client:
        client.headers["Origin"] = door.url
        answer = client.post("/login", data={"name": name, "password": PASSWORD})
        assert answer.status_code == 303, answer.text
        yield client


def ask(client: httpx.Client, query: str, variables: dict | None = None) -> httpx.Response:
    return client.post("/dagster/graphql", json={"query": query, "variables": variables})


def launch_of(**more: object) -> dict:
    selector = {"repositoryLocationName": "desk", "repositoryName": "__repository__", "jobName": "desk_job"}
    return {"executionParams": {"selector": selector, "mode": "default", "runConfigData": "{}", **more}}


def test_a_browser_without_a_session_is_shown_the_login_and_a_program_is_told_401(door):
    with door.client() as client:
        page = client.get("/dagster/assets?x=1", headers={"Accept": "text/html"})
        assert (page.status_code, page.headers["location"]) == (303, "/login?next=%2Fdagster%2Fassets%3Fx%3D1")
        for path in ("/dagster/graphql", "/mlflow/", "/prometheus/graph"):
            assert client.get(path).status_code == 401, path
        assert client.get("/llmops-auth").status_code == 404
        assert client.get("/auth", headers={"X-Service": "mlflow"}).status_code == 404


@pytest.mark.parametrize(
    "asked",
    [
        "/dagster/assets?a=1&b=2",
        "/dagster/runs?q[0]=tag%3Ax%3D1%26y&next=/other",
        "/mlflow/?x=%23%2F&y=a+b%20c",
        "/prometheus/graph?g0.expr=up%7Bjob%3D%22a%26b%22%7D&g0.tab=1",
        "/dagster/locations/%ED%99%98%EB%B6%88?ended=1&lang=ko",
        "/dagster/a%3Fb%26c",
        "/dagster/assets?" + "&" * 1900,
    ],
)
def test_a_login_leads_back_to_all_of_the_address(door, asked):
    with door.client() as client:
        client.headers["Origin"] = door.url
        sent = client.get(asked, headers={"Accept": "text/html"})
        assert sent.status_code == 303, sent.text
        form = client.get(sent.headers["location"])
        # As a browser would send the form's hidden field.
        field = html.unescape(re.search(r'name="next" value="([^"]*)"', form.text).group(1))
        done = client.post("/login", data={"name": "viewer", "password": PASSWORD, "next": field})
        assert (done.status_code, done.headers["location"]) == (303, asked)


def test_a_page_is_reached_with_the_cookies_of_a_whole_domain(door):
    with logged_in(door, "viewer") as client:
        for number in range(8):
            client.cookies.set(f"other-{number}", "x" * 3000)
        assert ask(client, "{ version }").json()["data"]["version"]


def test_a_login_leads_to_nobody_elses_page_and_repeats_no_change(door):
    with door.client() as client:
        posted = client.post("/dagster/graphql", json={"query": "{ version }"}, headers={"Accept": "text/html"})
        assert (posted.status_code, posted.headers["location"]) == (303, "/login?next=%2F")
        known = client.get("/dagster/", headers={"Accept": "text/html", "X-LLMOps-Login": "//evil.example"})
        assert known.headers["location"] == "/login?next=%2Fdagster%2F"


def test_who_may_not_launch_reaches_a_webserver_that_refuses_it(door, wiring):
    with logged_in(door, "viewer") as client:
        assert ask(client, "{ version }").json()["data"]["version"]
        refused = ask(client, LAUNCH, launch_of())
        assert refused.json()["data"]["launchRun"]["__typename"] == "UnauthorizedError", refused.text
        posted = client.post("/dagster/report_asset_materialization/desk", json={})
        assert posted.status_code == 403
    assert not [line for line in wiring.catalog.audit_log() if line["action"].startswith("dagster.")]


def test_who_launches_what_is_in_the_audit_log_and_on_the_run(door, wiring):
    with logged_in(door, "김철수") as client:
        tags = [{"key": "dagster/partition", "value": "desk@v1"}, {"key": "secret", "value": "hunter2"}]
        launched = ask(client, LAUNCH, launch_of(executionMetadata={"tags": tags}))
        run = launched.json()["data"]["launchRun"]["run"]["runId"]
        found = ask(client, f'{{ runOrError(runId: "{run}") {{ ... on Run {{ tags {{ key value }} }} }} }}').json()
    kept = {tag["key"]: tag["value"] for tag in found["data"]["runOrError"]["tags"]}
    assert kept["user"] == "김철수" and kept["dagster/partition"] == "desk@v1"
    after, before = [line for line in wiring.catalog.audit_log() if line["action"].startswith("dagster.")][:2]
    assert (before["actor"], before["action"], before["target"]) == ("김철수", "dagster.launch", "launchRun")
    text = json.dumps(before["detail"], ensure_ascii=False)
    assert "desk_job" in text and "desk@v1" in text and "hunter2" not in text
    assert after["action"] == "dagster.answer" and after["detail"] == {"status": 200, "runs": [run]}


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"query": f"mutation {{ {END} }}"}},
        {"content": f"mutation {{ {END} }}", "headers": {"Content-Type": "application/graphql"}},
        {"json": {"query": f"query A {{ version }} mutation B {{ ...F }} {FRAGMENT}", "operationName": "B"}},
        {"json": {"query": f"mutation {{ ... on Mutation {{ t: {END} }} }}"}},
    ],
)
def test_a_change_is_written_down_however_it_is_sent(door, wiring, sent):
    with logged_in(door, "boss") as client:
        answer = client.post("/dagster/graphql", **sent)
        assert answer.status_code == 200, answer.text
    line = next(line for line in wiring.catalog.audit_log() if line["action"] == "dagster.launch")
    assert (line["actor"], line["target"], line["detail"]["about"]) == ("boss", "terminateRun", {"runId": "x"})


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"query": "mutation {"}', DEEP, b'{"query": 5}'])
def test_what_is_no_query_is_refused(door, body):
    with logged_in(door, "boss") as client:
        answer = client.post("/dagster/graphql", content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == 400, answer.text


def test_no_other_page_launches_by_somebodys_session(door):
    with logged_in(door, "boss") as client:
        # As a link leads there.
        del client.headers["Origin"]
        followed = client.get("/dagster/graphql", params={"query": f"mutation {{ {END} }}"})
        assert followed.status_code == 405, followed.text
        for headers in ({"Origin": "https://evil.example"}, {"Origin": ""}):
            answer = client.post("/dagster/graphql", json={"query": LAUNCH, "variables": launch_of()}, headers=headers)
            assert answer.status_code in (401, 403), answer.text


def test_mlflow_is_looked_at_by_viewers_and_changed_by_operators_with_their_name(door, wiring):
    with logged_in(door, "viewer") as client:
        told = client.get("/mlflow/ajax-api/2.0/mlflow/experiments/get").json()["headers"]
        assert told["X-User-Id"] == "viewer" and "viewer" in told["X-User-Roles"] and "Cookie" not in told
        assert client.post("/mlflow/ajax-api/2.0/mlflow/runs/search", json={}).status_code == 200
        assert client.post("/mlflow/ajax-api/2.0/mlflow/registered-models/alias", json={}).status_code == 403
        assert client.get("/mlflow/get-artifact?path=model/model.safetensors").status_code == 403
        assert client.get("/mlflow/get-artifact?path=plots/loss.png").status_code == 200
        assert client.get("/prometheus/graph").status_code == 403
    with logged_in(door, "김철수") as client:
        assert client.post("/mlflow/ajax-api/2.0/mlflow/registered-models/alias", json={}).status_code == 200
        assert client.get("/mlflow/get-artifact?path=model/model.safetensors").status_code == 200
        assert client.get("/prometheus/graph").status_code == 200
    lines = wiring.catalog.audit_log(limit=3)
    taken = next(one for one in lines if one["action"] == "model.download")
    changed = next(one for one in lines if one["action"] == "mlflow.change")
    assert (taken["actor"], taken["target"]) == ("김철수", "model/model.safetensors")
    assert taken["detail"]["through"] == "mlflow"
    assert changed["actor"] == "김철수" and changed["detail"]["path"].endswith("/registered-models/alias")


def test_who_is_disabled_is_out_at_once(door, wiring):
    create_user(wiring, "root", "lee", ["operator"], PASSWORD)
    with logged_in(door, "lee") as client:
        assert client.get("/dagster/server_info").status_code == 200
        disable_user(wiring, "root", "lee")
        assert client.get("/dagster/server_info").status_code == 401


@pytest.mark.parametrize(
    ("service", "method", "uri", "action"),
    [
        ("dagster", "GET", "/dagster/assets", "dagster.view"),
        ("dagster", "POST", "/dagster/report_asset_check/x", "dagster.launch"),
        ("mlflow", "GET", "/mlflow/", "mlflow.view"),
        ("mlflow", "POST", "/mlflow/ajax-api/3.0/mlflow/traces/search", "mlflow.view"),
        ("mlflow", "POST", "/mlflow/ajax-api/2.0mlflow/experiments/search-datasets", "mlflow.view"),
        ("mlflow", "DELETE", "/mlflow/ajax-api/2.0/mlflow/registered-models/alias", "mlflow.change"),
        ("mlflow", "GET", "/mlflow/ajax-api/2.0/mlflow/gateway-proxy?x", "mlflow.change"),
        ("mlflow", "GET", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/m/model.gguf", "model.download"),
        ("mlflow", "GET", "/mlflow/%67et-artifact?path=a.png&path=model.bin", "model.download"),
        ("mlflow", "GET", "/mlflow/get-artifact?path=model.bin&path=a.png", "model.download"),
        ("mlflow", "GET", "/mlflow/get-artifact?pa%74h=model.bin&path=a.png", "model.download"),
        ("mlflow", "GET", "/mlflow/get-artifact?path=a.png/../model.bin/.", "model.download"),
        ("mlflow", "GET", "/mlflow//get-artifact?path=rows.PARQUET", "model.download"),
        ("mlflow", "GET", "/mlflow/api/2.0/mlflow/logged-models/m-1/artifacts/files?artifact_file_path=m.safetensors",
         "model.download"),
        ("mlflow", "POST", "/mlflow/api/2.0/mlflow/artifacts/presigned-download-url", "model.download"),
        ("mlflow", "PUT", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/m/model.bin", "mlflow.change"),
        ("grafana", "GET", "/grafana/d/x", "usage.read"),
    ],
)  # fmt: skip
def test_each_request_needs_its_action(service, method, uri, action):
    asked = asked_of(service, method, uri)
    assert asked is not None and asked.action == action
    assert asked_of("another", method, uri) is None
