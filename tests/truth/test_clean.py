"""Clean trainings of other kinds than the chain's: nothing but their accuracy withholds them."""

import pytest

from benchmarks.clean_trainings import Bench, train
from benchmarks.installation import Installation
from tests.truth.conftest import Finished


@pytest.mark.parametrize(
    "kind",
    ["sft tools", "sft unmarked template", "sft lora, frozen embeddings", "continuation of a continuation", "dpo"],
)
def test_no_check_cries_wolf_over_a_clean_training(shared: Installation, finished: Finished, kind: str) -> None:
    line = train(Bench(shared, finished.chain), kind)
    assert not line.cried, line.outcome
