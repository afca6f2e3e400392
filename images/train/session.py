"""Runs one trainer from its last whole checkpoint to the end, and says what came of it, whatever kind it is."""

import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers.trainer_callback import PrinterCallback

from images.train import check_time, distributed, faults
from images.train.check_time import counted
from images.train.order import OrderByEpoch
from images.train.progress import Progress, RowIdsOf, Snapshot, StopWithCheckpoint, Watch, loss_curve, peak_memory
from images.train.reporter import Reporter, Stopped
from images.train.trained_modules import check_adapter
from llmops_assets.records.jobs import TrainJob
from llmops_assets.specs.training import EarlyStopping, TrainJobSpec
from llmops_assets.training import folders
from llmops_assets.training.steps import total_steps, warmup_steps


@dataclass(frozen=True)
class Session:
    """A trainer that is ready: `save` writes its weights to a folder and gives their hash.

    `evaluated` says whether it has rows to validate on; `figures` gives what only this kind of training knows, as facts
    by name, once it is trained. `row_ids` gives the row ids of a batch, for when one breaks the training.
    """

    trainer: Any
    evaluated: bool
    save: Callable[[Path], str]
    stopping: EarlyStopping | None = None
    figures: Callable[[], dict[str, Any]] = field(default=dict)
    row_ids: RowIdsOf | None = None


