"""Decides, for what is wanted, whether a run is to be asked for, is under way, or is held, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

State = Literal["waiting", "running", "succeeded", "failed", "cancelled"]

LIMITS: Mapping[str, int] = {
    "ingest": 3,
    "train": 3,
    "deploy": 5,
    "compare_suites": 3,
    "recipe": 3,
    "trial": 1,
    "index": 3,
    "traffic": 3,
}
"""Attempts by kind of intent. A study learns from each trial how it went and goes on, so a trial has one."""

FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(minutes=10)


@dataclass(frozen=True)
class Attempt:
    """A run that was started for an intent, or, while `run_id` is None, the event that one will be started upon.

    verdict: why repeating it would come to the same, of a run that refused or failed a check; error: what else it
    failed of, or what it waits for; ended_at is None until it ends.
    """

    number: int
    state: State
    run_id: str | None = None
    ended_at: datetime | None = None
    verdict: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Ask:
    """A run is to be asked for, under this number."""

    number: int


@dataclass(frozen=True)
class Underway:
    """There is nothing to do, and the reason."""

    reason: str


@dataclass(frozen=True)
class Held:
    """Nothing is done about it until somebody asks anew, and the reason."""

    reason: str


Step = Ask | Underway | Held


def next_step(attempts: Sequence[Attempt], limit: int, now: datetime, first_pause: timedelta = FIRST_PAUSE) -> Step:
    """What an open intent with these attempts needs.

    A run that was cancelled or failed is followed by another, after a pause that doubles each time, until there were
    `limit`; one that reached a verdict by none. One that succeeded and left its intent open has not done all of it.
    """
    if not attempts:
        return Ask(1)
    last = max(attempts, key=lambda attempt: attempt.number)
    if last.state == "waiting":
        return Underway(last.error or f"run {last.run_id} is queued")
    if last.state == "running":
        return Underway(f"run {last.run_id} is under way")
    if last.verdict is not None:
        return Held(f"run {last.run_id}: {last.verdict}")
    reason = _how_it_ended(last)
    if last.number >= limit:
        times = "once" if last.number == 1 else f"{last.number} times"
        return Held(f"{reason}; it was tried {times}, and is not tried again until somebody asks for it anew")
    pause = min(first_pause * 2 ** (last.number - 1), LONGEST_PAUSE)
    if last.ended_at is not None and now < last.ended_at + pause:
        return Underway(f"{reason}; tried again at {(last.ended_at + pause).astimezone(UTC):%H:%M:%S} UTC")
    return Ask(last.number + 1)


def _how_it_ended(attempt: Attempt) -> str:
    cause = f": {attempt.error}" if attempt.error else ""
    if attempt.state == "cancelled":
        return f"run {attempt.run_id} was cancelled{cause}"
    if attempt.state == "failed":
        return f"run {attempt.run_id} failed{cause}"
    return f"run {attempt.run_id} ended without all of it done{cause}"
