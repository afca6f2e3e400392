"""The confidence sequence as it ran: the difference between the arms after each number of users."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from llmops_assets.experiments.inference import Ratio, Stratified, Stratum, UserTotals, stratified_difference


def path_of(totals: UserTotals, min_users: int, points: int) -> list[Stratified]:
    """The difference of the means over users at up to `points` numbers of users, in the order of their codes.

    totals: means of users (count 1). Numbers of users at which no stratum has `min_users` in each arm are left out.
    """
    codes = np.unique(totals.user)
    ends = np.unique(np.linspace(min(2 * max(2, min_users), len(codes)), len(codes), points, dtype=int))
    if len(codes) == len(totals):
        # The last point is the present estimate itself, to its last digit.
        last = stratified_difference(totals, min_users)
        return [*_running(totals, min_users, ends[:-1]), *([last] if last is not None else [])]
    # Users in several strata are clusters, which running sums by stratum cannot hold together.
    found = (stratified_difference(totals.select(totals.user <= codes[n - 1]), min_users) for n in ends)
    return [effect for effect in found if effect is not None]


def _running(totals: UserTotals, min_users: int, ends: NDArray[np.int64]) -> Iterator[Stratified]:
    """`stratified_difference` at each end from running sums, where every user is in one stratum."""
    order = np.argsort(totals.user, kind="stable")
    value = (totals.total / totals.count)[order]
    # Around a mean of them all, so that squares of large values lose no digits.
    centre = float(value.mean())
    cells = {
        (int(phase), arm): _cell(value - centre, (totals.phase == phase)[order] & (totals.arm == arm)[order], ends)
        for phase in np.unique(totals.phase)
        for arm in (0, 1)
    }
    phases = sorted({phase for phase, _ in cells})
    for at in range(len(ends)):
        parts = []
        for phase in phases:
            control, treatment = (
                _ratio(*(column[at] for column in cells[(phase, arm)]), centre=centre, least=max(2, min_users))
                for arm in (0, 1)
            )
            if control is not None and treatment is not None:
                weight = control.users * treatment.users / (control.users + treatment.users)
                parts.append((phase, control, treatment, weight))
        if not parts:
            continue
        whole = sum(weight for *_, weight in parts)
        strata = tuple(Stratum(phase, c, t, weight / whole) for phase, c, t, weight in parts)
        yield Stratified(
            difference=sum(s.weight * s.difference for s in strata),
            se=float(np.sqrt(sum(s.weight**2 * (s.control.variance + s.treatment.variance) for s in strata))),
            users=sum(s.control.users + s.treatment.users for s in strata),
            strata=strata,
        )


def _cell(
    value: NDArray[np.float64], mine: NDArray[np.bool_], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    own = np.where(mine, value, 0.0)
    return np.cumsum(mine)[ends - 1], np.cumsum(own)[ends - 1], np.cumsum(own**2)[ends - 1]


def _ratio(n: int, total: float, squares: float, *, centre: float, least: int) -> Ratio | None:
    if n < least:
        return None
    mean = total / n
    variance = max(0.0, float(squares - n * mean**2)) / (n * (n - 1))
    return Ratio(centre + float(mean), variance, int(n), float(n))
