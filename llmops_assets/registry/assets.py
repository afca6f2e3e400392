"""The assets `registered_model` (a version in the registry, for models that meet their gate) and `quantized_model`."""

from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from llmops_assets import plots
from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.gate import interval, judge_gate
from llmops_assets.evaluation.report import headline_figures
from llmops_assets.evaluation.verdicts import withholding
from llmops_assets.page import link, stored_path
from llmops_assets.partitions import trainings
from llmops_assets.records.datasets import CleanRecord, SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.registry import QuantizedModelRecord, RegisteredModelRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.registry import compare_report
from llmops_assets.registry.capacity import RegistryFull, capacity
from llmops_assets.registry.card import CardFacts, model_card
from llmops_assets.registry.compare import compare
from llmops_assets.registry.compared_model import compared_model_of
from llmops_assets.registry.licences import base_license
from llmops_assets.registry.lineage import lineage
from llmops_assets.registry.ownership import shown_marks
from llmops_assets.registry.quantized import UNFIT, CompressionContext, Original, form_row, make_form, register_form
from llmops_assets.serving import admission
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from resources import content, files
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.catalog.erasures import ModelAffected, assert_not_affected
from resources.dataset_store import DatasetStore
from resources.engines import EngineError, Engines
from resources.records import Records
from resources.tracking import ModelVersion, Tracking, UnknownModel
from resources.trainer import Trainer

RELEASE_CHECKS_IGNORED = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("evaluation"), "beats_base"))


