"""Which variant a user meets: a salted hash compared with the cumulative traffic weights (standard library only)."""

import hashlib
import math
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate

_BELOW_ONE = math.nextafter(1.0, 0.0)


def bucket(salt: str, user: str) -> float:
    """Return where `user` falls in [0, 1): the first 8 bytes of SHA-256(``salt:user``), big-endian, over 2**64.

    The same salt and user fall in the same place always, without anything stored. A new salt draws anew.
    """
    # A user name taken from JSON may hold a lone surrogate, which plain UTF-8 refuses.
    digest = hashlib.sha256(f"{salt}:{user}".encode("utf-8", "surrogatepass")).digest()
    # The largest 64-bit values would round up to 1.0.
    return min(int.from_bytes(digest[:8], "big") / 2**64, _BELOW_ONE)


def assign(salt: str, user: str, weights: Sequence[float]) -> int:
    """Return the index of the variant that `user` meets; variant i gets the share ``weights[i] / sum(weights)``.

    Variants own consecutive stretches of [0, 1) in the order given, so raising the share of the last variant moves
    users towards it and none away from it. A variant of weight 0 gets nobody.

    Raises ValueError when there is no weight, a weight is negative or not finite, or all are 0.
    """
    if not weights or any(not math.isfinite(w) or w < 0 for w in weights):
        raise ValueError(f"traffic weights must be finite and not negative, at least one of them; got {list(weights)}")
    ends = list(accumulate(weights))
    if ends[-1] <= 0:
        raise ValueError(f"at least one traffic weight must be above 0; got {list(weights)}")
    # The first stretch that ends beyond the point; one of weight 0 ends where it starts and is never the first.
    index = bisect_right(ends, bucket(salt, user) * ends[-1])
    # Rounding of the product may reach the very end, which belongs to the last variant with traffic.
    return index if index < len(ends) else max(i for i, w in enumerate(weights) if w > 0)


def assign_anew(salt: str, user: str, weights: Sequence[float], held: Sequence[bool], draw: int) -> int:
    """The index of the variant that `user` meets in the `draw`-th round of an endpoint, counted from 0.

    Who is held out (`held` variants, which come first) is so in every round. All others are drawn anew in each: else
    the treatment of a test would have the same users as that of the one before, with all that they went through there
    (Kohavi, Tang & Xu, Trustworthy Online Controlled Experiments 2020, on carry-over). Round 0 is `assign`.
    """
    place = assign(salt, user, weights)
    if draw == 0 or held[place]:
        return place
    return assign(f"{salt}:{draw}", user, [0.0 if out else weight for weight, out in zip(weights, held, strict=True)])
