"""Rows on which a model is compared with itself: in memory as it was trained, saved, merged, and its base."""

import contextlib
from pathlib import Path
from typing import Any

import torch

from images.train import rows
from images.train.check_time import counted

_PROBES = 16
_PROBE_TOKENS = 256

Logits = list[torch.Tensor]


def probes(plan_dir: Path) -> list[torch.Tensor]:
    """Token rows, each of shape (1, tokens), from the validation split where there is one."""
    files = (plan_dir / "validation.parquet", plan_dir / "train.parquet")
    frame = rows.load(next(file for file in files if file.exists())).head(_PROBES)
    if "ids" in frame.columns:
        found = frame["ids"].to_list()
    else:
        answer = "chosen" if "chosen" in frame.columns else "completion"
        found = [p + a for p, a in frame.select("prompt", answer).iter_rows()]
    return [torch.tensor([ids[:_PROBE_TOKENS]]) for ids in found]


@torch.inference_mode()
def logits_of(model: Any, asked: list[torch.Tensor]) -> Logits:
    """fp32 logits of shape (tokens, vocabulary) for each probe."""
    device = next(model.parameters()).device
    return [model(input_ids=probe.to(device)).logits[0].float().cpu() for probe in asked]


def mean_loss(logits: Logits, asked: list[torch.Tensor]) -> float:
    """Mean negative log-likelihood of the tokens of the probes behind those before them, nats a token."""
    total, count = 0.0, 0
    for found, probe in zip(logits, asked, strict=True):
        if probe.shape[1] < 2:
            continue
        wanted = probe[0, 1:]
        total += float(torch.nn.functional.cross_entropy(found[:-1], wanted, reduction="sum"))
        count += wanted.numel()
    return total / max(1, count)


def loss_in_memory(model: Any, plan_dir: Path) -> dict[str, float]:
    """The loss of a model that was just trained on the probes: what its saved weights must have too."""
    asked = probes(plan_dir)
    was_training = model.training
    model.eval()
    try:
        with counted():
            return {"probe_loss": mean_loss(logits_of(model, asked), asked)}
    finally:
        model.train(was_training)


def reference_in_memory(trainer: Any, plan_dir: Path) -> dict[str, float]:
    """The loss on the probes of what a policy is held to, as it is at the end of its training: its base must have it.

    Nothing where there is no reference, or where it is stored in four bits, which are other weights.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    reference, aside = getattr(trainer, "ref_model", None), contextlib.nullcontext()
    if reference is None and hasattr(model, "disable_adapter"):
        reference, aside = model, model.disable_adapter()
    if reference is None or getattr(reference, "is_loaded_in_4bit", False) or trainer.args.world_size > 1:
        return {}
    asked = probes(plan_dir)
    was_training = reference.training
    reference.eval()
    try:
        with counted(), aside:
            return {"reference_loss": mean_loss(logits_of(reference, asked), asked)}
    finally:
        reference.train(was_training)