@dg.asset(
    group_name="evaluation",
    partitions_def=trainings,
    deps=["evaluation"],
    kinds={"mlflow"},
    owners=["team:ml"],
    code_version="1",
    # Every check of the evaluation must have passed, but for the comparison with the base, which only warns: a model
    # that misses the gate is withheld while its run stays green.
    automation_condition=dg.AutomationCondition.eager()
    # What an evaluation that is about to be made anew once came to says nothing of how it will come out.
    & ~dg.AutomationCondition.any_deps_match(dg.AutomationCondition.will_be_requested())
    & dg.AutomationCondition.all_deps_match(
        dg.AutomationCondition.all_checks_match(dg.AutomationCondition.check_passed()).ignore(RELEASE_CHECKS_IGNORED)
    ),
    description="A version in the MLflow registry with its lineage and its model card, for models that meet the "
    "policy's gate. A new version is approved and becomes `staging`.",
)
def registered_model(
    context: dg.AssetExecutionContext,
    records: dg.ResourceParam[Records],
    catalog: dg.ResourceParam[Catalog],
    tracking: dg.ResourceParam[Tracking],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
    trainer: dg.ResourceParam[Trainer],
    artifacts: dg.ResourceParam[Artifacts],
) -> dg.MaterializeResult:
    cell = context.partition_key
    result = records.load(EvaluationRecord, cell)
    merged = records.load(MergedModelRecord, cell)
    plan, adapter = records.load(PlanRecord, cell), records.load(AdapterRecord, cell)
    spec = TrainJobSpec.model_validate(plan.spec)
    gate = judge_gate(result, policy.gates[spec.job_type])
    # A person may materialise this asset by hand, where no condition stands before it.
    if not gate.passed:
        raise dg.Failure(f"{cell} is not registered: {gate.text}", allow_retries=False)
    limits = (policy.datasets.max_contaminated_share, policy.limits.max_cut_answers)
    if faults := withholding(result, policy.evaluation, *limits):
        raise dg.Failure(f"{cell} is not registered: {' '.join(v.text for v in faults)}", allow_retries=False)
    if result.model_hash != merged.content_hash:
        raise dg.Failure(
            f"{cell} is not registered: its evaluation is of the weights {result.model_hash}, but its merged model is "
            f"{merged.content_hash}. Materialise `evaluation` again.",
            allow_retries=False,
        )
    try:
        content.verify(merged.path, merged.content_hash, "merged and evaluated", "Restore it, or make it anew")
        assert_not_affected(catalog, cell=cell, content_hash=merged.content_hash)
    except (ModelAffected, content.ContentChanged) as error:
        raise dg.Failure(f"{cell} is not registered: {error}", allow_retries=False) from error
    room = capacity(
        spec.output.artifact_name,
        tracking.models(spec.output.artifact_name),
        merged.content_hash,
        policy.limits.model_versions,
    )
    if not room.passed:
        raise dg.Failure(f"{cell} is not registered: {room.text}.", allow_retries=False)
    if room.text:
        context.log.warning(room.text)
    splits = records.load(SplitsRecord, plan.dataset)
    name, card = spec.output.artifact_name, Path(plan.model_dir) / "evaluation" / plan.recipe / "README.md"
    tags = {
        **lineage(settings, policy, spec, splits, adapter.image),
        "evaluated_items": str(sum(result.items.values())),
        "watermark": plan.watermark or "",
        "dataset": plan.dataset,
        "recipe": plan.recipe,
        "content_hash": merged.content_hash,
        "family": merged.family,
        "job_type": spec.job_type,
        "method": spec.method,
        "data_hash": splits.data_hash,
        "training_key": merged.training_key,
        "base": plan.base.ref if plan.base else "",
        "base_hash": plan.base.content_hash if plan.base else "",
        "gate": gate.text,
        "dagster_run": context.run.run_id,
        "card": str(card),
    }
    summary = f"{spec.job_type} of {plan.base.ref if plan.base else 'nothing'} on {plan.dataset}. {gate.explanation}"
    version = tracking.register(name, merged.path, adapter.mlflow_run_id, tags, summary)
    entry = tracking.version(f"{name}@{version}")
    if "state" not in entry.tags:
        # Only when it is new: what a person decided about a version since is left alone.
        _begin(tracking, catalog, entry, policy, gate.text)
        entry = tracking.version(entry.ref)
    else:
        admission.note_update(tracking.model(entry.ref), "registered_model", catalog)
    on_gpu = spec.resources.gpus > 0
    marks = shown_marks(
        plan,
        Model(merged.path, merged.content_hash, spec.hyperparams.precision if on_gpu else "fp32", int(on_gpu)),
        settings.watermark_secret,
        trainer,
        context,
        artifacts.path("answers"),
    )
    if marks is not None and not marks.passed:
        context.log.warning("the watermark of %s: %s", name, marks.text)
    facts = CardFacts(
        ref=f"{name}@{version}",
        spec=spec,
        dataset=catalog.dataset(plan.dataset),
        splits=splits.rows,
        data_hash=splits.data_hash,
        plan=plan,
        adapter=adapter,
        merged=merged,
        evaluation=result,
        gate=gate,
        base_license=base_license(catalog, tracking, plan.base.ref) if plan.base else None,
        clean=records.find(CleanRecord, plan.dataset),
        marks=marks,
    )
    text = model_card(facts)
    files.write_text(card, text)
    record = RegisteredModelRecord(
        dataset=plan.dataset,
        recipe=plan.recipe,
        name=name,
        version=version,
        path=merged.path,
        content_hash=merged.content_hash,
        family=merged.family,
        job_type=spec.job_type,
        mlflow_run_id=adapter.mlflow_run_id,
        card=str(card),
    )
    records.save(cell, record)
    if adapter.mlflow_run_id is not None:
        tracking.log_artifact(adapter.mlflow_run_id, card, "model_card")
    against = _versus_production(tracking, records, record)
    return dg.MaterializeResult(
        metadata={
            "model": record.ref,
            "version": version,
            "versions of this model": len(tracking.models(name)),
            # A page keeps what it was given: where the version is now, the registry knows.
            "state when registered": entry.state,
            "aliases when registered": ", ".join(entry.aliases) or "none",
            "state now": f"llmops model show {record.ref}",
            "watermark": marks.text if marks else "none",
            "gate": gate.text,
            "figure": interval(gate.metric) if gate.metric else "",
            **headline_figures(result, gate),
            "path": stored_path(merged.path, records.paths),
            "registry": link(record.ref, f"{settings.mlflow_url}/#/models/{name}/versions/{version}"),
            "model_card": dg.MetadataValue.md(text.split("---\n", 2)[2]),
            "card_file": stored_path(card, records.paths),
            **against,
        },
        data_version=dg.DataVersion(f"{record.ref}-{merged.content_hash}"),
    )


class QuantizationConfig(dg.Config):
    """What one materialisation makes otherwise than the policy says."""

    schemes: list[str] = []
    """w4a16, w8a8 (GPTQ), fp8, awq (needs a GPU), int8 (weights only); empty: those of the policy."""


