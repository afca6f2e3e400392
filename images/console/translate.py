"""Turns bodies into the forms that operations take; what a field asks for and cannot have becomes a note."""

from typing import Any

from images.console.bodies import AbTestBody, EndpointBody, FinetuningBody, TrainingBody
from images.console.problems import Problem
from llmops_assets.operations.forms import EndpointForm, TrainingForm
from llmops_assets.specs.experiment_rules import ExperimentPolicy

JOB_TYPES = {"finetune": "SFT", "fine-tune": "SFT", "finetuning": "SFT", "pretrain": "PRETRAIN"}
DATASET_TYPES = {
    "instruction": ("sft_pair",),
    "chat": ("sft_pair",),
    "preference": ("rlhf_pair", "kto"),
    "corpus": ("pretrain_corpus",),
}
"""What other programs call the types of datasets."""
SERVE_ROUTE = "/serve/"
USUAL_HOURS = 14 * 24.0
"""Of an A/B test whose length nobody names: two weeks, or what the policy allows."""


def training(body: TrainingBody, dataset_type: str | None) -> tuple[TrainingForm, list[str]]:
    """The training that a body asks for, and notes; `dataset_type` is that of the registered dataset."""
    spec, notes = body.spec, _profile_notes(body)
    model, dataset = body.model_id or spec.model_ref, body.dataset_id or spec.dataset_ref
    if model is None:
        raise Problem(422, "modelId or trainJobSpec.model_ref names the model that is trained")
    if dataset is None:
        raise Problem(422, "datasetId or trainJobSpec.dataset_ref names the rows that it is trained on")
    kind = spec.dataset_type
    if kind is not None and dataset_type is not None and dataset_type not in (kind, *DATASET_TYPES.get(kind, ())):
        raise Problem(422, f"trainJobSpec.dataset_type is {kind!r}, and {dataset} is of type {dataset_type}")
    outer = JOB_TYPES.get(body.job_type.lower(), body.job_type.upper()) if body.job_type else None
    job_type = spec.job_type if "job_type" in spec.model_fields_set or outer is None else outer
    gpus = spec.resources.gpus if body.resource_profile.gpus is None else body.resource_profile.gpus
    gpus = _gpus(gpus, [("useGpu", body.use_gpu), ("trainJobSpec.use_gpu", spec.use_gpu)])
    if gpus == 0 and spec.resources.gpu_memory_gb is not None:
        notes.append("trainJobSpec.resources.gpu_memory_gb is ignored: gpus is 0, so the CPU trains")
    elif spec.resources.gpu_memory_gb is not None:
        notes.append("trainJobSpec.resources.gpu_memory_gb is ignored: the plan reckons what the training needs")
    output = dict(spec.output or {})
    more: dict[str, Any] = {
        name: value
        for name in ("evaluation", "rlhf", "rag", "embedding", "trainer")
        if (value := getattr(spec, name)) is not None
    }
    name = body.job_name or output.pop("artifact_name", None)
    if unknown := set(output) - {"save_format"}:
        raise Problem(422, f"trainJobSpec.output.{min(unknown)}: there is no such field")
    hyperparams = {"lr": 2e-4, "batch_size": 4, "num_epochs": 3.0, **spec.hyperparameters.given()}
    return (
        TrainingForm(
            model=model,
            dataset=dataset,
            job_type=job_type,
            family=spec.model_family,
            method=spec.method,
            name=name,
            gpus=gpus,
            hyperparams=hyperparams,
            more=more,
        ),
        notes,
    )


def _profile_notes(body: TrainingBody) -> list[str]:
    profile, notes = body.resource_profile, []
    where = "the machine or the cluster that trains sets it"
    if profile.cpu_cores is not None:
        notes.append(f"resourceProfile.cpuCores {profile.cpu_cores:g} is ignored: {where}")
    if profile.memory is not None:
        notes.append(f"resourceProfile.memory {profile.memory} is ignored: {where}")
    if profile.max_duration is not None:
        notes.append(
            f"resourceProfile.maxDuration {profile.max_duration:g} is ignored: num_epochs and max_steps end a training"
        )
    return notes


