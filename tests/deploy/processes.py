"""The processes of a server on this machine, each with the command and the variables of `deploy/compose.yaml`."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from llmops_assets.local.stack import REPOSITORY

T = TypeVar("T")
DEADLINE = 240.0
NOTES_CALLS = Path(__file__).parent / "calls_outside"
COMPOSE = REPOSITORY / "deploy" / "compose.yaml"


def until(condition: Callable[[], T], what: str, seconds: float = DEADLINE) -> T:
    """What `condition` gives once it is not false."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)
    return found


def services() -> dict[str, dict[str, Any]]:
    """What compose.yaml says of each service, its anchors resolved."""
    return yaml.safe_load(COMPOSE.read_text(encoding="utf-8"))["services"]


@dataclass
class Processes:
    """Starts services by name. `replaced` turns what stands in compose.yaml into what is here: hosts, ports, paths."""

    folder: Path
    python: str
    replaced: Mapping[str, str]
    environment: Mapping[str, str]
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def here(self, text: str) -> str:
        for there, here in self.replaced.items():
            text = text.replace(there, here)
        return text

    def command(self, name: str) -> list[str]:
        """The command of a service here; of an image of its own, what its Dockerfile has."""
        given = services()[name].get("command")
        if given is None:
            text = (REPOSITORY / "images" / name / "Dockerfile").read_text(encoding="utf-8")
            (line,) = [line for line in text.splitlines() if line.startswith("CMD ")]
            given = yaml.safe_load(line.removeprefix("CMD "))
        assert given[0] in ("python", "python3")
        return [self.python, *(self.here(str(part)) for part in given[1:])]

    def variables(self, name: str) -> dict[str, str]:
        given = services()[name].get("environment") or {}
        found = {key: self.here(str(value)) for key, value in given.items()}
        # What was compiled and counted for other tests is there already.
        for name in ("NUMBA_CACHE_DIR", "LLMOPS_CACHE"):
            found.pop(name, None)
        # Of what compose fills in itself, what is empty is not set.
        return {key: value for key, value in found.items() if value and not value.startswith("${")}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("LLMOPS_", "DAGSTER_", "PG"))}
        kept |= {"PYTHONPATH": str(NOTES_CALLS), "TEST_CALLS_OUTSIDE": str(self.calls)}
        with open(self.log(name), "ab") as log:
            self.running[name] = subprocess.Popen(
                self.command(name),
                env={**kept, "PYTHONUNBUFFERED": "1", **self.variables(name), **self.environment},
                stdout=log,
                stderr=log,
                cwd=REPOSITORY,
                start_new_session=True,
            )
        return self.running[name]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    @property
    def calls(self) -> Path:
        """File with a line for each time that a process looked up or called somebody beyond this machine."""
        return self.folder / "calls-outside"

    def kill(self, name: str) -> None:
        """End a service and all that it started as a machine does that is switched off."""
        process = self.running.pop(name)
        # One that has ended by itself, with all that it started, is no reason to leave the others running.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def alive(self) -> bool:
        """True while all run; fails with the end of the log of one that has ended."""
        for name, process in self.running.items():
            assert process.poll() is None, f"{name} ended ({process.returncode}): {self.log(name).read_text()[-3000:]}"
        return True

    def stop(self) -> None:
        for name in list(self.running):
            self.kill(name)


@contextmanager
def ended(processes: Processes) -> Iterator[Processes]:
    """The processes for the time of the block."""
    try:
        yield processes
    finally:
        processes.stop()
