"""What a valid spec is further held to: the policy, and what the catalog and the base model say."""

from collections.abc import Iterator
from typing import Any

from llmops_assets.specs.base import Rule, Spec, SpecError, SpecFault, View
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.job_types import JOB_TYPES
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.training import TrainJobSpec


def check_against_policy(spec: Spec, policy: Policy, role: str | None = None) -> list[SpecFault]:
    """Every way in which `spec` breaks `policy`. `role` is that of the user who asks, for overriding an image."""
    return policy_faults(type(spec), View(spec.model_dump()), policy, role)


def policy_faults(model: type[Spec], view: View, policy: Policy, role: str | None = None) -> list[SpecFault]:
    """The same, of what can be read of a spec that has other faults."""
    found: list[Rule] = []
    if model is TrainJobSpec:
        found += [*_family_rules(view, policy), *_training_rules(view, policy), *_image_rules(view, policy, role)]
    elif model is DeploymentSpec:
        found += [*_family_rules(view, policy), *_serving_rules(view, policy), *_image_rules(view, policy, role)]
    elif model is ExperimentSpec:
        found += _experiment_rules(view, policy)
    return [SpecFault(*rule) for rule in found]


def image_for(
    policy: Policy, spec: TrainJobSpec | DeploymentSpec, registry: str = "registry", role: str | None = None
) -> str:
    """The image that `spec` runs in: fixed by its job type or serve target, unless the policy lets `role` override it.

    Raises SpecError when the spec names an image of its own and `role` may not.
    """
    view = View(spec.model_dump())
    if faults := [SpecFault(*rule) for rule in _image_rules(view, policy, role)]:
        raise SpecError(faults)
    return spec.image or f"{registry}/{_fixed_image(view, policy)}"


def check_dataset(spec: TrainJobSpec, dataset_type: str, status: str = "active") -> list[SpecFault]:
    """Whether the registered dataset that `spec` names can be trained on: its type and its status."""
    faults = []
    wanted = spec.dataset_type
    if dataset_type != wanted:
        faults.append(
            SpecFault(
                "dataset_ref",
                f"{spec.dataset_ref} is of type {dataset_type}, but {_trained(spec)} trains on {wanted}",
                f"Name a {wanted} dataset{_other_algorithm(spec, dataset_type)}",
            )
        )
    if status == "erased":
        hint = "`llmops dataset erasures` says which version has its other rows"
        faults.append(SpecFault("dataset_ref", f"{spec.dataset_ref} was erased on a person's request", hint))
    if status == "archived":
        faults.append(SpecFault("dataset_ref", f"{spec.dataset_ref} is archived", "Name an active version"))
    return faults


def _trained(spec: TrainJobSpec) -> str:
    return f"{spec.job_type} by {spec.rlhf.algorithm}" if spec.rlhf is not None else spec.job_type


def _other_algorithm(spec: TrainJobSpec, dataset_type: str) -> str:
    if spec.job_type != "RLHF" or dataset_type not in ("kto", "rlhf_pair"):
        return ""
    return ", or write rlhf.algorithm: kto" if dataset_type == "kto" else ", or write rlhf.algorithm: dpo"


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


def _family_rules(view: View, policy: Policy) -> Iterator[Rule]:
    name, job = view.get("model_family", str), view.get("job_type", str)
    if name is None:
        return
    family = policy.families.get(name)
    if family is None:
        known = ", ".join(policy.families)
        yield "model_family", f"'{name}' is not allowed by the policy", f"Allowed: {known}"
    elif job in JOB_TYPES and job not in family.job_types:
        able = ", ".join(other for other, rules in policy.families.items() if job in rules.job_types)
        own = ", ".join(family.job_types)
        yield "model_family", f"{name} is not allowed for {job}", f"{job} takes {able}; {name} is for {own}"


