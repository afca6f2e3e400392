"""The worker as a pod: what is asked of a cluster, read by Kubernetes' own models, and run through Dagster's client."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster_k8s.models import k8s_model_from_dict, k8s_snake_case_dict
from dagster_k8s.pipes import build_pod_body
from kubernetes import client as k8s
from pydantic import ValidationError

from llmops_assets.specs.kubernetes import Kubernetes
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.containers import job_name
from resources.encryption import Keyring
from resources.gpus import declared
from resources.kubernetes import JOB_LABEL, Pods, pod_spec
from resources.pipes import kubernetes_client
from resources.trainer import Trainer, TrainerError
from tests.training.cluster import Cluster, serving
from tests.training.conftest import Desk, StandIn, pretrain_spec, typed

RULES = Kubernetes.model_validate(
    {
        "namespace": "train",
        "node_selector": {"pool": "train"},
        "gpu_node_selector": {"accelerator": "h100"},
        "tolerations": [{"key": "dedicated", "value": "train", "effect": "NoSchedule"}],
        "image_pull_secrets": ["registry"],
        "service_account": "worker",
        "key_secret": "llmops-keys",
    }
)
KEY = "cd" * 32


def rendered(gpus: int, **more: Any) -> dict[str, Any]:
    """The pod as it would be sent, from Kubernetes' own model of it."""
    home = Path("/var/lib/llmops")
    options: dict[str, Any] = {"rules": RULES, "claim": "llmops-home", "user": 1000, "sealed": True}
    options |= {"home": home, "shared": [home / "artifacts", home / "gpus"]}
    body = build_pod_body(
        pod_name="a-pod",
        image="registry/llm-train-sft:0.1.0",
        command=["python", "-m", "images.train", "/var/lib/llmops/job.json"],
        env_vars={"OMP_NUM_THREADS": "4"},
        base_pod_meta={},
        base_pod_spec=pod_spec(gpus=gpus, **(options | more)),
    )
    assert isinstance(body, k8s.V1Pod)
    return k8s.ApiClient().sanitize_for_serialization(body)["spec"]


def test_a_pod_is_what_kubernetes_reads_and_has_what_the_job_needs_and_no_more() -> None:
    pod = rendered(gpus=2)
    (container,) = pod["containers"]
    assert container["resources"] == {
        "requests": {"cpu": "4", "memory": "16Gi"},
        "limits": {"memory": "16Gi", "nvidia.com/gpu": "2"},
    }
    assert pod["nodeSelector"] == {"pool": "train", "accelerator": "h100"}
    assert pod["tolerations"] == [
        {"key": "dedicated", "operator": "Equal", "value": "train", "effect": "NoSchedule"},
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},
    ]
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert pod["automountServiceAccountToken"] is False and pod["serviceAccountName"] == "worker"
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] >= 60
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    assert volumes["home"]["persistentVolumeClaim"] == {"claimName": "llmops-home"}
    assert [mount for mount in container["volumeMounts"] if mount["name"] == "home"] == [
        {"name": "home", "mountPath": "/var/lib/llmops/artifacts", "subPath": "artifacts"},
        {"name": "home", "mountPath": "/var/lib/llmops/gpus", "subPath": "gpus"},
    ]
    reference = {"name": "llmops-keys", "key": "encryption-key"}
    assert container["env"] == [
        {"name": "LLMOPS_ENCRYPTION_KEY", "valueFrom": {"secretKeyRef": reference}},
        {"name": "OMP_NUM_THREADS", "value": "4"},
    ]


def test_a_job_without_gpus_waits_for_no_gpu_node() -> None:
    pod = rendered(gpus=0, sealed=False)
    assert pod["containers"][0]["resources"]["limits"] == {"memory": "16Gi"}
    assert pod["nodeSelector"] == {"pool": "train"} and len(pod["tolerations"]) == 1
    assert [variable["name"] for variable in pod["containers"][0]["env"]] == ["OMP_NUM_THREADS"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"claim": None}, "set LLMOPS_VOLUME to the PersistentVolumeClaim"),
        ({"rules": Kubernetes(run_as_user=None), "user": None}, "do not run as root"),
        (
            {"sealed": True, "rules": Kubernetes(run_as_user=7)},
            "name the Secret with the keys as kubernetes.key_secret",
        ),
        ({"home": Path("/elsewhere")}, "lies outside of LLMOPS_HOME, which is all that the claim holds"),
        ({"shared": []}, "a pod cannot see .*: keep it below"),
    ],
)
def test_what_no_pod_could_run_with_is_refused(
    change: dict[str, Any], reason: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 0)
    options = {"rules": RULES, "claim": "llmops-home", "home": tmp_path, "shared": [tmp_path], "user": 1000} | change
    launcher = Pods(kubernetes_client(tmp_path), image_of=lambda job: "image", **options)
    with pytest.raises(TrainerError, match=reason):
        launcher.launch(object(), {"task": "plan", "store": str(tmp_path)}, tmp_path / "plan.json", {})


