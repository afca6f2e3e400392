"""Faults that are stopped by what was trained and merged."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.chain import sft_spec
from benchmarks.installation import TRAINING, Installation
from llmops_assets.records.training import AdapterRecord
from tests.truth.conftest import Finished, fault
from tests.truth.faults import brought_base, with_weights
from tests.truth.table import Row

ATTENTION = {"target_modules": ["q_proj", "k_proj", "v_proj"], "train_embeddings": False}


@pytest.mark.fault("diverged")
def test_a_rate_that_is_far_too_high_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    spec = sft_spec(finished.chain.base, lr=1.0, max_steps=6, save_steps=6)
    row.assert_stopped(shared.train(spec, *TRAINING)[1])


@pytest.mark.fault("adapter-unchanged")
def test_an_adapter_that_no_gradient_reaches_is_stopped(shared: Installation, finished: Finished, row: Row) -> None:
    def deaf(tensors: dict[str, Any]) -> None:
        # What attention finds goes nowhere, so nothing in front of it can be learned.
        for name in [name for name in tensors if "o_proj" in name]:
            tensors[name] = tensors[name] * 0

    base = brought_base(shared, finished.chain.base, "deaf", with_weights(deaf))
    spec = sft_spec(base, method="lora", max_steps=4, save_steps=4, **ATTENTION)
    row.assert_stopped(shared.train(spec, *TRAINING)[1])


def zeroed(folder: Path) -> None:
    """The adapter as one that does nothing."""
    from safetensors.torch import load_file, save_file

    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * 0 for name, tensor in load_file(file).items()}, file, {"format": "pt"})


def doubled(folder: Path) -> None:
    """The adapter with twice its weight in the merge."""
    file = folder / "adapter_config.json"
    text = file.read_text(encoding="utf-8")
    assert '"lora_alpha": 32' in text
    file.write_text(text.replace('"lora_alpha": 32', '"lora_alpha": 64'), encoding="utf-8")


@pytest.mark.parametrize("change", [fault("merge-equals-base", zeroed), fault("merge-of-another-scale", doubled)])
def test_an_adapter_that_was_changed_before_its_merge_is_not_merged(
    one: Installation, finished: Finished, row: Row, change: Callable[[Path], None]
) -> None:
    spec = sft_spec(finished.chain.base, method="lora", max_steps=8, save_steps=8)
    cell, ran = one.train(spec, "training_plan", "adapter")
    assert not ran.failed
    change(Path(one.w.records.load(AdapterRecord, cell).path))
    row.assert_stopped(one.run(cell, "merged_model", "evaluation", "registered_model"))
