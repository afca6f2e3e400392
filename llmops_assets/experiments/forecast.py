"""How long an A/B test will still take, if users keep coming and differing as they have so far."""

import math

from llmops_assets.experiments.inference import mixture_rho2, sequence_factor

DAY = 86_400.0
_MOST = 50.0


def users_until(reach: float, se: float, users: int, expected_users: float, alpha: float) -> float | None:
    """Users of both arms at which the sequence reaches no further than `reach` to each side; None beyond 50 times now.

    The standard error falls with √n as users like those so far come.
    """
    if reach <= 0 or se <= 0 or users < 1:
        return None
    rho2 = mixture_rho2(expected_users, alpha)

    def half(n: float) -> float:
        return float(sequence_factor(n, rho2, alpha)) * se * math.sqrt(users / n)

    low, high = float(users), _MOST * users
    if half(low) <= reach:
        return low
    if half(high) > reach:
        return None
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if half(middle) > reach else (low, middle)
    return high


def days_left(
    difference: float,
    se: float,
    users: int,
    *,
    seconds: float,
    expected_users: float,
    alpha: float,
    minimum_effect: float | None,
    least_users: int,
) -> float | None:
    """Days until the test ends with the difference as it is: as an effect, or as one too small to matter.

    users came within `seconds`; least_users (of both arms) are awaited in any case. None where no end is near.
    """
    if seconds <= 0 or users < 1:
        return None
    goals = [users_until(abs(difference), se, users, expected_users, alpha)]
    if minimum_effect is not None:
        goals.append(users_until(minimum_effect - abs(difference), se, users, expected_users, alpha))
    known = [goal for goal in goals if goal is not None]
    if not known:
        return None
    missing = max(min(known), float(least_users)) - users
    return max(0.0, missing) * seconds / users / DAY
