"""What runs model servers other than processes of this machine: a cluster, and servers that somebody else runs."""

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from kubernetes import client as k8s
from kubernetes import config
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from images.serve.__main__ import main as serve
from llmops_assets.serving.rollout import target_of
from llmops_assets.specs.kubernetes import Kubernetes
from llmops_assets.specs.policy import load_policy
from resources.backends.kubernetes import BACKEND_LABEL, KubernetesServers
from resources.backends.protocol import EngineMissing, ServerError
from resources.catalog import Backend, Catalog
from resources.content import ContentChanged, content_hash
from tests.serving.conftest import backend, deployment_spec

RULES = Kubernetes(namespace="serve", gpu_node_selector={"accelerator": "h100"}, service_account="server")


class Cluster:
    """The calls that model servers make of a Kubernetes API, each as the API answers it, over HTTP."""

    def __init__(self, folder: Path) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.pods: list[dict[str, Any]] = []
        self.asked: list[str] = []
        cluster = self

        class Api(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                if path.endswith("/pods"):
                    self.answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": cluster.pods})
                elif path in cluster.objects:
                    self.answer(200, cluster.objects[path])
                else:
                    self.answer(404, {"kind": "Status", "code": 404})

            def do_POST(self) -> None:
                body, path = self.body(), urlsplit(self.path).path
                name = f"{path}/{body['metadata']['name']}"
                cluster.asked.append(f"create {body['kind']}")
                self.answer(409 if name in cluster.objects else 201, cluster.objects.setdefault(name, body))

            def do_PATCH(self) -> None:
                path = urlsplit(self.path).path
                cluster.asked.append(f"patch {cluster.objects[path]['kind']}")
                cluster.objects[path] = self.body()
                self.answer(200, cluster.objects[path])

            def do_DELETE(self) -> None:
                path = urlsplit(self.path).path
                found = cluster.objects.pop(path, None)
                self.body()
                self.answer(200 if found else 404, {"kind": "Status"})

            def body(self) -> dict[str, Any]:
                return json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")

            def answer(self, code: int, body: dict[str, Any]) -> None:
                data = json.dumps(body).encode()
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        entry = {"server": f"http://127.0.0.1:{self.server.server_port}"}
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "here",
                    "clusters": [{"name": "here", "cluster": entry}],
                    "users": [{"name": "us", "user": {}}],
                    "contexts": [{"name": "here", "context": {"cluster": "here", "user": "us"}}],
                }
            )
        )

    def of_kind(self, kind: str) -> dict[str, Any]:
        return next(one for one in self.objects.values() if one["kind"] == kind)


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def servers(cluster: Cluster | None = None, **changes: Any) -> KubernetesServers:
    options: dict[str, Any] = {
        "policy": load_policy().serving,
        "rules": RULES,
        "image_of": lambda backend: "registry/llm-serve-generation:0.1.0",
        "claim": "llmops-home",
        "home": Path("/var/lib/llmops"),
        "user": 1000,
        "configure": lambda: config.load_kube_config(str(cluster.kubeconfig)) if cluster else None,
    }
    return KubernetesServers("here", **(options | changes))


def wanted(id: str = "Desk.one-0", **runtime: Any) -> Backend:
    path = "/var/lib/llmops/artifacts/models/m"
    known = {"max_output_tokens": 64, "device": "cpu", "backend": "kubernetes", "content_hash": "c0ffee"}
    return backend(id, path=path, runtime=known | runtime)


def read(model: type, manifest: dict[str, Any]) -> Any:
    """A manifest as Kubernetes' own model of it; raises for a key that it does not have."""
    body = {name: value for name, value in manifest.items() if name not in ("kind", "apiVersion")}
    return k8s_model_from_dict(model, k8s_snake_case_dict(model, body))


