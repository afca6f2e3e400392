"""The assets `evaluation` and `registered_model`: what a model scores, and its version in the registry."""

import json
import math
from pathlib import Path
from typing import Any

import dagster as dg

from llmops_assets import plots
from llmops_assets.automation import DUE
from llmops_assets.evaluation import evaluate as ev
from llmops_assets.evaluation import report
from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.card import CardFacts, model_card
from llmops_assets.evaluation.gate import GateOutcome, interval, judge_gate
from llmops_assets.partitions import trainings
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.records import (
    AdapterRecord,
    EvaluationRecord,
    MergedModelRecord,
    PlanRecord,
    RegisteredModelRecord,
    SplitsRecord,
)
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from resources.artifacts import Artifacts
from resources.catalog import Catalog, NotFound
from resources.dataset_store import DatasetStore
from resources.records import Records
from resources.tracking import Tracking
from resources.trainer import Trainer

RELEASE_CHECKS_IGNORED = dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey("evaluation"), "beats_base"))


@dg.asset(
    group_name="training",
    partitions_def=trainings,
    deps=["merged_model"],
    kinds={"python", "pytorch", "mlflow"},
    owners=["team:ml"],
    code_version="1",
    automation_condition=DUE,
    description="Scores of the model and of its base on the same held-out items, each with its 95 % interval, and the "
    "wrong answers. Accuracy for models that answer; perplexity and bits per byte for pre-trained ones.",
)
def evaluation(
    context: dg.AssetExecutionContext,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    artifacts: dg.ResourceParam[Artifacts],
    trainer: dg.ResourceParam[Trainer],
    tracking: dg.ResourceParam[Tracking],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    cell = context.partition_key
    plan, merged = records.load(PlanRecord, cell), records.load(MergedModelRecord, cell)
    spec = TrainJobSpec.model_validate(plan.spec)
    identity = ev.Identity(plan.dataset, plan.recipe, plan.training_key)
    on_gpu = spec.resources.gpus > 0
    run_with = {"precision": spec.hyperparams.precision if on_gpu else "fp32", "gpus": 1 if on_gpu else 0}
    tuned = Model(merged.path, merged.content_hash, **run_with)
    splits = records.load(SplitsRecord, plan.dataset)
    test = store.read(splits.manifests["test"])
    cache = artifacts.path("answers")
    folder = Path(plan.model_dir) / "evaluation" / plan.recipe
    answers = folder / "answers.jsonl"

    if spec.job_type == "PRETRAIN":
        if spec.evaluation.suites:
            context.log.warning("A pre-trained model is not asked the suites of its recipe: it answers no questions.")
        result = ev.evaluate_corpus(trainer, context, tuned, test, cache)
        record = ev.corpus_record(identity, merged.content_hash, result, answers)
        rows = ev.corpus_rows(result)
    else:
        suites = {}
        for name in spec.evaluation.suites:
            suite = records.load(SplitsRecord, name)
            suites[name] = (suite.type, store.read(suite.manifests["test"]))
        base = Model(plan.base.path, plan.base.content_hash, **run_with) if plan.base else None
        result = ev.evaluate_chat(
            trainer,
            context,
            tuned,
            base,
            ev.chat_suites(spec, (splits.type, test), suites),
            cache,
            max_new_tokens=spec.evaluation.max_new_tokens,
            batch_size=spec.evaluation.batch_size,
        )
        record = ev.chat_record(identity, merged.content_hash, result, answers)
        rows = ev.chat_rows(result)

    gate = judge_gate(record, policy.gates[spec.job_type])
    worst = report.worst_of(result)
    picture = report.plot(record, gate)
    record = record.model_copy(update={"report": str(folder / "report.html")})
    _write(answers, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    _write(folder / "report.html", report.html(cell, record, gate, worst, plots.data_uri(picture)))
    records.save(cell, record)

    run_id = records.load(AdapterRecord, cell).mlflow_run_id
    metadata = _evaluation_metadata(record, gate, worst, plots.png_markdown(picture, "headline figure by category"))
    if run_id is not None:
        step = records.load(AdapterRecord, cell).steps
        tracking.log_metrics(run_id, [(key, value, step) for key, value in report.tracked(record)])
        tracking.log_artifact(run_id, folder / "report.html", "evaluation")
        metadata["mlflow_run"] = dg.MetadataValue.url(tracking.run_url(run_id, settings.mlflow_url))
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(ev.record_hash(record, rows)))


def _evaluation_metadata(
    record: EvaluationRecord, gate: GateOutcome, worst: report.Worst, picture: str
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "headline": dg.MetadataValue.md(report.headline(record, gate)),
        "plot": dg.MetadataValue.md(picture),
        "figures": dg.MetadataValue.md(report.metric_table(record)),
        "by_category": dg.MetadataValue.md(report.category_table(record)),
        "worst": dg.MetadataValue.md(f"{worst.title}\n\n{report.worst_table(worst)}"),
        "baseline": record.baseline,
        "items": sum(record.items.values()),
        "empty_answers": record.empty_answers,
        "length_truncated": record.length_truncated,
        "refusals": record.refusals,
        "seconds": record.seconds,
        "answers": dg.MetadataValue.path(record.answers),
        "report": dg.MetadataValue.path(record.report or ""),
        "settings": dg.MetadataValue.json(record.settings),
    }
    if record.versus_base:
        metadata["versus_base"] = dg.MetadataValue.md(report.versus_base_table(record))
    if gate.metric is not None and math.isfinite(gate.metric.value):
        metadata[gate.metric.name] = gate.metric.value
    return metadata


@dg.asset(
    group_name="training",
    partitions_def=trainings,
    deps=[evaluation],
    kinds={"mlflow"},
    owners=["team:ml"],
    code_version="1",
    # Every check of the evaluation must have passed, but for the comparison with the base, which only warns: a model
    # that misses the gate is withheld while its run stays green.
    automation_condition=dg.AutomationCondition.eager()
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
    if result.model_hash != merged.content_hash:
        raise dg.Failure(
            f"{cell} is not registered: its evaluation is of the weights {result.model_hash}, but its merged model is "
            f"{merged.content_hash}. Materialise `evaluation` again.",
            allow_retries=False,
        )
    splits = records.load(SplitsRecord, plan.dataset)
    name, card = spec.output.artifact_name, Path(plan.model_dir) / "evaluation" / plan.recipe / "README.md"
    tags = {
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
        tracking.tag(name, version, "state", "approved")
        tracking.tag(name, version, "approved_by", "the gate of the policy")
        tracking.set_alias(name, "staging", version)
        entry = tracking.version(f"{name}@{version}")
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
        base_license=_base_license(catalog, tracking, plan),
    )
    text = model_card(facts)
    _write(card, text)
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
    return dg.MaterializeResult(
        metadata={
            "model": record.ref,
            "version": version,
            "state": entry.state,
            "aliases": ", ".join(entry.aliases) or "none",
            "gate": gate.text,
            "figure": interval(gate.metric) if gate.metric else "",
            "path": dg.MetadataValue.path(merged.path),
            "registry": dg.MetadataValue.url(f"{settings.mlflow_url}/#/models/{name}/versions/{version}"),
            "model_card": dg.MetadataValue.md(text.split("---\n", 2)[2]),
            "card_file": dg.MetadataValue.path(str(card)),
        },
        data_version=dg.DataVersion(f"{record.ref}-{merged.content_hash}"),
    )


def _base_license(catalog: Catalog, tracking: Tracking, plan: PlanRecord) -> str | None:
    """The licence of the base where the catalog knows it; of an earlier training of ours, that of its data."""
    if plan.base is None:
        return None
    try:
        return catalog.base_model(plan.base.ref).license
    except NotFound:
        pass
    origin = plan.base.ref.partition("|")[0] if "|" in plan.base.ref else None
    if origin is None:
        try:
            origin = tracking.model(plan.base.ref).dataset
        except (LookupError, ValueError):
            return None
    try:
        return catalog.dataset(origin).license
    except NotFound:
        return None


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)
