"""Runs the train worker (`python -m images.train JOB.json`) as a child process or in its image, for its result."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

from upath import UPath

from resources.artifacts import write_bytes_atomically
from resources.encryption import NO_KEYS, Keyring

PASSED_ON = (
    "PATH", "HOME", "USER", "LANG", "LANGUAGE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV", "LD_LIBRARY_PATH",
    "HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "XDG_CACHE_HOME", "NVIDIA_VISIBLE_DEVICES",
    "CUDA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LLMOPS_SIMULATED_GPUS",
)  # fmt: skip
"""What of our environment the worker may see; passwords and tokens of the platform stay outside."""

FILES = ("json", "result", "error", "log", "metrics", "live")
"""What a task keeps in its working folder, each file named by the task: the job first, then what the worker writes."""

MetricsSink = Callable[[list[dict[str, Any]]], None]


class PipesClient(Protocol):
    """The part of Dagster's subprocess and Docker Pipes clients that is used here."""

    def run(self, *, context: Any, command: Sequence[str], env: Mapping[str, str], **kwargs: Any) -> Any: ...


class TrainerError(RuntimeError):
    """The worker failed; the message is its own, with the end of its log."""


class TrainerKilled(TrainerError):
    """The worker ended without a word, as one does that is killed: what it had saved is there."""


class Trainer:
    """Runs one worker task at a time for each caller.

    `client` is a Pipes client; raise its termination timeout well above the time that a checkpoint takes to write,
    because a worker that is asked to stop saves one first. Without a Dagster context the worker is a plain child.
    `locks` is the folder of the GPU leases, shared by all that train on this machine. `threads` caps the CPU threads of
    the worker. `keys` are handed to the worker in its environment, so that rows lie sealed in every file that passes
    between it and us. With runner `docker`, `image(job)` names the image and `mounts` the folders it sees, at the same
    paths.
    """

    def __init__(
        self,
        client: PipesClient | None = None,
        *,
        locks: Path | str,
        threads: int | None = None,
        runner: Literal["subprocess", "docker"] = "subprocess",
        image: Callable[[Mapping[str, Any]], str] | None = None,
        mounts: Sequence[Path | str] = (),
        python: str = sys.executable,
        keys: Keyring = NO_KEYS,
    ) -> None:
        if runner == "docker" and image is None:
            raise ValueError("the docker runner needs `image`, which names the image of a job")
        self.client = client
        self.locks = Path(locks).absolute()
        self.threads = threads
        self.runner = runner
        self.image = image
        self.mounts = [str(Path(mount).absolute()) for mount in mounts]
        self.python = python
        self.keys = keys

    def run(
        self,
        context: Any | None,
        job: Mapping[str, Any],
        *,
        work_dir: Path | str,
        on_metrics: MetricsSink | None = None,
    ) -> dict[str, Any]:
        """Run `job` (its `task` says what) and return the worker's result.

        `work_dir` keeps the job, its log, live metrics and result, each named by the task. `on_metrics` gets the lines
        of the live metrics, in order, within about a second of their being written, from a thread of its own.
        Raises TrainerError when the worker fails.
        """
        folder = Path(work_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: folder / f"{job['task']}.{name}" for name in FILES}
        for name in ("result", "error", "metrics", "live"):
            files[name].unlink(missing_ok=True)
        full = {**job, **{name: str(files[name]) for name in FILES[1:]}}
        full["locks"] = str(self.locks)
        write_bytes_atomically(UPath(files["json"]), json.dumps(full, ensure_ascii=False, indent=1).encode())
        with _following(files["metrics"], on_metrics):
            try:
                self._launch(context, full, files["json"])
            except Exception as error:  # noqa: BLE001  whatever ended it, the worker's own words are what counts
                kind = TrainerError if files["error"].exists() else TrainerKilled
                # Whoever looks for the root of a failure should find the worker's words, not that a process ended.
                raise kind(_failure(job, files, error)) from None
        if not files["result"].exists():
            raise TrainerKilled(_failure(job, files, None))
        return json.loads(files["result"].read_text(encoding="utf-8"))

    def environment(self) -> dict[str, str]:
        """What the worker's environment holds beside the variables in `PASSED_ON`."""
        settings = {
            # Threads that spin while they wait steal the cores of whoever else runs: two of them on two busy cores
            # made a small training 20 times slower.
            "OMP_WAIT_POLICY": "PASSIVE",
            # glibc gives large blocks back at once by default, and every step would fault the same pages in again: a
            # third of the time of a small training.
            "MALLOC_MMAP_THRESHOLD_": "2000000000",
            "MALLOC_TRIM_THRESHOLD_": "2000000000",
            "MALLOC_TOP_PAD_": "67108864",
            "HF_HUB_OFFLINE": "1",
            "HF_DATASETS_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "PYTHONUNBUFFERED": "1",
            "PYTHONIOENCODING": "utf-8",
        }
        if self.threads:
            settings |= {"OMP_NUM_THREADS": str(self.threads), "MKL_NUM_THREADS": str(self.threads)}
        settings |= self.keys.environment()
        if self.runner == "subprocess":
            settings["LLMOPS_PARENT_PID"] = str(os.getpid())
        return settings

    def _launch(self, context: Any | None, job: Mapping[str, Any], job_file: Path) -> None:
        worker = ["-m", "images.train", str(job_file)]
        if self.runner == "docker":
            if self.client is None or context is None or self.image is None:
                raise TrainerError("the docker runner needs a Pipes client and a Dagster context")
            mounts = {*self.mounts, str(self.locks), str(job_file.parent)}
            self.client.run(
                context=context,
                image=self.image(job),
                command=["python", *worker],
                env=self.environment(),
                container_kwargs={
                    "volumes": {mount: {"bind": mount, "mode": "rw"} for mount in sorted(mounts)},
                    "user": f"{os.getuid()}:{os.getgid()}",
                },
            )
            return
        if context is not None and self.client is not None:
            # The client passes our whole environment on, so env(1) takes out what is none of the worker's business;
            # it replaces itself by the worker, so signals still reach it.
            environment = self.environment()
            hidden = [name for name in os.environ if not _passed(name) and name not in environment]
            command = ["env", *(part for name in hidden for part in ("-u", name)), self.python, *worker]
            self.client.run(context=context, command=command, env=environment)
            return
        environment = {name: value for name, value in os.environ.items() if _passed(name)} | self.environment()
        process = subprocess.Popen([self.python, *worker], env=environment)
        try:
            code = process.wait()
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=60)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            raise
        if code != 0:
            raise TrainerError(f"exit code {code}")


