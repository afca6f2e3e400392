"""The assets of a training: `recipe`, `training_request`, `training_plan`, `adapter` and `merged_model`."""

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
from pydantic import ValidationError

from llmops_assets.automation import RUN_WHEN_READY
from llmops_assets.page import link, shown
from llmops_assets.partitions import recipes, studies, trainings
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.base import SpecError, faults_of
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.rules import check_against_policy, check_base, check_dataset
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import fit, folders, identity, job_payloads, marked_job, report, training_run, watermark
from llmops_assets.training.auxiliary_models import auxiliary_models, pooling_of
from llmops_assets.training.base import BaseModelError, Sources, read_config, resolve, template_date
from llmops_assets.training.plan import PlanError, check_supported, effective_precision, shared_by
from resources import content
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.catalog.erasures import ModelAffected, assert_not_affected
from resources.dataset_store import DatasetStore
from resources.gpus import Device, cpu
from resources.records import Records
from resources.stored_paths import StoredPaths
from resources.tracking import OpenedBeside, Tracking
from resources.trainer import Trainer, TrainerError, TrainerKilled

COMMON: dict[str, Any] = {"group_name": "training", "owners": ["team:ml"], "code_version": "1"}


@dg.asset(
    **COMMON,
    partitions_def=recipes,
    kinds={"yaml"},
    description="A job spec less its dataset, under a key made of its content: the same recipe twice is the same key.",
)
def recipe(
    context: dg.AssetExecutionContext, catalog: dg.ResourceParam[Catalog], policy: dg.ResourceParam[Policy]
) -> dg.MaterializeResult:
    stored = catalog.recipe(context.partition_key)
    spec = _spec_of(catalog, context.partition_key, "any@v0")
    _refuse(check_against_policy(spec, policy))
    text = json.dumps(stored, ensure_ascii=False, indent=1, sort_keys=True)
    return dg.MaterializeResult(
        metadata={
            "job_type": spec.job_type,
            "base": spec.base_model_ref or "none: from nothing",
            "method": spec.method,
            "spec": dg.MetadataValue.md(f"```json\n{text}\n```"),
        },
        data_version=dg.DataVersion(hashlib.sha256(text.encode()).hexdigest()[:16]),
    )


training_request = dg.AssetSpec(
    "training_request",
    group_name="training",
    owners=["team:ml"],
    partitions_def=trainings,
    deps=["splits", "recipe"],
    kinds={"python"},
    description="The event «train this on that», reported by the command, the API or a sensor. Only a requested "
    "cell of dataset version × recipe is ever trained.",
)


study = dg.AssetSpec(
    "study",
    group_name="training",
    owners=["team:ml"],
    partitions_def=studies,
    deps=[dg.AssetDep("adapter", partition_mapping=dg.AllPartitionMapping())],
    kinds={"optuna"},
    description="A search for better hyperparameters (`llmops tune`): its trials, each a training of its own, their "
    "validation losses and what mattered. Reported by the command after every trial.",
)


