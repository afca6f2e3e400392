"""What people see of a training in the Dagster UI and in MLflow."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from llmops_assets import plots
from llmops_assets.records.base import PATHS
from llmops_assets.records.training import AdapterRecord, CurvePoint, MergedModelRecord, PlanRecord

if TYPE_CHECKING:
    from resources.tracking import Tracking


def size(count: int) -> str:
    """A number of bytes in words: ``1.5 GiB``."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            return f"{value:,.0f} {unit}" if unit == "B" else f"{value:,.1f} {unit}"
        value /= 1024
    raise AssertionError("unreachable")


def plan_facts(plan: PlanRecord) -> dict[str, Any]:
    """What is worth seeing of a plan, by name; text of several lines is Markdown."""
    return {
        "steps": plan.steps,
        "rows": plan.rows.get("train", 0),
        "tokens an epoch": plan.tokens,
        "trainable tokens an epoch": plan.trainable_tokens,
        "share of tokens that carry loss": plan.trainable_tokens / plan.tokens,
        "truncated rows": plan.truncated_rows,
        "cut answers": plan.cut_answers,
        "rows left out as too long": plan.dropped_rows,
        **({"what is trained": trained_table(plan)} if plan.trained else {}),
        "packing efficiency": plan.packing_efficiency,
        "stop token": plan.stop_token or "none",
        "chat template": plan.chat_template_hash or "none",
        **({"the template's today": plan.template_date} if plan.template_date else {}),
        "memory needed": size(plan.memory_bytes),
        "memory of the device": size(plan.memory_available) if plan.memory_available else "unknown",
        "time, roughly": f"{plan.seconds:,.0f} s" if plan.seconds is not None else "unknown",
        **gpu_type_facts(plan),
        "device": plan.device,
        **({"image": plan.image} if plan.image else {}),
        "precision": plan.precision,
        "base": f"{plan.base.ref} ({plan.base.content_hash})" if plan.base else "none: from nothing",
        **{name: f"{model.ref} ({model.content_hash})" for name, model in plan.auxiliary_models.items()},
        **({"pooling": plan.pooling} if plan.pooling else {}),
        **in_words(plan.figures),
        **{f"a row with {f.name}": f.example for f in plan.findings if f.example},
        "a row as it is trained": plan.example,
        "folder": plan.model_dir,
        "training key": plan.training_key,
    }


def trained_table(plan: PlanRecord) -> str:
    """Markdown: which modules are trained, how, in how many layers, and with how many parameters."""
    lines = [f"| {t.module} | {t.how} | {t.layers} | {t.parameters:,} |" for t in plan.trained]
    total = sum(t.parameters for t in plan.trained)
    return "\n".join(
        ["| module | how | layers | parameters |", "|---|---|---|---|", *lines, f"| all | | | {total:,} |"]
    )


