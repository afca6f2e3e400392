"""A Kubernetes API of the few calls that a runner makes, whose pods are processes of this machine."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml


@dataclass
class Cluster:
    """What the API was asked to make, and what became of it. `secrets` are values by name and key."""

    secrets: Mapping[tuple[str, str], str] = field(default_factory=dict)
    created: list[dict[str, Any]] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    pods: dict[str, tuple[dict[str, Any], subprocess.Popen]] = field(default_factory=dict)

    def create(self, pod: dict[str, Any]) -> dict[str, Any]:
        container = pod["spec"]["containers"][0]
        environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {}).get("secretKeyRef")
            environment[variable["name"]] = self.secrets[source["name"], source["key"]] if source else variable["value"]
        self.created.append(pod)
        self.pods[pod["metadata"]["name"]] = pod, subprocess.Popen(container["command"], env=environment)
        return pod

    def delete(self, name: str) -> None:
        self.deleted.append(name)
        self.pods[name][1].terminate()

    def list(self, query: Mapping[str, str]) -> list[dict[str, Any]]:
        for name in self.deleted:
            if name in self.pods and self.pods[name][1].poll() is not None:
                del self.pods[name]
        return [pod | {"status": _status(pod, process)} for pod, process in self.pods.values() if _matches(pod, query)]


def _matches(pod: dict[str, Any], query: Mapping[str, str]) -> bool:
    if wanted := query.get("fieldSelector"):
        return wanted == f"metadata.name={pod['metadata']['name']}"
    key, _, value = query.get("labelSelector", "").partition("=")
    return not key or pod["metadata"].get("labels", {}).get(key) == value


def _status(pod: dict[str, Any], process: subprocess.Popen) -> dict[str, Any]:
    code = process.poll()
    state = {"running": {}} if code is None else {"terminated": {"exitCode": code}}
    container = pod["spec"]["containers"][0]
    status = {"name": container["name"], "image": container["image"], "imageID": "", "restartCount": 0}
    return {"containerStatuses": [status | {"ready": code is None, "state": state}]}


@contextmanager
def serving(cluster: Cluster, folder: Path) -> Iterator[Path]:
    """Serve the API of `cluster` on a free port; the kubeconfig that leads there, in `folder`."""

    class Api(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            url = urlsplit(self.path)
            if url.path.endswith("/log"):
                self._answer("no log here", "text/plain")
                return
            found = cluster.list({name: values[0] for name, values in parse_qs(url.query).items()})
            self._answer(json.dumps({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": found}))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(json.dumps(cluster.create(body)))

        def do_DELETE(self) -> None:
            cluster.delete(urlsplit(self.path).path.rsplit("/", 1)[-1])
            self._answer(json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {}}))

        def _answer(self, body: str, kind: str = "application/json") -> None:
            self.send_response(200)
            self.send_header("Content-Type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    entry = {"server": f"http://127.0.0.1:{server.server_port}"}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": entry}],
        "users": [{"name": "us", "user": {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "us"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(config))
    try:
        yield folder / "kubeconfig"
    finally:
        server.shutdown()
        server.server_close()
        for _pod, process in cluster.pods.values():
            process.kill()
            process.wait()
