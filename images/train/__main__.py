"""`python -m images.train JOB.json`: runs one task and writes its result, or why there is none."""

import importlib
import json
import os
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from images.train.reporter import STOPPED, Reporter, Stopped
from resources.gpus import discover, lease

TASKS = {
    "plan": False,
    "train": True,
    "merge": False,
    "generate": True,
    "perplexity": True,
    "choices": True,
    "bertscore": True,
    "harness": True,
    "retrieve": True,
    "prefer": True,
}
"""Module of this package by task, and whether it computes on a GPU."""


def main(job_file: str) -> int:
    """Run the job in `job_file`; the exit code: 0 done, 1 failed, 130 stopped on request."""
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    try:
        if job["task"] not in TASKS:
            raise ValueError(f"unknown task {job['task']!r}: there are {', '.join(TASKS)}")
        built_for = os.environ.get("LLMOPS_IMAGE_JOB_TYPE")
        if built_for and job.get("job_type", built_for) != built_for:
            raise ValueError(f"this image is built for {built_for}, but the job is of type {job['job_type']}")
        with _reporter(job) as reporter:
            reporter.listen(job)
            result = _run(job, reporter)
    except Stopped as stop:
        _write(job["error"], {"type": "Stopped", "message": str(stop)})
        return STOPPED
    except Exception as error:  # noqa: BLE001  the boundary of the process: every failure is written down for the parent
        _write(job["error"], {"type": type(error).__name__, "message": f"{type(error).__name__}: {error}"})
        trace = traceback.format_exc()
        print(trace, file=sys.stderr)
        with open(job["log"], "a", encoding="utf-8") as log:
            log.write(trace)
        return 1
    _write(job["result"], result)
    return 0


def _run(job: dict[str, Any], reporter: Reporter) -> dict[str, Any]:
    module = f"images.train.{job['task']}"
    if not _compiles(job):
        # Read when torch is imported: bitsandbytes, which PEFT imports, would load torch's whole compiler to decorate
        # four functions, a second and a half of CPU.
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    wanted = int(job.get("gpus", 1)) if TASKS[job["task"]] else 0
    if not wanted:
        # Even a task that computes nothing would open a context on every GPU that it sees.
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        return importlib.import_module(module).run(job, reporter)
    devices = discover()
    with lease(devices, Path(job["locks"]), count=wanted, waiting=reporter.log.info) as held:
        reporter.devices = held
        # Set before torch is imported, which happens in the task's module.
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(d.id for d in held if d.kind == "cuda")
        reporter.log.info("device: %s", ", ".join(f"{d.name} ({d.id})" for d in held))
        return importlib.import_module(module).run(job, reporter)


def _compiles(job: dict[str, Any]) -> bool:
    """Whether a task may come to code that torch compiles: four bits on a CPU, or anything on a GPU."""
    return job.get("device") != "cpu" or (job.get("spec") or {}).get("method") == "qlora"


@contextmanager
def _reporter(job: dict[str, Any]):
    if "DAGSTER_PIPES_CONTEXT" not in os.environ:
        yield Reporter(job)
        return
    from dagster_pipes import open_dagster_pipes

    with open_dagster_pipes() as pipes:
        yield Reporter(job, pipes.log)


def _write(path: str, value: dict[str, Any]) -> None:
    temporary = Path(f"{path}.tmp")
    temporary.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    os.replace(temporary, path)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
