"""The asset `evaluation`: what a model scores."""

import re
from pathlib import Path
from typing import Any

import dagster as dg

from llmops_assets import plots
from llmops_assets.automation import RUN_WHEN_READY
from llmops_assets.evaluation import report
from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.answers_file import write_answers
from llmops_assets.evaluation.case import Baseline, Case, ErrorAnalysis, Identity, Rows
from llmops_assets.evaluation.evaluate import evaluate, record_hash
from llmops_assets.evaluation.gate import GateOutcome, judge_gate
from llmops_assets.evaluation.leakage import leaked_suites, leaked_test_rows
from llmops_assets.evaluation.suites import TEST
from llmops_assets.page import link, stored_path
from llmops_assets.partitions import trainings
from llmops_assets.records.datasets import DatasetRecord, SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.training import AdapterRecord, MergedModelRecord, PlanRecord
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources import files
from resources.artifacts import Artifacts
from resources.catalog import Catalog, NotFound
from resources.dataset_store import DatasetStore
from resources.encryption import Keyring
from resources.records import Records
from resources.stored_paths import StoredPaths
from resources.tracking import Tracking, UnknownModel
from resources.trainer import Trainer


@dg.asset(
    group_name="evaluation",
    partitions_def=trainings,
    deps=["merged_model"],
    kinds={"python", "pytorch", "mlflow"},
    owners=["team:ml"],
    code_version="1",
    automation_condition=RUN_WHEN_READY,
    description="Scores of the model and of its base on the same held-out items, each with its 95 % interval, and the "
    "wrong answers. Accuracy for models that answer; perplexity and bits per byte for pre-trained ones.",
)
def evaluation(
    context: dg.AssetExecutionContext,
    records: dg.ResourceParam[Records],
    store: dg.ResourceParam[DatasetStore],
    artifacts: dg.ResourceParam[Artifacts],
    catalog: dg.ResourceParam[Catalog],
    trainer: dg.ResourceParam[Trainer],
    tracking: dg.ResourceParam[Tracking],
    policy: dg.ResourceParam[Policy],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult:
    cell = context.partition_key
    plan, merged = records.load(PlanRecord, cell), records.load(MergedModelRecord, cell)
    spec = TrainJobSpec.model_validate(plan.spec)
    on_gpu = spec.resources.gpus > 0
    run_with = {"precision": spec.hyperparams.precision if on_gpu else "fp32", "gpus": 1 if on_gpu else 0}
    folder = Path(plan.model_dir) / "evaluation" / plan.recipe
    answers = folder / "answers.jsonl"
    splits = records.load(SplitsRecord, plan.dataset)
    base, named = plan.base, suites_of(spec, policy)
    archived = archived_of(named, catalog)
    asked = [name for name in named if name not in archived]
    case = Case(
        identity=Identity(plan.dataset, plan.recipe, plan.training_key),
        spec=spec,
        tuned=Model(merged.path, merged.content_hash, **run_with),
        test=Rows(splits.type, store.read(splits.manifests["test"]), cluster_by=splits.group_by),
        suites=_suites(records, store, catalog, asked),
        answers=answers,
        cache=artifacts.path("answers"),
        worker=trainer,
        context=context,
        base=Baseline("base", base.ref, Model(base.path, base.content_hash, **run_with)) if base else None,
        production=_production(tracking, spec.output.artifact_name, merged.content_hash, run_with),
        policy=policy.evaluation,
        others={name: Model(path, digest, **run_with) for name, (path, digest) in other_models(plan).items()},
        pooling=plan.pooling,
    )
    evaluated = evaluate(case)
    rows, errors = evaluated.rows, evaluated.errors
    # What the gate says of a model that misses it begins with its base.
    record = evaluated.record.model_copy(update={"base_reading": merged.base_reading})

    gate = judge_gate(record, policy.gates[spec.job_type])
    picture = report.plot(record, gate)
    leaked = leaked_suites(plan, asked, catalog, records, store)
    of_test = leaked_test_rows(plan, catalog, records, store)
    leaked |= {TEST: of_test.share} if of_test.rows else {}
    also = {"report": str(folder / "report.html"), "leaked": leaked, "leaked_rows": of_test.rows, "archived": archived}
    record = record.model_copy(update=also)
    record = write_answers(answers, rows, record, artifacts.keys)
    _write(folder / "report.html", report.html(cell, record, gate, errors, plots.data_uri(picture)), artifacts.keys)
    records.save(cell, record)

    run_id = records.load(AdapterRecord, cell).mlflow_run_id
    plot = plots.png_markdown(picture, "headline figure by category")
    metadata = _evaluation_metadata(record, gate, errors, plot, records.paths)
    if run_id is not None:
        step = records.load(AdapterRecord, cell).steps
        tracking.log_metrics(run_id, [(key, value, step) for key, value in report.tracked(record)])
        tracking.log_artifact(run_id, folder / "report.html", "evaluation")
        metadata["mlflow_run"] = link("open the run", tracking.run_url(run_id, settings.mlflow_url))
        if not artifacts.keys:
            # A sealed report is one for `llmops`, and no page of a web server.
            address = tracking.artifact_url(run_id, "evaluation/report.html", settings.mlflow_url)
            metadata["open_report"] = link("open the report", address)
    return dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(record_hash(record, rows)))