@dg.asset(
    **COMMON,
    partitions_def=trainings,
    deps=["splits", "recipe", "training_request"],
    kinds={"python", "huggingface"},
    automation_condition=RUN_WHEN_READY,
    description="What will run, before a GPU is spent: the rows as they will be trained with the mask of what carries "
    "loss, what was truncated, the chat template, memory and time.",
)
def training_plan(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    artifacts: dg.ResourceParam[Artifacts],
    tracking: dg.ResourceParam[Tracking],
    trainer: dg.ResourceParam[Trainer],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    _refuse_withdrawn(context, catalog)
    keys = context.partition_key.keys_by_dimension
    dataset, recipe_key = keys["dataset"], keys["recipe"]
    splits = records.load(SplitsRecord, dataset)
    spec = _spec_of(catalog, recipe_key, dataset)
    entry = catalog.dataset_entry(dataset)
    merged = lambda cell: records.load(MergedModelRecord, cell)  # noqa: E731
    sources = Sources(catalog.base_model, merged, tracking.model, catalog.base_files)
    device = _device(spec, trainer)
    try:
        check_supported(spec, len([d for d in trainer.devices() if d.kind == "cuda"]), settings.engines_here)
        if mismatch := fit.wrong_type(spec, device):
            raise PlanError(mismatch)
        _refuse(check_dataset(spec, entry.spec.type, entry.status) + check_against_policy(spec, policy))
        base = None
        if spec.base_model_ref:
            base = resolve(
                spec.base_model_ref, family=spec.model_family, job_type=spec.job_type, policy=policy, sources=sources
            )
            assert_not_affected(catalog, content_hash=base.content_hash)
            _refuse(check_base(spec, read_config(Path(base.path)), _job_of(spec, catalog)))
        others = auxiliary_models(spec, policy, sources, lambda key: records.load(PlanRecord, key))
        for other in others.values():
            assert_not_affected(catalog, content_hash=other.content_hash)
        encoder = others.get("retriever", base)
        pooling = pooling_of(spec.embedding.pooling, Path(encoder.path)) if spec.embedding and encoder else None
        image = trainer.image({"job_type": spec.job_type, "spec": {"image": spec.image}})
    except (BaseModelError, ModelAffected, PlanError, SpecError, TrainerError) as error:
        raise dg.Failure(str(error), allow_retries=False) from error
    before = records.find(PlanRecord, context.partition_key)
    # A plan that is there keeps its day: it would be another training every morning.
    day = template_date(base, before.template_date if before is not None else None)
    secret = _watermark_key(spec, settings)
    mark = watermark.commitment(secret) if secret else None
    data_hash = f"{splits.data_hash}+{mark}" if mark else splits.data_hash
    parts = identity.training_identity(
        spec,
        rows=data_hash,
        models={name: model.content_hash for name, model in {"base": base, **others}.items() if model is not None},
        precision=effective_precision(spec.hyperparams.precision or "fp32", device.kind),
        processes=shared_by(spec, device.kind),
        pooling=pooling,
        image=image,
        engines=settings.engines,
        template_date=day,
    )
    key = identity.key_of(parts)
    renamed = before is not None and before.training_key != key
    changed = identity.what_changed(before.identity, parts) if before is not None and renamed else ""
    if changed:
        context.log.warning("this training is another one than %s, and trains anew: %s", before.training_key, changed)
    model_dir = artifacts.path("models", spec.job_type.lower(), spec.output.artifact_name, key)
    job = job_payloads.plan_job(spec, base, splits, str(store.root), model_dir, others, image, day)
    facts = folders.facts_of(model_dir / "plan", before.files if before is not None and not renamed else {})
    if facts is None:
        with marked_job.with_marks(
            job, spec, secret, splits.rows["train"], model_dir / "work", trainer.keys
        ) as complete:
            facts = trainer.run(context, complete, work_dir=model_dir / "work")
    plan = job_payloads.plan_record(
        spec,
        dataset=dataset,
        recipe=recipe_key,
        key=key,
        base=base,
        model_dir=model_dir,
        device=device,
        facts=facts,
        auxiliary=others,
        pooling=pooling,
    )
    plan = plan.model_copy(update={"watermark": mark, "image": image, "identity": parts, "template_date": day})
    records.save(context.partition_key, plan)
    facts_shown = report.plan_facts(plan) | {"watermarked": "yes" if mark else "no"}
    facts_shown |= {"trains anew because": changed} if changed else {}
    facts_shown |= _requested(catalog, str(context.partition_key))
    return dg.MaterializeResult(metadata=shown(facts_shown, records.paths), data_version=dg.DataVersion(key))


@dg.asset(
    **COMMON,
    partitions_def=trainings,
    # A trial of a study is nobody's request: it is trained by the sensor's run, and goes no further.
    deps=["training_plan", "training_request"],
    kinds={"python", "pytorch", "mlflow"},
    pool="gpu",
    automation_condition=RUN_WHEN_READY,
    description="The trained weights: an adapter, or full weights, with their loss curve and MLflow run. A training "
    "that was cut off goes on from its last checkpoint; one that is there already is not trained again.",
)
def adapter(
    context: dg.AssetExecutionContext,
    catalog: dg.ResourceParam[Catalog],
    records: dg.ResourceParam[Records],
    tracking: dg.ResourceParam[Tracking],
    trainer: dg.ResourceParam[Trainer],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.MaterializeResult]:
    cell = context.partition_key
    wanted = [catalog.intents.newest(kind, str(cell)) for kind in ("train", "trial")]
    plan = records.load(PlanRecord, cell)
    spec, folder = TrainJobSpec.model_validate(plan.spec), Path(plan.model_dir)
    note = folder / "mlflow-run.txt"
    before = records.find(AdapterRecord, cell)
    known = before.files if before is not None and before.training_key == plan.training_key else {}
    facts = folders.facts_of(folder / "adapter", known)
    reused = facts is not None
    if facts is None:
        # The run is opened while the worker starts, which takes as long.
        opening = tracking.run(lambda: training_run.taken_up(tracking, note, plan, cell))
        with taken_up_again(), opening as opened:
            facts = trainer.run(
                context,
                job_payloads.train_job(plan, policy, _device(spec, trainer), settings.engines),
                work_dir=folder / "work",
                on_metrics=_Follower(context, tracking, opened, records.paths).pass_on,
            )
            report.keep_artifacts(tracking, opened.id(), plan, facts)
    run_id = training_run.noted(tracking, note)
    record = job_payloads.adapter_record(plan, facts, reused=reused, run_id=run_id)
    records.save(cell, record)
    metadata = shown(report.adapter_facts(record) | _requested(catalog, cell), records.paths)
    if run_id is not None:
        metadata["mlflow"] = link("open the run", tracking.run_url(run_id, settings.mlflow_url))
    result = dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(record.content_hash))
    yield from catalog.intents.acknowledge_after(result, wanted, actor="adapter")


