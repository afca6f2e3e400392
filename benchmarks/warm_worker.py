"""Runs worker tasks in forks of a process that has imported torch already: a task starts in a tenth of a second."""

import contextlib
import multiprocessing
import os
import sys
from pathlib import Path
from typing import Any

from llmops_assets.records.jobs import Job
from resources.trainer import Trainer, TrainerError

WARM = (
    "images.job_process",
    "images.train.plan",
    "images.train.plan_chat",
    "images.train.plan_corpus",
    "images.train.train",
    "images.train.sft",
    "images.train.merge",
    "images.ask.generate",
    "images.ask.perplexity",
    "safetensors.torch",
    "transformers.models.llama.modeling_llama",
    "peft",
    "trl",
)
"""What the process that is forked has imported; other modules are imported by the task that needs them."""

# The process that is forked has its environment from here, and libraries read it when they are imported.
FIXED = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TORCHDYNAMO_DISABLE": "1",
}


class WarmTrainer(Trainer):
    """The platform's trainer, whose worker is the same code in a process of its own that needs no imports.

    `process` is that of the task under way, for whoever wants to kill it.
    """

    process: Any = None

    def _launch(self, context: Any | None, job: Job, job_file: Path) -> None:
        forks = _forks()
        output = job_file.with_suffix(".output")
        self.process = forks.Process(target=_work, args=(str(job_file), job.module, self.environment(), str(output)))
        self.process.start()
        try:
            self.process.join()
        except BaseException:
            self.process.terminate()
            self.process.join(60)
            raise
        if self.process.exitcode != 0:
            raise TrainerError(f"exit code {self.process.exitcode}")


def _forks() -> Any:
    for name, value in FIXED.items():
        os.environ.setdefault(name, value)
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(list(WARM))
    return forks


def _work(job_file: str, package: str, environment: dict[str, str], output: str) -> None:
    # This one is a child of the process that is forked, which is nobody's sign that the caller is gone.
    os.environ.update({name: value for name, value in environment.items() if name != "LLMOPS_PARENT_PID"})
    from images.job_process import main

    with open(output, "ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    code = main(job_file, package)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    # Libraries' threads and handlers at exit are of no use to a task that has written its result.
    os._exit(code)
