"""Faults of what a training goes on with after it was cut off, and of what stands in more than one split."""

import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from benchmarks.chain import sft_spec
from benchmarks.installation import Installation
from llmops_assets.records.training import AdapterRecord, PlanRecord
from llmops_assets.training import folders
from tests.truth.conftest import Finished, fault
from tests.truth.faults import brought_base, one_bit
from tests.truth.table import Row

REST = ("adapter", "merged_model", "evaluation", "registered_model")
STEPS = {"max_steps": 8, "save_steps": 4}


def cut_off(one: Installation, cell: str) -> Path:
    """The folder of a training as a machine leaves it that went down after step 4 of 8."""
    folder = Path(one.w.records.load(PlanRecord, cell).model_dir)
    shutil.rmtree(folder / "adapter")
    shutil.rmtree(folder / "checkpoints" / "checkpoint-8")
    assert (folder / "checkpoints" / "checkpoint-4").exists()
    return folder


def other_rows(folder: Path) -> None:
    """The planned rows with every second answer's labels cleared."""
    file = folder / "plan" / "train.parquet"
    frame = pl.read_parquet(file)
    frame.with_columns(trained=pl.when(pl.int_range(pl.len()) % 2 == 0).then("trained").otherwise(
        pl.col("trained").list.eval(pl.element() * 0))).write_parquet(file)  # fmt: skip


def sealed_again(folder: Path) -> None:
    """The same, by somebody who knows how a folder is declared whole."""
    noted = folders.noted(folder / "plan")
    other_rows(folder)
    folders.seal(folder / "plan", noted)


@pytest.mark.parametrize(
    "change", [fault("rows-changed-before-resume", other_rows), fault("plan-sealed-again-before-resume", sealed_again)]
)
def test_a_training_does_not_go_on_with_other_rows_than_it_began_with(
    shared: Installation, finished: Finished, row: Row, change: Callable[[Path], None]
) -> None:
    lr = 4e-3 if change is other_rows else 4.5e-3
    cell, ran = shared.train(sft_spec(finished.chain.base, lr=lr, **STEPS), "training_plan", "adapter")
    assert not ran.failed
    change(cut_off(shared, cell))
    row.assert_stopped(shared.run(cell, *REST))


@pytest.mark.fault("checkpoint-of-another-training")
def test_a_training_does_not_go_on_from_the_checkpoint_of_another(
    shared: Installation, finished: Finished, row: Row
) -> None:
    cells = []
    for lr in (3e-3, 3.5e-3):
        cell, ran = shared.train(sft_spec(finished.chain.base, lr=lr, **STEPS), "training_plan", "adapter")
        assert not ran.failed
        cells.append(cell)
    own, other = (cut_off(shared, cell) / "checkpoints" / "checkpoint-4" for cell in cells)
    shutil.rmtree(own)
    shutil.copytree(other, own)
    row.assert_stopped(shared.run(cells[0], *REST))


@pytest.mark.fault("base-changed-before-resume")
def test_a_training_does_not_go_on_from_another_base(shared: Installation, finished: Finished, row: Row) -> None:
    base = brought_base(shared, finished.chain.base, "resumed", lambda folder: None)
    cell, ran = shared.train(sft_spec(base, **STEPS), "training_plan", "adapter")
    assert not ran.failed
    cut_off(shared, cell)
    one_bit(Path(base.removeprefix("hf:")))
    row.assert_stopped(shared.run(cell, *REST))


@pytest.mark.fault("dataset-changed-before-resume")
def test_rows_that_were_changed_in_the_store_are_not_planned_again(
    one: Installation, finished: Finished, row: Row
) -> None:
    cell, ran = one.train(sft_spec(finished.chain.base, lr=4e-3, **STEPS), "training_plan", "adapter")
    assert not ran.failed
    shutil.rmtree(cut_off(one, cell) / "plan")
    for chunk in chunks_of(one):
        frame = pl.read_parquet(chunk)
        if "messages" in frame.columns:
            frame.reverse().write_parquet(chunk)
    row.assert_stopped(one.run(cell, "training_plan", *REST))


def chunks_of(one: Installation) -> list[Path]:
    found = sorted(Path(str(one.w.store.root)).rglob("*.parquet"))
    assert found
    return found


def test_a_training_that_was_cut_off_goes_on_to_the_same_weights(shared: Installation, finished: Finished) -> None:
    spec = sft_spec(finished.chain.base, lr=2e-3, **STEPS)
    cell, _ = shared.train(spec, "training_plan", "adapter")
    whole = shared.w.records.load(AdapterRecord, cell)
    cut_off(shared, cell)
    assert not shared.run(cell, "adapter").failed
    resumed = shared.w.records.load(AdapterRecord, cell)
    assert (resumed.resumed_from, resumed.content_hash) == (4, whole.content_hash)
