"""How likely a model finds answers, and what a policy trained by dpo prefers; runs inside Axolotl too."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

MEASURED = 512
"""Pairs, at most, that a reward is judged on."""


def answer_likelihoods(
    model: Any, device: Any, rows: list[tuple[list[int], list[int]]], pad: int, tokens_a_batch: int = 2048
) -> np.ndarray:
    """Nats of each answer behind its prompt, float64 of shape (rows,): the log-likelihood of all of its tokens."""
    order = sorted(range(len(rows)), key=lambda i: sum(map(len, rows[i])))
    found = np.zeros(len(rows))
    start = 0
    while start < len(order):
        end = start + 1
        while end < len(order) and (end + 1 - start) * sum(map(len, rows[order[end]])) <= tokens_a_batch:
            end += 1
        batch = order[start:end]
        width = max(sum(map(len, rows[i])) for i in batch)
        ids = torch.full((len(batch), width), pad, dtype=torch.long)
        mask = torch.zeros((len(batch), width), dtype=torch.long)
        scored = torch.zeros((len(batch), width), dtype=torch.bool)
        for at, index in enumerate(batch):
            prompt, answer = rows[index]
            size = len(prompt) + len(answer)
            ids[at, :size] = torch.tensor(prompt + answer)
            mask[at, :size] = 1
            scored[at, len(prompt) : size] = True
        with torch.inference_mode():
            logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
            nats = torch.log_softmax(logits, -1).gather(-1, ids[:, 1:].to(device).unsqueeze(-1)).squeeze(-1)
        found[batch] = (nats.double().cpu() * scored[:, 1:]).sum(1).numpy()
        start = end
    return found


def implicit_rewards(trainer: Any, pad: int, pairs: Mapping[str, Sequence[list[int]]], beta: float) -> dict[str, float]:
    """What a policy trained by dpo prefers among `pairs` (prompt, chosen, rejected: tokens), by its implicit reward.

    That is `beta` times the log-ratio of policy and reference (Rafailov et al. 2023, eq. 5). `chosen_change` is what
    the preferred answers' likelihood won or lost, in nats a token. The trainer's own log knows its last batch only.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    reference, aside = trainer.ref_model, contextlib.nullcontext()
    if reference is None:
        reference, aside = model, model.disable_adapter()

    def likelihoods(judge: Any, name: str) -> np.ndarray:
        rows = list(zip(pairs["prompt"], pairs[name], strict=True))
        training = judge.training
        judge.eval()
        with trainer.accelerator.autocast():
            found = answer_likelihoods(judge, trainer.accelerator.device, rows, pad)
        judge.train(training)
        return found

    names = ("chosen", "rejected")
    policy = {name: likelihoods(model, name) for name in names}
    with aside:
        won = {name: policy[name] - likelihoods(reference, name) for name in names}
    return {
        "chosen_reward": float(beta * won["chosen"].mean()),
        "rejected_reward": float(beta * won["rejected"].mean()),
        "reward_accuracy": float((won["chosen"] > won["rejected"]).mean()),
        "reward_pairs": float(len(pairs["prompt"])),
        "chosen_change": float(won["chosen"].sum() / sum(map(len, pairs["chosen"]))),
    }
