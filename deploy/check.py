"""Checks a server that runs: the whole way over its API, an A/B test, every container killed once (`make server-test`).

It trains a tiny model, so the gates of the server's policy have to let one pass: this is for a server that was made for
it, not for one that people use.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from deploy.ab import ab_test
from deploy.running import Server

REPOSITORY = Path(__file__).resolve().parents[1]
TOPICS = ["환불", "영수증", "단말기", "통행료", "하이패스", "미납", "주소변경", "분실", "면제", "할인"]
PLACES = ["서울", "대전", "부산", "광주", "춘천", "강릉", "제주", "수원", "전주", "포항", "울산", "목포"]
NAME = "server-check"
CHAT = {"model": NAME, "messages": [{"role": "user", "content": "환불은 어떻게 하나요?"}], "max_tokens": 8}
BACK_SECONDS = 300.0


def workflow(server: Server) -> None:
    """Data, a base model, a training, a deployment and a chat, by `examples/complete_workflow.py` over TLS."""
    from tests.serving.conftest import make_model

    base = server.folder / "home" / "import" / NAME
    owner = (server.folder / "home").stat()
    if not base.exists():
        make_model(base, seed=3)
        for path in (base, *base.iterdir()):
            os.chown(path, owner.st_uid, owner.st_gid)
    with tempfile.TemporaryDirectory() as work:
        rows = Path(work) / "support.csv"
        lines = [
            f"{place} 영업소에서 {topic} 어떻게 하나요?,{topic}: {place} 창구에서 신분증을 보여 주세요.,{topic}"
            for topic in TOPICS
            for place in PLACES
        ]
        rows.write_text("question,answer,category\n" + "\n".join(lines) + "\n", encoding="utf-8")
        tiny = {"learning_rate": 2e-3, "batch_size": 16, "num_epochs": 40, "max_steps": 40, "max_seq_length": 128}
        command = [sys.executable, str(REPOSITORY / "examples" / "complete_workflow.py"), "--data", str(rows)]
        command += ["--model", f"/var/lib/llmops/import/{NAME}", "--name", NAME, "--hyperparameters", json.dumps(tiny)]
        environment = {
            **os.environ,
            "LLM_OPS_API_BASE_URL": f"{server.url}/llm-ops/v1",
            "LLM_OPS_API_KEY": server.key,
            "REQUESTS_CA_BUNDLE": str(server.certificate),
            "NO_PROXY": "localhost",
        }
        subprocess.run(command, env=environment, check=True, cwd=REPOSITORY)


Works = Callable[[Server, float], bool]
"""Whether a service does its work, and has since a moment (seconds since the epoch)."""


def _chats(server: Server, since: float = 0.0) -> bool:
    status, body = server.ask("/v1/chat/completions", CHAT)
    return status == 200 and bool(json.loads(body)["choices"])


def _page(path: str) -> Works:
    return lambda server, since: server.ask(path)[0] == 200


def _viewed(server: Server, since: float = 0.0) -> bool:
    """A viewer's page of Dagster, which is that of the webserver that refuses changes."""
    return server.viewer is not None and server.ask("/dagster/server_info", key=server.viewer)[0] == 200


def _lists(server: Server, since: float = 0.0) -> bool:
    return server.ask("/llm-ops/v1/catalog/datasets")[0] == 200


def _scraped(job: str) -> Works:
    """Prometheus got an answer from a job after the moment."""

    def holds(server: Server, since: float) -> bool:
        asked = quote(f'timestamp(up{{job="{job}"}}) and up{{job="{job}"}} == 1')
        query = f"/prometheus/api/v1/query?query={asked}"
        status, body = server.ask(query)
        found = json.loads(body)["data"]["result"] if status == 200 else []
        return bool(found) and float(found[0]["value"][1]) > since

    return holds


def _graphql(server: Server, query: str) -> dict[str, Any]:
    status, body = server.ask("/dagster/graphql", {"query": query})
    return (json.loads(body).get("data") or {}) if status == 200 else {}


def _daemon(server: Server, since: float) -> bool:
    """Every daemon has beaten after the moment: one that was killed counts as healthy for minutes."""
    found = _graphql(
        server, "{ instance { daemonHealth { allDaemonStatuses { healthy required lastHeartbeatTime } } } }"
    )
    if not found:
        return False
    statuses = [one for one in found["instance"]["daemonHealth"]["allDaemonStatuses"] if one["required"]]
    return all(one["healthy"] and (one["lastHeartbeatTime"] or 0) > since for one in statuses)


