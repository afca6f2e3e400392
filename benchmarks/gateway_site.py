"""The servers that the gateway's benchmark starts: model servers, the gateway with everything on, and other proxies."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import jwt
import psutil
import yaml

from benchmarks.http_load import Load
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.policy import DEFAULT_POLICY
from resources.catalog import Backend, Catalog

GUARDS = {
    "input": {"personal_data": {}, "injection": {}, "length": {"max_characters": 4000}, "language": {}},
    "output": {"personal_data": {}, "length": {"max_characters": 8000}, "language": {}},
}
_CLAIMS = {"iss": "https://login.example", "aud": "llmops", "sub": "lee", "roles": ["viewer"]}
_MANY = 1_000_000_000


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(url: str, seconds: float = 60.0, healthy: int = 500) -> None:
    """Wait until a server answers with a status below `healthy`; OSError where it does not in time."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError as error:
            if error.code < healthy:
                return
            fault: OSError = error
        except OSError as error:
            fault = error
        if time.monotonic() > deadline:
            raise fault
        time.sleep(0.05)


def seconds_of(process: psutil.Process) -> float:
    """Processor time that a process has used, user and system, without its children's."""
    times = process.cpu_times()
    return times.user + times.system


@dataclass
class Site:
    """A home in `folder`, its catalog with the endpoint `desk`, and the servers that were started."""

    folder: Path
    secret: str
    processes: list[subprocess.Popen] = field(default_factory=list)
    admin: str = ""

    def __post_init__(self) -> None:
        self.catalog = Catalog(f"sqlite:///{self.folder / 'catalog.db'}")
        policy = yaml.safe_load(DEFAULT_POLICY.read_text(encoding="utf-8"))
        policy["access"]["limits"] |= {"requests_per_minute": _MANY, "requests_per_minute_per_address": _MANY}
        (self.folder / "policy.yaml").write_text(yaml.safe_dump(policy, allow_unicode=True), encoding="utf-8")

    def start(self, command: list[str], **environment: str) -> subprocess.Popen:
        """Start a command; what it writes goes to `log` in the folder."""
        with open(self.folder / "log", "ab") as log:
            process = subprocess.Popen(
                command, env=os.environ | environment, stdout=log, stderr=log, cwd=Path(__file__).parents[1]
            )
        self.processes.append(process)
        return process

    def models(self, count: int) -> list[str]:
        """Start model servers; their addresses."""
        urls = []
        for _ in range(count):
            port = free_port()
            self.start([sys.executable, "-m", "benchmarks.http_load", "--port", str(port)])
            urls.append(f"http://127.0.0.1:{port}")
        for url in urls:
            wait_for(url)
        return urls

    def want(self, guards: dict[str, dict]) -> None:
        """Want the endpoint `desk` with these guards."""
        spec = {"model_ref": "desk@1", "model_family": "llama", "job_type": "SFT", "serve_target": "GENERATION"}
        spec |= {"endpoint": "desk", "environment": "dev", "resources": {"gpus": 0}, "guards": guards}
        self.catalog.want_endpoint(DeploymentSpec.model_validate(spec))

    def endpoint(self, urls: list[str]) -> None:
        """The endpoint `desk` with all cheap guards, split between the servers at `urls`."""
        self.want(GUARDS)
        for number, url in enumerate(urls):
            self.catalog.add_backend(
                Backend(
                    id=f"desk-{number}",
                    endpoint="desk",
                    model_ref=f"desk@{number + 1}",
                    model_path="",
                    engine="transformers",
                    runtime={},
                    url=url,
                    pid=None,
                    pid_started=None,
                    state="healthy",
                    log_path=None,
                    created_at=datetime.now(UTC),
                )
            )
        self.route([100 // len(urls)] * len(urls))

    def route(self, weights: list[int]) -> None:
        """Give each server of the endpoint its share of the users."""
        self.catalog.set_routes(
            "desk",
            [{"backend_id": f"desk-{n}", "model_ref": f"desk@{n + 1}", "weight": w} for n, w in enumerate(weights)],
        )

    def gateway(self, **more: str) -> tuple[str, psutil.Process]:
        """Start the gateway with everything on; its address and its process."""
        port, admin_port = free_port(), free_port()
        settings = {
            "HOME": str(self.folder),
            "CATALOG_URL": self.catalog.url,
            "POLICY_FILE": str(self.folder / "policy.yaml"),
            "GATEWAY_PORT": str(port),
            "GATEWAY_ADMIN_PORT": str(admin_port),
            "GATEWAY_ADMIN_TOKEN": self.secret,
            "GATEWAY_ACCESS": "on",
            "GATEWAY_LIMITS": "on",
            "JWT_SECRET": self.secret,
            "JWT_ISSUER": _CLAIMS["iss"],
            "JWT_AUDIENCE": _CLAIMS["aud"],
            **more,
        }
        process = self.start(
            [sys.executable, "-m", "images.gateway"], **{f"LLMOPS_{name}": value for name, value in settings.items()}
        )
        self.admin = f"http://127.0.0.1:{admin_port}"
        wait_for(f"http://127.0.0.1:{port}/readyz")
        return f"http://127.0.0.1:{port}", psutil.Process(process.pid)

    def load(self, url: str, *, is_streamed: bool = False) -> Load:
        """Users with a token of their own issuer."""
        token = jwt.encode({**_CLAIMS, "exp": int(time.time()) + 7200}, self.secret, algorithm="HS256")
        return Load(url, {"authorization": f"Bearer {token}"}, is_streamed)

    def metrics(self) -> dict[str, float]:
        """What the gateway's metrics page says, by name with labels."""
        request = urllib.request.Request(f"{self.admin}/metrics", headers={"Authorization": f"Bearer {self.secret}"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, _, value in (x.rpartition(" ") for x in lines if x[0] != "#")}

    def litellm(self, environment: Path, upstream: str) -> tuple[str, psutil.Process]:
        """Start LiteLLM's proxy with one worker in front of the same model server, under the same name."""
        port, model = free_port(), {"model": "openai/model", "api_base": f"{upstream}/v1", "api_key": "unused"}
        config = self.folder / "litellm.yaml"
        config.write_text(json.dumps({"model_list": [{"model_name": "desk", "litellm_params": model}]}))
        command = [str(environment.absolute() / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1"]
        # Its list of prices comes from the network otherwise; and it wants to be told that it may run without a key.
        more = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true"}
        process = self.start([*command, "--port", str(port), "--num_workers", "1"], **more)
        wait_for(f"http://127.0.0.1:{port}/health/liveliness", 120)
        return f"http://127.0.0.1:{port}", psutil.Process(process.pid)

    def router(self, command: str, upstream: str) -> tuple[str, psutil.Process]:
        """Start another proxy by its command."""
        port = free_port()
        process = self.start(command.format(port=port, upstream=upstream).split())
        wait_for(f"http://127.0.0.1:{port}/health", 60)
        return f"http://127.0.0.1:{port}", psutil.Process(process.pid)

    def redis(self) -> str:
        """Start a Redis of its own; its address."""
        port = free_port()
        self.start(["redis-server", "--port", str(port), "--save", "", "--bind", "127.0.0.1"])
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return f"redis://127.0.0.1:{port}/0"
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def stop(self) -> None:
        """End what was started, the last one first."""
        for process in reversed(self.processes):
            process.terminate()
        for process in reversed(self.processes):
            try:
                process.wait(40)
            except subprocess.TimeoutExpired:
                process.kill()
        self.processes.clear()
