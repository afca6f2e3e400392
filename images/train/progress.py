"""Follows a training: its live progress and curve, what its weights did, and the memory that it took."""

import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import TrainerCallback

from images.train import distributed
from images.train.reporter import Reporter
from llmops_assets.training import folders

_SAMPLED_VALUES = 1 << 20
"""Values of a tensor that are compared with its initialisation: of a large one, so many, evenly spaced."""

_LOG_EVERY_SECONDS = 1.0
_LIVE_EVERY_SECONDS = 0.25
_SYSTEM_EVERY_SECONDS = 10.0

CURVES = ("loss", "eval_loss", "reward", "kl", "accuracy")
"""What is kept by step: the reward and the divergence (nats a token) of policy optimisation, the share of pairs told
apart in preference training."""

LOGGED = {name: name for name in (*CURVES, "learning_rate", "grad_norm", "entropy")} | {
    "rewards/accuracies": "accuracy"
}
"""Our name by that of the trainers' logs."""


class Diverged(RuntimeError):
    """The loss is no longer a number."""


def finite(loss: torch.Tensor, step: int) -> torch.Tensor:
    """`loss` of that step; raises Diverged when it is no number."""
    if not torch.isfinite(loss):
        raise Diverged(diverged(loss.item(), step))
    return loss


def diverged(value: object, step: int) -> str:
    """What to say of a loss that became `value`."""
    return f"the loss became {value} in step {step}: lower lr, add warm-up, or look at the rows of this step"


RowIdsOf = Callable[[Any], list[str]]
"""Gives the ids of the rows in a batch as the trainer takes it: a mapping of tensors, or the rows themselves."""


