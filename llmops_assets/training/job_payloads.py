"""Puts together the worker's job for each step of a training, and the records that come of its results."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.records.jobs import MemoryEstimate, MergeJob, ModelFolder, PlanJob, TrainJob
from llmops_assets.records.training import AdapterRecord, BaseModelRecord, CurvePoint, MergedModelRecord, PlanRecord
from llmops_assets.specs.jobs import OFFLINE, Pooling
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.training import fit
from llmops_assets.training.base import read_config
from llmops_assets.training.memory import Shape
from llmops_assets.training.plan import (
    MEMORY_SHARE,
    achieved_flops,
    effective_precision,
    plan_memory,
    shared_by,
    training_seconds,
)
from llmops_assets.training.steps import total_steps
from resources import content
from resources.gpus import Device


def plan_job(
    spec: TrainJobSpec,
    base: BaseModelRecord | None,
    splits: SplitsRecord,
    store: str,
    model_dir: Path,
    auxiliary: Mapping[str, BaseModelRecord] | None = None,
    image: str | None = None,
    template_date: str | None = None,
) -> PlanJob:
    """The worker's task `plan`; `auxiliary` are the models that the job needs beside its base.

    `template_date` is what a chat template that asks for today is told.
    """
    return PlanJob(
        job_type=spec.job_type,
        spec=spec,
        base=_folder_of(base),
        store=store,
        manifests=dict(splits.manifests),
        plan_dir=str(model_dir / "plan"),
        image=image,
        template_date=template_date,
        **_auxiliary(auxiliary or {}),
    )


def _folder_of(model: BaseModelRecord | None) -> ModelFolder | None:
    return None if model is None else ModelFolder(path=model.path, content_hash=model.content_hash, files=model.files)


def _auxiliary(models: Mapping[str, BaseModelRecord]) -> dict[str, ModelFolder | None]:
    """The fields of a job that name other models: reward, retriever."""
    return {name: _folder_of(model) for name, model in models.items()}


def plan_record(
    spec: TrainJobSpec,
    *,
    dataset: str,
    recipe: str,
    key: str,
    base: BaseModelRecord | None,
    model_dir: Path,
    device: Device,
    facts: Mapping[str, Any],
    auxiliary: Mapping[str, BaseModelRecord] | None = None,
    pooling: Pooling | None = None,
) -> PlanRecord:
    """What will run, from what the worker found in the rows (`facts`) and what the device can hold."""
    shape = _shape(spec, base, facts["vocabulary"])
    precision = effective_precision(spec.hyperparams.precision or "fp32", device.kind)
    longest = min(facts["longest_row"], spec.hyperparams.max_seq_len)
    figures = facts.get("figures", {})
    memory = plan_memory(
        shape,
        spec,
        precision=precision,
        device=device.kind,
        available=device.memory_bytes,
        length=longest,
    )
    processes = shared_by(spec, device.kind)
    sampled = spec.rlhf is not None and spec.rlhf.algorithm not in OFFLINE
    hyper = spec.hyperparams
    # Pairs of two equal answers teach nothing and are left out.
    steps = (
        spec.rlhf.ppo_steps if sampled else total_steps(facts["rows"]["train"] - same_pairs(figures), hyper, processes)
    )
    epochs = steps * hyper.batch_size * hyper.gradient_accumulation_steps * processes / facts["rows"]["train"]
    seconds = training_seconds(
        shape,
        tokens=int(facts["tokens"] * epochs / processes),
        method=spec.method,
        checkpointing=memory.checkpointing,
        flops=achieved_flops(device),
    )
    typed = fit.on_gpu_type(shape, spec, length=longest, tokens=int(facts["tokens"] * epochs))
    return PlanRecord(
        dataset=dataset,
        recipe=recipe,
        training_key=key,
        spec=spec.model_dump(mode="json"),
        base=base,
        model_dir=str(model_dir),
        files=content.sealed_files(model_dir / "plan"),
        **{name: facts[name] for name in _FROM_ROWS},
        auxiliary_models=dict(auxiliary or {}),
        pooling=pooling,
        figures=figures,
        findings=facts.get("findings", []),
        trained=facts.get("trained", []),
        steps=steps,
        precision=precision,
        gradient_checkpointing=memory.checkpointing,
        memory_bytes=memory.estimate.total,
        memory_available=int(MEMORY_SHARE * device.memory_bytes),
        memory_advice=None
        if memory.fits
        else fit.refusal(memory, shape, spec, precision=precision, device=device.kind, length=longest),
        memory_smaller=fit.advice(
            shape,
            spec,
            precision=precision,
            device=device.kind,
            available=memory.estimate.total * 2 // 3,
            length=longest,
        ),
        on_gpu_type=asdict(typed) if typed else None,
        seconds=seconds,
        device=f"{device.name} ({device.kind})",
    )


def same_pairs(figures: Mapping[str, float]) -> int:
    """Preference pairs whose two answers are the same."""
    return int(figures.get("same_pairs", 0))


_FROM_ROWS = (
    "rows",
    "tokens",
    "trainable_tokens",
    "rows_without_trainable_tokens",
    "truncated_rows",
    "cut_answers",
    "dropped_rows",
    "double_bos_rows",
    "stop_token",
    "stop_token_trained",
    "chat_template_hash",
    "prefix_preserving",
    "packing_efficiency",
    "failures",
    "example",
)


def _shape(spec: TrainJobSpec, base: BaseModelRecord | None, vocabulary: int) -> Shape:
    if base is not None:
        return Shape.from_config(read_config(Path(base.path)))
    new = spec.architecture
    return Shape(
        hidden=new.hidden_size,
        layers=new.num_layers,
        heads=new.num_heads,
        kv_heads=new.num_kv_heads,
        head_dim=new.hidden_size // new.num_heads,
        intermediate=new.intermediate_size,
        vocabulary=new.vocab_size or vocabulary,
        tied=new.tie_embeddings,
    )


def train_job(plan: PlanRecord, policy: Policy, device: Device, engines: Path) -> TrainJob:
    """The worker's task `train`; `engines` is the folder of the environments of trainers with pins of their own."""
    spec, folder = TrainJobSpec.model_validate(plan.spec), Path(plan.model_dir)
    return TrainJob(
        job_type=spec.job_type,
        spec=spec,
        base=_folder_of(plan.base),
        plan_dir=str(folder / "plan"),
        plan_files=plan.files,
        checkpoints=str(folder / "checkpoints"),
        output=str(folder / "adapter"),
        precision=plan.precision,
        gradient_checkpointing=plan.gradient_checkpointing,
        device=device.kind,
        # Without a GPU it is one process, whatever the spec would have shared.
        gpus=spec.resources.gpus if device.kind == "cuda" else min(1, spec.resources.gpus),
        family_version=policy.families[spec.model_family].min_version,
        stop_token=plan.stop_token,
        memory=MemoryEstimate(needed=plan.memory_bytes, available=plan.memory_available, advice=plan.memory_smaller),
        pooling=plan.pooling,
        engines=str(engines.absolute()),
        # Of the plan: another image of the same name would make other weights under this training's key.
        image=plan.image,
        **_auxiliary(plan.auxiliary_models),
    )


