"""When an arm's last requests end its traffic at once, before any test has users enough (standard library only)."""

from collections.abc import Iterable
from dataclasses import dataclass

from llmops_assets.specs.experiment_rules import Breaker

LAST_REQUESTS = 50
"""How many of an arm's last requests the breaker looks at."""
BUSY_STATUS = (408, 429)
"""What a server answers that has no room: of the statuses below 500 these are its failures."""
CLIENT_LEFT = 499
"""What is logged of a caller who left before the answer was there."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended, as far as it says something of its server; `slow` None where it says nothing of time."""

    user: str
    failed: bool
    slow: bool | None


@dataclass(frozen=True, slots=True)
class Recent:
    """The last requests of one arm: how many, how many failed or were slow, and of how many users these are."""

    requests: int
    failed: int
    failed_users: int
    timed: int = 0
    slow: int = 0
    slow_users: int = 0

    @classmethod
    def of(cls, outcomes: Iterable[Outcome]) -> "Recent":
        last = list(outcomes)[-LAST_REQUESTS:]
        failed, timed = [o for o in last if o.failed], [o for o in last if o.slow is not None]
        slow = [o for o in timed if o.slow]
        return cls(
            len(last), len(failed), len({o.user for o in failed}), len(timed), len(slow), len({o.user for o in slow})
        )


def outcome_of(user: str, status: int, error: str | None, latency_ms: float, slow_ms: float) -> Outcome | None:
    """What a request says of its server; None where the caller was wrong (4xx).

    An error beside a good status is a failure: the answer broke off, or another server had to give it.
    """
    is_late = latency_ms > slow_ms
    if status >= 500 or status in BUSY_STATUS or (error is not None and status < 400):
        return Outcome(user, True, None)
    if status < 400:
        return Outcome(user, False, is_late)
    if status == CLIENT_LEFT:
        # Who left before the answer was slow to come says nothing of time.
        return Outcome(user, False, True if is_late else None)
    return None


def tripped(model: str, treatment: Recent, control: Recent, rule: Breaker) -> str | None:
    """Why a treatment gets no users from now on, None where it goes on.

    Counted by user, because one user's failures may be that user's own; and beside the control, because what fails
    or slows both is no fault of the treatment's.
    """
    share, other = _share(treatment.failed, treatment.requests), _share(control.failed, control.requests)
    if (
        treatment.requests >= rule.requests
        and treatment.failed_users >= rule.users
        and share >= rule.failed_share
        and share >= 2 * other
    ):
        return (
            f"{share:.0%} of the last {treatment.requests} requests to {model} failed "
            f"(control: {other:.0%} of {control.requests}; the breaker looks at {LAST_REQUESTS} and trips at "
            f"{rule.failed_share:.0%})"
        )
    share, other = _share(treatment.slow, treatment.timed), _share(control.slow, control.timed)
    if (
        treatment.timed >= rule.requests
        and treatment.slow_users >= rule.users
        and share >= rule.slow_share
        # Both on one busy machine are slow together; and an arm that was not asked says nothing of the machine.
        and control.timed >= rule.requests
        and share >= 4 * other
    ):
        return (
            f"{share:.0%} of the last {treatment.timed} requests to {model} took more than {rule.slow_ms:g} ms "
            f"(control: {other:.0%} of {control.timed}; the breaker looks at {LAST_REQUESTS} and trips at "
            f"{rule.slow_share:.0%})"
        )
    return None


def _share(count: int, of: int) -> float:
    return count / of if of else 0.0
