"""Runs the worker (`python -m images.train` or `images.ask`, with a job file) as a child process or in an image."""

import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from upath import UPath

from llmops_assets.records.jobs import Job
from resources.artifacts import write_bytes_atomically
from resources.encryption import NO_KEYS, Keyring
from resources.environment import is_passed_on, passed_on
from resources.gpus import Device, discover

PIPES = "DAGSTER_PIPES_"
"""What the variables begin with by which Dagster speaks to a worker."""

FILES = ("json", "result", "error", "log", "metrics", "live")
"""What a task keeps in its working folder, each file named by the task: the job first, then what the worker writes."""

MetricsSink = Callable[[list[dict[str, Any]]], None]


class PipesClient(Protocol):
    """The part of Dagster's Pipes clients that is used here."""

    def run(self, *, context: Any, command: Sequence[str], env: Mapping[str, str], **kwargs: Any) -> Any: ...


class Launcher(Protocol):
    """Runs the worker in the image of its job, where it sees the same files at the same paths."""

    @property
    def patience(self) -> float:
        """Seconds without a sign of life from us after which a worker counts itself as left alone."""
        ...

    def image(self, job: Mapping[str, Any]) -> str:
        """The image of a job (as it is written: its `job_type`, or `task`), by content where that is known."""
        ...

    def clear(self, job_file: Path) -> None:
        """Stop what an earlier attempt left working on `job_file`, giving it time to save a checkpoint."""
        ...

    def launch(self, context: Any | None, job: Mapping[str, Any], job_file: Path, environment: dict[str, str]) -> None:
        """Run the worker on `job_file` to its end; raises when it fails."""
        ...


class TrainerError(RuntimeError):
    """The worker failed; the message is its own, with the end of its log."""


class TrainerKilled(TrainerError):
    """The worker ended without a word, as one does that is killed: what it had saved is there."""


class Trainer:
    """Runs one worker task at a time for each caller.

    `client` is a Pipes client for subprocesses; raise its termination timeout well above the time that a checkpoint
    takes to write, because a worker that is asked to stop saves one first. Without a Dagster context the worker is a
    plain child. With a `launcher` it runs in an image instead. `locks` is the folder of the GPU leases, shared by all
    that train on this machine. `threads` caps the CPU threads of the worker. `keys` are handed to the worker in its
    environment, so that rows lie sealed in every file that passes between it and us. `devices` tells what there is to
    train on.
    """

    def __init__(
        self,
        client: PipesClient | None = None,
        *,
        locks: Path | str,
        threads: int | None = None,
        python: str = sys.executable,
        keys: Keyring = NO_KEYS,
        launcher: Launcher | None = None,
        devices: Callable[[], list[Device]] = discover,
    ) -> None:
        self.client = client
        self.locks = Path(locks).absolute()
        self.threads = threads
        self.python = python
        self.keys = keys
        self.launcher = launcher
        self.devices = devices

    def image(self, job: Mapping[str, Any]) -> str | None:
        """The image that a job would run in now; None where it runs in a process of this machine."""
        return self.launcher.image(job) if self.launcher else None

    def run(
        self,
        context: Any | None,
        job: Job,
        *,
        work_dir: Path | str,
        on_metrics: MetricsSink | None = None,
    ) -> dict[str, Any]:
        """Run `job` and return the worker's result.

        `work_dir` keeps the job, its log, live metrics and result, each named by the task. `on_metrics` gets the lines
        of the live metrics, in order, within about a second of their being written, from a thread of its own.
        Raises TrainerError when the worker fails.
        """
        folder = Path(work_dir).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        files = {name: folder / f"{job.task}.{name}" for name in FILES}
        if self.launcher is not None:
            # Before its files are taken away, to which it still writes.
            self.launcher.clear(files["json"])
        for name in ("result", "error", "metrics", "live"):
            files[name].unlink(missing_ok=True)
        added: dict[str, Any] = {name: str(files[name]) for name in FILES[1:]} | {"locks": str(self.locks)}
        beat = None
        if self.launcher is not None:
            for old in folder.glob(f"{job.task}.*.alive"):
                old.unlink(missing_ok=True)
            beat = folder / f"{job.task}.{uuid.uuid4().hex[:8]}.alive"
            added |= {"alive": str(beat), "alive_seconds": self.launcher.patience}
        full = job.model_copy(update=added)
        write_bytes_atomically(UPath(files["json"]), full.model_dump_json(indent=1).encode())
        with _beating(beat), _following(files["metrics"], on_metrics):
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
        """What the worker's environment holds beside what is passed on of ours."""
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
        if self.launcher is None:
            settings["LLMOPS_PARENT_PID"] = str(os.getpid())
        return settings

    def _launch(self, context: Any | None, job: Job, job_file: Path) -> None:
        if self.launcher is not None:
            self.launcher.launch(context, job.model_dump(mode="json"), job_file, self.environment())
            return
        worker = ["-m", job.module, str(job_file)]
        if context is not None and self.client is not None:
            # The client passes our whole environment on, so env(1) takes out what is none of the worker's business;
            # it replaces itself by the worker, so signals still reach it.
            environment = self.environment()
            hidden = [name for name in os.environ if not is_passed_on(name, PIPES) and name not in environment]
            command = ["env", *(part for name in hidden for part in ("-u", name)), self.python, *worker]
            self.client.run(context=context, command=command, env=environment)
            return
        environment = passed_on(PIPES) | self.environment()
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


def _failure(job: Job, files: Mapping[str, Path], error: Exception | None) -> str:
    """What to tell of a failed task: the worker's own error, or how it ended, and the end of its log."""
    memory = getattr(job, "memory", None)
    if files["error"].exists():
        message = json.loads(files["error"].read_text(encoding="utf-8"))["message"]
    else:
        ended = str(error) if error is not None else "it ended without a result"
        message = f"the worker ended without saying why ({ended}); a killed process is often one out of memory"
        if memory is not None:
            message += f". The plan reckoned with {memory.needed / 2**30:.2f} GiB"
            message += f" of {memory.available / 2**30:.2f} GiB" if memory.available else ""
            message += f"; what would take less: {memory.advice}" if memory.advice else ""
    lines = files["log"].read_text(encoding="utf-8").splitlines()[-15:] if files["log"].exists() else []
    return "\n".join([f"task {job.task!r} failed: {message}", f"log: {files['log']}", *lines])


@contextmanager
def _beating(path: Path | None, interval: float = 1.0):
    """Touch `path` every `interval` seconds while the body runs: a worker elsewhere cannot see whether we live."""
    if path is None:
        yield
        return
    stop = threading.Event()

    def beat() -> None:
        while True:
            with suppress(OSError):
                path.touch()
            if stop.wait(interval):
                return

    path.touch()
    thread = threading.Thread(target=beat, name="beat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        path.unlink(missing_ok=True)


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