def other_models(plan: PlanRecord) -> dict[str, tuple[str, str]]:
    """Folder and hash of the models that a training is judged with beside its own and its base."""
    found = {name: (model.path, model.content_hash) for name, model in plan.auxiliary_models.items()}
    trained = Path(plan.model_dir) / "reward"
    if "reward" not in found and (facts := folders.facts(trained)) is not None:
        found["reward"] = (str(trained), facts["content_hash"])
    return found


def suites_of(spec: TrainJobSpec, policy: Policy) -> list[str]:
    """The suites that a model is asked: those of its spec, then those that the policy wants of its job type."""
    return list(dict.fromkeys([*spec.evaluation.suites, *policy.evaluation.suites.get(spec.job_type, [])]))


def archived_of(names: list[str], catalog: Catalog) -> list[str]:
    """Those of the suites that are archived, which no model is asked any more."""
    archived = {entry.key for entry in catalog.datasets() if entry.status == "archived"}
    return [name for name in names if name in archived]


def _production(tracking: Tracking, name: str, content_hash: str, run_with: dict[str, Any]) -> Baseline | None:
    """The version of this model that users have now, where there is one and it is another."""
    try:
        model = tracking.model(f"{name}@production")
    except UnknownModel:
        return None
    if model.content_hash == content_hash or not Path(model.path).exists():
        return None
    return Baseline("production", model.ref, Model(model.path, model.content_hash, **run_with))


def _suites(records: Records, store: DatasetStore, catalog: Catalog, names: list[str]) -> dict[str, Rows]:
    suites = {}
    for name in names:
        try:
            spec = catalog.dataset(name).suite
        except NotFound:
            spec = None
        if spec is not None and spec.as_published:
            published = records.load(DatasetRecord, name)
            suites[name] = Rows(published.type, store.read(published.manifest), spec)
        else:
            splits = records.load(SplitsRecord, name)
            suites[name] = Rows(splits.type, store.read(splits.manifests["test"]), spec, splits.group_by)
    return suites


def _evaluation_metadata(
    record: EvaluationRecord, gate: GateOutcome, errors: ErrorAnalysis, picture: str, paths: StoredPaths
) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "headline": dg.MetadataValue.md(report.headline(record, gate)),
        "plot": dg.MetadataValue.md(picture),
        "figures": dg.MetadataValue.md(report.metric_table(record)),
        "by_category": dg.MetadataValue.md(report.category_table(record)),
        "worst": dg.MetadataValue.md(f"{errors.title}\n\n{report.worst_table(errors)}"),
        "baseline": record.baseline,
        "items": sum(record.items.values()),
        "empty_answers": record.empty_answers,
        "length_truncated": record.length_truncated,
        "refusals": record.refusals,
        "seconds": record.seconds,
        "answers": stored_path(record.answers, paths),
        "report": stored_path(record.report or "", paths),
        "settings": dg.MetadataValue.json(record.settings),
    }
    if record.archived:
        metadata["not_asked"] = f"archived: {', '.join(record.archived)}"
    if record.differences:
        metadata["differences"] = dg.MetadataValue.md(report.differences_table(record))
    if errors.latency:
        metadata["latency"] = dg.MetadataValue.md(
            plots.png_markdown(report.latency_plot(errors.latency), "seconds a request")
        )
    for suite, (labels, counts) in errors.matrix.items():
        # Metadata keys are no place for a reference: `@` and `-` are not allowed in them everywhere.
        key = f"confusion_{re.sub(r'[^A-Za-z0-9]+', '_', suite)}"
        metadata[key] = dg.MetadataValue.md(report.confusion_table(labels, counts))
    return metadata | report.headline_figures(record, gate)


def _write(path: Path, text: str, keys: Keyring) -> None:
    files.write_bytes(path, keys.seal(text.encode()))
