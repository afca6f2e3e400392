"""The order in which rows are trained: batches of like length, the same whenever the training was started."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback


class LengthGroups(torch.utils.data.Sampler[int]):
    """Row numbers in an order of which every batch holds rows of like length, so that little is padding.

    Rows are shuffled, sorted by length within runs of `run` batches, and the batches shuffled again. The order depends
    on seed and epoch alone, so a resumed training goes on with the rows it would have seen.
    """

    def __init__(self, lengths: np.ndarray, batch: int, seed: int, run: int = 50) -> None:
        self.lengths, self.batch, self.seed, self.run, self.epoch = lengths, batch, seed, run, 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self.seed, self.epoch])
        order = random.permutation(len(self.lengths))
        size = self.run * self.batch
        batches: list[np.ndarray] = []
        for start in range(0, len(order), size):
            part = order[start : start + size]
            part = part[np.argsort(-self.lengths[part], kind="stable")]
            batches += [part[i : i + self.batch] for i in range(0, len(part), self.batch)]
        # Only whole batches change places, or the one that is not would shift all that come after it.
        whole = [b for b in batches if len(b) == self.batch]
        rest = [b for b in batches if len(b) < self.batch]
        random.shuffle(whole)
        return iter(np.concatenate([*whole, *rest]).tolist())


class OrderByEpoch(TrainerCallback):
    """Tells the sampler of the training rows which epoch begins.

    A trainer does so too, but not through what accelerate wraps a sampler in where several processes share a training
    that goes on within an epoch: the rest of that epoch would be trained in the order of the first.
    """

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        set_epoch(kwargs["train_dataloader"], int(state.epoch or 0))


def set_epoch(loader: Any, epoch: int) -> None:
    """Set the epoch, from 0, of every sampler within a data loader that has one, however deep it lies."""
    sampler = loader.batch_sampler
    while sampler is not None:
        if hasattr(sampler, "set_epoch"):
            sampler.set_epoch(epoch)
        sampler = getattr(sampler, "batch_sampler", None) or getattr(sampler, "sampler", None)
