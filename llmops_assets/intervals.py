"""The interval of a share, wherever one is shown or decided by."""

import math
from statistics import NormalDist

ALPHA = 0.05


def wilson(successes: float, n: float, alpha: float = ALPHA) -> tuple[float, float]:
    """Wilson's 1 − α interval of `successes` in `n` (JASA 1927), which stays inside 0..1; (0, 1) when `n` is 0.

    `n` may be an effective number of draws, which is no whole one.
    """
    if not n:
        return 0.0, 1.0
    share, z = successes / n, NormalDist().inv_cdf(1 - alpha / 2)
    centre = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    # At 0 and 1 the bound is exactly 0 or 1, but the arithmetic misses it by an ulp.
    return (0.0 if successes == 0 else max(0.0, centre - half)), (1.0 if successes == n else min(1.0, centre + half))
