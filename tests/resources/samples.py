"""What the tests of the catalog put into it."""

from datetime import UTC, datetime

from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from resources.catalog import tables


def dataset(version: str = "v1", **changes) -> DatasetSpec:
    values = {"name": "desk", "version": version, "type": "sft_pair", "files": ["desk.jsonl"], "owner": "team:desk"}
    return DatasetSpec.model_validate({**values, "description": "a desk", **changes})


def deployment(model: str = "desk@1", **changes) -> DeploymentSpec:
    values = {
        "model_ref": model,
        "model_family": "llama",
        "job_type": "SFT",
        "serve_target": "GENERATION",
        "environment": "dev",
        "endpoint": "desk",
        "resources": {"gpus": 0},
    }
    return DeploymentSpec.model_validate({**values, **changes})


def experiment(name: str = "base-or-tuned", **changes) -> ExperimentSpec:
    values = {"name": name, "endpoint": "desk", "control": "base@1", "treatment": "desk@1", "duration_hours": 24}
    return ExperimentSpec.model_validate({**values, **changes})


def exposure(request_id: str, **changes) -> dict:
    row = {c.name: None for c in tables.exposures.columns}
    row |= {"request_id": request_id, "at": datetime.now(UTC), "endpoint": "desk", "experiment": "base-or-tuned"}
    row |= {"phase": 1, "variant": 0, "backend": "b1", "model_ref": "base@1", "user": "u1", "status": 200}
    return row | {"latency_ms": 12.5} | changes