def in_words(figures: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of a job type by readable names."""
    return {name.replace("_", " "): value for name, value in figures.items() if value is not None}


def gpu_type_facts(plan: PlanRecord) -> dict[str, Any]:
    """What it would take on the GPU type that the spec names, which need not be of this machine."""
    typed = plan.on_gpu_type
    if typed is None:
        return {}
    words = f"{size(typed['needed'])} of {size(typed['available'])}, roughly {typed['seconds']:,.0f} s"
    return {f"on {typed['gpu']}": words}


def adapter_facts(record: AdapterRecord) -> dict[str, Any]:
    """What is worth seeing of a training, by name."""
    return {
        "steps": record.steps,
        **({"best step": record.best_step} if record.best_step is not None else {}),
        "first loss": record.first_loss,
        "last loss": record.last_loss,
        **({"validation loss": record.eval_loss} if record.eval_loss is not None else {}),
        "seconds": record.seconds,
        **({"tokens a second": record.tokens_per_second} if record.tokens_per_second else {}),
        **({"peak memory": size(record.peak_memory_bytes)} if record.peak_memory_bytes else {}),
        **in_words(record.figures),
        "weights": "were there already: nothing was trained" if record.reused else "trained in this run",
        "resumed from step": record.resumed_from if record.resumed_from is not None else "the start",
        **({"image": record.image} if record.image else {}),
        "loss curve": plots.png_markdown(loss_plot(record.curve), "loss by step"),
        **reward_curve(record.curve),
        "folder": record.path,
    }


def checkpoint_facts(step: int, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What is worth seeing while it trains, at the checkpoint of `step`, from the live metrics so far."""
    names = {"loss": "loss", "eval_loss": "validation loss", "tokens_per_second": "tokens a second"}
    last = {
        shown: next((line[name] for line in reversed(lines) if line.get(name) is not None), None)
        for name, shown in names.items()
    }
    memory = next((line["memory_bytes"] for line in reversed(lines) if line.get("memory_bytes")), None)
    points = [CurvePoint(**{name: line.get(name) for name in CurvePoint.model_fields}) for line in lines]
    stride = -(-len(points) // 500) or 1
    thinned = [p for i, p in enumerate(points) if i % stride == 0 or p.eval_loss is not None]
    return {
        "step": step,
        **{name: value for name, value in last.items() if value is not None},
        **({"peak memory": size(memory)} if memory else {}),
        **({"loss curve": plots.png_markdown(loss_plot(thinned), "loss by step")} if points else {}),
    }


def keep_artifacts(tracking: "Tracking", run_id: str, plan: PlanRecord, facts: Mapping[str, Any]) -> None:
    """Put what explains a training beside its MLflow run: the plan, the worker's log, the curve, the adapter's config.

    The weights stay where they are: their folder and hash are tags. No row goes with the plan: MLflow's files are not
    sealed, and an erasure would have to look for it there.
    """
    folder = Path(plan.model_dir)
    points = [CurvePoint(**point) for point in facts["curve"]]
    with TemporaryDirectory() as temporary:
        inside = Path(temporary)
        text = plan.model_dump_json(
            indent=1, exclude={"example": True, "findings": {"__all__": {"example"}}}, context={PATHS: tracking.paths}
        )
        (inside / "plan.json").write_text(text, encoding="utf-8")
        loss_plot(points).savefig(inside / "loss.png", dpi=110)
        for path in (folder / "work" / "train.log", folder / "adapter" / "adapter_config.json"):
            if path.exists():
                shutil.copyfile(path, inside / path.name)
        tracking.log_artifact(run_id, inside)
    tracking.set_run_tags(run_id, {"llmops.weights": facts["path"], "llmops.content_hash": facts["content_hash"]})


def merged_facts(record: MergedModelRecord) -> dict[str, Any]:
    """What is worth seeing of a merged model, by name."""
    encoder = record.chat_template_hash is None and "pooling" in record.figures
    names = (
        ("largest difference to the trained vectors", "texts with the trained vector")
        if encoder
        else ("largest logit difference to base + adapter", "same likeliest token as base + adapter")
    )
    found = (record.max_logit_difference, record.top1_agreement)
    measured = {name: value for name, value in zip(names, found, strict=True) if value is not None}
    if record.mean_kl is not None:
        measured["divergence from base + adapter, nats a token"] = record.mean_kl
    return {
        "parameters": record.parameters,
        **measured,
        **in_words(record.figures),
        "chat template": record.chat_template_hash or "none",
        "content": record.content_hash,
        "folder": record.path,
    }


def loss_plot(curve: Sequence[CurvePoint]) -> Any:
    """Training and validation loss by step."""
    fig, ax = plots.figure()
    train = [(p.step, p.loss) for p in curve if p.loss is not None]
    validation = [(p.step, p.eval_loss) for p in curve if p.eval_loss is not None]
    if train:
        ax.plot(*zip(*train, strict=True), color=plots.PALETTE[0], linewidth=1, label="training")
    if validation:
        ax.plot(
            *zip(*validation, strict=True), "o-", color=plots.PALETTE[1], linewidth=1, markersize=3, label="validation"
        )
    if train or validation:
        ax.legend(frameon=False)
    ax.set_title("Loss")
    ax.set_xlabel("step")
    ax.set_ylim(bottom=0)
    return fig


def reward_curve(curve: Sequence[CurvePoint]) -> dict[str, str]:
    """Reward and divergence by step, where answers were sampled: what the loss of policy optimisation does not show."""
    reward = [(p.step, p.reward) for p in curve if p.reward is not None]
    away = [(p.step, p.kl) for p in curve if p.kl is not None]
    if not reward:
        return {}
    fig, ax = plots.figure()
    lines = ax.plot(*zip(*reward, strict=True), color=plots.PALETTE[0], linewidth=1, label="reward")
    ax.set_xlabel("step")
    ax.set_ylabel("reward")
    if away:
        other = ax.twinx()
        lines += other.plot(
            *zip(*away, strict=True), color=plots.PALETTE[1], linewidth=1, label="divergence, nats a token"
        )
        other.set_ylabel("nats a token")
    ax.legend(handles=lines, frameon=False)
    ax.set_title("Reward, and how far the policy is from its reference")
    return {"reward curve": plots.png_markdown(fig, "reward and divergence by step")}


def parameters(plan: PlanRecord) -> dict[str, Any]:
    """The parameters of a training for MLflow, flat: ``hyperparams.lr``."""
    flat: dict[str, Any] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                walk(f"{prefix}.{key}" if prefix else key, item)
        elif value is not None:
            flat[prefix] = value

    walk("", plan.spec)
    extra = {"training_key": plan.training_key, "steps": plan.steps, "device": plan.device, "precision": plan.precision}
    return {**flat, **extra, "chat_template_hash": plan.chat_template_hash or ""}
