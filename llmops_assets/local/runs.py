"""Follows trainings on the platform of this machine: what one waits for, and until one that was stopped has ended."""

import time
from collections.abc import Callable
from dataclasses import replace

from llmops_assets.local.stack import StackError, running
from llmops_assets.operations.graph import TRAINING
from llmops_assets.operations.training_status import TrainingStatus, training_status
from llmops_assets.wiring import Wiring
from resources.catalog import NotFound

STOP_SECONDS = 180.0
"""How long a stopped training may take to save its checkpoint and end."""
IDLE = "no platform is running here: `llmops up` starts one"


def with_idle_platform(wiring: Wiring, status: TrainingStatus) -> TrainingStatus:
    """The status with the reason why nothing happens, where a requested training has no platform to run it."""
    if status.state not in ("requested", "queued") or running(wiring.settings) is not None:
        return status
    return replace(status, detail=f"{IDLE}; {status.detail}" if status.detail else IDLE)


def busy(wiring: Wiring, partition: str) -> bool:
    """Whether a run works on a training, or waits to."""
    return any(not run.is_finished for run in wiring.run_log.runs([partition], TRAINING)[partition])


def await_end(wiring: Wiring, partition: str) -> TrainingStatus:
    """Wait until a training that was asked to stop has ended; raises StackError when it does not."""
    deadline = time.monotonic() + STOP_SECONDS
    while busy(wiring, partition):
        if time.monotonic() > deadline:
            raise StackError(
                f"{partition} did not end within {STOP_SECONDS:.0f} s: see `llmops train logs '{partition}'`"
            )
        time.sleep(0.2)
    return training_status(wiring, partition)


def explainer(wiring: Wiring, partition: str) -> Callable[[], str]:
    """What says, while nothing runs, what a training waits for."""

    def explain() -> str:
        try:
            status = training_status(wiring, partition)
        except NotFound:
            return ""
        return f"{status.state}: {status.detail}" if status.detail else status.state

    return explain
