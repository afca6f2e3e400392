"""The form of a training: every field with what it does, checked by the rules of its spec while somebody types."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from fastapi import Response

from images.console.web import forms
from images.console.web.i18n import N_
from images.console.web.page import Asked, Page, Posted, address, explained, go, router
from llmops_assets.operations import trainings
from llmops_assets.operations.dataset_entries import versions_page
from llmops_assets.operations.forms import TrainingForm, training_spec
from llmops_assets.operations.model_entries import list_models
from llmops_assets.operations.trainings import check_request
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.training import TrainJobSpec

pages = router()


@dataclass(frozen=True)
class Field:
    """One hyperparameter of the form: what it is called, what it does, and how a number is written."""

    name: str
    label: str
    help: str
    kind: type = float


BASIC = (
    Field(
        "lr", N_("Learning rate"), N_("How far each step moves the weights, at its peak. LoRA takes 0.0001 to 0.002.")
    ),
    Field("batch_size", N_("Batch size"), N_("Rows a device and step. More are steadier, and need more memory."), int),
    Field("num_epochs", N_("Epochs"), N_("Passes over the training rows; 0.5 is half of one.")),
    Field("max_steps", N_("Steps at most"), N_("Ends the training before its epochs do. Left out: it doesn't."), int),
    Field(
        "max_seq_len",
        N_("Tokens a row"),
        N_("Longer rows are cut. Left out: 2,048, or what the model takes where that is less."),
        int,
    ),
    Field("lora_rank", N_("LoRA rank"), N_("Size of the adapter; 16 unless given. More learns more."), int),
    Field("lora_alpha", N_("LoRA alpha"), N_("How much the adapter counts; twice the rank unless given.")),
)
MORE = (
    Field("gradient_accumulation_steps", N_("Accumulation"), N_("Batches that make one step together."), int),
    Field("warmup_ratio", N_("Warm-up"), N_("Share of the steps in which the learning rate rises.")),
    Field("weight_decay", N_("Weight decay"), N_("Pulls weights to zero at each step.")),
    Field("lora_dropout", N_("LoRA dropout"), N_("Share of the adapter that is left out at random in each step.")),
    Field("save_steps", N_("Checkpoint every"), N_("Steps between checkpoints, from which a training goes on."), int),
    Field("eval_steps", N_("Validate every"), N_("Steps between validations. Left out: once an epoch."), int),
    Field("kl_coeff", N_("KL coefficient"), N_("RLHF only: what it costs to leave the base; 0.1 unless given.")),
    Field("ppo_steps", N_("RLHF steps"), N_("RLHF by rloo or grpo only: steps of sampling; 100 unless given."), int),
    Field("seed", N_("Seed"), N_("The same seed on the same rows gives the same weights."), int),
)
JOBS = {
    "SFT": N_("SFT: learns the answers of your rows"),
    "RLHF": N_("RLHF: learns which of two answers is better"),
    "EMBEDDING": N_("EMBEDDING: learns which texts belong together"),
    "RAG_TUNING": N_("RAG_TUNING: learns to answer from passages"),
}
METHODS = {
    "lora": N_("lora: a small adapter; the usual choice"),
    "qlora": N_("qlora: the same over a 4-bit base, for little memory"),
    "full": N_("full: all weights; needs the most memory"),
}
ALGORITHMS = ("dpo", "kto", "rloo", "grpo")
PLACES = {
    "base_model_ref": "model",
    "model_family": "model",
    "dataset_ref": "dataset",
    "output.artifact_name": "name",
    "resources.gpus": "gpus",
    "job_type": "job_type",
    "method": "method",
    "rlhf.algorithm": "algorithm",
    "rlhf.kl_coeff": "kl_coeff",
    "rlhf.ppo_steps": "ppo_steps",
}
"""Which field of the form a field of the spec is."""
USUAL = {"lr": "2e-4", "batch_size": "4", "num_epochs": "3", "job_type": "SFT", "method": "lora", "gpus": "0"}


def _number(field: Field, text: str) -> float | int:
    return int(text.replace(",", "")) if field.kind is int else float(text.replace(",", ""))


def training_form(form: forms.Form) -> tuple[TrainingForm, dict[str, str]]:
    """What was filled in, and what of it is no number, by field."""
    values, faults = dict[str, Any](), dict[str, str]()
    for field in (*BASIC, *MORE):
        if text := form[field.name]:
            try:
                values[field.name] = _number(field, text)
            except ValueError:
                faults[field.name] = (
                    N_("This should be a whole number.") if field.kind is int else N_("This should be a number.")
                )
    kl_coeff, steps = values.pop("kl_coeff", None), values.pop("ppo_steps", None)
    for name in ("packing", "train_embeddings"):
        if form.is_on(name):
            values[name] = True
    if form["scheduler"]:
        values["scheduler"] = form["scheduler"]
    if form["method"] == "full":
        values = {name: value for name, value in values.items() if not name.startswith("lora_")}
    more: dict[str, Any] = {}
    if text := form["more"]:
        try:
            found = yaml.safe_load(text)
            if not isinstance(found, dict):
                raise ValueError(found)
            more = {str(name): value for name, value in found.items()}
        except (yaml.YAMLError, ValueError, RecursionError):
            faults["more"] = N_("This should be YAML: a name, a colon and a value on each line.")
    if form["job_type"] == "RLHF":
        given = more.get("rlhf") if isinstance(more.get("rlhf"), dict) else {}
        algorithm = form["algorithm"] or "dpo"
        # Without a reward model named, one is trained of the same pairs.
        usual: dict[str, Any] = {"algorithm": algorithm, "reward_model_ref": None, "kl_coeff": kl_coeff or 0.1}
        if algorithm in ("rloo", "grpo"):
            usual["ppo_steps"] = steps or 100
        more["rlhf"] = {**usual, **given}
    gpus = form["gpus"] or "0"
    if not gpus.isdigit():
        faults["gpus"] = N_("This should be a whole number.")
    for name in ("model", "dataset"):
        if not form[name]:
            faults[name] = N_("Choose one.")
    return (
        TrainingForm(
            model=form["model"],
            dataset=form["dataset"],
            job_type=form["job_type"] or "SFT",
            method=form.given("method"),
            name=form.given("name"),
            gpus=int(gpus) if gpus.isdigit() else 0,
            hyperparams=values,
            more=more,
        ),
        faults,
    )


@dataclass(frozen=True)
class Judged:
    """What a form comes to: a spec, or what is wrong by field and in general."""

    spec: TrainJobSpec | None
    faults: Mapping[str, str]
    detail: str = ""
    status: int = 200


def judge(page: Page, form: forms.Form) -> Judged:
    """The spec of a form by the operations that a request goes through, nothing being requested."""
    given, faults = training_form(form)
    if faults:
        return Judged(None, {name: page.t(words) for name, words in faults.items()}, status=422)
    try:
        spec = training_spec(page.here.wiring, given)
        check_request(page.here.wiring, page.name, spec)
        return Judged(spec, {})
    except SpecError as error:
        found: dict[str, str] = {}
        for fault in error.faults:
            name = PLACES.get(fault.field, fault.field.removeprefix("hyperparams."))
            known = {*USUAL, *PLACES.values(), *(one.name for one in (*BASIC, *MORE))}
            words = f"{fault.message}. {fault.hint}" if fault.hint else fault.message
            found[name if name in known else "more"] = words if name in known else f"{fault.field}: {words}"
        return Judged(None, found, status=422)
    except Exception as error:
        status, detail, _ = explained(error)
        if status == 500:
            raise
        return Judged(None, {}, detail, status)


def _show(page: Page, values: Mapping[str, str], judged: Judged | None, status: int = 200) -> Response:
    wiring = page.here.wiring
    models = [one for one in list_models(wiring) if one.state not in ("draft", "archived")][:200]
    versions = [one for one in versions_page(wiring, 0, 200)[0] if one.state in ("ready", "ingesting")]
    return page.show(
        "training_form.html",
        code=status,
        values=values,
        judged=judged or Judged(None, {}),
        models=[(one.id, f"{one.id} ({one.family})") for one in models],
        datasets=[(one.key, f"{one.key} ({one.type})") for one in versions],
        jobs=[(key, page.t(words)) for key, words in JOBS.items()],
        methods=[(key, page.t(words)) for key, words in METHODS.items()],
        algorithms=ALGORITHMS,
        basic=BASIC,
        further=MORE,
    )


@pages.get("/training/jobs/submit")
def submit_form(page: Asked) -> Response:
    """The form, with usual values; what the address names is filled in."""
    asked = {name: value for name, value in page.request.query_params.items() if name in ("model", "dataset")}
    return _show(page, forms.fields({**USUAL, **asked}), None)


@pages.post("/training/jobs/check")
def check(page: Asked, form: Posted) -> Response:
    """What would be trained, or what is wrong, by field: asked for while somebody types."""
    judged = judge(page, form)
    shown = judged.spec and yaml.safe_dump(judged.spec.model_dump(mode="json", exclude_none=True), sort_keys=False)
    return page.show("training_check.html", judged=judged, shown=shown)


@pages.post("/training/jobs/submit")
def submit(page: Asked, form: Posted) -> Response:
    """Ask for the training; what is wrong is shown beside its field."""
    judged = judge(page, form)
    if judged.spec is None:
        return _show(page, form, judged, judged.status)
    done = trainings.request_training(page.here.wiring, page.name, judged.spec)
    return go(address("training", "jobs", done.partition.replace("|", "~")), "requested")
