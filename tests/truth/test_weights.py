"""Faults that are stopped by what was trained and merged."""

from typing import Any

import pytest

from benchmarks.chain import sft_spec
from benchmarks.installation import TRAINING, Installation
from tests.truth.conftest import Finished, fault
from tests.truth.table import Row


@pytest.mark.parametrize(
    "hyperparams",
    [
        fault("weights-unchanged", {"lr": 1e-30, "max_steps": 4}),
        fault("diverged", {"lr": 1.0, "max_steps": 6, "warmup_steps": 0}),
    ],
)
def test_a_rate_that_teaches_nothing_is_stopped(
    shared: Installation, finished: Finished, row: Row, hyperparams: dict[str, Any]
) -> None:
    row.assert_stopped(shared.train(sft_spec(finished.chain.base, **hyperparams), *TRAINING)[1])
