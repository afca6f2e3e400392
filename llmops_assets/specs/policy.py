"""The policy of an installation: which models, images, data and releases are allowed, read from one YAML file."""

from pathlib import Path
from typing import get_args

import yaml
from pydantic import Field, ValidationError, model_validator

from llmops_assets.specs.access import AccessPolicy
from llmops_assets.specs.alerts import AlertPolicy
from llmops_assets.specs.base import Float, Int, Part, SpecError, SpecFault, Text, faults_of
from llmops_assets.specs.dataset_rules import DatasetPolicy
from llmops_assets.specs.evaluation_rules import EvaluationPolicy, Gate
from llmops_assets.specs.experiment_rules import DriftRules, ExperimentPolicy, Judging, TrafficPolicy
from llmops_assets.specs.families import Family
from llmops_assets.specs.job_types import JOB_TYPES, JobType, ServeTarget
from llmops_assets.specs.kubernetes import Kubernetes
from llmops_assets.specs.prices import Prices
from llmops_assets.specs.serving_rules import RegistryPolicy, ServingPolicy

DEFAULT_POLICY = Path(__file__).with_name("policy.yaml")


class Images(Part):
    """Image names without their registry."""

    train: dict[JobType, Text]
    serve: dict[ServeTarget, Text]
    override_roles: list[Text] = Field(default_factory=list)


class Limits(Part):
    """The largest that is accepted of each."""

    max_seq_len: dict[JobType, Int] = Field(default_factory=dict)
    max_samples: Int = Field(ge=1)
    max_upload_bytes: Int = Field(ge=1)
    max_decompressed_bytes: Int = Field(ge=1)
    max_line_bytes: Int = Field(ge=1)
    model_versions: Int = Field(ge=1)
    max_gpus: Int = Field(ge=0)
    max_nodes: Int = Field(ge=1)
    max_dropped_rows: Float = Field(
        default=0.2, ge=0, le=1, description="Share of rows that overlong: drop may leave out of a training."
    )
    max_cut_answers: Float = Field(
        default=0.05, ge=0, le=1, description="Share of rows whose answer may be cut, in training or evaluation."
    )


class Policy(Part):
    """Everything that specs and stages are held to."""

    families: dict[Text, Family] = Field(min_length=1)
    images: Images
    gates: dict[JobType, Gate]
    evaluation: EvaluationPolicy = Field(default_factory=EvaluationPolicy)
    limits: Limits
    datasets: DatasetPolicy
    experiments: ExperimentPolicy
    serving: ServingPolicy
    traffic: TrafficPolicy = Field(default_factory=TrafficPolicy)
    drift: DriftRules = Field(default_factory=DriftRules)
    judging: Judging = Field(default_factory=Judging)
    alerts: AlertPolicy = Field(default_factory=AlertPolicy)
    prices: Prices = Field(default_factory=Prices)
    registry: RegistryPolicy = Field(default_factory=RegistryPolicy)
    kubernetes: Kubernetes = Field(default_factory=Kubernetes)
    access: AccessPolicy = Field(default_factory=AccessPolicy)

    def is_judged(self, endpoint: str) -> bool:
        """Whether a sample of an endpoint's answers is judged."""
        return self.evaluation.judge is not None and self.judging.share_of(endpoint) > 0

    @model_validator(mode="after")
    def _complete(self) -> "Policy":
        for what, given in (("images.train", self.images.train), ("gates", self.gates)):
            if missing := [job for job in JOB_TYPES if job not in given]:
                raise ValueError(f"{what} says nothing about {', '.join(missing)}")
        for what, given in (("images.serve", self.images.serve), ("serving.targets", self.serving.targets)):
            if missing := [target for target in get_args(ServeTarget) if target not in given]:
                raise ValueError(f"{what} says nothing about {', '.join(missing)}")
        return self


def load_policy(path: Path | None = None) -> Policy:
    """Read the policy at `path`, by default the one in the package; raise SpecError with every fault of it."""
    path = Path(path) if path else DEFAULT_POLICY
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError([SpecFault("", f"the policy cannot be read: {error}", file=str(path))]) from error
    try:
        return Policy.model_validate(data)
    except ValidationError as error:
        raise SpecError(faults_of(error, Policy, str(path))) from error