def test_manifests_are_what_kubernetes_reads_and_pods_may_and_see_as_little_as_they_need():
    deployment, service = servers().manifests(wanted(device="cuda", gpus=2))
    read_deployment, read_service = read(k8s.V1Deployment, deployment), read(k8s.V1Service, service)
    name = read_deployment.metadata.name
    assert name == read_service.metadata.name and name.islower() and len(name) <= 63
    assert servers().name("Desk.one-0") != servers().name("Desk-one.0"), "two ids are never one name"
    assert read_service.spec.selector == read_deployment.spec.selector.match_labels == {BACKEND_LABEL: name}
    spec = read_deployment.spec.template.spec
    assert (spec.security_context.run_as_non_root, spec.security_context.run_as_user) == (True, 1000)
    assert spec.automount_service_account_token is False and spec.service_account_name == "server"
    assert spec.node_selector == {"accelerator": "h100"} and spec.tolerations[0].key == "nvidia.com/gpu"
    (container,) = spec.containers
    assert container.resources.limits["nvidia.com/gpu"] == "2"
    assert container.security_context.capabilities.drop == ["ALL"] and not container.security_context.privileged
    (model,) = [mount for mount in container.volume_mounts if mount.name == "home"]
    assert (model.read_only, model.sub_path, model.mount_path) == (True, "artifacts/models/m", "/model")
    assert {mount.name for mount in container.volume_mounts} == {"home", "tmp", "shm"}
    probes = (container.startup_probe, container.readiness_probe, container.liveness_probe)
    assert {probe.http_get.path for probe in probes} == {"/health"}
    assert container.args[container.args.index("--content-hash") + 1] == "c0ffee"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"claim": None}, "set LLMOPS_VOLUME"),
        ({"user": 0}, "do not run as root"),
        ({"home": Path("/elsewhere")}, "lies outside of LLMOPS_HOME"),
    ],
)
def test_what_no_pod_could_run_with_is_refused(changes: dict[str, Any], reason: str):
    with pytest.raises(ServerError, match=reason):
        servers(**changes).manifests(wanted())


