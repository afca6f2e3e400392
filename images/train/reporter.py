"""How the worker speaks: its log, its live metrics, and how it learns that it should stop."""

import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, TextIO

from images.atomic_write import write_atomically
from llmops_assets.records.jobs import Job

STOPPED = 130
"""Exit code of a worker that was asked to stop."""

FOR_THE_WORKER = "llmops: "
"""What every line begins with that a process says for the log of the worker that started it."""


class Stopped(Exception):
    """The task ended early because it was asked to; what it had is kept."""


class Reporter:
    """Log, live metrics and stop requests of one task.

    It writes the files `log`, `metrics` and `live`, those of them that are named. `log` is a standard logger; its lines
    go to its file, and to Dagster where the worker runs under Pipes or to stdout where it does not. `devices` are the
    leased devices.
    """

    def __init__(self, files: Mapping[str, str | None], pipes_log: logging.Logger | None = None) -> None:
        self.log = logging.Logger("llmops.train", logging.INFO)
        self.devices: list[Any] = []
        self.stop_reason: str | None = None
        self._graceful = False
        self._metrics = Path(metrics) if (metrics := files.get("metrics")) else None
        self._live = Path(live) if (live := files.get("live")) else None
        if log := files.get("log"):
            file = logging.FileHandler(log, encoding="utf-8")
            file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            self.log.addHandler(file)
        if pipes_log is not None:
            for handler in pipes_log.handlers:
                self.log.addHandler(handler)
        else:
            self.log.addHandler(logging.StreamHandler(sys.stdout))

    def speak_to_worker(self) -> None:
        """Mark every line on stdout as meant for the worker that started this process: see `pass_on`."""
        for handler in self.log.handlers:
            handler.setFormatter(logging.Formatter(FOR_THE_WORKER + "%(message)s"))

    def pass_on(self, line: str, rest: TextIO) -> None:
        """Log a line of a process that was started here if it is meant for this log; write any other to `rest`."""
        if line.startswith(FOR_THE_WORKER):
            self.log.info(line.removeprefix(FOR_THE_WORKER).rstrip())
        else:
            rest.write(line)
            rest.flush()

    def metrics(self, values: Mapping[str, Any]) -> None:
        """Append one line to the live metrics; whoever follows the file sees it whole."""
        if self._metrics is None:
            return
        with open(self._metrics, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")

    def progress(self, values: Mapping[str, Any]) -> None:
        """Say where the task is now, in place of what was said before; whoever reads it sees it whole."""
        if self._live is None:
            return
        write_atomically(self._live, json.dumps({**values, "at": time.time()}).encode())

    @contextmanager
    def finishing_first(self):
        """While the body runs, a stop request only sets `stop_reason`: the body ends in its own time.

        Elsewhere a request ends the process at once. A second signal does so anywhere.
        """
        self._graceful = True
        try:
            yield
        finally:
            self._graceful = False

    def listen(self, job: Job) -> None:
        """Heed SIGINT and SIGTERM, and end when the process that started us is gone.

        After a kill nobody is left to stop this process, which would keep its GPU. In a container the one that started
        us is no parent of ours: it touches the file `alive` of the job, and is gone when it has not done so for
        `alive_seconds`. `grace_seconds` bounds how long an orphan may take to save a checkpoint.
        """
        signal.signal(signal.SIGINT, self._on_signal)
        signal.signal(signal.SIGTERM, self._on_signal)
        wait: Callable[[], None] | None = None
        if parent := os.environ.get("LLMOPS_PARENT_PID"):
            wait = partial(_until_orphaned, int(parent))
        elif job.alive is not None and job.alive_seconds is not None:
            wait = partial(_until_silent, Path(job.alive), job.alive_seconds)
        if wait is not None:
            threading.Thread(target=self._watch, args=(wait, job.grace_seconds), daemon=True).start()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        second = self.stop_reason is not None
        self.stop_reason = f"signal {signal.Signals(number).name}"
        if second or not self._graceful:
            raise SystemExit(STOPPED)

    def _watch(self, wait: Callable[[], None], grace_seconds: float) -> None:
        wait()
        self.stop_reason = "the process that started this training is gone"
        if self._graceful:
            time.sleep(grace_seconds)
        os._exit(STOPPED)


def _until_orphaned(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)


def _until_silent(file: Path, seconds: float) -> None:
    """Return when `file` has not changed for `seconds`, by our own clock: that of another machine may differ."""
    before, since = None, time.monotonic()
    while time.monotonic() - since < seconds:
        time.sleep(min(1.0, seconds / 4))
        try:
            now = file.stat().st_mtime_ns
        except OSError:
            # Gone, or its share is away for a moment.
            now = None
        if now is not None and now != before:
            before, since = now, time.monotonic()
