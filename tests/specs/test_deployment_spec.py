"""The rules of an endpoint."""

import pytest

from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.rules import image_for
from tests.specs.builders import DEPLOYMENT, GONE, POLICY, changed, deployment_faults, fields_of


def test_the_full_form_is_accepted():
    assert deployment_faults() == []


def test_what_has_a_default_may_be_left_out():
    spec = DeploymentSpec.model_validate(changed(DEPLOYMENT, load_mode=GONE, runtime=GONE, replicas=GONE, rollout=GONE))
    assert spec.endpoint == "qwen-legal"
    assert (spec.engine, spec.load_mode, spec.rollout.strategy) == ("transformers", "merged", "blue-green")
    assert (spec.replicas.min, spec.replicas.max) == (1, 1)


def test_an_endpoint_has_the_name_that_it_is_given():
    spec = DeploymentSpec.model_validate(changed(DEPLOYMENT, endpoint="support"))
    assert (spec.endpoint, spec.model_name) == ("support", "qwen-legal")


def test_a_strategy_left_out_is_blue_green():
    assert deployment_faults(rollout={}) == []
    assert deployment_faults(rollout={"traffic_split": {"old": 0, "new": 100}}) == ["rollout.traffic_split"]


@pytest.mark.parametrize(
    "missing", ["model_ref", "model_family", "job_type", "serve_target", "environment", "resources"]
)
def test_a_missing_field_is_named(missing):
    assert deployment_faults(**{missing: GONE}) == [missing]


@pytest.mark.parametrize(("ref", "version"), [("qwen-legal@3", "3"), ("qwen-legal@production", "production")])
def test_a_model_is_named_with_its_version_or_alias(ref, version):
    spec = DeploymentSpec.model_validate(changed(DEPLOYMENT, model_ref=ref))
    assert (spec.model_name, spec.model_version) == ("qwen-legal", version)


@pytest.mark.parametrize("ref", ["qwen-legal", "qwen-legal@", "@3", "a@1@2", "hf:x@1", "a b@1", 3])
def test_a_model_without_a_version_is_refused(ref):
    assert deployment_faults(model_ref=ref) == ["model_ref"]


def test_production_serves_merged_models_only():
    adapter = {"load_mode": "base+adapter", "engine": "vllm"}
    assert deployment_faults(**adapter, environment="production") == ["load_mode"]
    assert deployment_faults(**adapter, environment="staging") == ["load_mode"]
    assert deployment_faults(**adapter, environment="dev") == []
    for environment in ("dev", "staging", "production"):
        assert deployment_faults(environment=environment) == []


def test_only_vllm_serves_an_adapter_beside_its_base():
    assert deployment_faults(load_mode="base+adapter") == ["engine"]
    assert deployment_faults(load_mode="base+adapter", engine="vllm") == []


@pytest.mark.parametrize(("old", "new"), [(90, 11), (0, 0), (50, 49)])
def test_the_traffic_adds_up_to_100(old, new):
    assert deployment_faults(rollout__traffic_split={"old": old, "new": new}) == ["rollout.traffic_split"]


@pytest.mark.parametrize(("old", "new"), [(100, 0), (0, 100)])
def test_a_canary_leaves_users_to_both(old, new):
    assert deployment_faults(rollout__traffic_split={"old": old, "new": new}) == ["rollout.traffic_split.new"]


@pytest.mark.parametrize("split", [{"old": 110, "new": -10}, {"old": 90}, {"old": 89.5, "new": 10.5}])
def test_shares_are_whole_percents(split):
    assert deployment_faults(rollout__traffic_split=split)


def test_a_canary_needs_its_split_and_blue_green_has_none():
    assert deployment_faults(rollout={"strategy": "canary"}) == ["rollout.traffic_split"]
    assert deployment_faults(rollout__strategy="blue-green") == ["rollout.traffic_split"]
    assert deployment_faults(rollout={"strategy": "blue-green"}) == []
    assert deployment_faults(rollout__strategy="rolling") == ["rollout.strategy"]


