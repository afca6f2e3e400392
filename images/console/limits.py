"""How many requests a minute one caller may send: a bucket of tokens each, kept in this process."""

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from images.console.problems import Problem

MOST_CALLERS = 10_000
"""Buckets that are kept; beyond, those that are full again are forgotten."""


@dataclass
class Limiter:
    """Gives each caller `per_minute` requests a minute, as many of them at once, and no more."""

    per_minute: int
    clock: Callable[[], float] = time.monotonic
    _left: dict[str, tuple[float, float]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def take(self, caller: str) -> None:
        """Count one request of a caller; raises Problem 429 that says when the next one is taken."""
        rate, now = self.per_minute / 60, self.clock()
        with self._lock:
            left, at = self._left.get(caller, (float(self.per_minute), now))
            left = min(float(self.per_minute), left + (now - at) * rate)
            if left < 1:
                wait = max(1, math.ceil((1 - left) / rate))
                raise Problem(
                    429, f"more than {self.per_minute} requests a minute: wait {wait} s", **{"Retry-After": str(wait)}
                )
            self._left[caller] = (left - 1, now)
            if len(self._left) > MOST_CALLERS:
                self._forget(now, rate)

    def _forget(self, now: float, rate: float) -> None:
        full = [name for name, (left, at) in self._left.items() if left + (now - at) * rate >= self.per_minute]
        for name in full:
            del self._left[name]
