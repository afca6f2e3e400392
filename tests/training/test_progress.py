"""What is shown of a training while it runs and once it has ended: the figures of the current attempt."""

import time
from pathlib import Path

from images.train.reporter import Reporter
from llmops_assets.training import folders, progress


def worked(folder: Path, **values: float) -> None:
    (folder / "work").mkdir(parents=True, exist_ok=True)
    Reporter({"live": str(folder / "work" / progress.LIVE)}).progress({"step": 3, "steps": 9, **values})


def test_figures_of_an_earlier_attempt_say_nothing_of_the_current_one(tmp_path: Path) -> None:
    worked(tmp_path, loss=0.5, eval_loss=0.75)
    began = time.time() + 1
    assert progress.read(tmp_path).eval_loss == 0.75
    assert progress.read(tmp_path, since=began) is None, "the new attempt has not made its first step"
    assert progress.read(tmp_path, since=began - 60).step == 3


def test_a_training_that_has_ended_shows_the_validation_loss_of_the_weights_that_were_kept(tmp_path: Path) -> None:
    worked(tmp_path, loss=0.5, eval_loss=0.75)
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "weights").write_text("1")
    folders.seal(adapter, {"eval_loss": 0.25})
    # The run that found them trained nothing, and began after the last step.
    assert progress.read(tmp_path, since=time.time() + 60).eval_loss == 0.25
    (adapter / folders.SEAL).write_text("{")
    assert folders.noted(adapter) is None and progress.read(tmp_path).eval_loss == 0.75
