"""What nginx lets through, and what not: with the configuration that is delivered, a real nginx and real servers."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from ssl import TLSVersion

import pytest

from llmops_assets.local.stack import REPOSITORY
from tests.deploy.door import UPSTREAMS, Door, nginx


class Echo(BaseHTTPRequestHandler):
    """Answers with what reached it; `/v1/stream` sends one part, and the next when the test has seen that."""

    protocol_version = "HTTP/1.1"
    seen = threading.Event()

    def do_GET(self) -> None:
        if self.path == "/v1/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"5\r\nfirst\r\n")
            assert self.seen.wait(60)
            self.wfile.write(b"6\r\nsecond\r\n0\r\n\r\n")
            return
        told = {"server": self.server.server_port, "path": self.path, "headers": dict(self.headers.items())}
        body = json.dumps(told).encode()
        if self.path == "/auth":
            # As the console answers it (tests/deploy/test_login.py has the real one).
            is_known = "session=admin" in self.headers.get("Cookie", "")
            self.send_response(200 if is_known else 401)
            if is_known:
                for name, value in {
                    "X-User-Id": "admin",
                    "X-User-Roles": "admin",
                    "X-LLMOps-Webserver": "full",
                }.items():
                    self.send_header(name, value)
            else:
                self.send_header("X-LLMOps-Login", "/login?next=%2F")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A server's folder, as `make server-folder` makes it."""
    folder = tmp_path_factory.mktemp("server")
    subprocess.run([sys.executable, "deploy/server.py", str(folder)], cwd=REPOSITORY, check=True, capture_output=True)
    return folder


@pytest.fixture(scope="module")
def behind() -> Iterator[dict[str, int]]:
    """A server for each name that nginx knows."""
    servers = {name: ThreadingHTTPServer(("127.0.0.1", 0), Echo) for name in UPSTREAMS if name != "grafana"}
    for server in servers.values():
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {name: server.server_port for name, server in servers.items()}
    for server in servers.values():
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def door(folder: Path, behind: dict[str, int]) -> Iterator[Door]:
    with nginx(folder, folder / "secrets", behind) as door:
        yield door


@pytest.mark.parametrize(
    ("path", "server"),
    [
        ("/v1/models", "gateway"),
        ("/chat", "gateway"),
        ("/healthz", "gateway"),
        ("/", "console"),
        ("/datasets/desk", "console"),
        ("/login?next=/x", "console"),
        ("/login/callback?code=1", "console"),
        ("/logout", "console"),
        ("/llm-ops/v1/health", "console"),
        ("/api/v1/admin/models", "console"),
    ],
)
def test_what_asks_for_a_key_itself_is_reached_without_a_login(
    door: Door, behind: dict[str, int], path: str, server: str
):
    with door.client() as client:
        told = client.get(path, headers={"Authorization": "Bearer llmops-x"}).json()
    assert told["server"] == behind[server]
    assert told["headers"]["Authorization"] == "Bearer llmops-x"


@pytest.mark.parametrize(
    ("path", "server", "arrives"),
    [
        ("/dagster/assets", "webserver", "/dagster/assets"),
        ("/dagster", "webserver", "/dagster"),
        ("/mlflow/ajax-api/2.0/x?a=1", "mlflow", "/mlflow/ajax-api/2.0/x?a=1"),
        ("/prometheus/graph?g0.expr=up", "prometheus", "/graph?g0.expr=up"),
    ],
)
def test_pages_ask_for_a_login_and_are_not_told_the_password(
    door: Door, behind: dict[str, int], path: str, server: str, arrives: str
):
    with door.client() as client:
        assert client.get(path).status_code == 401
        assert client.get(path, auth=("admin", "wrong")).status_code == 401
        assert client.get(path, headers={"Cookie": "session=wrong"}).status_code == 401
        assert client.get(path, headers={"X-User-Id": "admin", "X-User-Roles": "admin"}).status_code == 401
    with door.client(logged_in=True) as client:
        told = client.get(path).json()
    assert (told["server"], told["path"]) == (behind[server], arrives)
    assert not {"Authorization", "Cookie"} & told["headers"].keys()
    assert (told["headers"]["X-User-Id"], told["headers"]["X-User-Roles"]) == ("admin", "admin")


@pytest.mark.parametrize("path", ["/v1/models", "/llm-ops/v1/health", "/", "/dagster/", "/mlflow/"])
def test_what_a_client_says_of_itself_is_not_passed_on(door: Door, path: str):
    lies = {"X-User-Id": "root", "X-User-Roles": "admin", "X-Forwarded-For": "10.0.0.1", "X-Forwarded-Proto": "http"}
    with door.client(logged_in=True) as client:
        told = client.get(path, headers=lies).json()["headers"]
    assert told.get("X-User-Id") == ("admin" if path in ("/dagster/", "/mlflow/") else None)
    assert told.get("X-User-Roles") == told.get("X-User-Id")
    assert told["X-Forwarded-For"] == "127.0.0.1" and told["X-Forwarded-Proto"] == "https"
    assert len(told["X-Request-Id"]) == 32


