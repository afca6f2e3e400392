"""The manifests for a cluster: every field is one that Kubernetes knows, and pods get no right beyond their need."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes import client

from llmops_assets.local.stack import REPOSITORY
from llmops_assets.specs.settings import Settings
from tests.deploy.processes import services

FOLDER = REPOSITORY / "deploy" / "kubernetes"
MODEL = {
    "apps/v1 Deployment": "V1Deployment",
    "autoscaling/v2 HorizontalPodAutoscaler": "V2HorizontalPodAutoscaler",
    "networking.k8s.io/v1 NetworkPolicy": "V1NetworkPolicy",
    "policy/v1 PodDisruptionBudget": "V1PodDisruptionBudget",
    "rbac.authorization.k8s.io/v1 Role": "V1Role",
    "rbac.authorization.k8s.io/v1 RoleBinding": "V1RoleBinding",
    "v1 ConfigMap": "V1ConfigMap",
    "v1 Namespace": "V1Namespace",
    "v1 PersistentVolumeClaim": "V1PersistentVolumeClaim",
    "v1 Service": "V1Service",
    "v1 ServiceAccount": "V1ServiceAccount",
}
SUBJECT = "RbacV1Subject"


def documents() -> list[tuple[str, dict[str, Any]]]:
    """(file and name, manifest) of all that kustomization.yaml names."""
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    return [
        (f"{name}: {document['kind']} {document['metadata']['name']}", document)
        for name in kustomization["resources"]
        for document in yaml.safe_load_all((FOLDER / name).read_text(encoding="utf-8"))
    ]


def faults(value: Any, kind: str, where: str) -> Iterator[str]:
    """What of a manifest the client's model of its kind does not know, or lacks."""
    if value is None:
        return
    if inner := re.fullmatch(r"list\[(.+)\]", kind):
        if not isinstance(value, list):
            yield f"{where}: should be a list"
            return
        for index, item in enumerate(value):
            yield from faults(item, inner[1], f"{where}[{index}]")
    elif inner := re.fullmatch(r"dict\(str, (.+)\)", kind):
        for name, item in value.items():
            yield from faults(item, inner[1], f"{where}.{name}")
    elif (model := getattr(client, kind, None)) is not None and hasattr(model, "openapi_types"):
        if not isinstance(value, dict):
            yield f"{where}: should be an object of {kind}"
            return
        python_name = {json: name for name, json in model.attribute_map.items()}
        for name in value.keys() - python_name.keys():
            yield f"{where}.{name}: {kind} has no such field"
        known = {python_name[name]: item for name, item in value.items() if name in python_name}
        try:
            # It refuses what is required and missing.
            model(**known)
        except ValueError as error:
            yield f"{where}: {error}"
        for name, item in known.items():
            yield from faults(item, model.openapi_types[name], f"{where}.{model.attribute_map[name]}")
    elif kind in ("str", "int", "bool", "float"):
        expected = {"str": str, "int": int, "bool": bool, "float": (int, float)}[kind]
        if not isinstance(value, expected) or (kind != "bool" and isinstance(value, bool)):
            yield f"{where}: {value!r} should be of type {kind}"


@pytest.mark.parametrize(("where", "document"), documents(), ids=[where for where, _ in documents()])
def test_a_manifest_has_the_fields_of_its_kind(where: str, document: dict[str, Any]) -> None:
    model = MODEL[f"{document['apiVersion']} {document['kind']}"]
    assert list(faults(document, model, where)) == []


def test_a_field_that_does_not_exist_is_found() -> None:
    ((where, document),) = [(w, d) for w, d in documents() if w.endswith("Deployment llmops-console")]
    container = document["spec"]["template"]["spec"]["containers"][0]
    container |= {"livenesProbe": {}, "image": 7}
    del container["name"]
    found = " ".join(faults(document, "V1Deployment", where))
    assert "livenesProbe: V1Container has no such field" in found
    assert "image: 7 should be of type str" in found and "`name`, must not be `None`" in found


def pods() -> list[tuple[str, dict[str, Any]]]:
    return [(where, d["spec"]["template"]["spec"]) for where, d in documents() if d["kind"] == "Deployment"]


@pytest.mark.parametrize(("where", "pod"), pods(), ids=[where for where, _ in pods()])
def test_a_pod_fulfils_what_the_namespace_enforces_and_has_what_it_mounts(where: str, pod: dict[str, Any]) -> None:
    context = pod["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] and context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is ("reconciler" in where)
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in (*pod["initContainers"], *pod["containers"]):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
        assert container["resources"]["limits"]["memory"] and container["resources"]["requests"]["cpu"]


def test_what_is_selected_is_there_and_images_have_a_version() -> None:
    by_kind: dict[str, list[dict[str, Any]]] = {}
    for _, document in documents():
        by_kind.setdefault(document["kind"], []).append(document)
    labels = [d["spec"]["template"]["metadata"]["labels"] for d in by_kind["Deployment"]]
    for service in by_kind["Service"]:
        assert service["spec"]["selector"] in labels
    for budget in by_kind["PodDisruptionBudget"]:
        assert budget["spec"]["selector"]["matchLabels"] in labels
    kustomization = yaml.safe_load((FOLDER / "kustomization.yaml").read_text(encoding="utf-8"))
    versioned = {image["name"] for image in kustomization["images"]}
    used = {c["image"] for _, pod in pods() for c in (*pod["initContainers"], *pod["containers"])}
    assert used == versioned
    accounts = {d["metadata"]["name"] for d in by_kind["ServiceAccount"]}
    assert {s["name"] for b in by_kind["RoleBinding"] for s in b["subjects"]} <= accounts


def test_links_of_a_cluster_lead_through_its_door_and_programs_ask_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of addresses on one server has to be said here too: else they are those of `llmops up`."""
    ((_, given),) = [(where, d["data"]) for where, d in documents() if d["kind"] == "ConfigMap"]
    server = services()["console"]["environment"]
    pages = {name for name in server if re.search(r"_(PAGE|SERVER|WEBSERVER|PUBLIC_URL)$", name)}
    assert pages and pages <= given.keys()
    for name in pages:
        monkeypatch.setenv(name, given[name])
    settings = Settings(_env_file=None)
    for link in (settings.dagster_url, settings.mlflow_url):
        assert link.startswith(f"{settings.public_url}/")
    assert {urlsplit(url).scheme for url in (settings.public_url, settings.dagster_url)} == {"https"}
    console = urlsplit(settings.console_url)
    (ports,) = [
        d["spec"]["ports"] for _, d in documents() if d["kind"] == "Service" and "console" in d["metadata"]["name"]
    ]
    assert (console.hostname, console.port) == ("llmops-console", ports[0]["port"])
    # Launches are passed on within the cluster, to the prefix that browsers have too.
    asked = urlsplit(settings.dagster_graphql)
    assert asked.hostname and "." not in asked.hostname
    assert asked.path == f"{urlsplit(settings.dagster_url).path}/graphql"


def test_no_secret_is_in_a_manifest() -> None:
    for path in Path(FOLDER).glob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"://[^\s:@/]+:[^\s@/]+@", text), path
        assert not re.search(r"(?i)(password|token|secret)\w*:\s*[\"']?[A-Za-z0-9+_][A-Za-z0-9+/_-]{15,}", text), path
