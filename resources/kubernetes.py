"""Runs the worker in the image of its job as a pod of a Kubernetes cluster; the home folder is a shared claim."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmops_assets.records.jobs import module_of
from llmops_assets.specs.kubernetes import Kubernetes, Toleration
from resources.containers import GRACE_SECONDS, container_environment, gpus_of, inputs, job_name
from resources.encryption import VARIABLE
from resources.gpus import Device
from resources.trainer import TrainerError

if TYPE_CHECKING:
    from dagster_k8s import PipesK8sClient

JOB_LABEL = "llmops/job"


class Pods:
    """Runs jobs as pods.

    `client` is Dagster's Pipes client for Kubernetes. `claim` names the PersistentVolumeClaim that holds `home`, of
    which pods see the folders `shared`, at the same paths as here. `image_of` names the image of a job. `sealed` says
    that files at rest are sealed, so that pods need the keys, from the Secret that `rules` name. `devices` are what the
    nodes have to train on. `user` is user and group of the pods.
    """

    def __init__(
        self,
        client: "PipesK8sClient | None",
        *,
        image_of: Callable[[Mapping[str, Any]], str],
        rules: Kubernetes,
        claim: str | None,
        home: Path,
        shared: Sequence[Path],
        sealed: bool = False,
        devices: Callable[[], list[Device]] = list,
        user: int | None = None,
        patience: float = 180.0,
    ) -> None:
        self.client = client
        self.image_of = image_of
        self.rules = rules
        self.claim = claim
        self.home = home
        self.shared = tuple(shared)
        self.sealed = sealed
        self.devices = devices
        self.user = user or rules.run_as_user or os.getuid()
        self.patience = patience

    def image(self, job: Mapping[str, Any]) -> str:
        """The image that the policy names; only the cluster knows what a tag holds, so name it by its digest there."""
        return self.image_of(job)

    def clear(self, job_file: Path) -> None:
        """Delete the pods that an earlier attempt at a job left, and wait until they are gone."""
        if self.client is None:
            return
        from kubernetes import client

        # Loads the configuration as Dagster's client is about to.
        self.client._load_k8s_config()
        pods, selector = client.CoreV1Api(), f"{JOB_LABEL}={job_name(job_file)}"
        deadline = time.monotonic() + GRACE_SECONDS + 60
        deleted: set[str] = set()
        while found := self._listed(pods, selector):
            for name in {pod.metadata.name for pod in found} - deleted:
                pods.delete_namespaced_pod(name, self.rules.namespace)
                deleted.add(name)
            if time.monotonic() > deadline:
                raise TrainerError(f"the pod {found[0].metadata.name} of an earlier attempt does not end: delete it")
            time.sleep(1.0)

    def _listed(self, pods: Any, selector: str) -> list[Any]:
        return pods.list_namespaced_pod(self.rules.namespace, label_selector=selector).items

    def launch(self, context: Any | None, job: Mapping[str, Any], job_file: Path, environment: dict[str, str]) -> None:
        """Run the worker on `job_file` in a pod, which is deleted afterwards; raises when it fails."""
        if self.client is None or context is None:
            raise TrainerError("the runner kubernetes works within a Dagster run: materialise the asset instead")
        # A pod that asks for a GPU waits for ever where no node has one.
        gpus = gpus_of(job) if any(device.kind == "cuda" for device in self.devices()) else 0
        spec = pod_spec(
            gpus=gpus,
            rules=self.rules,
            claim=self._checked(job),
            home=self.home,
            shared=self.shared,
            user=self.user,
            sealed=self.sealed,
        )
        env = container_environment(environment, key_file=None, gpus=bool(gpus))
        # From the Secret: a value here could be read by whoever may list pods.
        env.pop(VARIABLE, None)
        self.client.run(
            context=context,
            image=job.get("image") or self.image(job),
            command=["python", "-m", module_of(job["task"]), str(job_file)],
            namespace=self.rules.namespace,
            env=env,
            base_pod_meta={"labels": {JOB_LABEL: job_name(job_file)}},
            base_pod_spec=spec,
            pod_wait_timeout=0,
        )

    def _checked(self, job: Mapping[str, Any]) -> str:
        """The claim; raises for what a pod could not run with."""
        if self.claim is None:
            raise TrainerError("set LLMOPS_VOLUME to the PersistentVolumeClaim that holds LLMOPS_HOME")
        if self.user == 0:
            raise TrainerError(
                "pods of the worker do not run as root: run the platform as a user who owns LLMOPS_HOME, or, where the "
                "claim gives all files to one user, name it as kubernetes.run_as_user in the policy"
            )
        if self.sealed and self.rules.key_secret is None:
            raise TrainerError("files are sealed at rest: name the Secret with the keys as kubernetes.key_secret")
        if strange := [folder for folder in self.shared if not folder.is_relative_to(self.home)]:
            raise TrainerError(f"{strange[0]} lies outside of LLMOPS_HOME, which is all that the claim holds")
        if outside := [path for path in inputs(job) if not any(path.is_relative_to(f) for f in self.shared)]:
            where = " or ".join(str(folder) for folder in self.shared)
            raise TrainerError(f"a pod cannot see {outside[0]}: keep it below {where}")
        return self.claim


def pod_spec(
    *, gpus: int, rules: Kubernetes, claim: str, home: Path, shared: Sequence[Path], user: int, sealed: bool
) -> dict[str, Any]:
    """The PodSpec of a job, less what the Pipes client adds: image, command, and the variables that are no secret."""
    limits = {"memory": rules.memory, **({rules.gpu_resource: str(gpus)} if gpus else {})}
    container: dict[str, Any] = {
        "name": "train",
        "resources": {"requests": {"cpu": rules.cpu, "memory": rules.memory}, "limits": limits},
        "volumeMounts": [
            *(
                {"name": "home", "mountPath": str(folder), "subPath": str(folder.relative_to(home))}
                for folder in shared
            ),
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "env": [],
    }
    if sealed and rules.key_secret:
        key = {"name": rules.key_secret, "key": rules.key_secret_key}
        container["env"].append({"name": VARIABLE, "valueFrom": {"secretKeyRef": key}})
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": user,
            "runAsGroup": user,
            "fsGroup": user,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "nodeSelector": {**rules.node_selector, **(rules.gpu_node_selector if gpus else {})},
        "tolerations": [_toleration(t) for t in (*rules.tolerations, *(rules.gpu_tolerations if gpus else ()))],
        "imagePullSecrets": [{"name": name} for name in rules.image_pull_secrets],
        "volumes": [
            {"name": "home", "persistentVolumeClaim": {"claimName": claim}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ],
        "containers": [container],
    }
    if rules.service_account:
        spec["serviceAccountName"] = rules.service_account
    return spec


def _toleration(toleration: Toleration) -> dict[str, str]:
    return toleration.model_dump(exclude_none=True)
