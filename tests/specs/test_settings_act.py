"""Nothing that users can write does nothing: every field acts, is refused, or is said to be set aside."""

import ast
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from images.gateway.routes import _endpoint
from llmops_assets.experiments.analysis import plan_of
from llmops_assets.experiments.decision import Decision, model_for
from llmops_assets.operations.scaling import wanted_replicas
from llmops_assets.records.registry import RegisteredModelRecord
from llmops_assets.registry.capacity import capacity
from llmops_assets.serving.rollout import NotAdmitted, admit, device_reasons, plan, target_of
from llmops_assets.serving.rollout_steps import Step, judge
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.rules import check_against_policy, image_for
from resources.catalog import Endpoint
from resources.gpus import parse_nvidia_smi
from resources.tracking import ModelVersion
from tests.specs.builders import DEPLOYMENT, EXPERIMENT, GONE, POLICY, changed, faults_in

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 1, 1, tzinfo=UTC)
GPUS = parse_nvidia_smi("0, GPU-1, NVIDIA H100 80GB HBM3, 81559\n1, GPU-2, NVIDIA A10, 23028\n")
MODEL = RegisteredModelRecord(
    dataset="d@v1", recipe="r", name="qwen-legal", version=3, path="/nowhere", content_hash="h", family="qwen",
    job_type="SFT", mlflow_run_id=None, card="",
)  # fmt: skip


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted paths of all fields that hold no further block."""
    for name, field in model.model_fields.items():
        blocks = [a for a in (field.annotation, *get_args(field.annotation)) if _is_block(a)]
        if blocks:
            yield from leaves(blocks[0], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _is_block(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, BaseModel)


def effects_of_deployment(spec: DeploymentSpec) -> list[Any]:
    """All that an endpoint's spec decides, as the platform works it out."""
    entry = Endpoint(
        name=spec.endpoint, spec=spec, revision=1, observed_revision=0, state="live", message="", routes=[], phase=1,
        salt="s", created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    with pytest.raises(NotAdmitted) as refused:
        admit(MODEL, "draft", spec, POLICY, lambda: GPUS)
    return [
        spec.model_ref,
        target_of(spec, MODEL),
        str(refused.value),
        device_reasons(spec, GPUS),
        _endpoint(entry, {}, None),
        image_for(POLICY, spec, role="admin"),
        spec.notes(),
        wanted_replicas(1, 10, None, spec.replicas),
        wanted_replicas(1, 1, 900.0, spec.replicas),
        [judge(traffic(*asked), STEP, spec.rollout.analysis) for asked in ((10, 0), (200, 60), (200, 0))],
        # What these do, tests of rollouts and of scaling show.
        (spec.rollout.pause_seconds, spec.rollout.advance, spec.replicas.cooldown_seconds),
    ]


STEP = Step(0, 2, 10.0, "new", "old", NOW)


def traffic(requests: int, failures: int) -> dict[str, dict[str, float]]:
    new = {"requests": requests, "failures": failures, "latency_ms": 900.0}
    return {"new": new, "old": {"requests": 500, "failures": 1, "latency_ms": 300.0}}


DEPLOYMENT_CHANGES: dict[str, Any] = {
    "model_ref": "qwen-legal@4",
    "model_family": "mistral",
    "job_type": "RLHF",
    "serve_target": "RAG",
    "endpoint": "other",
    "engine": "vllm",
    "load_mode": "base+adapter",
    "environment": "production",
    "resources.gpus": 1,
    "resources.gpu_memory_gb": 200,
    "runtime.max_concurrent_requests": 1,
    "runtime.max_input_tokens": 1,
    "runtime.max_output_tokens": 1,
    "runtime.tool_call_parser": "hermes",
    "runtime.backend": "docker",
    "runtime.url": "http://other:8000",
    "runtime.model": "other",
    "runtime.api_key_variable": "OTHER_KEY",
    "replicas.min": 2,
    "replicas.max": 1,
    "replicas.target_in_flight": 1,
    "replicas.target_latency_ms": 1,
    "replicas.cooldown_seconds": 1,
    "rollout.strategy": "blue-green",
    "rollout.traffic_split.old": 80,
    "rollout.traffic_split.new": 20,
    "shadow.endpoint": "another",
    "shadow.percent": 50,
    "cache.ttl_seconds": 5,
    "cache.max_entries": 5,
    "cache.scope": "team",
    "cache.sampled": True,
    "prompt.name": "desk",
    "prompt.alias": "production",
    "prompt.version": 1,
    "guards.input.personal_data.action": "refuse",
    "guards.input.personal_data.names": True,
    "guards.input.injection.action": "flag",
    "guards.input.injection.classifier": True,
    "guards.input.harm.action": "flag",
    "guards.input.length.action": "flag",
    "guards.input.length.max_characters": 9,
    "guards.input.length.max_tokens": 9,
    "guards.input.language.action": "flag",
    "guards.input.language.allowed": ["ko"],
    "guards.input.language.min_share": 0.9,
    "guards.input.language.min_letters": 9,
    "guards.output.personal_data.action": "refuse",
    "guards.output.personal_data.names": True,
    "guards.output.harm.action": "flag",
    "guards.output.length.action": "flag",
    "guards.output.length.max_characters": 9,
    "guards.output.length.max_tokens": 9,
    "guards.output.language.action": "flag",
    "guards.output.language.allowed": ["ko"],
    "guards.output.language.min_share": 0.9,
    "guards.output.language.min_letters": 9,
    "rollout.steps": [1, 100],
    "rollout.pause_seconds": 1,
    "rollout.advance": "manual",
    "rollout.analysis.min_requests": 1,
    "rollout.analysis.max_failures": 0.9,
    "rollout.analysis.max_slowdown": 1.5,
    "rollout.warm_seconds": 7,
    "rollout.keep_models": 2,
    "holdout.percent": 5,
    "holdout.model_ref": "qwen-legal@2",
    "image": "registry/other:1",
    "rag.index": "manuals",
    "rag.top_k": 2,
    "rag.mode": "dense",
    "rag.min_score": 0.5,
    "rag.reranker": "/nowhere",
    "rag.candidates": 30,
    "rag.template": "{passages} {question}",
    "rag.max_passage_tokens": 99,
    "rag.refuse_when_nothing": True,
    "rag.refusal": "no",
    "rag.timeout_seconds": 1,
}


def test_every_field_of_a_deployment_acts_is_refused_or_is_said_to_be_set_aside():
    assert set(DEPLOYMENT_CHANGES) == set(leaves(DeploymentSpec)), "a new field needs a line here, and an effect"
    before = effects_of_deployment(DeploymentSpec.model_validate(DEPLOYMENT))
    for path, value in DEPLOYMENT_CHANGES.items():
        data = changed(DEPLOYMENT, **{path.replace(".", "__"): value})
        if faults_in(DeploymentSpec, data):
            continue
        assert effects_of_deployment(DeploymentSpec.model_validate(data)) != before, path


def test_every_field_of_retrieval_reaches_the_gateway_with_the_route():
    base = changed(DEPLOYMENT, serve_target="RAG", job_type="RAG_TUNING", rag={"index": "desk"}, rollout=GONE)

    def asked(**changes: Any) -> Any:
        spec = DeploymentSpec.model_validate(changed(base, **changes))
        entry = Endpoint(
            name=spec.endpoint, spec=spec, revision=1, observed_revision=0, state="live", message="",
            routes=plan(target_of(spec, MODEL), [], []).routes, phase=1, salt="s", created_at=NOW, updated_at=NOW,
        )  # fmt: skip
        return _endpoint(entry, {}, None).retrieval["0"]

    before = asked()
    assert before.rag.index == "desk" and before.url is None
    for path, value in DEPLOYMENT_CHANGES.items():
        if path.startswith("rag."):
            assert asked(**{path.replace(".", "__"): value}).rag != before.rag, path


def test_what_a_deployment_sets_aside_is_said():
    def notes(**changes: Any) -> str:
        return " ".join(DeploymentSpec.model_validate(changed(DEPLOYMENT, **changes)).notes())

    assert "gpu_memory_gb is ignored" in notes(resources={"gpus": 0, "gpu_memory_gb": 80})
    assert "transformers serves on one GPU of the 2" in notes()
    elsewhere = {"backend": "url", "url": "http://vllm:8000"}
    assert "replicas is ignored" in notes(runtime=elsewhere)
    assert notes(engine="vllm") == ""
    assert notes(replicas=GONE, resources={"gpus": 0}) == ""


def test_a_gpu_with_too_little_memory_is_refused_before_a_server_starts():
    def reasons(**resources: int) -> str:
        spec = DeploymentSpec.model_validate(changed(DEPLOYMENT, resources=resources))
        return " ".join(device_reasons(spec, GPUS))

    assert reasons(gpus=1, gpu_memory_gb=80) == ""
    assert "80 GB on each of 2 GPUs, and here are: NVIDIA A10 with 24 GB" in reasons(gpus=2, gpu_memory_gb=80)
    assert "asks for 4, and this machine has 2" in reasons(gpus=4)
    assert reasons(gpus=0, gpu_memory_gb=80) == ""
    assert reasons(gpus=2) == ""


EXPERIMENT_CHANGES: dict[str, Any] = {
    "name": "other",
    "endpoint": "other",
    "control": "model@1",
    "treatment": "model@4",
    # Each has a comparison of its own; the split says how many there are.
    "other_treatments": ["model@5"],
    "split": [80, 20],
    "duration_hours": 12,
    "target_users_per_arm": 300,
    "expected_users": 900,
    "success_metric": "clicks",
    "rating_window_hours": 1,
    "minimum_effect": 0.1,
    "guardrails.slow_requests": 0.2,
    "guardrails.failed_requests": 0.2,
    "auto_promote": False,
    # For people: it stands where the experiment is shown.
    "description": "the longer prompt",
}


def effects_of_experiment(spec: ExperimentSpec) -> list[Any]:
    promoted = spec.endpoint, model_for(Decision("promote", "better", NOW), spec)
    return [spec.name, plan_of(spec, POLICY.experiments, NOW), spec.weights, promoted, spec.description]


def test_every_field_of_an_experiment_acts_or_is_refused():
    assert set(EXPERIMENT_CHANGES) == set(leaves(ExperimentSpec))
    before = effects_of_experiment(ExperimentSpec.model_validate(EXPERIMENT))
    for path, value in EXPERIMENT_CHANGES.items():
        data = changed(EXPERIMENT, **{path.replace(".", "__"): value})
        if faults := faults_in(ExperimentSpec, data):
            assert path == "success_metric" and "user_rating" in str(faults[0])
            continue
        assert effects_of_experiment(ExperimentSpec.model_validate(data)) != before, path


@cache
def attributes_read() -> frozenset[str]:
    """Every attribute that some module of ours reads, that of the policy's own definition aside."""
    found: set[str] = set()
    for folder in ("llmops_assets", "resources", "images", "sensors"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "policy.py":
                continue
            tree = ast.parse(path.read_text(encoding="utf-8"))
            found |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return frozenset(found)


def test_every_field_of_the_policy_is_read_by_something():
    within = {"rule", "version", "vocab_size_at_least", "rope_theta_at_least", "rope_type", "min_version"}
    # How verify_family, in the policy's own module, tells a family.
    within |= {"architectures", "encoder_architectures", "model_types", "version_signs", "at_least", "at_most"}
    within |= {"n_at_least", "decided_by", "override_roles"}
    known = attributes_read() | within
    # A pod's tolerations are handed to the cluster as they are written.
    paths = [path for path in leaves(Policy) if "tolerations." not in path]
    assert [path for path in paths if path.rpartition(".")[2] not in known] == []


def version(number: int, state: str = "draft") -> ModelVersion:
    tags = {"state": state, "content_hash": f"h{number}"}
    return ModelVersion("desk", number, NOW, NOW, "/models", "", None, (), tags)


def test_the_registry_takes_as_many_versions_as_the_policy_allows():
    versions = [version(n) for n in range(1, 9)]
    assert capacity("desk", versions[:7], "new", 10).text == ""
    near = capacity("desk", versions, "new", 10)
    assert near.passed and "9 of 10 versions" in near.text
    full = capacity("desk", versions, "new", 8)
    assert not full.passed and "allows 8" in full.text and "desk@1, the oldest that nobody uses" in full.text
    assert capacity("desk", versions, "h3", 8).passed, "what is registered takes no more room"
    archived = [version(n, "archived") for n in range(1, 9)]
    assert capacity("desk", archived, "new", 8).text == ""


@pytest.mark.parametrize("scale", [{"low": 0, "high": 5}, {"low": 1, "high": 10}, {"low": 5, "high": 5}])
def test_a_scale_of_ratings_that_nobody_keeps_is_refused(scale: dict[str, int]):
    data = POLICY.model_dump()
    data["experiments"]["rating"] = scale
    with pytest.raises(ValueError, match="rating"):
        Policy.model_validate(data)
    assert check_against_policy(ExperimentSpec.model_validate(EXPERIMENT), POLICY) == []
