"""Follows trainings on the platform of this machine: what one waits for, and until one that was stopped has ended."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from llmops_assets.local.stack import StackError, running
from llmops_assets.operations.graph import TRAINING
from llmops_assets.operations.training_status import TrainingStatus, training_status
from llmops_assets.operations.trainings import cancel_runs, stop_training
from llmops_assets.wiring import Wiring
from resources.cancellation import REACH_SECONDS
from resources.catalog import NotFound
from resources.run_log import Run

STOP_SECONDS = 180.0
"""How long a stopped training may take to save its checkpoint and end."""
UNATTENDED_SECONDS = 10.0
"""How long to look for runs that no platform of this home has started."""
IDLE = "no platform is running here: `llmops up` starts one"


def with_idle_platform(wiring: Wiring, status: TrainingStatus) -> TrainingStatus:
    """The status with the reason why nothing happens, where a requested training has no platform to run it."""
    if status.state not in ("requested", "queued") or running(wiring.settings) is not None:
        return status
    return replace(status, detail=f"{IDLE}; {status.detail}" if status.detail else IDLE)


def stop(wiring: Wiring, actor: str, partition: str) -> TrainingStatus:
    """Stop a training and wait until it has ended; raises StackError when it does not within `STOP_SECONDS`."""
    reach = REACH_SECONDS if running(wiring.settings) is not None else UNATTENDED_SECONDS
    deadline = time.monotonic() + STOP_SECONDS
    stop_training(wiring, actor, partition, reach_seconds=reach)
    while wiring.run_log.busy(partition, TRAINING):
        if time.monotonic() > deadline:
            raise StackError(
                f"{partition} did not end within {STOP_SECONDS:.0f} s: see `llmops train logs '{partition}'`"
            )
        time.sleep(0.2)
        # The daemon takes a run up again that died meanwhile; that one was not asked for either.
        cancel_runs(wiring, partition, reach_seconds=reach)
    return training_status(wiring, partition)


def tried_again(wiring: Wiring, run: Run) -> str | None:
    """Why another run will be asked for after one that failed or was cancelled; None where none will.

    The sensor of intents asks a few times for what was cancelled or died, and never again for what reached a verdict.
    """
    from resources import intent_runs
    from resources.attempts import LIMITS, Held, next_step

    name = run.tags.get(intent_runs.INTENT_TAG, "")
    kind, _, rest = name.partition(":")
    intent = wiring.catalog.intents.newest(kind, rest.rpartition(":")[0]) if kind in LIMITS else None
    if intent is None or not intent.is_open or intent.name != name:
        return None
    known = intent_runs.attempts(wiring.run_log.instance, [name])[name]
    step = next_step(known, LIMITS[kind], datetime.now(UTC))
    if isinstance(step, Held):
        return None
    return getattr(step, "reason", "") or f"run {run.id[:8]} did not succeed; another is asked for"


def explainer(wiring: Wiring, partition: str) -> Callable[[], str]:
    """What says, while nothing runs, what a training waits for."""

    def explain() -> str:
        try:
            status = training_status(wiring, partition)
        except NotFound:
            return ""
        return f"{status.state}: {status.detail}" if status.detail else status.state

    return explain