def _passed(name: str) -> bool:
    return name in PASSED_ON or name.startswith(("LC_", "DAGSTER_PIPES_"))


def _failure(job: Mapping[str, Any], files: Mapping[str, Path], error: Exception | None) -> str:
    """What to tell of a failed task: the worker's own error, or how it ended, and the end of its log."""
    task, memory = job["task"], job.get("memory") or {}
    if files["error"].exists():
        told = json.loads(files["error"].read_text(encoding="utf-8"))
        message = told["message"]
    else:
        ended = str(error) if error is not None else "it ended without a result"
        message = f"the worker ended without saying why ({ended}); a killed process is often one out of memory"
        if memory.get("needed"):
            message += f". The plan reckoned with {memory['needed'] / 2**30:.2f} GiB"
            message += f" of {memory['available'] / 2**30:.2f} GiB" if memory.get("available") else ""
            message += f"; what would take less: {memory['advice']}" if memory.get("advice") else ""
    lines = files["log"].read_text(encoding="utf-8").splitlines()[-15:] if files["log"].exists() else []
    return "\n".join([f"task {task!r} failed: {message}", f"log: {files['log']}", *lines])


@contextmanager
def _following(path: Path, sink: MetricsSink | None, interval: float = 0.3):
    """Give `sink` the JSON lines appended to `path` while the body runs, and the rest after it.

    A sink that fails is tried again with the same lines; only its last failure, after the body, is raised.
    """
    if sink is None:
        yield
        return
    stop = threading.Event()
    position = 0

    def drain() -> None:
        nonlocal position
        if not path.exists():
            return
        with open(path, "rb") as file:
            file.seek(position)
            data = file.read()
        complete = data[: data.rfind(b"\n") + 1]
        if complete:
            sink([json.loads(line) for line in complete.splitlines()])
            position += len(complete)

    def follow() -> None:
        while not stop.wait(interval):
            try:
                drain()
            except Exception as error:  # noqa: BLE001  a tracking server that is away for a moment must not end a training
                print(f"metrics not passed on yet: {error}", file=sys.stderr)

    thread = threading.Thread(target=follow, name="follow-metrics", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        stop.set()
        thread.join()
        # The failure of the body matters more than that of a sink.
        with suppress(Exception):
            drain()
        raise
    stop.set()
    thread.join()
    drain()
