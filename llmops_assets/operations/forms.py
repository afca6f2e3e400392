"""Makes whole specs of the few fields that a form or another program gives: names resolved, the rest by rule."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from llmops_assets.operations.dataset_entries import find_version
from llmops_assets.operations.errors import Refused, Withheld
from llmops_assets.operations.model_entries import Model, find_model
from llmops_assets.specs.base import Spec, SpecError, SpecFault, faults_of
from llmops_assets.specs.deployment import DeploymentSpec
from llmops_assets.specs.experiment import ExperimentSpec
from llmops_assets.specs.rules import check_against_policy
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring

USUAL_TOKENS = 2048
"""max_seq_len where nobody names one and the model takes as many."""


S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class TrainingForm:
    """A training as a person asks for it; what is None is filled in by `training_spec`."""

    model: str
    dataset: str
    job_type: str = "SFT"
    family: str | None = None
    method: str | None = None
    name: str | None = None
    gpus: int = 0
    hyperparams: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)


def training_spec(wiring: Wiring, form: TrainingForm) -> TrainJobSpec:
    """The spec that a form means.

    Raises NotFound for what it names and is not there, Withheld for a base model that is not approved, SpecError with
    every other fault.
    """
    model, dataset = find_model(wiring, form.model), find_version(wiring, form.dataset)
    if model.ref is None or model.state in ("draft", "archived"):
        raise Withheld(f"{model.id} is {model.state}: {model.reason or 'have it approved before a training starts'}")
    if form.family is not None and form.family != model.family:
        fault = f"{form.family} was given, and {model.id} is of the family {model.family}"
        raise SpecError([SpecFault("model_family", fault, "Leave it out, or name the model's own")])
    method = form.method or "lora"
    hyperparams = {name: value for name, value in form.hyperparams.items() if value is not None}
    hyperparams.setdefault("max_seq_len", _tokens(wiring, model, form.job_type))
    values = {
        "job_type": form.job_type,
        "model_family": model.family,
        "base_model_ref": model.ref,
        "dataset_ref": dataset,
        "method": method,
        "hyperparams": hyperparams,
        "resources": {"gpus": form.gpus},
        "output": {"artifact_name": form.name or _name(model, dataset)},
        **form.more,
    }
    return _checked(wiring, TrainJobSpec, values)


def _tokens(wiring: Wiring, model: Model, job_type: str) -> int:
    """The usual length of a row, or what the model or the policy allows where that is less."""
    from llmops_assets.training.base import BaseModelError, model_folder, read_config

    limits = [USUAL_TOKENS]
    if (allowed := wiring.policy.limits.max_seq_len.get(job_type)) is not None:  # type: ignore[call-overload]
        limits.append(allowed)
    try:
        if model.kind == "base" and model.ref is not None:
            folder = model_folder(wiring.catalog.base_model(model.ref).path.removeprefix("hf:"))
        else:
            folder = Path(wiring.tracking.model(model.id).path)
        longest = read_config(folder).get("max_position_embeddings")
    except BaseModelError as error:
        raise Withheld(f"{model.id} cannot be read: {error}") from error
    return min([*limits, longest] if isinstance(longest, int) else limits)


def _name(model: Model, dataset: str) -> str:
    """A name for what is trained: that of the model, and of the data."""
    base = re.sub(r"[^A-Za-z0-9._-]+", "-", model.name.removeprefix("hf:").rstrip("/").rsplit("/", 1)[-1]).strip("-._")
    return f"{base or 'model'}-{dataset.partition('@')[0]}"[:100]


@dataclass(frozen=True)
class EndpointForm:
    """An endpoint as a person asks for it."""

    model: str
    endpoint: str | None = None
    environment: str = "dev"
    serve_target: str = "GENERATION"
    family: str | None = None
    job_type: str | None = None
    gpus: int = 0
    gpu_memory_gb: int | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


def endpoint_spec(wiring: Wiring, form: EndpointForm) -> DeploymentSpec:
    """The spec that a form means. Raises NotFound, Refused for a base model, which no training registered and no
    evaluation measured, and SpecError with every other fault."""
    model = find_model(wiring, form.model)
    if model.kind == "base":
        raise Refused(f"{model.id} is a base model: what is served was trained, evaluated and registered here first")
    for name, given, own in (("model_family", form.family, model.family), ("job_type", form.job_type, model.job_type)):
        if given is not None and own and given != own:
            fault = f"{given} was given, and {model.id} is {own}"
            raise SpecError([SpecFault(name, fault, "Leave it out, or name the model's own")])
    resources: dict[str, Any] = {"gpus": form.gpus}
    if form.gpu_memory_gb is not None:
        resources["gpu_memory_gb"] = form.gpu_memory_gb
    values: dict[str, Any] = {
        "model_ref": model.id,
        "model_family": model.family,
        "job_type": model.job_type or form.job_type,
        "serve_target": form.serve_target,
        "environment": form.environment,
        "resources": resources,
        **form.more,
    }
    if form.endpoint is not None:
        values["endpoint"] = form.endpoint
    return _checked(wiring, DeploymentSpec, values)


def experiment_spec(
    wiring: Wiring, *, control: str, treatment: str, endpoint: str | None, values: Mapping[str, Any]
) -> ExperimentSpec:
    """The spec of a test of two models; without `endpoint`, on the one that serves both.

    Raises Withheld where no endpoint serves both, or several do.
    """
    refs = [find_model(wiring, ref).id for ref in (control, treatment)]
    if endpoint is None:
        serving = [
            one.name
            for one in wiring.catalog.endpoints()
            if set(refs) <= {wiring.tracking.version(route["model_ref"]).ref for route in one.routes}
        ]
        if len(serving) != 1:
            found = f"{', '.join(serving)} do" if serving else "none does"
            raise Withheld(
                f"a test needs one endpoint that serves both {refs[0]} and {refs[1]}, and {found}: deploy the second "
                "as a canary beside the first, and name the endpoint"
            )
        endpoint = serving[0]
    return _checked(wiring, ExperimentSpec, {"endpoint": endpoint, "control": refs[0], "treatment": refs[1], **values})


def _checked(wiring: Wiring, kind: type[S], values: Mapping[str, Any]) -> S:
    """A spec that is valid and within the policy; raises SpecError with every fault."""
    try:
        spec = kind.model_validate(dict(values))
    except ValidationError as error:
        raise SpecError(faults_of(error, kind)) from error
    if faults := check_against_policy(spec, wiring.policy):
        raise SpecError(faults)
    return spec
