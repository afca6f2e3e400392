"""Task `train`: trains the planned rows, from the last whole checkpoint where there is one.

Job: spec, base ({path} or null), plan_dir, checkpoints, output, precision, gradient_checkpointing, family_version,
stop_token. Leaves the weights in `output`, sealed; the facts in the seal are the result. Each kind of training has a
module of its own, which makes the trainer; what they share is in `session`.
"""

import gc
import importlib
import shutil
from pathlib import Path
from typing import Any

import datasets
from transformers.utils import logging as transformers_logging

from images.train import distributed
from images.train.reporter import Reporter
from llmops_assets.records.jobs import AXOLOTL, TRAINER, TrainJob
from llmops_assets.training import folders


def run(job: TrainJob, reporter: Reporter) -> dict[str, Any]:
    """Train what the job asks for, unless it is trained already; the facts that its folder is sealed with."""
    output = Path(job.output)
    with folders.only_one(output.parent, reporter.log.info):
        facts = folders.facts(output)
        if facts is not None:
            reporter.log.info("another process has trained these weights meanwhile: nothing is left to do")
            return facts
        # What was merged of earlier weights is no longer what it says.
        for merged in output.parent.glob("merged*"):
            shutil.rmtree(merged, ignore_errors=True)
        # The trainer collects garbage before it starts; a million objects of the imports need not be looked at for it.
        gc.freeze()
        datasets.disable_progress_bars()
        transformers_logging.disable_progress_bar()
        spec = job.spec
        if distributed.sharding(job) is not None:
            return distributed.launch(spec, job, reporter)
        name = AXOLOTL[0] if spec.trainer == "axolotl" else TRAINER[spec.job_type]
        module = importlib.import_module(name)
        return module.train(spec, job, reporter)