def _training_rules(view: View, policy: Policy) -> Iterator[Rule]:
    job = view.get("job_type", str)
    longest, length = policy.limits.max_seq_len.get(job), view.get("hyperparams.max_seq_len", int)
    if longest is not None and length is not None and length > longest:
        yield (
            "hyperparams.max_seq_len",
            f"{length} is more than the {longest} that {job} may use",
            f"Write {longest} or less",
        )
    yield from _without_effect(job, view)
    for name, limit in (("gpus", policy.limits.max_gpus), ("nodes", policy.limits.max_nodes)):
        asked = view.get(f"resources.{name}", int)
        if asked is not None and asked > limit:
            yield f"resources.{name}", f"{asked} is more than the policy allows", f"Write {limit} or less"


def _without_effect(job: str | None, view: View) -> Iterator[Rule]:
    """Settings that do nothing for this job: asked for anew they are refused, and what was trained with them opens."""
    if job == "PRETRAIN" and view.get("hyperparams.packing", bool):
        yield "hyperparams.packing", "has no effect for PRETRAIN, which fills every block anyway", "Remove it"
    if view.get("hyperparams.precision") == "bf16" and view.get("resources.gpus", int) == 0:
        yield (
            "hyperparams.precision",
            "bf16 has no effect where resources.gpus is 0: a CPU trains in fp32",
            "Write fp32",
        )
    judge = view.get("evaluation.judge", str)
    if job in ("PRETRAIN", "EMBEDDING") and judge not in (None, "exact"):
        yield (
            "evaluation.judge",
            f"{judge} has no effect for {job}, whose test split has no answers to judge",
            "Remove it; suites have judges of their own",
        )
    metrics = view.get("evaluation.metrics", list)
    if view.get("evaluation.encoder") is not None and metrics is not None and "bertscore" not in metrics:
        yield (
            "evaluation.encoder",
            "has no effect without bertscore among evaluation.metrics",
            "Add bertscore, or remove the encoder",
        )
    stopping, steps = view.get("hyperparams.early_stopping"), view.get("hyperparams.max_steps", int)
    look = view.get("hyperparams.eval_steps", int)
    if stopping is None and look is not None and steps is not None and look > steps:
        yield "hyperparams.eval_steps", f"{look} is more than max_steps {steps}: it would never validate", "Lower it"


def _serving_rules(view: View, policy: Policy) -> Iterator[Rule]:
    job, target = view.get("job_type", str), view.get("serve_target", str)
    able = policy.serving.targets.get(target)
    if able is not None and job in JOB_TYPES and job not in able:
        yield (
            "serve_target",
            f"a model made by {job} cannot be served for {target}",
            f"{target} serves what {', '.join(able)} made",
        )
    environment, allowed = view.get("environment", str), policy.serving.adapter_environments
    # Of production the spec itself says so.
    if view.get("load_mode") == "base+adapter" and environment and environment not in (*allowed, "production"):
        yield (
            "load_mode",
            f"base+adapter is for research endpoints, not for {environment}",
            f"Write load_mode: merged, or environment: {' or '.join(allowed)}",
        )


def _experiment_rules(view: View, policy: Policy) -> Iterator[Rule]:
    users, least = view.get("target_users_per_arm", int), policy.experiments.users_per_arm
    if users is not None and users < least:
        yield "target_users_per_arm", f"{users} users an arm are too few to decide on", f"Write {least} or more"
    hours, longest = view.number("duration_hours"), policy.experiments.max_duration_hours
    if hours is not None and hours > longest:
        yield "duration_hours", f"{hours:g} is longer than the policy allows", f"Write {longest:g} or less"


def _fixed_image(view: View, policy: Policy) -> str | None:
    target = view.get("serve_target", str)
    if target is not None:
        return policy.images.serve.get(target)
    return policy.images.train.get(view.get("job_type", str))


def _image_rules(view: View, policy: Policy, role: str | None) -> Iterator[Rule]:
    image, fixed = view.get("image", str), _fixed_image(view, policy)
    if image is not None and image != fixed and role not in policy.images.override_roles:
        roles = ", ".join(policy.images.override_roles) or "nobody"
        yield (
            "image",
            f"the image is fixed to {fixed or 'that of the job type'}, and overriding it is for: {roles}",
            "Remove it, or ask one of them to run the job",
        )