def test_a_server_in_a_cluster_is_made_once_observed_and_gone_with_its_pods(cluster: Cluster):
    ours, records = servers(cluster), []
    running = ours.start(wanted(), records.append)
    name = ours.name("Desk.one-0")
    assert running.url == f"http://{name}.serve.svc:8000" == records[0].url
    assert ours.start(wanted(), records.append).url == running.url
    assert cluster.asked == [f"{verb} {kind}" for verb in ("create",) for kind in ("Service", "Deployment")] + [
        "create Service",
        "patch Service",
        "create Deployment",
        "patch Deployment",
    ]
    assert ours.observe(running) == "silent", "no pod is ready yet"
    state = {"waiting": {"reason": "ImagePullBackOff"}}
    status = {"name": "serve", "image": "x", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    pod = {"metadata": {"name": "p-1", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"containers": []}}
    cluster.pods = [pod | {"status": {"containerStatuses": [status]}}]
    assert ours.observe(running) == "failing"
    assert ours.start(wanted(), records.append).pid_started == 1767225600.0, "tells one start from another"
    assert ours.stop(running) == ["pod p-1"] and cluster.objects == {}
    cluster.pods = []
    assert ours.stop(running) == [] and ours.observe(running) == "gone"


def test_a_cluster_that_is_not_there_is_named():
    def away() -> None:
        raise config.ConfigException("no configuration")

    with pytest.raises(EngineMissing, match="there is no cluster to run model servers in: no configuration"):
        servers(configure=away).observe(wanted())


def test_a_pod_that_starts_again_looks_at_its_models_files_itself(models: dict[str, Path], tmp_path: Path):
    folder = tmp_path / "model"
    folder.mkdir()
    for file in models["old"].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    digest = content_hash(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": 5}')
    with pytest.raises(ContentChanged, match=r"generation_config\.json|the content .* is not what was registered"):
        serve(["--model", str(folder), "--content-hash", digest])


def their_server(key: str) -> Starlette:
    """An OpenAI-compatible server without a health page, which wants a key."""

    async def models_(request: Request) -> JSONResponse:
        return JSONResponse({"data": []}, 200 if request.headers.get("authorization") == f"Bearer {key}" else 401)

    async def chat(request: Request) -> JSONResponse:
        body = await request.json()
        message = {"role": "assistant", "content": f"I am {body['model']}"}
        choice = {"message": message, "finish_reason": "stop"}
        return JSONResponse({"choices": [choice], "usage": {"completion_tokens": 3}})

    return Starlette(routes=[Route("/v1/models", models_), Route("/v1/chat/completions", chat, methods=["POST"])])


def test_a_server_that_somebody_else_runs_is_asked_and_never_started_or_stopped(
    catalog: Catalog, stand_ins, start_upstream, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    theirs = start_upstream(their_server("secret"))
    runtime = {"backend": "url", "url": f"{theirs.url}/v1", "model": "qwen-3", "api_key_variable": "THEIR_KEY"}
    spec = deployment_spec(runtime=runtime, replicas={"min": 2, "max": 2})
    target = target_of(spec, type("M", (), {"ref": "desk@1", "path": "/m", "content_hash": "h"})())
    assert target.replicas == 1, "one address, however many servers are behind it"
    ours = stand_ins()
    catalog.want_endpoint(spec)
    catalog.set_routes("desk", [{"backend_id": "b1", "model_ref": "desk@1", "weight": 100}])
    one = backend("b1", path="/m", runtime=target.runtime)
    ours.want(one)
    with pytest.raises(ServerError, match="set the variable THEIR_KEY"):
        ours.wait_observed("b1")
    monkeypatch.setenv("THEIR_KEY", "secret")
    ours.want(one)
    assert ours.wait_observed("b1").text == "I am qwen-3"
    assert catalog.backend("b1").url == theirs.url and "secret" not in str(catalog.backend("b1"))
    theirs.stop()
    assert ours.reconcile() == ["b1 of desk does not answer its health page"]
    assert ours.reconcile() == [], "it is said once, and nobody here could start it"
    assert catalog.backend("b1").restarts == 0
    catalog.set_routes("desk", [])
    assert ours.reconcile() == ["stopped b1, which desk does not route to"]


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        ({"backend": "url"}, "required for backend: url"),
        ({"url": "http://x:8000"}, "only for backend: url"),
        ({"tool_call_parser": "hermes"}, "transformers reads no calls"),
        ({"backend": "url", "url": "http://x:8000", "tool_call_parser": "hermes"}, "started by somebody else"),
        ({"backend": "docker", "api_key_variable": "A"}, "only for backend: url"),
        ({"backend": "url", "url": "ftp://x"}, "no address of a server"),
        ({"backend": "url", "url": "http://"}, "no address of a server"),
        ({"backend": "url", "url": "http://x:notaport"}, "no address"),
        ({"backend": "url", "url": "http://me:word@x"}, "holds a name or a password"),
        ({"backend": "url", "url": "http://x/?key=1"}, "more than an address"),
        ({"backend": "url", "url": "http://169.254.169.254/latest"}, "secrets"),
        ({"backend": "url", "url": "http://x", "api_key_variable": "sk-abc"}, "no name of an environment variable"),
    ],
)
def test_a_runtime_that_leads_nowhere_is_refused_with_its_field(runtime: dict[str, Any], reason: str):
    with pytest.raises(ValidationError, match=reason):
        deployment_spec(runtime=runtime)


def test_what_runs_a_server_is_part_of_its_id_and_this_machine_keeps_the_ids_that_it_had():
    model: Any = type("M", (), {"ref": "desk@1", "path": "/m", "content_hash": "h"})()
    local = target_of(deployment_spec(), model)
    assert "backend" not in local.runtime
    assert target_of(deployment_spec(runtime={"backend": "docker"}), model).runtime["backend"] == "docker"
    assert replace(wanted(), runtime={}).kind == "local"