def test_every_location_tells_the_server_behind_it_the_same(folder: Path):
    """nginx inherits no header where a location sets one: a location that forgets the file would pass lies on."""
    text = (REPOSITORY / "deploy" / "nginx" / "nginx.conf").read_text(encoding="utf-8")
    locations = text.split("    location ")[1:]
    assert len(locations) >= 9
    passing = [location for location in locations if "proxy_pass $" in location and "internal;" not in location]
    assert len(locations) - len(passing) == 3
    assert all("include /etc/llmops/proxy.conf;" in location for location in passing)
    open_to_all = {location.split(" {")[0] for location in passing if "auth.conf" not in location}
    assert open_to_all == {"/v1/", "= /chat", "= /healthz", "~ ^/(llm-ops|api)/v1/", "~ ^/(login|logout)(/|$)", "/"}


def test_an_answer_is_passed_on_as_it_comes(door: Door):
    Echo.seen.clear()
    with door.client() as client, client.stream("GET", "/v1/stream") as answer:
        parts = answer.iter_raw()
        assert next(parts) == b"first"
        Echo.seen.set()
        assert b"".join(parts) == b"second"


def test_old_versions_of_tls_are_refused(door: Door):
    spoken = {version: door.speaks(version) for version in (TLSVersion.TLSv1_1, TLSVersion.TLSv1_2, TLSVersion.TLSv1_3)}
    assert spoken == {TLSVersion.TLSv1_1: False, TLSVersion.TLSv1_2: True, TLSVersion.TLSv1_3: True}


def test_pages_carry_the_headers_of_security_and_no_version(door: Door):
    with door.client() as client:
        for answer in (client.get("/v1/models"), client.get("/")):
            assert answer.headers["Strict-Transport-Security"].startswith("max-age=")
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.headers["X-Frame-Options"] == "DENY"
            # By a stricter one forms of the console would come from nowhere, and be refused.
            assert answer.headers["Referrer-Policy"] == "same-origin"
            assert answer.headers["Server"] == "nginx"


def test_bodies_are_bounded_by_what_they_are_for(door: Door):
    with door.client(logged_in=True) as client:
        assert client.post("/v1/chat/completions", content=b"x" * (5 << 20)).status_code == 200
        assert client.post("/v1/chat/completions", content=b"x" * (17 << 20)).status_code == 413
        assert client.post("/datasets", content=b"x" * (5 << 20)).status_code == 413
        assert client.post("/llm-ops/v1/catalog/datasets/d/upload", content=b"x" * (20 << 20)).status_code == 200


def test_one_address_that_asks_too_fast_is_told_so(folder: Path, behind: dict[str, int], tmp_path: Path):
    with nginx(tmp_path, folder / "secrets", behind) as door, door.client() as client:
        found = [client.get("/chat").status_code for _ in range(400)]
    assert found[0] == 200 and 429 in found and set(found) == {200, 429}


def test_secrets_are_their_owners_alone_and_stay_the_same(folder: Path):
    def contents() -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (folder / "secrets").iterdir()}

    before = contents()
    assert len(before) >= 7 and all(before.values())
    for path in (*(folder / "secrets").iterdir(), folder / "env"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((folder / "secrets").stat().st_mode) == 0o700
    command = [sys.executable, "deploy/server.py", str(folder), "LLMOPS_HTTPS_PORT=9443"]
    told = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True, text=True)
    assert contents() == before and told.stdout == ""
    env = dict(line.split("=", 1) for line in (folder / "env").read_text().splitlines())
    assert env["LLMOPS_HTTPS_PORT"] == "9443" and env["LLMOPS_USER"] == (
        f"{os.getuid()}:{os.getgid()}" if os.getuid() else "65534:65534"
    )
    # What compose passes on, and shows to whoever asks, holds none of them.
    secret = [value.strip() for value in before["pgpass"].decode().replace(":", "\n").split() if len(value) > 20]
    secret += [before[name].decode().strip() for name in ("encryption.key", "gateway-admin.token", "admin.password")]
    assert len(secret) == 6
    assert not [value for value in secret if value in (folder / "env").read_text()]
    wrong = subprocess.run([*command[:3], "LLMOPS_PORT=1"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert wrong.returncode == 1 and "LLMOPS_PORT: no variable of a server" in wrong.stderr
