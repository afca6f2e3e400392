"""The order of the training rows is that of the epoch, through all that wraps a sampler."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from accelerate.data_loader import BatchSamplerShard, DataLoaderShard, skip_first_batches
from torch.utils.data import BatchSampler

from images.train.order import LengthGroups, OrderByEpoch

LENGTHS = np.arange(60) % 7


def rows_of(epoch: int) -> list[int]:
    sampler = LengthGroups(LENGTHS, 12, seed=3)
    sampler.set_epoch(epoch)
    return list(sampler)


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("skipped", [0, 2])
def test_a_training_that_goes_on_within_an_epoch_sees_the_rest_of_that_epoch(processes: int, skipped: int) -> None:
    size = 12 // processes
    found: list[list[int]] = []
    for process in range(processes):
        batches: Any = BatchSampler(LengthGroups(LENGTHS, 12, seed=3), size, drop_last=False)
        if processes > 1:
            batches = BatchSamplerShard(batches, num_processes=processes, process_index=process)
        loader = DataLoaderShard(list(range(60)), batch_sampler=batches)
        OrderByEpoch().on_epoch_begin(None, SimpleNamespace(epoch=2 + skipped / 5), None, train_dataloader=loader)
        resumed = skip_first_batches(loader, skipped) if skipped else loader
        # As a trainer does, which reaches no sampler of several processes below one that skips.
        resumed.set_epoch(2)
        found.append([row for batch in resumed for row in batch.tolist()])
    together = [row for step in zip(*(np.array(rows).reshape(-1, size) for rows in found), strict=True) for row in step]
    assert np.concatenate(together).tolist() == rows_of(2)[12 * skipped :]
    assert rows_of(2) != rows_of(0)
