"""Weighs good answers against bad ones where there are more of the one than of the other."""

MOST = 4 / 3
"""How much more the good answers may weigh in all than the bad ones: the upper bound of KTO's equation 8."""


def balance(good: int, bad: int, good_weight: float | None, bad_weight: float | None) -> tuple[float, float]:
    """Weights of a good and of a bad answer, given the number of each and what the spec says.

    What the spec leaves out makes both kinds weigh the same in all, by raising that of the rarer one (Ethayarajh et al.
    2024, arXiv:2402.01306, equation 8: the ratio of weight times number, good to bad, between 1 and 4/3).
    """
    if not good or not bad:
        return good_weight or 1.0, bad_weight or 1.0
    if good_weight is None and bad_weight is None:
        return max(1.0, bad / good), max(1.0, good / bad)
    if good_weight is None:
        return bad * bad_weight / good, bad_weight
    if bad_weight is None:
        return good_weight, good * good_weight / bad
    return good_weight, bad_weight


def ratio(good: int, bad: int, weights: tuple[float, float]) -> float:
    """Weight times number of the good answers over that of the bad ones; 1 where there are none of one kind."""
    return good * weights[0] / (bad * weights[1]) if good and bad and weights[1] else 1.0
