"""The order in which rows are trained: batches of like length, the same whenever the training was started."""

from collections.abc import Iterator

import numpy as np
import torch


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