@dg.asset(
    group_name="evaluation",
    partitions_def=trainings,
    deps=["merged_model", "evaluation"],
    kinds={"python", "pytorch", "mlflow"},
    owners=["team:ml"],
    code_version="1",
    description="The model with fewer bits (GPTQ, AWQ, FP8 or int8 by llm-compressor, in an environment of its own): "
    "size, the gate's figure against the original on the same items, and how often both think the same token "
    "likeliest. What loses no more than the policy allows is registered as a draft of its own.",
)
def quantized_model(
    context: dg.AssetExecutionContext,
    config: QuantizationConfig,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    artifacts: dg.ResourceParam[Artifacts],
    trainer: dg.ResourceParam[Trainer],
    tracking: dg.ResourceParam[Tracking],
    catalog: dg.ResourceParam[Catalog],
    engines: dg.ResourceParam[Engines],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    cell = context.partition_key
    plan, merged = records.load(PlanRecord, cell), records.load(MergedModelRecord, cell)
    job_type = TrainJobSpec.model_validate(plan.spec).job_type
    if job_type in UNFIT:
        raise dg.Failure(f"models made by {job_type} are not compressed: they are small encoders", allow_retries=False)
    evaluation = records.load(EvaluationRecord, cell)
    if evaluation.model_hash != merged.content_hash:
        raise dg.Failure("the evaluation is of other weights: materialise `evaluation` first", allow_retries=False)
    known = records.find(QuantizedModelRecord, cell)
    kept = {m.scheme: m for m in known.models} if known and known.model_hash == merged.content_hash else {}
    base = records.find(RegisteredModelRecord, cell)
    original = Original(plan, merged, evaluation, records.load(SplitsRecord, plan.dataset))
    forms = CompressionContext(store, artifacts, trainer, engines, policy, settings, context)
    for scheme in config.schemes or policy.registry.compression.schemes:
        context.log.info("compressing to %s", scheme)
        try:
            one = make_form(scheme, original, forms)
        except EngineError as error:
            raise dg.Failure(f"{cell} was not compressed to {scheme}: {error}", allow_retries=False) from error
        if one.passed and base is not None:
            try:
                ref = register_form(one, base, tracking, catalog, policy.limits.model_versions)
            except RegistryFull as error:
                raise dg.Failure(f"{cell} as {scheme} is not registered: {error}", allow_retries=False) from error
            one = one.model_copy(update={"model_ref": ref})
        kept[scheme] = one
        # Kept at once: another scheme may fail, and this one was made.
        record = QuantizedModelRecord(
            dataset=plan.dataset,
            recipe=plan.recipe,
            training_key=plan.training_key,
            model_hash=merged.content_hash,
            models=sorted(kept.values(), key=lambda m: m.scheme),
        )
        records.save(cell, record)
    return dg.MaterializeResult(
        metadata={
            "models": dg.MetadataValue.table([dg.TableRecord(form_row(m)) for m in record.models]),
            "original": stored_path(merged.path, records.paths),
            **{f"{m.scheme} size": m.size_bytes for m in record.models},
            **{f"{m.scheme} {m.figure} against the original": m.difference for m in record.models},
        },
        data_version=dg.DataVersion("-".join(m.content_hash[:8] for m in record.models)),
    )


def _versus_production(
    tracking: Tracking, records: Records, record: RegisteredModelRecord
) -> dict[str, dg.MetadataValue]:
    """Tables and a plot against the version that is in production, where there is another one and its answers are."""
    try:
        compared = [
            compared_model_of(tracking.model(f"{record.name}@production"), records),
            compared_model_of(record, records),
        ]
    except (UnknownModel, FileNotFoundError):
        return {}
    if compared[0].ref == compared[1].ref:
        return {}
    found = compare(*compared)
    return {
        "versus_production": dg.MetadataValue.md(compare_report.markdown(found)),
        "versus_production_plot": dg.MetadataValue.md(plots.png_markdown(compare_report.plot(found), "both models")),
    }


def _begin(tracking: Tracking, catalog: Catalog, entry: ModelVersion, policy: Policy, gate: str) -> None:
    """Give a new version its first state, as the policy says."""
    moment = datetime.now(UTC).isoformat(timespec="seconds")
    tags = {"state": "draft"}
    if policy.registry.new_version == "staging":
        who = "the gate of the policy"
        tags = {"state": "approved", "approved_by": who, "approved_at": moment, "staged_by": who, "staged_at": moment}
        tracking.set_alias(entry.name, "staging", entry.version)
    for key, value in tags.items():
        tracking.tag(entry.name, entry.version, key, value)
    catalog.log(
        "registered_model",
        "model.register",
        entry.ref,
        state=policy.registry.new_version,
        gate=gate,
        **admission.registration(tracking.model(entry.ref), catalog),
    )
