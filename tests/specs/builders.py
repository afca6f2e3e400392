"""Valid specs of every kind to depart from, and the faults of a departure."""

import copy
from typing import Any

from pydantic import ValidationError

from llmops_assets.specs.base import Spec, SpecFault, faults_of
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.rules import check_against_policy, policy_faults
from llmops_assets.specs.training import TrainJobSpec

GONE = object()
_HYPER = {"lr": 2e-4, "batch_size": 4, "num_epochs": 3, "max_seq_len": 2048}
_COMMON = {"method": "lora", "hyperparams": _HYPER, "resources": {"gpus": 1}, "output": {"artifact_name": "model"}}

JOBS: dict[str, dict[str, Any]] = {
    "PRETRAIN": {
        **_COMMON,
        "job_type": "PRETRAIN",
        "model_family": "llama",
        "base_model_ref": None,
        "dataset_ref": "corpus@v1",
        "method": "full",
    },
    "SFT": {
        **_COMMON,
        "job_type": "SFT",
        "model_family": "llama",
        "base_model_ref": "llama-3-8b",
        "dataset_ref": "desk@v1",
    },
    "RAG_TUNING": {
        **_COMMON,
        "job_type": "RAG_TUNING",
        "model_family": "mistral",
        "base_model_ref": "mistral-7b@1",
        "dataset_ref": "qa@v1",
        "rag": {"retriever_type": "dense", "retriever_model_ref": "bge-large-v1"},
    },
    "RLHF": {
        **_COMMON,
        "job_type": "RLHF",
        "model_family": "qwen",
        "base_model_ref": "desk@v1|model-0011aabb",
        "dataset_ref": "pairs@v1",
        "rlhf": {"reward_model_ref": "rm-llama-3-8b-v1", "kl_coeff": 0.1, "ppo_steps": 1000},
    },
    "EMBEDDING": {
        **_COMMON,
        "job_type": "EMBEDDING",
        "model_family": "bert",
        "base_model_ref": "hf:models/bert",
        "dataset_ref": "anchors@v1",
        "method": "full",
    },
}

DEPLOYMENT: dict[str, Any] = {
    "model_ref": "qwen-legal@3",
    "model_family": "qwen",
    "job_type": "SFT",
    "serve_target": "GENERATION",
    "load_mode": "merged",
    "environment": "dev",
    "resources": {"gpus": 2, "gpu_memory_gb": 80},
    "runtime": {"max_concurrent_requests": 256, "max_input_tokens": 4096, "max_output_tokens": 1024},
    "replicas": {"min": 1, "max": 3},
    "rollout": {"strategy": "canary", "traffic_split": {"old": 90, "new": 10}},
}

EXPERIMENT: dict[str, Any] = {
    "name": "v3-against-v2",
    "endpoint": "support",
    "control": "model@2",
    "treatment": "model@3",
    "duration_hours": 336,
}

POLICY = load_policy()


def changed(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A deep copy with dotted paths (``__`` for the dot) set, or taken away when the value is GONE."""
    data = copy.deepcopy(data)
    for path, value in changes.items():
        *blocks, leaf = path.split("__")
        block = data
        for name in blocks:
            block = block.setdefault(name, {})
        if value is GONE:
            del block[leaf]
        else:
            block[leaf] = value
    return data


def faults_in(model: type[Spec], data: dict[str, Any], policy: Policy = POLICY) -> list[SpecFault]:
    """Every fault of `data`, those against the policy too."""
    try:
        spec = model.model_validate(data)
    except ValidationError as error:
        return faults_of(error, model) + policy_faults(model, model.readable(data, error), policy)
    return check_against_policy(spec, policy)


def fields_of(model: type[Spec], data: dict[str, Any], policy: Policy = POLICY) -> list[str]:
    """The field paths of every fault, sorted."""
    return sorted(fault.field for fault in faults_in(model, data, policy))


def job(name: str, **changes: Any) -> dict[str, Any]:
    return changed(JOBS[name], **changes)


def training_faults(name: str, **changes: Any) -> list[str]:
    return fields_of(TrainJobSpec, job(name, **changes))


def deployment_faults(**changes: Any) -> list[str]:
    return fields_of(DeploymentSpec, changed(DEPLOYMENT, **changes))


def experiment_faults(**changes: Any) -> list[str]:
    return fields_of(ExperimentSpec, changed(EXPERIMENT, **changes))