def common_arguments(
    spec: TrainJobSpec, job: TrainJob, count: int, evaluated: bool, steps: int | None = None
) -> dict[str, Any]:
    """What every trainer is told, TRL's and transformers' own, for `count` rows (or packed blocks), or for `steps`."""
    hyper = spec.hyperparams
    steps = steps or total_steps(count, hyper, distributed.processes(job))
    evaluate = "no" if not evaluated else "epoch" if hyper.eval_steps is None else "steps"
    stopping = evaluate == "steps" and hyper.early_stopping is not None
    return {
        "output_dir": job.checkpoints,
        "max_steps": steps,
        "per_device_train_batch_size": hyper.batch_size,
        "per_device_eval_batch_size": hyper.batch_size,
        "gradient_accumulation_steps": hyper.gradient_accumulation_steps,
        "learning_rate": hyper.lr,
        "weight_decay": hyper.weight_decay,
        "lr_scheduler_type": hyper.scheduler,
        "warmup_steps": warmup_steps(hyper, steps),
        "seed": hyper.seed,
        "bf16": job.precision == "bf16",
        "fp16": job.precision == "fp16",
        "use_cpu": job.device == "cpu",
        "save_strategy": "steps",
        "save_steps": hyper.save_steps,
        # The last may turn out damaged; with early stopping the best is kept besides.
        "save_total_limit": 2,
        "eval_strategy": evaluate,
        "eval_steps": hyper.eval_steps if evaluate == "steps" else None,
        "load_best_model_at_end": stopping,
        "metric_for_best_model": "eval_loss" if stopping else None,
        "logging_strategy": "steps",
        "logging_steps": max(1, min(10, steps // 100)),
        "logging_first_step": True,
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "dataloader_pin_memory": job.device == "cuda",
        **distributed.arguments(job),
    }


def train(
    build: Callable[[], Session],
    spec: TrainJobSpec,
    job: TrainJob,
    reporter: Reporter,
    phase: str | None = None,
) -> dict[str, Any]:
    """Train what `build` makes and leave it in `output` of the job, sealed with the facts that are returned.

    `phase` names a training that comes before the one that the job is for; its live metrics carry the name.
    Raises Stopped when that was asked for, with a checkpoint saved; OutOfMemory, DiskFull and InputsChanged say what
    was needed, and Diverged which rows were in the batch.
    """
    needed: dict[str, int] = {}
    with faults.explained(job, needed):
        return _train(lambda: _checked(build, job), spec, job, reporter, needed, phase)


def _checked(build: Callable[[], Session], job: TrainJob) -> Session:
    """What `build` makes, once the inputs are found to be what was planned; they are read again while it is made."""
    with ThreadPoolExecutor(1) as beside:
        check = beside.submit(_looked_at, job)
        try:
            session = build()
        except Exception:
            # Inputs that are not what they were are the better reason.
            check.result()
            raise
        check.result()
    return session


def _looked_at(job: TrainJob) -> None:
    with counted():
        faults.check_inputs(job)


def train_first(
    build: Callable[[TrainJob], Session],
    name: str,
    spec: TrainJobSpec,
    job: TrainJob,
    reporter: Reporter,
    phase: str,
) -> dict[str, Any]:
    """The facts of a training that the job's own needs before it; trained now if no earlier attempt has finished it.

    `build` gets the job of that training, which leaves its model in the folder `name` beside `output`.
    """
    folder = Path(job.output).with_name(name)
    found = folders.facts(folder)
    if found is None:
        reporter.log.info("training the %s first", phase)
        before = folder.with_name(f"checkpoints-{name}")
        first = job.model_copy(update={"checkpoints": str(before), "output": str(folder)})
        found = train(lambda: build(first), spec, first, reporter, phase)
    return found


def _train(
    build: Callable[[], Session],
    spec: TrainJobSpec,
    job: TrainJob,
    reporter: Reporter,
    needed: dict[str, int],
    phase: str | None,
) -> dict[str, Any]:
    checkpoints, output = Path(job.checkpoints), Path(job.output)
    ours = faults.identity(spec, job)
    step, checkpoint = last_checkpoint(checkpoints, ours, reporter)
    torch.manual_seed(spec.hyperparams.seed)
    session = build()
    trainer = session.trainer
    check_adapter(trainer.model, spec.hyperparams.target_modules)
    needed["checkpoint"] = faults.checkpoint_bytes(trainer.model)
    faults.check_disk(checkpoints, needed["checkpoint"])
    # It prints what our own log says.
    trainer.remove_callback(PrinterCallback)
    progress = Progress(reporter, Watch(trainer, session.row_ids), ours, phase)
    trainer.add_callback(progress)
    trainer.add_callback(OrderByEpoch())
    if session.stopping is not None:
        from transformers import EarlyStoppingCallback

        trainer.add_callback(EarlyStoppingCallback(session.stopping.patience, session.stopping.min_delta))
        trainer.add_callback(StopWithCheckpoint())
    with counted():
        start = Snapshot(trainer.model)
    began = time.monotonic()
    with reporter.finishing_first():
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.monotonic() - began
    state = trainer.state
    if (message := stopped(state, reporter)) is not None:
        raise Stopped(message)
    first = distributed.rank() == 0
    if first:
        shutil.rmtree(output, ignore_errors=True)
        output.mkdir(parents=True)
    facts = outcome(session, progress, start, seconds, step, output)
    if not first:
        return facts
    folders.seal(output, facts)
    ends = (facts["first_loss"], facts["last_loss"])
    reporter.log.info("trained %d steps in %.0f s, loss %.4f to %.4f", state.global_step, seconds, *ends)
    return facts


def stopped(state: Any, reporter: Reporter) -> str | None:
    """What to say of a training that was asked to stop before its end; None for one that came to it."""
    if not reporter.stop_reason or state.global_step >= state.max_steps:
        return None
    where = f"stopped at step {state.global_step} of {state.max_steps}"
    return f"{where} ({reporter.stop_reason}); its checkpoint is saved, the next run resumes from it"


def last_checkpoint(folder: Path, ours: Mapping[str, str], reporter: Reporter) -> tuple[int, Path] | tuple[None, None]:
    """Step and path of the checkpoint that a training goes on from, if any; those after it are deleted as not whole.

    Raises InputsChanged when it was made of other things than `ours`.
    """
    step, checkpoint, warnings = folders.last_checkpoint(folder)
    for warning in warnings:
        reporter.log.warning(warning)
    for found, path in folders.checkpoints(folder):
        if (step is None or found > step) and distributed.rank() == 0:
            # Of several processes the others have seen them too, and passed them over.
            shutil.rmtree(path, ignore_errors=True)
    if step is None or checkpoint is None:
        return None, None
    faults.check_resumable(step, checkpoint, ours)
    reporter.log.info("resuming from the checkpoint of step %d", step)
    return step, checkpoint


def outcome(
    session: Session, progress: Progress, start: Snapshot, seconds: float, step: int | None, output: Path
) -> dict[str, Any]:
    """Save the trained weights to `output`; what came of `seconds` of training from checkpoint `step`, by name."""
    trainer, state = session.trainer, session.trainer.state
    eval_loss = _last_eval_loss(trainer) if session.evaluated else None
    with counted():
        change, non_finite = start.compare(trainer.model)
        # Before it is saved: what is merged for that has other names.
        moved = start.how_much_moved(trainer.model)
    curve = loss_curve(state.log_history)
    losses = [point["loss"] for point in curve if point.get("loss") is not None]
    facts = {
        "path": str(output),
        "content_hash": session.save(output),
        "steps": state.global_step,
        "best_step": state.best_global_step if session.stopping is not None else None,
        "resumed_from": step,
        "first_loss": losses[0],
        "last_loss": float(np.mean(losses[-max(1, len(losses) // 20) :])),
        "eval_loss": eval_loss,
        "seconds": seconds,
        "tokens_per_second": progress.rate,
        "peak_memory_bytes": peak_memory(),
        "curve": curve,
        "weight_change": change,
        **moved,
        "non_finite_weights": non_finite,
        "trained_parameters": sum(p.numel() for p in trainer.model.parameters() if p.requires_grad),
        "figures": session.figures(),
    }
    return facts | {"check_seconds": check_time.seconds()}


def _last_eval_loss(trainer: Any) -> float | None:
    """Validation loss of the weights that are kept: the best ones where training stops early, else the last."""
    if trainer.args.load_best_model_at_end and trainer.state.best_metric is not None:
        return float(trainer.state.best_metric)
    for entry in reversed(trainer.state.log_history):
        if entry.get("step") == trainer.state.global_step and "eval_loss" in entry:
            return float(entry["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])
