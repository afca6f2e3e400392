"""The asset `quantized_model`: forms of a model with fewer bits, each evaluated like any other model."""

import json
from pathlib import Path

import dagster as dg

from llmops_assets.evaluation.answers import Model
from llmops_assets.evaluation.case import Case, Identity, Rows
from llmops_assets.evaluation.evaluate import evaluate
from llmops_assets.partitions import trainings
from llmops_assets.registry import compression
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.records import (
    CompressedModel,
    EvaluationRecord,
    MergedModelRecord,
    PlanRecord,
    QuantizedModelRecord,
    RegisteredModelRecord,
    SplitsRecord,
)
from llmops_assets.specs.settings import Settings
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import folders
from resources.artifacts import Artifacts
from resources.catalog import Catalog
from resources.dataset_store import DatasetStore
from resources.encryption import Keyring
from resources.engines import EngineError, Engines
from resources.records import Records
from resources.tracking import Tracking
from resources.trainer import Trainer

ENGINE = "compression"
UNFIT = ("EMBEDDING",)


class QuantizationConfig(dg.Config):
    """What one materialisation makes otherwise than the policy says."""

    schemes: list[str] = []
    """w4a16, w8a8 (GPTQ), fp8, awq (needs a GPU), int8 (weights only); empty: those of the policy."""


@dg.asset(
    group_name="training",
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
    spec = TrainJobSpec.model_validate(plan.spec)
    if spec.job_type in UNFIT:
        raise dg.Failure(f"models made by {spec.job_type} are not compressed: they are small encoders")
    known = records.find(QuantizedModelRecord, cell)
    kept = {m.scheme: m for m in known.models} if known and known.model_hash == merged.content_hash else {}
    original = records.load(EvaluationRecord, cell)
    if original.model_hash != merged.content_hash:
        raise dg.Failure("the evaluation is of other weights: materialise `evaluation` first", allow_retries=False)
    base = records.find(RegisteredModelRecord, cell)
    for scheme in config.schemes or policy.registry.compression.schemes:
        context.log.info("compressing to %s", scheme)
        try:
            folder, facts = _compress(scheme, plan, merged, engines, policy, settings, artifacts.keys)
        except EngineError as error:
            raise dg.Failure(f"{cell} was not compressed to {scheme}: {error}", allow_retries=False) from error
        splits = records.load(SplitsRecord, plan.dataset)
        answers = Path(plan.model_dir) / "evaluation" / plan.recipe / f"answers-{scheme}.jsonl"
        on_gpu = spec.resources.gpus > 0
        digest = folders.content_hash(folder)
        run_with = {"precision": spec.hyperparams.precision if on_gpu else "fp32", "gpus": int(on_gpu)}
        case = Case(
            identity=Identity(plan.dataset, plan.recipe, plan.training_key),
            spec=spec,
            tuned=Model(str(folder), digest, **run_with),
            test=Rows(splits.type, store.read(splits.manifests["test"]), cluster_by=splits.group_by),
            suites={},
            answers=answers,
            cache=artifacts.path("answers"),
            worker=trainer,
            context=context,
            policy=policy.evaluation,
        )
        evaluated = evaluate(case)
        _write(answers, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in evaluated.rows), artifacts.keys)
        gate = policy.gates[spec.job_type]
        before = compression.read_answers(original.answers, artifacts.keys)
        lost = compression.difference(gate.metric, gate.suite, evaluated.rows, before)
        verdict = compression.judge(scheme, gate, lost, facts["top1"], facts["kl"], policy.registry.compression)
        one = CompressedModel(
            scheme=scheme,
            path=str(folder),
            content_hash=digest,
            answers=str(answers),
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
            told=verdict.text,
            seconds=facts["seconds"],
        )
        if verdict.passed and base is not None:
            one = one.model_copy(update={"model_ref": _register(one, base, tracking, catalog)})
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
    table = [dg.TableRecord(_row(one)) for one in record.models]
    return dg.MaterializeResult(
        metadata={
            "models": dg.MetadataValue.table(table),
            "original": dg.MetadataValue.path(merged.path),
            **{f"{m.scheme} size": m.size_bytes for m in record.models},
        },
        data_version=dg.DataVersion("-".join(m.content_hash[:8] for m in record.models)),
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
    folder = Path(plan.model_dir) / "compressed" / plan.recipe / scheme
    source, rows = merged.content_hash, policy.registry.compression.calibration_rows
    facts = folders.facts(folder)
    if facts is not None and (facts["source"], facts["rows"]) == (source, rows):
        return folder, facts
    work, plan_dir = folder.with_name(f"{scheme}-work"), Path(plan.model_dir) / "plan"
    part = folder.with_name(f"{scheme}.part")
    files = {
        "calibration": compression.token_rows(plan_dir, "train", rows, keys),
        "probes": compression.probe_rows(plan_dir, keys),
    }
    paths = {name: compression.write_rows(work / f"{name}.jsonl", ids) for name, ids in files.items()}
    job = {"model_dir": merged.path, "output": str(part), "scheme": scheme}
    job |= {name: str(path) for name, path in paths.items()}
    try:
        facts = engines.run(ENGINE, "images.compress", job, work_dir=work, threads=settings.omp_threads)
    finally:
        # The engine has no key to open sealed rows with, so they lie open only for as long as it runs.
        for path in paths.values():
            path.unlink(missing_ok=True)
    facts |= {"source": source, "rows": rows}
    folders.replace(part, folder, facts)
    return folder, facts


def _register(one: CompressedModel, base: RegisteredModelRecord, tracking: Tracking, catalog: Catalog) -> str:
    """A version of `<name>-<scheme>`, as a draft: a person decides whether less memory is worth what was lost."""
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
    version = tracking.register(name, one.path, base.mlflow_run_id, tags, f"{base.ref} as {one.told}")
    ref = f"{name}@{version}"
    if "state" not in tracking.version(ref).tags:
        tracking.tag(name, version, "state", "draft")
        catalog.log("quantized_model", "model.register", ref, state="draft", content_hash=one.content_hash)
    return ref


def _row(one: CompressedModel) -> dict[str, str | float]:
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


def _write(path: Path, text: str, keys: Keyring) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(keys.seal(text.encode()))
    temporary.replace(path)
