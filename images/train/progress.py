"""Follows a training: its live progress and curve, what its weights did, and the memory that it took."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from images.train.reporter import Reporter
from llmops_assets.training import folders

_SAMPLED_VALUES = 1 << 20
"""Values of a tensor that are compared with its initialisation: of a large one, so many, evenly spaced."""

_SAY_EVERY_SECONDS = 2.0

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
        raise Diverged(
            f"the loss became {loss.item()} in step {step}: lower lr, add warm-up, or look at the rows of this step"
        )
    return loss


class Progress(TrainerCallback):
    """Says where the training is, seals its checkpoints, and ends it in order when that is asked for."""

    def __init__(self, reporter: Reporter, phase: str | None = None) -> None:
        self.reporter = reporter
        self.phase = {"phase": phase} if phase else {}
        self.rate: float | None = None
        self._began = self._said = 0.0
        self._first_step = 0
        self._tokens = 0.0
        self._last: dict[str, Any] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = time.monotonic()
        self._first_step = state.global_step
        self.reporter.log.info("training %d steps from step %d", state.max_steps, state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.reporter.stop_reason and state.global_step < state.max_steps:
            self.reporter.log.warning("stopping: %s", self.reporter.stop_reason)
            control.should_save = control.should_training_stop = True
        now = time.monotonic()
        if now - self._said >= _SAY_EVERY_SECONDS or state.global_step == state.max_steps:
            self._said = now
            self._say(state, now)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        logs = logs or {}
        elapsed = time.monotonic() - self._began
        if "num_tokens" in logs and elapsed > 0:
            self._tokens = logs["num_tokens"]
            self.rate = self._tokens / elapsed
        values = {ours: logs[theirs] for theirs, ours in LOGGED.items() if logs.get(theirs) is not None}
        if not values:
            return
        self._last |= values
        self.reporter.metrics(
            {**self.phase, "step": state.global_step, "epoch": state.epoch, **values, "tokens_per_second": self.rate}
            | {"memory_bytes": peak_memory(), "seconds": elapsed}
        )

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        folders.seal(folder, {"step": state.global_step})
        self.reporter.log.info("checkpoint of step %d saved", state.global_step)
        self.reporter.metrics({**self.phase, "step": state.global_step, "checkpoint": True})

    def _say(self, state: Any, now: float) -> None:
        done = state.global_step - self._first_step
        left = (now - self._began) / done * (state.max_steps - state.global_step) if done else math.nan
        parts = [f"step {state.global_step}/{state.max_steps}"]
        if "loss" in self._last:
            parts.append(f"loss {self._last['loss']:.4f}")
        if self.rate:
            parts.append(f"{self.rate:,.0f} tokens/s")
        parts.append(f"{left:.0f} s left")
        self.reporter.log.info(", ".join(parts))


class Snapshot:
    """What is trained as it was before the training; of large tensors, evenly spaced values."""

    def __init__(self, model: torch.nn.Module) -> None:
        self._values = {name: self._sample(p) for name, p in self._trained(model)}

    @staticmethod
    def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.nn.Parameter]]:
        return ((name, p) for name, p in model.named_parameters() if p.requires_grad)

    @staticmethod
    def _sample(parameter: torch.Tensor) -> torch.Tensor:
        flat = parameter.detach().reshape(-1)
        return flat[:: max(1, flat.numel() // _SAMPLED_VALUES)].float().cpu().clone()

    def compare(self, model: torch.nn.Module) -> tuple[float, int]:
        """L2 norm of the change over the values kept, and the number of trained weights that are no numbers."""
        square, broken = 0.0, 0
        for name, parameter in self._trained(model):
            broken += int((~torch.isfinite(parameter.detach())).sum())
            square += float((self._sample(parameter) - self._values[name]).double().square().sum())
        return math.sqrt(square), broken


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
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