class Watch:
    """Looks at the loss of every step of a trainer, and says which rows were in the batch that broke it."""

    def __init__(self, trainer: Any, row_ids: RowIdsOf | None) -> None:
        self.trainer, self.row_ids = trainer, row_ids
        self.loss: float | None = None
        self._before: Any = None
        self._step = trainer.training_step
        trainer.training_step = self._watched

    def _watched(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        # The trainer takes the batch apart; what is kept is the mapping, not the numbers.
        batch = dict(inputs) if isinstance(inputs, Mapping) else inputs
        number = self.trainer.state.global_step + 1
        try:
            loss = finite(self._step(model, inputs, *args, **kwargs), number)
        except Diverged as error:
            raise Diverged(f"{error}. {self._blame(model, batch)}".rstrip(". ")) from None
        # Scaled down by the trainer, so that the steps that it gathers add up to their mean.
        self.loss = loss.item() * self.trainer.args.gradient_accumulation_steps
        self._before = batch
        return loss

    def _blame(self, model: Any, batch: Any) -> str:
        if self.row_ids is None or not batch:
            return ""
        rows = _listed(self.row_ids(batch))
        parts = [f"The rows of this batch: {rows}"]
        trained, frozen = (
            sum(int((~torch.isfinite(p)).sum()) for p in model.parameters() if p.requires_grad is kind)
            for kind in (True, False)
        )
        if frozen:
            parts.append(
                f"{frozen} weights of the base model are no numbers: no rate mends that, register a base that is whole"
            )
        if trained and self._before is not None:
            before = _listed(self.row_ids(self._before))
            parts.append(f"The update before made {trained} weights no numbers, from the rows: {before}")
        return ". ".join(parts)


def _listed(names: list[str]) -> str:
    shown = ", ".join(names[:64])
    return f"{shown} and {len(names) - 64} more" if len(names) > 64 else shown or "none that the plan knows"


class Progress(TrainerCallback):
    """Says where the training is, seals its checkpoints, and ends it in order when that is asked for.

    `identity` is what the checkpoints are made of, kept in their seals; `phase` names a
    training that comes before the one that the job is for.
    """

    def __init__(
        self,
        reporter: Reporter,
        watch: Watch | None = None,
        identity: Mapping[str, str] | None = None,
        phase: str | None = None,
    ) -> None:
        self.phase = {"phase": phase} if phase else {}
        self.reporter, self.watch, self.identity = reporter, watch, dict(identity or {})
        self.rate: float | None = None
        self._began = self._logged = self._shown = self._measured = 0.0
        self._first_step = 0
        self._last: dict[str, Any] = {}
        self._process = psutil.Process()
        # The first answer is since ever, and means nothing.
        self._process.cpu_percent()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = self._measured = time.monotonic()
        self._first_step = state.global_step
        if state.best_model_checkpoint:
            # A resumed state names the folder where it was trained before; the home may have been moved since, and the
            # trainer would only warn, and keep the last weights instead of the best.
            state.best_model_checkpoint = str(Path(args.output_dir) / Path(state.best_model_checkpoint).name)
        self.reporter.log.info("training %d steps from step %d", state.max_steps, state.global_step)
        self._show(state, self._began)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        # All processes of a training stop after the same step, whichever of them was told first.
        if state.global_step < state.max_steps and distributed.any_process(self.reporter.stop_reason is not None):
            self.reporter.stop_reason = self.reporter.stop_reason or "another process was asked to stop"
            self.reporter.log.warning("stopping: %s", self.reporter.stop_reason)
            control.should_save = control.should_training_stop = True
        now, last = time.monotonic(), state.global_step == state.max_steps
        if self.watch is not None and self.watch.loss is not None:
            self._last["loss"] = self.watch.loss
        if now - self._shown >= _LIVE_EVERY_SECONDS or last:
            self._show(state, now)
        if now - self._logged >= _LOG_EVERY_SECONDS or last:
            self._logged = now
            self._log_progress(state, now)
        if now - self._measured >= _SYSTEM_EVERY_SECONDS or last:
            self._measured = now
            self.reporter.metrics({"step": state.global_step, **system_metrics(self._process)})

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if not args.load_best_model_at_end:
            return
        found = (metrics or {}).get("eval_loss", math.inf)
        # The trainer keeps the best only where a checkpoint happens to be due; it would load another one at the end.
        if state.best_metric is None or found < state.best_metric:
            control.should_save = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        elapsed = time.monotonic() - self._began
        if "num_tokens" in logs and elapsed > 0:
            self.rate = logs["num_tokens"] / elapsed
        values = {ours: logs[theirs] for theirs, ours in LOGGED.items() if logs.get(theirs) is not None}
        if not values:
            return
        self._last |= values
        self.reporter.metrics(
            {**self.phase, "step": state.global_step, "epoch": state.epoch, **values, "tokens_per_second": self.rate}
            | {"memory_bytes": peak_memory(), "seconds": elapsed}
        )
        if "eval_loss" in values:
            # The step of this validation was shown before it; after the last one no other step follows.
            self._show(state, time.monotonic())

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        distributed.together()
        if distributed.rank() != 0:
            return
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        folders.seal(folder, {"step": state.global_step, "identity": self.identity})
        self.reporter.log.info("checkpoint of step %d saved", state.global_step)
        self.reporter.metrics({**self.phase, "step": state.global_step, "checkpoint": True})

    def _left(self, state: Any, now: float) -> float | None:
        done = state.global_step - self._first_step
        return (now - self._began) / done * (state.max_steps - state.global_step) if done else None

    def _show(self, state: Any, now: float) -> None:
        self._shown = now
        names = ("loss", "eval_loss")
        self.reporter.progress(
            {"step": state.global_step, "steps": state.max_steps, **{n: self._last.get(n) for n in names}}
            | {"tokens_per_second": self.rate, "memory_bytes": peak_memory()}
            | {"seconds": now - self._began, "eta_seconds": self._left(state, now)}
        )

    def _log_progress(self, state: Any, now: float) -> None:
        left = self._left(state, now)
        parts = [f"step {state.global_step}/{state.max_steps}"]
        if "loss" in self._last:
            parts.append(f"loss {self._last['loss']:.4f}")
        if self.rate:
            parts.append(f"{self.rate:,.0f} tokens/s")
        parts.append(f"{peak_memory() / 2**30:.2f} GiB")
        parts.append(f"{left:.0f} s left" if left is not None else "time left unknown")
        self.reporter.log.info(", ".join(parts))


class StopWithCheckpoint(TrainerCallback):
    """Saves where early stopping ends a training; to be added after the callback that stops it."""

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if control.should_training_stop:
            control.should_save = True


def system_metrics(process: psutil.Process) -> dict[str, float]:
    """What the worker takes of the machine, under MLflow's names for its page of system metrics."""
    memory = psutil.virtual_memory()
    found = {
        "system/cpu_utilization_percentage": process.cpu_percent(),
        "system/process_memory_usage_megabytes": process.memory_info().rss / 1e6,
        "system/system_memory_usage_percentage": memory.percent,
    }
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(index)
            found[f"system/gpu_{index}_memory_usage_megabytes"] = (total - free) / 1e6
            found[f"system/gpu_{index}_memory_usage_percentage"] = 100 * (total - free) / total
    return found


class Snapshot:
    """What is trained as it was before the training; of large tensors, evenly spaced values."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._values = {name: self._sample(p) for name, p in self._trained(model)}

    @staticmethod
    def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, p) for name, p in model.named_parameters() if p.requires_grad)

    @staticmethod
    def _sample(parameter: torch.Tensor) -> torch.Tensor:
        flat = distributed.whole(parameter.detach()).reshape(-1)
        return flat[:: max(1, flat.numel() // _SAMPLED_VALUES)].float().cpu().clone()

    def compare(self, model: torch.nn.Module) -> tuple[float, int]:
        """L2 norm of the change over the values kept, and the number of trained weights that are no numbers."""
        square, broken = 0.0, 0
        for name, parameter in self._trained(model):
            broken += int((~torch.isfinite(distributed.whole(parameter.detach()))).sum())
            square += float((self._sample(parameter) - self._values[name]).double().square().sum())
        return math.sqrt(square), broken

    def how_much_moved(self, model: torch.nn.Module) -> dict[str, Any]:
        """Root mean square of the change of a weight, in all and by kind of module, and how many of the trained tensors
        did not change at all."""
        square, count, unmoved, tensors = 0.0, 0, 0, 0
        by_module: dict[str, tuple[float, int]] = {}
        for name, parameter in self._trained(model):
            change = (self._sample(parameter) - self._values[name]).double()
            own = float(change.square().sum())
            square += own
            count += change.numel()
            before = by_module.get(module_kind(name), (0.0, 0))
            by_module[module_kind(name)] = (before[0] + own, before[1] + change.numel())
            tensors += 1
            unmoved += int(not bool(change.any()))
        return {
            "weight_change_rms": math.sqrt(square / max(1, count)),
            "trained_tensors": tensors,
            "unmoved_tensors": unmoved,
            "moved_by_module": {kind: math.sqrt(total / max(1, n)) for kind, (total, n) in sorted(by_module.items())},
        }


_ADAPTER_PARTS = {"weight", "bias", "default", "modules_to_save", "original_module", "base_layer"}


def module_kind(parameter: str) -> str:
    """The name that a spec calls the module of a parameter by, in whatever layer: `q_proj`, `embed_tokens`.

    PEFT puts the names of its parts around it: `….q_proj.lora_A.default.weight`.
    """
    parts = [part for part in parameter.split(".") if part not in _ADAPTER_PARTS and not part.startswith("lora_")]
    named = [part for part in parts if not part.isdigit()]
    return named[-1] if named else parameter


def loss_curve(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the trainer logged by step, thinned to about 500 points."""
    points = [
        {"step": e["step"], **{LOGGED[k]: e[k] for k in LOGGED if LOGGED[k] in CURVES and e.get(k) is not None}}
        for e in history
        if "loss" in e or "eval_loss" in e
    ]
    stride = math.ceil(len(points) / 500)
    return [p for i, p in enumerate(points) if i % stride == 0 or i == len(points) - 1 or "eval_loss" in p]


def peak_memory() -> int:
    """Bytes: the most that was allocated on a GPU, else the most that this process had in memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():
        # Not what getrusage says: on Linux that counts what the process was forked from, which may have been larger.
        line = next(line for line in status.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