def adapter_record(plan: PlanRecord, facts: Mapping[str, Any], *, reused: bool, run_id: str | None) -> AdapterRecord:
    """What came of the worker's task `train`."""
    names = (
        "content_hash",
        "steps",
        "resumed_from",
        "first_loss",
        "last_loss",
        "eval_loss",
        "seconds",
        "tokens_per_second",
        "peak_memory_bytes",
        "weight_change",
        "non_finite_weights",
    )
    return AdapterRecord(
        dataset=plan.dataset,
        recipe=plan.recipe,
        training_key=plan.training_key,
        method=plan.spec["method"],
        # Of the folder, not of the seal: it may have been moved since it was sealed.
        path=str(Path(plan.model_dir) / "adapter"),
        files=content.sealed_files(Path(plan.model_dir) / "adapter"),
        **{name: facts[name] for name in names},
        best_step=facts.get("best_step"),
        **{name: facts.get(name) for name in ("weight_change_rms", "trained_tensors", "unmoved_tensors")},
        moved_by_module=facts.get("moved_by_module", {}),
        check_seconds=facts.get("check_seconds"),
        curve=[CurvePoint(**point) for point in facts["curve"]],
        figures=facts.get("figures", {}),
        image=plan.image,
        reused=reused,
        mlflow_run_id=run_id,
    )


def merged_folder(plan: PlanRecord, key: str) -> Path:
    """Where the servable model of that merge key lies: one of another key keeps its place, since it may be served."""
    return Path(plan.model_dir) / f"merged-{key[:8]}"


def merge_job(plan: PlanRecord, adapter: AdapterRecord, key: str, image: str | None = None) -> MergeJob:
    """The worker's task `merge`, for the model of that merge key, made in `image` where it is one."""
    spec, folder = TrainJobSpec.model_validate(plan.spec), Path(plan.model_dir)
    return MergeJob(
        job_type=spec.job_type,
        spec=spec,
        base=_folder_of(plan.base),
        adapter=adapter.path,
        adapter_files=adapter.files,
        plan_dir=str(folder / "plan"),
        plan_files=plan.files,
        output=str(merged_folder(plan, key)),
        precision=plan.precision,
        stop_token=plan.stop_token,
        pooling=plan.pooling,
        image=image,
        **_auxiliary(plan.auxiliary_models),
    )


def merged_record(plan: PlanRecord, facts: Mapping[str, Any], key: str) -> MergedModelRecord:
    """What came of the worker's task `merge` for the model of that merge key."""
    return MergedModelRecord(
        dataset=plan.dataset,
        recipe=plan.recipe,
        training_key=plan.training_key,
        family=plan.spec["model_family"],
        merge_key=key,
        # Of the folder, not of the seal: it may have been moved since it was sealed.
        **{**facts, "path": str(merged_folder(plan, key))},
    )


def metric_points(lines: list[dict[str, Any]]) -> list[tuple[str, float, int]]:
    """(key, value, step) for the tracking server, of lines of the worker's live metrics."""
    keys = {"loss", "eval_loss", "reward", "kl", "accuracy", "entropy", "learning_rate", "grad_norm"}
    keys |= {"tokens_per_second", "memory_bytes"}
    points = [
        (f"{line['phase']}/{key}" if "phase" in line else key, float(value), int(line["step"]))
        for line in lines
        for key, value in line.items()
        if (key in keys or key.startswith("system/")) and isinstance(value, float | int)
    ]
    perplexity = [
        ("eval_perplexity", math.exp(value), step) for key, value, step in points if key == "eval_loss" and value < 700
    ]
    return points + perplexity
