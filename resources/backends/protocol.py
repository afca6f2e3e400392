"""What every kind of model server can do, and how it fails."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Literal, Protocol

from resources.catalog import Backend

Health = Literal["ok", "failing", "silent", "gone"]
"""ok: its health page answers; failing: it says that it cannot serve; silent: no answer in time; gone: nothing runs."""

RETRIEVER = "retriever"
"""Engine of a server that finds passages for the models of an endpoint, and completes nothing."""

Record = Callable[[Backend], None]
"""Puts a backend on record before anything of it runs: what we do not live to write down would run on unknown."""


class ServerError(RuntimeError):
    """A model server did not start, answer or stop; the message ends with its log where there is one."""


class ServedFilesChanged(ServerError):
    """The folder of a model is not what was registered, so no server is started on it."""


class EngineMissing(ServerError):
    """The environment, image or cluster that a server needs is not there."""


class Runner(Protocol):
    """Runs model servers of one kind. No call waits for a model to load, or for a request to be answered."""

    def start(self, backend: Backend, record: Record) -> Backend:
        """Start a server and return it with its address, after `record` put it there; ServerError when it cannot.

        One that was started for this very backend and not recorded to its end is adopted instead.
        """
        ...

    def observe(self, backend: Backend, timeout: float = 2.0) -> Health:
        """How a server on record does; `timeout` in seconds for its health page."""
        ...

    def stop(self, backend: Backend, *, kill: bool = False) -> list[str]:
        """Ask a server to answer what is in flight and end, or `kill` it; names of what is still there, none once it
        is gone. To be called again until then; ServerError where it cannot be asked."""
        ...

    def logs(self, backend: Backend, lines: int = 15) -> str:
        """The end of a server's log; empty where there is none."""
        ...


def new_backend(
    id: str, *, endpoint: str, model_ref: str, model_path: str, engine: str, runtime: dict[str, Any]
) -> Backend:
    """A model server that is to be started: it has no process and no address yet."""
    return Backend(
        id=id,
        endpoint=endpoint,
        model_ref=model_ref,
        model_path=model_path,
        engine=engine,
        runtime=runtime,
        url="",
        pid=None,
        pid_started=None,
        state="starting",
        log_path=None,
        created_at=datetime.now(UTC),
    )
