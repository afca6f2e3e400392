"""Asks a token classifier in a process of its own, started once and asked over pipes: torch stays out of this one."""

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path

from resources.environment import passed_on

MODULE = "images.ask.names"

Marked = list[tuple[int, int, float]]
"""Start, end and certainty of each span of a text."""


class NameReaderError(RuntimeError):
    """The classifier cannot be loaded, or failed on what it was asked; the message is its own."""


class NameReader:
    """The worker of one model. `tags` says of each label by number what it means: O, B, I, E, S, or P without place."""

    def __init__(self, folder: Path, tags: Sequence[str], *, python: str = sys.executable) -> None:
        self._folder, self._tags, self._python = folder, list(tags), python
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        """Start the worker and wait until the model is loaded. NameReaderError with its reason if it cannot be."""
        with self._lock:
            self._running()

    def __call__(self, texts: list[str]) -> list[Marked]:
        """The spans of each text, in order. NameReaderError when the worker fails on them."""
        with self._lock:
            answer = self._ask(self._running(), texts)
        return [[(start, end, sure) for start, end, sure in spans] for spans in answer["spans"]]

    def close(self) -> None:
        """End the worker."""
        with self._lock:
            if self._process is not None:
                _end(self._process)
                self._process = None

    def _running(self) -> "subprocess.Popen[str]":
        if self._process is None or self._process.poll() is not None:
            environment = passed_on() | {
                "HF_HUB_OFFLINE": "1",
                "TOKENIZERS_PARALLELISM": "false",
                "PYTHONIOENCODING": "utf-8",
                "OMP_WAIT_POLICY": "PASSIVE",
            }
            self._process = subprocess.Popen(
                [self._python, "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
                encoding="utf-8",
            )
            weakref.finalize(self, _end, self._process)
            self._ask(self._process, {"folder": str(self._folder), "tags": self._tags})
        return self._process

    def _ask(self, process: "subprocess.Popen[str]", question: object) -> dict[str, list[Marked]]:
        # ASCII, as a lone surrogate cannot be written otherwise.
        assert process.stdin is not None and process.stdout is not None
        try:
            process.stdin.write(json.dumps(question) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            process.wait()
            raise NameReaderError(
                f"the worker of {self._folder} ended with exit code {process.returncode} "
                "(a killed process is often one out of memory); what it said is on standard error"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise NameReaderError(f"{self._folder}: {answer['error']}")
        return answer


def _end(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        if process.stdin is not None:
            process.stdin.close()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