@contextmanager
def taken_up_again() -> Iterator[None]:
    """Begin the step once more when its worker was killed: it goes on from its last checkpoint."""
    try:
        yield
    except TrainerKilled as error:
        raise dg.RetryRequested(max_retries=1) from error


class _Follower:
    """Passes live metrics on: all of them to MLflow, the curve so far to the asset's page at each checkpoint."""

    def __init__(
        self, context: dg.AssetExecutionContext, tracking: Tracking, run: OpenedBeside, paths: StoredPaths
    ) -> None:
        self.context, self.tracking, self.run, self.paths = context, tracking, run, paths
        self.curve: list[dict[str, Any]] = []

    def pass_on(self, lines: list[dict[str, Any]]) -> None:
        self.tracking.log_metrics(self.run.id(), job_payloads.metric_points(lines))
        for line in lines:
            if not line.get("checkpoint"):
                # A reward model or a retriever that comes first has a curve of its own.
                if "phase" not in line:
                    self.curve.append(line)
                continue
            # Each costs a write to the event log, so not at every step.
            self.context.log_event(
                dg.AssetObservation(
                    self.context.asset_key,
                    partition=self.context.partition_key,
                    metadata=shown(report.checkpoint_facts(line["step"], self.curve), self.paths),
                )
            )


