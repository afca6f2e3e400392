"""Ends runs in whatever state they are: queued, being started, or at work."""

import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import dagster as dg

LOOK_SECONDS = 0.2
ASK_AGAIN_SECONDS = 3.0
"""After how long a run is asked again that did not answer."""
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
    """Cancel every run that `active` gives, and those that it gives meanwhile, until all were asked or have ended.

    Those in the queue go first: the end of one at work makes room for the next. A run that is being started is waited
    for. Dagster would note that it is to be cancelled and still start it, or lose it and let the daemon take it up
    again. One that was asked already is left alone: to ask again writes its state anew, also over the end that it has
    come to meanwhile. Returns the ids of the runs that were asked here; raises RunUnreachable for one that is not
    reached within `reach_seconds`.
    """
    import dagster as dg
    from dagster._core.errors import DagsterUserCodeUnreachableError

    status = dg.DagsterRunStatus
    asked: dict[str, None] = {}
    unanswered: dict[str, float] = {}
    deadline = time.monotonic() + reach_seconds
    while True:
        left = [run for run in active() if not run.is_finished]
        # One that was cancelled in the queue while the daemon took it out of it is at work all the same.
        left = [run for run in left if run.status is not status.CANCELING or run.run_id in unanswered]
        if not left:
            return list(asked)
        now = time.monotonic()
        for run in sorted(left, key=lambda run: run.status is not status.QUEUED):
            if run.status in (status.NOT_STARTED, status.STARTING) or now < unanswered.get(run.run_id, 0.0):
                continue
            try:
                reached = instance.run_coordinator.cancel_run(run.run_id)
            except DagsterUserCodeUnreachableError:
                unanswered[run.run_id] = now + ASK_AGAIN_SECONDS
                continue
            if reached:
                asked[run.run_id] = None
                unanswered.pop(run.run_id, None)
            elif run.status is status.CANCELING and isinstance(instance.run_launcher, dg.DefaultRunLauncher):
                # Twice, seconds apart, its code server knew of no such run: it ended while it was asked, or was lost.
                instance.report_run_canceled(run)
            else:
                unanswered[run.run_id] = now + ASK_AGAIN_SECONDS
        if time.monotonic() > deadline:
            raise RunUnreachable(
                f"run {left[0].run_id} cannot be reached ({left[0].status.value.lower()} for "
                f"{reach_seconds:.0f} s): is the platform that started it still there?"
            )
        time.sleep(LOOK_SECONDS)
