"""The least variance that an arm's mean is given, because users who all said the same may have differed by chance."""

from dataclasses import replace

import numpy as np

from llmops_assets.experiments.inference import Stratified, UserTotals

RARE_USERS = 3.0
"""Users who may have been of another mind though none is among n: the 95 % upper bound of 0 of n is 3/n (rule of three:
Hanley & Lippman-Hand, JAMA 1983)."""


def floored(effect: Stratified, totals: UserTotals, scale: tuple[float, float] | None) -> Stratified:
    """The same difference, each arm of each stratum with the variance at least that `RARE_USERS` unseen users give it.

    An arm of n users is given at least q(1 − q)R²/n, q = min(½, 3/n): a share q of the users at the far end of what is
    possible, at a distance R from the arm's mean. On a `scale` of ratings that is below any ordinary spread (n·s² ≥
    3R²). Without a scale nothing says what is possible: there only an arm that does not vary at all is given one, with
    R the range of both arms. totals: user means (count 1), as `effect` was made of.
    """
    if not len(totals):
        return effect
    means = totals.total / totals.count
    low, high = scale if scale is not None else (float(means.min()), float(means.max()))
    extra = 0.0
    for stratum in effect.strata:
        for arm in (stratum.control, stratum.treatment):
            if scale is None and arm.variance > 0:
                continue
            least = least_variance(arm.users, arm.value, low, high)
            extra += stratum.weight**2 * max(0.0, least - arm.variance)
    return replace(effect, se=float(np.sqrt(effect.se**2 + extra))) if extra else effect


def nothing_varies(totals: UserTotals) -> bool:
    """Whether all users of each arm have the same mean as the others of it: what no draw of people looks like."""
    means = totals.total / totals.count
    arms = [means[totals.arm == arm] for arm in (0, 1)]
    # By their own size: what is counted in millionths varies in them.
    return all(len(own) > 0 and float(np.ptp(own)) <= 1e-12 * float(np.abs(own).max()) for own in arms)


def least_variance(users: int, mean: float, low: float, high: float) -> float:
    """Of a mean over so many users, where values lie between `low` and `high`: q(1 − q)R²/n, as in `floored`."""
    share = min(0.5, RARE_USERS / users)
    reach = max(high - mean, mean - low, 0.0)
    return share * (1 - share) * reach**2 / users