def test_replicas_are_a_range():
    assert deployment_faults(replicas={"min": 3, "max": 1}) == ["replicas.max"]
    assert deployment_faults(replicas={"min": 2}) == ["replicas.max"]
    assert deployment_faults(replicas={"min": 0, "max": 1}) == ["replicas.min"]


def test_no_gpu_means_the_cpu():
    assert deployment_faults(resources={"gpus": 0}) == []
    assert deployment_faults(resources={"gpus": 0, "gpu_memory_gb": 80}) == []
    assert deployment_faults(resources={"gpus": -1}) == ["resources.gpus"]


@pytest.mark.parametrize(
    ("job_type", "target", "faults"),
    [
        ("PRETRAIN", "GENERATION", []),
        ("SFT", "GENERATION", []),
        ("RLHF", "GENERATION", []),
        ("RAG_TUNING", "GENERATION", []),
        ("RAG_TUNING", "RAG", []),
        ("SFT", "RAG", ["serve_target"]),
        ("EMBEDDING", "GENERATION", ["serve_target"]),
        ("EMBEDDING", "RAG", ["serve_target"]),
    ],
)
def test_a_purpose_serves_what_was_trained_for_it(job_type, target, faults):
    assert deployment_faults(job_type=job_type, serve_target=target) == faults


def test_encoders_generate_nothing():
    assert deployment_faults(model_family="bert") == ["model_family"]
    assert deployment_faults(model_family="bert", job_type="EMBEDDING") == ["serve_target"]


def test_a_family_outside_the_policy_is_not_deployed():
    assert deployment_faults(model_family="phi") == ["model_family"]


@pytest.mark.parametrize(("target", "job_type"), [("GENERATION", "SFT"), ("RAG", "RAG_TUNING")])
def test_the_image_follows_from_the_target(target, job_type):
    spec = DeploymentSpec.model_validate(changed(DEPLOYMENT, serve_target=target, job_type=job_type))
    assert image_for(POLICY, spec, registry="hub").startswith(f"hub/llm-serve-{target.lower()}:")


def test_another_image_is_for_a_role_of_the_policy():
    data = changed(DEPLOYMENT, image="mine:1")
    assert fields_of(DeploymentSpec, data) == ["image"]
    assert image_for(POLICY, DeploymentSpec.model_validate(data), role="admin") == "mine:1"


def test_all_faults_are_reported_at_once():
    found = deployment_faults(
        model_family="bert",
        environment="prod",
        load_mode="base+adapter",
        replicas={"min": 3, "max": 1},
        rollout__traffic_split={"old": 1, "new": 1},
        resources={"gpu": 1},
    )
    assert found == [
        "engine",
        "environment",
        "model_family",
        "replicas.max",
        "resources.gpu",
        "resources.gpus",
        "rollout.traffic_split",
    ]


@pytest.mark.parametrize(
    ("rag", "faults"),
    [
        ({"index": "desk"}, []),
        ({"index": "desk", "template": "{passages}\n{question}"}, []),
        ({"index": "desk", "template": "{question}"}, ["rag.template"]),
        ({"index": "desk", "template": "{context} {passages} {question}"}, ["rag.template"]),
        ({"index": "desk", "template": "{context}{context} {question}"}, ["rag.template"]),
        ({"index": "desk", "template": "{context}"}, ["rag.template"]),
        ({"index": "a/b"}, ["rag.index"]),
        ({"index": "desk", "top_k": 0, "mode": "all", "min_score": 2}, ["rag.min_score", "rag.mode", "rag.top_k"]),
        ({"top_k": 2}, ["rag.index"]),
        ({"index": "desk", "tempalte": "x"}, ["rag.tempalte"]),
    ],
)
def test_what_retrieval_is_asked_for_is_checked(rag, faults):
    assert deployment_faults(serve_target="RAG", job_type="RAG_TUNING", rag=rag) == faults


def test_retrieval_is_for_endpoints_that_answer_from_documents():
    assert deployment_faults(rag={"index": "desk"}) == ["rag"]
    # Endpoints that an earlier release kept have none, and still open.
    assert deployment_faults(serve_target="RAG", job_type="RAG_TUNING") == []