def _gpus(gpus: int, wishes: list[tuple[str, bool | None]]) -> int:
    for name, wish in wishes:
        if wish is False and gpus > 0:
            raise Problem(422, f"{name} is false, and resources.gpus is {gpus}: say either")
        if wish is True and gpus == 0:
            gpus = 1
    return gpus


def finetuning(body: FinetuningBody) -> tuple[TrainingForm, list[str]]:
    """The training that a body of the fine-tuning interface asks for, and notes."""
    notes = []
    ids = [part for part in (body.gpu_ids or "").replace(" ", "").split(",") if part]
    if not all(part.isdigit() for part in ids):
        raise Problem(422, f"gpu_ids {body.gpu_ids!r} should be numbers with commas, such as 0,1")
    if ids:
        notes.append(f"gpu_ids {body.gpu_ids}: {len(ids)} GPUs are asked for; which ones is leased when they are free")
    hyperparams = {"lr": 2e-4, "batch_size": 4, "num_epochs": 3.0, **body.hyperparameters.given()}
    if body.method == "full":
        hyperparams = {name: value for name, value in hyperparams.items() if not name.startswith("lora_")}
    form = TrainingForm(
        model=body.base_model,
        dataset=body.dataset_id,
        method=body.method,
        name=body.job_name,
        gpus=len(ids),
        hyperparams=hyperparams,
    )
    return form, notes


def endpoint(body: EndpointBody) -> tuple[EndpointForm, list[str]]:
    """The endpoint that a body asks for, and notes."""
    spec, notes = body.spec, list[str]()
    model = body.model_id or spec.model_ref
    if model is None:
        raise Problem(422, "modelId or deploymentSpec.model_ref names the model that is served")
    name = None
    if body.route is not None:
        name = body.route.rstrip("/").rsplit("/", 1)[-1]
        if "/" in body.route and SERVE_ROUTE not in body.route:
            notes.append(f"route {body.route}: the endpoint is named {name}, and asked at …/serve/{name}/chat")
    more: dict[str, Any] = {
        name: value for name in ("runtime", "rollout", "engine") if (value := getattr(spec, name)) is not None
    }
    if body.min_replicas is not None or body.max_replicas is not None:
        low = 1 if body.min_replicas is None else body.min_replicas
        more["replicas"] = {"min": low, "max": max(low, body.max_replicas or low)}
    form = EndpointForm(
        model=model,
        endpoint=name,
        environment=body.environment,
        serve_target=spec.serve_target,
        family=spec.model_family,
        job_type=spec.job_type,
        gpus=_gpus(spec.resources.gpus, [("useGpu", body.use_gpu), ("deploymentSpec.use_gpu", spec.use_gpu)]),
        gpu_memory_gb=spec.resources.gpu_memory_gb,
        more=more,
    )
    return form, notes


def experiment(body: AbTestBody, policy: ExperimentPolicy) -> tuple[dict[str, Any], list[str]]:
    """The fields of the ExperimentSpec that a body asks for, and notes."""
    a, b = body.traffic_split.get("a"), body.traffic_split.get("b")
    if a is None or b is None:
        raise Problem(422, "traffic_split should have a share for a and for b")
    total = 100 if a + b > 1.5 else 1
    split = [round(100 * share / total) for share in (a, b)]
    if any(abs(100 * share / total - percent) > 1e-6 for share, percent in zip((a, b), split, strict=True)):
        raise Problem(422, f"traffic_split {a:g} and {b:g}: shares are whole percents")
    values: dict[str, Any] = {"name": body.experiment_name, "split": split, "success_metric": body.success_metric}
    notes = []
    if body.target_samples is not None:
        values["target_users_per_arm"] = body.target_samples
        notes.append(f"target_samples {body.target_samples} counts users with a rating in each arm")
    values["duration_hours"] = (
        min(USUAL_HOURS, policy.max_duration_hours) if body.duration_hours is None else body.duration_hours
    )
    for name in ("auto_promote", "description"):
        if getattr(body, name) is not None:
            values[name] = getattr(body, name)
    if "target_users_per_arm" not in values:
        values["target_users_per_arm"] = policy.users_per_arm
    return values, notes