def _code(server: Server, since: float = 0.0) -> bool:
    """The code location loads anew: what the webserver knows of it says nothing of whether it is there."""
    asked = "... on WorkspaceLocationEntry { locationOrLoadError { __typename } }"
    found = _graphql(server, f'mutation {{ reloadRepositoryLocation(repositoryLocationName: "llmops") {{ {asked} }} }}')
    loaded = found.get("reloadRepositoryLocation") or {}
    return (loaded.get("locationOrLoadError") or {}).get("__typename") == "RepositoryLocation"


WORKS: dict[str, Works] = {
    "gateway": _chats,
    "nginx": _chats,
    "redis": _chats,
    "reconciler": _chats,
    "shipper": _chats,
    "console": _lists,
    "code": _code,
    "daemon": _daemon,
    "webserver": _page("/dagster/server_info"),
    "webserver-readonly": _viewed,
    "mlflow": _page("/mlflow/"),
    "exporter": _scraped("platform"),
    "prometheus": _page("/prometheus/-/ready"),
    "alertmanager": _chats,
    "postgres": lambda server, since: _chats(server) and _lists(server) and _code(server),
}
"""How one sees that a service does its work, beside that its container has a new process."""


def up(server: Server) -> None:
    """Wait for a server that was started just now: the door is open a minute before all of what is behind it."""
    began = time.monotonic()
    for service in ("console", "code", "daemon", "mlflow"):
        works = WORKS[service]
        _until(lambda works=works: works(server, 0.0), f"{service} does not work {BACK_SECONDS:.0f} s after the start")
    print(f"up after {time.monotonic() - began:.1f} s", flush=True)


def kills(server: Server, services: Sequence[str]) -> list[tuple[str, float, float]]:
    """Kill containers once each; (service, seconds until it worked again, seconds without a chat) of each.

    Raises RuntimeError naming what does not work before, or does not come back.
    """
    found: list[tuple[str, float, float]] = []
    for service in services:
        works = WORKS[service]
        _until(lambda works=works: works(server, 0.0), f"{service} does not work before it is killed")
        killed, at = server.process(service), time.time()
        # As the kernel does when memory is short.
        os.kill(killed, 9)
        began, without = time.monotonic(), 0.0
        while True:
            asked = time.monotonic()
            chats = _chats(server)
            if chats and server.process(service) not in (0, killed) and works(server, at):
                break
            if time.monotonic() - began > BACK_SECONDS:
                raise RuntimeError(f"{service} does not work {BACK_SECONDS:.0f} s after it was killed")
            time.sleep(0.5)
            without += 0.0 if chats else time.monotonic() - asked
        found.append((service, time.monotonic() - began, without))
        print(f"{service:<12} back after {found[-1][1]:5.1f} s, chat away for {without:5.1f} s", flush=True)
    return found


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + BACK_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(what)
        time.sleep(0.5)


def main() -> None:
    """Go the whole way and kill every container; exit code 1 with what did not work."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--engine", default="docker", help="docker or podman")
    parser.add_argument("--no-workflow", action="store_true", help="the endpoint is there already")
    parser.add_argument("--no-ab", action="store_true", help="without a second model and an A/B test of the two")
    parser.add_argument("--service", action="append", choices=list(WORKS), help="to kill, again for more; all without")
    a = parser.parse_args()
    server = Server(a.folder.absolute(), a.engine)
    try:
        up(server)
        if not a.no_workflow:
            workflow(server)
        if not a.no_ab:
            print(f"promoted: {ab_test(server, NAME)}", flush=True)
        with server.own_key("server-check", "--role", "viewer") as server.viewer:
            if server.ask("/dagster/server_info", key=server.viewer)[0] == 403:
                raise RuntimeError("its policy gives viewers no dagster.view (access.roles), by which one page is seen")
            kills(server, a.service or list(WORKS))
    except (RuntimeError, subprocess.SubprocessError) as error:
        sys.exit(f"the server does not do its work: {error}")


if __name__ == "__main__":
    main()
