"""Runs one job in this process: checks what is written, leases a GPU, writes the result or why there is none."""

import importlib
import json
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images.atomic_write import write_atomically
from images.train.reporter import STOPPED, Reporter, Stopped
from llmops_assets.records.jobs import AnyJob, JobError, TrainJob, read_job
from resources.gpus import discover, lease


def main(job_file: str, package: str) -> int:
    """Do the job in `job_file`, which a module of `package` does; the exit code: 0 done, 1 failed, 130 stopped."""
    text = Path(job_file).read_text(encoding="utf-8")
    try:
        job = read_job(text)
        if job.module != package:
            raise JobError(f"task {job.task!r} is none of {package}: run `python -m {job.module} {job_file}`")
        built_for = os.environ.get("LLMOPS_IMAGE_JOB_TYPE")
        if built_for and job.job_type not in (None, built_for):
            raise JobError(f"this image is built for {built_for}, but the job is of type {job.job_type}")
        with _reporter(job) as reporter:
            reporter.listen(job)
            result = _run(job, reporter)
    except Stopped as stop:
        _write(_files(text)["error"], {"type": "Stopped", "message": str(stop)})
        return STOPPED
    except Exception as error:  # noqa: BLE001  the boundary of the process: every failure is written down for the parent
        trace, files = traceback.format_exc(), _files(text)
        print(trace, file=sys.stderr)
        _write(files.get("error"), {"type": type(error).__name__, "message": f"{type(error).__name__}: {error}"})
        if files.get("log"):
            with open(files["log"], "a", encoding="utf-8") as log:
                log.write(trace)
        return 1
    _write(job.result, result)
    return 0


def _files(text: str) -> dict[str, str]:
    """What a job file names, where nothing more of it can be relied on."""
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}


def _run(job: AnyJob, reporter: Reporter) -> dict[str, Any]:
    module = f"{job.module}.{job.task}"
    if not _compiles(job):
        # Read when torch is imported: bitsandbytes, which PEFT imports, would load torch's whole compiler to decorate
        # four functions, a second and a half of CPU.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    wanted = job.gpus if job.computes else 0
    if not wanted:
        # Even a task that computes nothing would open a context on every GPU that it sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return importlib.import_module(module).run(job, reporter)
    if job.locks is None:
        raise JobError("locks: the folder of the GPU leases is not named")
    with lease(discover(), Path(job.locks), count=wanted, waiting=reporter.log.info) as held:
        reporter.devices = held
        # Set before torch is imported, which happens in the task's module.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(d.id for d in held if d.kind == "cuda")
        reporter.log.info("device: %s", ", ".join(f"{d.name} ({d.id})" for d in held))
        return importlib.import_module(module).run(job, reporter)


def _compiles(job: AnyJob) -> bool:
    """Whether a task may come to code that torch compiles: four bits on a CPU, or anything on a GPU."""
    return not isinstance(job, TrainJob) or job.device != "cpu" or job.spec.method == "qlora"


@contextmanager
def _reporter(job: AnyJob) -> Iterator[Reporter]:
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield Reporter(_spoken(job))
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield Reporter(_spoken(job), pipes.log)


def _spoken(job: AnyJob) -> dict[str, str | None]:
    return {"log": job.log, "metrics": job.metrics, "live": job.live}


def _write(path: str | None, value: dict[str, Any]) -> None:
    if path is not None:
        write_atomically(path, json.dumps(value, ensure_ascii=False, indent=1).encode())
