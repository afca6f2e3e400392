"""Asks a few prompts of a batch once more, each alone: an answer must not depend on what it was asked beside."""

from collections.abc import Callable, Sequence
from typing import Any

MOST = 4
"""Prompts that are asked alone."""


def most_padded(lengths: Sequence[int], batches: Sequence[tuple[list[int], int]], most: int = MOST) -> list[int]:
    """The prompts that a batch changes most, if it changes any: those with the most padding before them, the shortest
    of a batch; none where every batch has one prompt. Batches are (indices of prompts, new tokens allowed)."""
    padding = {}
    for batch, _ in batches:
        width = max(lengths[i] for i in batch)
        padding |= {i: width - lengths[i] for i in batch if len(batch) > 1}
    return sorted(padding, key=lambda i: (-padding[i], i))[:most]


def gap(model: Any, device: Any, prompt: Sequence[int], alone: Sequence[int], batched: Sequence[int]) -> float:
    """By how much the logit of the token that the model says alone is above that of the one that it said in a batch,
    where the two answers part; 0 where they don't. By no more than rounding, and either is as good."""
    import torch

    parted = next((n for n, pair in enumerate(zip(alone, batched, strict=False)) if pair[0] != pair[1]), None)
    if parted is None:
        return 0.0
    with torch.inference_mode():
        ids = torch.tensor([[*prompt, *alone[:parted]]], dtype=torch.long, device=device)
        logits = model(input_ids=ids).logits[0, -1].float()
    return max(0.0, float(logits[alone[parted]] - logits[batched[parted]]))


def asked_alone(
    model: Any,
    device: Any,
    prompts: Sequence[list[int]],
    batches: Sequence[tuple[list[int], int]],
    batched: Sequence[Sequence[int]],
    answer: Callable[[Any, int], list[int]],
) -> list[dict[str, Any]]:
    """{index, gap} of the prompts that were asked alone by `answer` (token ids of shape (1, n), new tokens allowed),
    against the token ids that they got in their batch."""
    import torch

    rooms = {index: room for batch, room in batches for index in batch}
    found = []
    for index in most_padded([len(ids) for ids in prompts], batches):
        alone = answer(torch.tensor([prompts[index]], dtype=torch.long), rooms[index])
        found.append({"index": index, "gap": gap(model, device, prompts[index], alone, batched[index])})
    return found
