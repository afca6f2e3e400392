"""Model servers as Deployments and Services of a Kubernetes cluster, with probes; models lie on a shared claim."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from llmops_assets.specs.kubernetes import Kubernetes
from llmops_assets.specs.serving_rules import ServingPolicy
from resources.backends.completions import health_page
from resources.backends.protocol import EngineMissing, Health, Record, ServerError
from resources.backends.serve_command import serve_arguments, start_of
from resources.catalog import Backend
from resources.server_guard import CONTENT_HASH

BACKEND_LABEL = "llmops/backend"
START_LABEL = "llmops/start"
MODEL = "/model"
PORT = 8000
_NOT_FOUND, _CONFLICT = 404, 409


class KubernetesServers:
    """A Deployment of one pod and a Service for each server, named by its id.

    `configure` loads the client's configuration (in the cluster, or a kubeconfig). `claim` names the
    PersistentVolumeClaim that holds `home`; a pod sees the folder of its model on it, read-only. `user` is user and
    group of the pods, never root.
    """

    def __init__(
        self,
        owner: str,
        *,
        policy: ServingPolicy,
        rules: Kubernetes,
        image_of: Callable[[Backend], str],
        claim: str | None,
        home: Path,
        user: int,
        configure: Callable[[], None],
    ) -> None:
        self.owner = hashlib.sha256(owner.encode()).hexdigest()[:8]
        self.policy = policy
        self.rules = rules
        self.image_of = image_of
        self.claim = claim
        self.home = home
        self.user = user
        self.configure = configure

    def start(self, backend: Backend, record: Record) -> Backend:
        """Create the Deployment and the Service, or replace what of them is otherwise; as often as one likes."""
        name = self.name(backend.id)
        deployment, service = self.manifests(backend)
        known = replace(backend, url=f"http://{name}.{self.rules.namespace}.svc:{PORT}", state="starting")
        known = replace(known, pid=None, pid_started=None, log_path=None)
        record(known)
        apps, core = self._apis()
        where = self.rules.namespace
        for kind, body, create, replace_ in (
            ("Service", service, core.create_namespaced_service, core.patch_namespaced_service),
            ("Deployment", deployment, apps.create_namespaced_deployment, apps.patch_namespaced_deployment),
        ):
            try:
                try:
                    create(where, body)
                except _api_exception() as error:
                    if error.status != _CONFLICT:
                        raise
                    replace_(name, where, body)
            except _api_exception() as error:
                raise ServerError(f"no {kind} {name} in the namespace {where}: {_reason(error)}") from error
        return replace(known, pid_started=self._started(backend))

    def observe(self, backend: Backend, timeout: float = 2.0) -> Health:
        """gone without its Deployment, failing where its pod cannot run, else what the health page says."""
        apps, _core = self._apis()
        try:
            found = apps.read_namespaced_deployment(self.name(backend.id), self.rules.namespace)
        except _api_exception() as error:
            if error.status == _NOT_FOUND:
                return "gone"
            raise ServerError(f"the cluster does not tell of {backend.id}: {_reason(error)}") from error
        if self._crashes(backend):
            return "failing"
        ready = (found.status.ready_replicas if found.status else 0) or 0
        return health_page(f"{backend.url}/health", timeout) if ready else "silent"

    def stop(self, backend: Backend, *, kill: bool = False) -> list[str]:
        """Delete Deployment and Service; the pods get SIGTERM, and as long as the policy says to end."""
        apps, core = self._apis()
        name, where = self.name(backend.id), self.rules.namespace
        grace = 0 if kill else int(self.policy.stop_timeout_seconds)
        for delete in (
            lambda: apps.delete_namespaced_deployment(name, where, propagation_policy="Background"),
            lambda: core.delete_namespaced_service(name, where),
        ):
            try:
                delete()
            except _api_exception() as error:
                if error.status != _NOT_FOUND:
                    raise ServerError(f"{name} cannot be deleted in the namespace {where}: {_reason(error)}") from error
        left: list[str] = []
        for pod in self._pods(backend):
            if kill:
                try:
                    core.delete_namespaced_pod(pod.metadata.name, where, grace_period_seconds=grace)
                except _api_exception() as error:
                    if error.status != _NOT_FOUND:
                        raise ServerError(f"pod {pod.metadata.name} cannot be deleted: {_reason(error)}") from error
            left.append(f"pod {pod.metadata.name}")
        return left

    def logs(self, backend: Backend, lines: int = 15) -> str:
        _apps, core = self._apis()
        for pod in self._pods(backend):
            try:
                text: str = core.read_namespaced_pod_log(pod.metadata.name, self.rules.namespace, tail_lines=lines)
                return text.rstrip()
            except _api_exception():
                return ""
        return ""

    def name(self, id: str) -> str:
        """What Deployment, Service and pods of a backend are called: a DNS label, and none of two ids the same."""
        digest = hashlib.sha256(f"{self.owner}:{id}".encode()).hexdigest()[:10]
        readable = "".join(c if c.isascii() and c.isalnum() else "-" for c in id.lower()).strip("-")[:40].strip("-")
        return f"llmops-{readable or 'model'}-{digest}"

    def manifests(self, backend: Backend) -> tuple[dict[str, Any], dict[str, Any]]:
        """The Deployment and the Service of a backend; ServerError for what a pod could not run with."""
        labels = {BACKEND_LABEL: self.name(backend.id)}
        meta = {"name": self.name(backend.id), "namespace": self.rules.namespace}
        image = self.image_of(backend)
        start = start_of(replace(backend, url=""), image)
        deployment = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {**meta, "labels": {**labels, START_LABEL: start}},
            "spec": {
                "replicas": 1,
                "selector": {"matchLabels": labels},
                # Two at once would want the GPUs twice.
                "strategy": {"type": "Recreate"},
                "template": {
                    "metadata": {"labels": {**labels, START_LABEL: start}},
                    "spec": self._pod(backend, image),
                },
            },
        }
        service = {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {**meta, "labels": labels},
            "spec": {"selector": labels, "ports": [{"name": "http", "port": PORT, "targetPort": PORT}]},
        }
        return deployment, service

    def _pod(self, backend: Backend, image: str) -> dict[str, Any]:
        gpus = int(backend.runtime.get("gpus") or 1) if backend.runtime.get("device") == "cuda" else 0
        rules = self.rules
        limits = {"memory": rules.memory, **({rules.gpu_resource: str(gpus)} if gpus else {})}
        page = {"path": "/health", "port": PORT}
        digest = backend.runtime.get(CONTENT_HASH)
        content = ["--content-hash", str(digest)] if digest else []
        start_seconds = int(self.policy.start_timeout_seconds)
        container = {
            "name": "serve",
            "image": image,
            # A pod is started again without us: it looks at its model's files itself, every time.
            "args": [*serve_arguments(backend, self.policy), *content],
            "ports": [{"name": "http", "containerPort": PORT}],
            "resources": {"requests": {"cpu": rules.cpu, "memory": rules.memory}, "limits": limits},
            "env": [{"name": "HOME", "value": "/tmp"}, {"name": "HF_HUB_OFFLINE", "value": "1"}],
            "startupProbe": {"httpGet": page, "periodSeconds": 5, "failureThreshold": max(1, start_seconds // 5)},
            "readinessProbe": {"httpGet": page, "periodSeconds": 5, "failureThreshold": 3},
            # A server that generates long answers is busy, not dead.
            "livenessProbe": {"httpGet": page, "periodSeconds": 20, "timeoutSeconds": 10, "failureThreshold": 6},
            "volumeMounts": [
                {"name": "home", "mountPath": MODEL, "subPath": self._on_claim(backend), "readOnly": True},
                {"name": "tmp", "mountPath": "/tmp"},
                {"name": "shm", "mountPath": "/dev/shm"},
            ],
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            },
        }
        spec: dict[str, Any] = {
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "terminationGracePeriodSeconds": int(self.policy.stop_timeout_seconds),
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": self.user,
                "runAsGroup": self.user,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "nodeSelector": {**rules.node_selector, **(rules.gpu_node_selector if gpus else {})},
            "tolerations": [
                one.model_dump(exclude_none=True)
                for one in (*rules.tolerations, *(rules.gpu_tolerations if gpus else ()))
            ],
            "imagePullSecrets": [{"name": name} for name in rules.image_pull_secrets],
            "volumes": [
                {"name": "home", "persistentVolumeClaim": {"claimName": self.claim, "readOnly": True}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
            ],
            "containers": [container],
        }
        if rules.service_account:
            spec["serviceAccountName"] = rules.service_account
        return spec

    def _on_claim(self, backend: Backend) -> str:
        if self.claim is None:
            raise EngineMissing("set LLMOPS_VOLUME to the PersistentVolumeClaim that holds LLMOPS_HOME")
        if self.user == 0:
            raise EngineMissing(
                "pods of model servers do not run as root: run the platform as a user who owns LLMOPS_HOME, or name "
                "one as kubernetes.run_as_user in the policy"
            )
        model = Path(backend.model_path)
        if not model.is_relative_to(self.home):
            raise ServerError(f"{model} lies outside of LLMOPS_HOME, which is all that the claim holds")
        return str(model.relative_to(self.home))

    def _apis(self) -> tuple[Any, Any]:
        from kubernetes import client

        try:
            self.configure()
        except Exception as error:
            raise EngineMissing(f"there is no cluster to run model servers in: {error}") from error
        return client.AppsV1Api(), client.CoreV1Api()

    def _pods(self, backend: Backend) -> list[Any]:
        _apps, core = self._apis()
        selector = f"{BACKEND_LABEL}={self.name(backend.id)}"
        try:
            pods: list[Any] = core.list_namespaced_pod(self.rules.namespace, label_selector=selector).items
        except _api_exception() as error:
            raise ServerError(f"the cluster does not tell of the pods of {backend.id}: {_reason(error)}") from error
        return pods

    def _started(self, backend: Backend) -> float | None:
        """When the newest pod of a backend was made, which tells one start from another."""
        times = [pod.metadata.creation_timestamp for pod in self._pods(backend) if pod.metadata.creation_timestamp]
        return max(times).timestamp() if times else None

    def _crashes(self, backend: Backend) -> bool:
        """Whether a pod ended, or is kept from starting by what no patience mends."""
        bad = {"CrashLoopBackOff", "ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError"}
        for pod in self._pods(backend):
            for status in (pod.status.container_statuses if pod.status else None) or []:
                waiting = status.state.waiting if status.state else None
                if waiting is not None and waiting.reason in bad:
                    return True
        return False


def load_configuration() -> None:
    """Load the configuration of the cluster that we run in, or else that of a kubeconfig."""
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    try:
        config.load_incluster_config()
    except ConfigException:
        config.load_kube_config()


def _api_exception() -> type[Any]:
    from kubernetes.client.exceptions import ApiException

    found: type[Any] = ApiException
    return found


def _reason(error: Any) -> str:
    """What the API server says, in a line."""
    body: Mapping[str, Any] | str = error.body or error.reason
    return f"{error.status} {str(body)[:500]}"
