"""Makes forms of a model with fewer bits, evaluates each like any other model, and registers those that lost little."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.answers_file import read_answers, write_rows
from llmops_assets.evaluation.case import Case, Identity, Rows
from llmops_assets.evaluation.evaluate import evaluate
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.evaluation import EvaluationRecord
from llmops_assets.records.jobs import CompressJob
from llmops_assets.records.registry import CompressedModel, RegisteredModelRecord
from llmops_assets.records.training import MergedModelRecord, PlanRecord
from llmops_assets.registry import compression
from llmops_assets.registry.capacity import RegistryFull, capacity
from llmops_assets.serving.admission import note_update, registration
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources import content, files
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.encryption import Keyring
from resources.engines import Engines
from resources.tracking import Tracking
from resources.trainer import Trainer

ENGINE = "compression"
UNFIT = ("EMBEDDING",)


@dataclass(frozen=True)
class Original:
    """The model whose forms are made, as the graph knows it."""

    plan: PlanRecord
    merged: MergedModelRecord
    evaluation: EvaluationRecord
    splits: SplitsRecord


@dataclass(frozen=True)
class CompressionContext:
    """What makes and evaluates a form. `dagster` is Dagster's context, or None for a plain child process."""

    store: DatasetStore
    artifacts: Artifacts
    trainer: Trainer
    engines: Engines
    policy: Policy
    settings: Settings
    dagster: Any | None = None


def make_form(scheme: str, original: Original, context: CompressionContext) -> CompressedModel:
    """The model of `scheme`, made or found whole, with what it lost against the original on the same items.

    Raises EngineError when the engine is missing or fails.
    """
    plan, merged, policy, keys = original.plan, original.merged, context.policy, context.artifacts.keys
    spec = TrainJobSpec.model_validate(plan.spec)
    folder, facts = _compress(scheme, plan, merged, context.engines, policy, context.settings, keys)
    answers = Path(plan.model_dir) / "evaluation" / plan.recipe / f"answers-{scheme}.jsonl"
    on_gpu = spec.resources.gpus > 0
    digest = content.content_hash(folder)
    run_with = {"precision": spec.hyperparams.precision if on_gpu else "fp32", "gpus": int(on_gpu)}
    splits = original.splits
    case = Case(
        identity=Identity(plan.dataset, plan.recipe, plan.training_key),
        spec=spec,
        tuned=Model(str(folder), digest, **run_with),
        test=Rows(splits.type, context.store.read(splits.manifests["test"]), cluster_by=splits.group_by),
        suites={},
        answers=answers,
        cache=context.artifacts.path("answers"),
        worker=context.trainer,
        context=context.dagster,
        policy=policy.evaluation,
    )
    evaluated = evaluate(case)
    written = write_rows(answers, evaluated.rows, keys)
    gate = policy.gates[spec.job_type]
    before = read_answers(original.evaluation.answers, keys, original.evaluation.answers_sha256)
    lost = compression.difference(gate.metric, gate.suite, evaluated.rows, before)
    verdict = compression.judge(scheme, gate, lost, facts["top1"], facts["kl"], policy.registry.compression)
    return CompressedModel(
        scheme=scheme,
        path=str(folder),
        content_hash=digest,
        answers=str(answers),
        answers_sha256=written,
        size_bytes=compression.size_of(folder),
        original_bytes=compression.size_of(Path(merged.path)),
        metrics=compression.metrics_of(evaluated.record),
        figure=gate.metric,
        difference=lost.value,
        difference_low=lost.low,
        difference_high=lost.high,
        top1=facts["top1"],
        kl=facts["kl"],
        versus_original=compression.versus(gate.suite, evaluated.rows, before),
        passed=verdict.passed,
        explanation=verdict.text,
        seconds=facts["seconds"],
    )


def _compress(
    scheme: str,
    plan: PlanRecord,
    merged: MergedModelRecord,
    engines: Engines,
    policy: Policy,
    settings: Settings,
    keys: Keyring,
) -> tuple[Path, dict]:
    """The folder of the compressed model, sealed, with what the worker measured; one that is whole is used again."""
    content.verify(merged.path, merged.content_hash, "merged", "Restore the folder, or materialise merged_model again")
    content.verify_files(Path(plan.model_dir) / "plan", plan.files, "planned", "Materialise training_plan again")
    folder = Path(plan.model_dir) / "compressed" / plan.recipe / scheme
    source, rows = merged.content_hash, policy.registry.compression.calibration_rows
    facts = folders.facts(folder)
    if facts is not None and (facts["source"], facts["rows"]) == (source, rows):
        return folder, facts
    work, plan_dir = folder.with_name(f"{scheme}-work"), Path(plan.model_dir) / "plan"
    part = folder.with_name(f"{scheme}.part")
    rows_of = {
        "calibration": compression.token_rows(plan_dir, "train", rows, keys),
        "probes": compression.probe_rows(plan_dir, keys),
    }
    # The engine has no key to open sealed rows with, so they lie open only for as long as it runs.
    with files.plain_folder(work) as plain:
        paths = {name: str(compression.write_rows(plain / f"{name}.jsonl", ids)) for name, ids in rows_of.items()}
        job = CompressJob(model_dir=merged.path, output=str(part), scheme=scheme, **paths)
        facts = engines.run(ENGINE, "images.compress", job, work_dir=work, threads=settings.omp_threads)
    facts |= {"source": source, "rows": rows}
    folders.replace(part, folder, facts)
    return folder, facts


def register_form(
    one: CompressedModel, base: RegisteredModelRecord, tracking: Tracking, catalog: Catalog, most_versions: int
) -> str:
    """A version of `<name>-<scheme>`, as a draft: a person decides whether less memory is worth what was lost.

    Raises RegistryFull where there are `most_versions` already.
    """
    tags = {
        "dataset": base.dataset,
        "recipe": base.recipe,
        "content_hash": one.content_hash,
        "family": base.family,
        "job_type": base.job_type,
        "scheme": one.scheme,
        "compressed_from": base.ref,
        "card": base.card,
    }
    name = f"{base.name}-{one.scheme}"
    room = capacity(name, tracking.models(name), one.content_hash, most_versions)
    if not room.passed:
        raise RegistryFull(room.text)
    version = tracking.register(name, one.path, base.mlflow_run_id, tags, f"{base.ref} as {one.explanation}")
    ref = f"{name}@{version}"
    if "state" not in tracking.version(ref).tags:
        tracking.tag(name, version, "state", "draft")
        known = registration(tracking.model(ref), catalog)
        catalog.log("quantized_model", "model.register", ref, state="draft", gate=one.explanation, **known)
    else:
        note_update(tracking.model(ref), "quantized_model", catalog)
    return ref


def form_row(one: CompressedModel) -> dict[str, str | float]:
    """A form as a row of the table on its asset's page."""
    bounds = f"{one.difference_low:+.3f} to {one.difference_high:+.3f}" if one.difference_low is not None else ""
    return {
        "scheme": one.scheme,
        "size (MB)": round(one.size_bytes / 1e6, 3),
        "of the original (%)": round(100 * one.size_bytes / max(1, one.original_bytes), 1),
        f"{one.figure} against the original": round(one.difference, 4),
        "95 % interval": bounds,
        "same top token": round(one.top1, 4),
        "KL (nats a token)": round(one.kl, 5),
        "allowed": "yes" if one.passed else "no",
        "registered": one.model_ref or "",
    }
