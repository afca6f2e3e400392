"""What a treatment may not worsen: shares of bad requests, counted by user, with non-inferiority and deterioration."""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from llmops_assets.experiments.inference import Interval, Stratified, UserTotals, confidence_sequence
from llmops_assets.experiments.inference import stratified_difference as difference
from llmops_assets.experiments.plan import FAILED, SLOW, Plan
from llmops_assets.experiments.user_sums import Counted

COLUMNS = {SLOW: ("slow", "timed"), FAILED: ("failed", "counted")}
"""The sum of bad requests, and the sum of those that could have been, of each guardrail."""


_MOST_USERS = 10_000_000


@dataclass(frozen=True)
class Guardrail:
    """How much worse the treatment is in a share of bad requests (treatment less control), and how much it may be.

    control and treatment are shares of all requests of an arm; the difference is between the means over users of each
    user's own share, so that one user's failures are one user's. sequence: at level α, for non-inferiority; harm: at
    the divided level, for deterioration.
    """

    name: str
    control: float
    treatment: float
    margin: float
    sequence: Interval
    harm: Interval

    @property
    def non_inferior(self) -> bool:
        return self.sequence.high < self.margin

    @property
    def deteriorated(self) -> bool:
        return self.harm.low > 0


def guardrails(rows: Counted, plan: Plan, min_users: int) -> tuple[Guardrail, ...]:
    """The plan's guardrails as they are, less those that no phase has enough users for."""
    found = []
    for name, (bad, of) in COLUMNS.items():
        if name not in plan.margins:
            continue
        requests = rows.totals(bad, of, by_user=False)
        effect = difference_of_shares(requests, min_users)
        if effect is None:
            continue
        sequence, harm = (
            confidence_sequence(effect.difference, effect.se, effect.users, plan.expected_users, alpha)
            for alpha in (plan.alpha, plan.deterioration_alpha)
        )
        shares = [_share(requests, arm) for arm in range(2)]
        found.append(Guardrail(name, *shares, plan.margins[name], sequence, harm))
    return tuple(found)


def fewest_users(plan: Plan, margin: float, control_share: float = 0.5) -> int | None:
    """The fewest users of both arms that can show a margin: each asks once, and nobody's request is a bad one.

    With `control_share` of them on the control. None where ten million could not, as with a margin of 0.
    """

    def shows(users: int) -> bool:
        arms = [max(1, round(users * share)) for share in (control_share, 1 - control_share)]
        se = float(np.sqrt(sum(_pseudo_variance(np.ones(n), 0.0) for n in arms)))
        return confidence_sequence(0.0, se, users, plan.expected_users, plan.alpha).high < margin

    low, high = 2, _MOST_USERS
    if not shows(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if shows(middle) else (middle + 1, high)
    return low


def too_few_users(plan: Plan, control_share: float = 0.5) -> list[str]:
    """What stands against a promotion from the start: guardrails that the expected users cannot show, in words."""
    found = []
    for name, margin in plan.margins.items():
        needed = fewest_users(plan, margin, control_share)
        if needed is not None and needed <= plan.expected_users:
            continue
        what = f"guardrail {name}: that the treatment is worse by less than {margin:.2%} of requests "
        if needed is None:
            found.append(f"{what}can be shown by no number of users, so nothing is promoted: allow a larger share")
            continue
        found.append(
            f"{what}takes about {needed:,} users (each asks once, no request is bad), and {plan.expected_users:,} are "
            "expected: nothing is promoted before more have come. Expect more users, or allow a larger share"
        )
    return found


def difference_of_shares(requests: UserTotals, min_users: int) -> Stratified | None:
    """The difference between the means over users of each user's share of bad requests, over strata.

    The variance is that of an arm with one bad and one good request more, which an average user would have made:
    without them an arm that has had no bad request would have no variance, and none in 200 would count as never. Two
    pseudo-observations an arm are the correction of Agresti & Caffo (The American Statistician 2000). They are in the
    variance alone: in the estimate they would weigh more in the smaller arm (at 90:10 of 1,000 requests, a difference
    of .44 points between two arms that are alike).
    """
    shares = replace(requests, total=requests.total / requests.count, count=np.ones(len(requests)))
    effect = difference(shares, min_users)
    if effect is None:
        return None
    extra = 0.0
    for stratum in effect.strata:
        for arm, estimate in enumerate((stratum.control, stratum.treatment)):
            mine = (requests.phase == stratum.phase) & (requests.arm == arm)
            extra += stratum.weight**2 * _pseudo_variance(requests.count[mine], estimate.value)
    return replace(effect, se=float(np.sqrt(effect.se**2 + extra)))


def _pseudo_variance(requests: NDArray[np.float64], share: float) -> float:
    """What one bad and one good request add to the variance of a mean of n users' shares.

    One request of a user with m of them moves the mean by (1/m)/n, on average over users by mean(1/m)/n.
    """
    n = len(requests)
    each = float((1 / requests).mean()) / n
    # As where the mean itself lies after they are added, of a share of 0 or 1 too.
    middle = (share * n + float((1 / requests).mean())) / (n + 2 * float((1 / requests).mean()))
    return each**2 * ((1 - middle) ** 2 + middle**2)


def _share(requests: UserTotals, arm: int) -> float:
    mine = requests.arm == arm
    count = float(requests.count[mine].sum())
    return float(requests.total[mine].sum()) / count if count else 0.0