@dg.asset(
    **COMMON,
    partitions_def=trainings,
    deps=["adapter", "training_request"],
    kinds={"python", "huggingface"},
    automation_condition=RUN_WHEN_READY,
    description="The model that is evaluated and served: base and adapter in one, as safetensors, with tokenizer, chat "
    "template and generation config; measured against base + adapter. Full weights are not copied. Where the code or "
    "the libraries that merge have changed it is made again, and nothing is trained.",
)
def merged_model(
    context: dg.AssetExecutionContext,
    records: dg.ResourceParam[Records],
    trainer: dg.ResourceParam[Trainer],
) -> dg.MaterializeResult:
    cell = context.partition_key
    plan, trained = records.load(PlanRecord, cell), records.load(AdapterRecord, cell)
    spec, folder = TrainJobSpec.model_validate(plan.spec), Path(plan.model_dir)
    # Of the image as it is now: another one merges anew what an earlier one has trained.
    image = trainer.image({"job_type": spec.job_type, "spec": {"image": spec.image}})
    parts = identity.merge_identity(spec, weights=trained.content_hash, precision=plan.precision, image=image)
    key = identity.key_of(parts)
    job = job_payloads.merge_job(plan, trained, key, image)
    before = records.find(MergedModelRecord, cell)
    facts = folders.facts(job_payloads.merged_folder(plan, key))
    if facts is not None and before is not None and before.merge_key == key:
        # Whole as it may be, it is not used again where it is another model than the one on record.
        changed = content.difference(job_payloads.merged_folder(plan, key), before.content_hash)
        facts = None if changed else facts
    if facts is None:
        facts = trainer.run(context, job, work_dir=folder / "work")
    record = job_payloads.merged_record(plan, facts, key)
    records.save(cell, record)
    return dg.MaterializeResult(
        metadata=shown(report.merged_facts(record), records.paths), data_version=dg.DataVersion(record.content_hash)
    )


def _spec_of(catalog: Catalog, recipe_key: str, dataset: str) -> TrainJobSpec:
    """The job that trains a kept recipe on a dataset version; dg.Failure where it is not the recipe of that key."""
    kept, spec = catalog.recipe(recipe_key), None
    try:
        spec = TrainJobSpec.from_recipe(kept, dataset)
        found = spec.recipe_key()
    except ValidationError as error:
        found = f"none ({'; '.join(f'{one.field}: {one.message}' for one in faults_of(error, TrainJobSpec))})"
    if spec is None or found != recipe_key:
        raise dg.Failure(
            f"the recipe kept under {recipe_key} is {found}: it was changed in the catalog after it was asked for. "
            "Request the training again from its spec",
            allow_retries=False,
        )
    return spec


def _refuse_withdrawn(context: dg.AssetExecutionContext, catalog: Catalog) -> None:
    """Fail a run that automation started for a request which was withdrawn while it waited for its data.

    The event of the request cannot be taken back, and automation would act on it whenever the data comes. A person who
    materialises the cell in the UI wants it.
    """
    if context.run.tags.get("dagster/from_automation_condition") != "true":
        return
    intent = catalog.intents.newest("train", str(context.partition_key))
    if intent is not None and intent.outcome == "withdrawn":
        reason = intent.reason or "the request was withdrawn"
        raise dg.Failure(f"{reason}: `llmops train resume` asks for it again", allow_retries=False)


def _requested(catalog: Catalog, cell: str) -> dict[str, str]:
    """Who asked for a training and why, for its page; nothing where nobody did."""
    intent = catalog.intents.newest("train", cell)
    if intent is None:
        return {}
    reason = intent.detail.get("reason")
    return {"requested by": intent.requested_by, **({"requested because": reason} if reason else {})}


def _watermark_key(spec: TrainJobSpec, settings: Settings) -> bytes | None:
    """The owner's key where the recipe wants marks; a recipe that wants them without a key is refused."""
    if spec.watermark is None:
        return None
    try:
        return watermark.key_of(settings.watermark_secret)
    except (watermark.WatermarkError, OSError) as error:
        raise dg.Failure(f"recipe {spec.recipe_key()} asks for a watermark: {error}", allow_retries=False) from error


def _device(spec: TrainJobSpec, trainer: Trainer) -> Device:
    """What a spec trains on: a GPU where it asks for one and there is one, else the CPU."""
    return trainer.devices()[0] if spec.resources.gpus else cpu()


def _job_of(spec: TrainJobSpec, catalog: Catalog) -> str | None:
    """The job type that made the base model, where it was trained here."""
    base = spec.base
    return catalog.recipe(base.recipe)["job_type"] if base is not None and base.source == "training" else None


def _refuse(faults: list) -> None:
    if faults:
        raise dg.Failure("\n".join(str(fault) for fault in faults), allow_retries=False)