def test_the_runner_is_a_setting_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    settings = Settings(runner="kubernetes", volume="llmops-home", worker_gpus="8xh100", home=tmp_path, _env_file=None)
    trainer = Wiring(settings).trainer(kubernetes_client(tmp_path))
    assert isinstance(trainer.launcher, Pods) and trainer.launcher.rules == load_policy().kubernetes
    assert trainer.image({"job_type": "RLHF"}) == "registry/llm-train-rlhf:0.1.0"
    assert len(trainer.devices()) == 8 and trainer.devices()[0].name == "h100"
    monkeypatch.setitem(sys.modules, "dagster_k8s", None)
    with pytest.raises(ValidationError, match=r"needs dagster-k8s: pip install 'llmops\[kubernetes\]'"):
        Settings(runner="kubernetes", _env_file=None)


def test_declared_gpus_have_a_number_and_a_known_type() -> None:
    assert [device.kind for device in declared("2xA100")] == ["cuda", "cuda"]
    for text in ("h100", "0xh100", "4xh1000", ""):
        with pytest.raises(ValueError, match="write a number and a type"):
            declared(text)


def test_a_job_runs_through_dagsters_client_and_what_was_left_of_an_earlier_attempt_is_ended_first(
    desk: Desk, tmp_path: Path
) -> None:
    cluster = Cluster(secrets={("llmops-keys", "encryption-key"): KEY})
    job = desk.jobs(pretrain_spec(), tmp_path)["plan"] | {"gpus": 0}
    home = Path(os.path.commonpath([desk.root, tmp_path]))
    with serving(cluster, tmp_path) as kubeconfig:
        pods = Pods(
            kubernetes_client(tmp_path / "pipes", kubeconfig, poll_seconds=0.2),
            image_of=lambda job: "registry/llm-train-pretrain:0.1.0",
            rules=RULES,
            claim="llmops-home",
            home=home,
            shared=[desk.root, tmp_path],
            sealed=True,
            user=1000,
        )
        trainer = Trainer(locks=tmp_path / "locks", threads=1, keys=Keyring.parse(KEY), launcher=pods)
        facts: dict[str, Any] = {}

        label = {JOB_LABEL: job_name(tmp_path / "work" / "plan.json")}
        asleep = {"name": "train", "image": "x", "command": [sys.executable, "-c", "import time; time.sleep(600)"]}
        cluster.create({"metadata": {"name": "left", "labels": label}, "spec": {"containers": [asleep]}})
        left = cluster.pods["left"][1]

        @dg.asset
        def plan(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
            facts.update(trainer.run(context, typed(job), work_dir=tmp_path / "work"))
            assert left.poll() == -signal.SIGTERM
            with pytest.raises(TrainerError, match="unknown task 'nothing'"):
                trainer.run(context, StandIn(task="nothing"), work_dir=tmp_path / "work")
            return dg.MaterializeResult()

        with dg.instance_for_test(temp_dir=str(tmp_path)) as instance:
            result = dg.materialize([plan], instance=instance)
            said = [entry.user_message for entry in instance.all_logs(result.run_id)]
    assert facts["rows"]["train"] and any("trained a tokenizer of" in line for line in said)
    sent = json.dumps(cluster.created)
    assert KEY not in sent, "the keys come from the Secret"
    environment = {v["name"] for v in cluster.created[1]["spec"]["containers"][0]["env"]}
    assert {"DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES", "LLMOPS_ENCRYPTION_KEY"} <= environment
    assert not environment & {"LLMOPS_CATALOG_URL", "LLMOPS_PARENT_PID", "PYTHONPATH"}
    assert cluster.deleted[0] == "left" and len(cluster.created) == 3
    assert set(cluster.deleted) == {pod["metadata"]["name"] for pod in cluster.created}


MODELS = {
    "Namespace": k8s.V1Namespace,
    "NetworkPolicy": k8s.V1NetworkPolicy,
    "PersistentVolumeClaim": k8s.V1PersistentVolumeClaim,
    "Role": k8s.V1Role,
    "RoleBinding": k8s.V1RoleBinding,
    "ServiceAccount": k8s.V1ServiceAccount,
}


def test_the_manifests_are_what_kubernetes_reads_and_fit_what_the_runner_asks_for() -> None:
    text = (Path(__file__).parents[2] / "deploy" / "kubernetes" / "worker.yaml").read_text(encoding="utf-8")
    found: dict[str, Any] = {}
    for manifest in yaml.safe_load_all(text):
        kind = manifest.pop("kind")
        manifest.pop("apiVersion")
        # Raises for a key that the model does not have.
        found[kind] = k8s_model_from_dict(MODELS[kind], k8s_snake_case_dict(MODELS[kind], manifest))
    assert set(found) == set(MODELS)
    rules = load_policy().kubernetes
    assert {found[kind].metadata.namespace or rules.namespace for kind in found} == {rules.namespace}
    assert found["Namespace"].metadata.name == rules.namespace
    assert found["RoleBinding"].role_ref.name == found["Role"].metadata.name
    allowed = {(what, verb) for rule in found["Role"].rules for what in rule.resources for verb in rule.verbs}
    assert {("pods", verb) for verb in ("create", "delete", "list")} | {("pods/log", "get")} <= allowed
    selector = found["NetworkPolicy"].spec.pod_selector.match_expressions[0]
    assert (selector.key, selector.operator) == (JOB_LABEL, "Exists")
    assert found["NetworkPolicy"].spec.egress is None, "no rule lets anything out"
