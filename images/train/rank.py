"""`python -m images.train.rank JOB.json`: one of the processes that share a training, started by torchrun."""

import importlib
import logging
import os
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

import psutil

from images.train.distributed import rank
from images.train.reporter import Reporter, Stopped
from llmops_assets.records.jobs import JobError, TrainJob, read_job


def main(job_file: str) -> int:
    """Train in this process with the others; the first of them speaks for all."""
    job = read_job(Path(job_file).read_text(encoding="utf-8"))
    if not isinstance(job, TrainJob) or job.stop is None:
        raise JobError("a process of a shared training takes a job of the task train that names its `stop` file")
    first = rank() == 0
    reporter = Reporter({"metrics": job.metrics if first else None})
    reporter.speak_to_worker()
    if not first:
        reporter.log.setLevel(logging.ERROR)
    threading.Thread(target=_watch, args=(reporter, Path(job.stop)), daemon=True).start()
    spec = job.spec
    try:
        importlib.import_module("images.train.sft").train(spec, job, reporter)
    except Stopped as stop:
        if first:
            Path(job_file).with_name("ranks.stopped").write_text(str(stop), encoding="utf-8")
    except Exception as error:  # noqa: BLE001  the boundary of the process: the worker tells what the first to fail says
        traceback.print_exc()
        with suppress(FileExistsError), open(Path(job_file).with_name("ranks.error"), "x", encoding="utf-8") as file:
            file.write(f"process {rank()}: {type(error).__name__}: {error}")
        return 1
    return 0


def _watch(reporter: Reporter, stop: Path) -> None:
    """Heed the stop file, and end when the worker that started all of this is gone."""
    worker = os.environ.get("LLMOPS_WORKER_PID")
    while True:
        if stop.exists():
            reporter.stop_reason = stop.read_text(encoding="utf-8")
            return
        if worker and not psutil.pid_exists(int(worker)):
            reporter.stop_reason = "the process that started this training is gone"
            return
        time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
