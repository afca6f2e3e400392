"""Rows that share a packed sequence do not see each other: each is trained as it would be alone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from images.train import sft
from llmops_assets.specs.training import TrainJobSpec
from tests.training.conftest import Desk, run_here, sft_spec


@pytest.fixture(scope="module")
def packed(desk: Desk, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The trainer of a packed fine-tuning, with its weights as they begin."""
    folder = tmp_path_factory.mktemp("packed")
    jobs = desk.jobs(sft_spec("hf:base", packing=True, batch_size=1, max_seq_len=256), folder, tiny_base)
    run_here(jobs["plan"], folder)
    torch.set_num_threads(1)
    return sft.build(TrainJobSpec.model_validate(jobs["train"]["spec"]), jobs["train"]).trainer


@pytest.fixture(scope="module")
def batch(packed: Any) -> dict[str, torch.Tensor]:
    return next(iter(packed.get_train_dataloader()))


def segments(batch: dict[str, torch.Tensor]) -> list[tuple[int, int]]:
    """Where each row of the packed sequence begins and ends."""
    starts = (batch["position_ids"][0] == 0).nonzero().flatten().tolist()
    return list(zip(starts, [*starts[1:], batch["input_ids"].shape[1]], strict=True))


def logits(packed: Any, ids: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return packed.model.eval()(input_ids=ids, **more).logits[0]


def test_a_packed_row_gets_the_logits_that_it_gets_alone(packed: Any, batch: dict[str, torch.Tensor]):
    found = segments(batch)
    assert len(found) > 2
    together = logits(packed, batch["input_ids"], position_ids=batch["position_ids"])
    for start, end in found:
        alone = logits(packed, batch["input_ids"][:, start:end])
        torch.testing.assert_close(together[start:end], alone, atol=1e-5, rtol=1e-5)


def test_without_its_positions_it_would_see_its_neighbours(packed: Any, batch: dict[str, torch.Tensor]):
    start, end = segments(batch)[1]
    leaking = logits(packed, batch["input_ids"])
    alone = logits(packed, batch["input_ids"][:, start:end])
    assert (leaking[start:end] - alone).abs().max() > 1e-3


def test_the_loss_of_a_packed_sequence_is_that_of_its_rows(packed: Any, batch: dict[str, torch.Tensor]):
    model = packed.model.eval()
    with torch.inference_mode():
        inputs = {name: batch[name] for name in ("input_ids", "labels", "position_ids")}
        together = float(packed.compute_loss(model, inputs))
        total, count = 0.0, 0
        for start, end in segments(batch):
            labels = batch["labels"][:, start:end]
            # The first token of a row follows another row: nobody is trained to guess it.
            assert labels[0, 0] == -100
            scores = model(input_ids=batch["input_ids"][:, start:end]).logits[0, :-1]
            target = labels[0, 1:]
            total += float(torch.nn.functional.cross_entropy(scores, target, ignore_index=-100, reduction="sum"))
            count += int((target != -100).sum())
    assert together == pytest.approx(total / count, rel=1e-4)
