"""Ends runs in whatever state they are: queued, being started, or at work."""

import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

LOOK_SECONDS = 0.2
REACH_SECONDS = 120.0
"""How long a run may be out of reach: one that starts beside a busy machine is, until its process is there."""


class RunUnreachable(RuntimeError):
    """A run that is on record as going on could not be told to end; the message names it and its state."""


def cancel(
    instance: "dg.DagsterInstance",
    active: Callable[[], Iterable["dg.DagsterRun"]],
    *,
    reach_seconds: float = REACH_SECONDS,
) -> list[str]:
    """Cancel every run that `active` gives, and those that it gives meanwhile, until all were reached or have ended.

    Those in the queue go first: the end of one at work makes room for the next. A run that is being started is waited
    for. Dagster would note that it is to be cancelled and still start it, or lose it and let the daemon take it up
    again. Returns the ids of the runs that were reached; raises RunUnreachable for one that is not reached within
    `reach_seconds`.
    """
    import dagster as dg
    from dagster._core.errors import DagsterUserCodeUnreachableError

    status = dg.DagsterRunStatus
    reached: dict[str, None] = {}
    deadline = time.monotonic() + reach_seconds
    while True:
        open_runs = [
            run
            for run in active()
            # One that was cancelled in the queue while the daemon took it out of it is at work all the same.
            if not run.is_finished and not (run.run_id in reached and run.status is status.CANCELING)
        ]
        if not open_runs:
            return list(reached)
        for run in sorted(open_runs, key=lambda run: run.status is not status.QUEUED):
            if run.status in (status.NOT_STARTED, status.STARTING):
                continue
            with suppress(DagsterUserCodeUnreachableError):
                if instance.run_coordinator.cancel_run(run.run_id):
                    reached[run.run_id] = None
        if time.monotonic() > deadline:
            raise RunUnreachable(
                f"run {open_runs[0].run_id} cannot be reached ({open_runs[0].status.value.lower()} for "
                f"{reach_seconds:.0f} s): is the platform that started it still there?"
            )
        time.sleep(LOOK_SECONDS)
