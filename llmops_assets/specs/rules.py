"""What a valid spec is further held to: the policy, and what the catalog and the base model say."""

from typing import Any

from llmops_assets.specs.base import Spec, SpecError, SpecFault
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.training import DATASET_TYPE_OF, TrainJobSpec


def check_against_policy(spec: Spec, policy: Policy, role: str | None = None) -> list[SpecFault]:
    """Every way in which `spec` breaks `policy`. `role` is that of the user who asks, for overriding an image."""
    if isinstance(spec, TrainJobSpec):
        return _family_faults(spec, policy) + _training_faults(spec, policy) + _image_faults(spec, policy, role)
    if isinstance(spec, DeploymentSpec):
        return _family_faults(spec, policy) + _serving_faults(spec, policy) + _image_faults(spec, policy, role)
    if isinstance(spec, ExperimentSpec):
        return _experiment_faults(spec, policy)
    return []


def image_for(
    policy: Policy, spec: TrainJobSpec | DeploymentSpec, registry: str = "registry", role: str | None = None
) -> str:
    """The image that `spec` runs in: fixed by its job type or serve target, unless the policy lets `role` override it.

    Raises SpecError when the spec names an image of its own and `role` may not.
    """
    if faults := _image_faults(spec, policy, role):
        raise SpecError(faults)
    return spec.image or f"{registry}/{_fixed_image(policy, spec)}"


def check_dataset(spec: TrainJobSpec, dataset_type: str, status: str = "active") -> list[SpecFault]:
    """Whether the registered dataset that `spec` names can be trained on: its type and its status."""
    faults = []
    wanted = DATASET_TYPE_OF[spec.job_type]
    if dataset_type != wanted:
        faults.append(
            SpecFault(
                "dataset_ref",
                f"{spec.dataset_ref} is of type {dataset_type}, but {spec.job_type} trains on {wanted}",
                f"Name a {wanted} dataset",
            )
        )
    if status == "archived":
        faults.append(SpecFault("dataset_ref", f"{spec.dataset_ref} is archived", "Name an active version"))
    return faults


def check_base(spec: TrainJobSpec, config: dict[str, Any], job_type: str | None = None) -> list[SpecFault]:
    """Whether the base model fits `spec`: its config.json, and the job that made it (None when not made here)."""
    faults = []
    longest = config.get("max_position_embeddings")
    if isinstance(longest, int) and spec.hyperparams.max_seq_len > longest:
        faults.append(
            SpecFault(
                "hyperparams.max_seq_len",
                f"{spec.hyperparams.max_seq_len} is more than the base model's max_position_embeddings {longest}",
                f"Write {longest} or less",
            )
        )
    if spec.job_type == "RLHF" and job_type not in (None, "SFT"):
        faults.append(
            SpecFault(
                "base_model_ref",
                f"RLHF starts from an SFT model, but {spec.base_model_ref} was made by {job_type}",
                "Train it by SFT first, and name that training",
            )
        )
    return faults


def _family_faults(spec: TrainJobSpec | DeploymentSpec, policy: Policy) -> list[SpecFault]:
    family = policy.families.get(spec.model_family)
    if family is None:
        known = ", ".join(policy.families)
        return [SpecFault("model_family", f"'{spec.model_family}' is not allowed by the policy", f"Allowed: {known}")]
    if spec.job_type not in family.job_types:
        able = [name for name, other in policy.families.items() if spec.job_type in other.job_types]
        return [
            SpecFault(
                "model_family",
                f"{spec.model_family} is not allowed for {spec.job_type}",
                f"{spec.job_type} takes {', '.join(able)}; {spec.model_family} is for {', '.join(family.job_types)}",
            )
        ]
    return []


def _training_faults(spec: TrainJobSpec, policy: Policy) -> list[SpecFault]:
    faults = []
    longest = policy.limits.max_seq_len.get(spec.job_type)
    if longest is not None and spec.hyperparams.max_seq_len > longest:
        faults.append(
            SpecFault(
                "hyperparams.max_seq_len",
                f"{spec.hyperparams.max_seq_len} is more than the {longest} that {spec.job_type} may use",
                f"Write {longest} or less",
            )
        )
    for name, limit in (("gpus", policy.limits.max_gpus), ("nodes", policy.limits.max_nodes)):
        if (asked := getattr(spec.resources, name)) > limit:
            faults.append(
                SpecFault(f"resources.{name}", f"{asked} is more than the policy allows", f"Write {limit} or less")
            )
    return faults


def _serving_faults(spec: DeploymentSpec, policy: Policy) -> list[SpecFault]:
    faults = []
    able = policy.serving.targets[spec.serve_target]
    if spec.job_type not in able:
        faults.append(
            SpecFault(
                "serve_target",
                f"a model made by {spec.job_type} cannot be served for {spec.serve_target}",
                f"{spec.serve_target} serves what {', '.join(able)} made",
            )
        )
    allowed = policy.serving.adapter_environments
    # Of production the spec itself says so.
    if spec.load_mode == "base+adapter" and spec.environment not in (*allowed, "production"):
        faults.append(
            SpecFault(
                "load_mode",
                f"base+adapter is for research endpoints, not for {spec.environment}",
                f"Write load_mode: merged, or environment: {' or '.join(allowed)}",
            )
        )
    return faults


def _experiment_faults(spec: ExperimentSpec, policy: Policy) -> list[SpecFault]:
    faults = []
    rules = policy.experiments
    if spec.target_users_per_arm < rules.users_per_arm:
        faults.append(
            SpecFault(
                "target_users_per_arm",
                f"{spec.target_users_per_arm} users an arm are too few to decide on",
                f"Write {rules.users_per_arm} or more",
            )
        )
    if spec.duration_hours > rules.max_duration_hours:
        faults.append(
            SpecFault(
                "duration_hours",
                f"{spec.duration_hours:g} is longer than the policy allows",
                f"Write {rules.max_duration_hours:g} or less",
            )
        )
    return faults


def _fixed_image(policy: Policy, spec: TrainJobSpec | DeploymentSpec) -> str:
    if isinstance(spec, TrainJobSpec):
        return policy.images.train[spec.job_type]
    return policy.images.serve[spec.serve_target]


def _image_faults(spec: TrainJobSpec | DeploymentSpec, policy: Policy, role: str | None) -> list[SpecFault]:
    fixed = _fixed_image(policy, spec)
    if spec.image is None or spec.image == fixed or role in policy.images.override_roles:
        return []
    roles = ", ".join(policy.images.override_roles) or "nobody"
    return [
        SpecFault(
            "image",
            f"the image is fixed to {fixed}, and overriding it is for {roles}",
            "Remove it, or ask one of them to run the job",
        )
    ]
