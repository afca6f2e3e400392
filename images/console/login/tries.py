"""Holds one address to so many logins a minute."""

import threading
import time
from collections import deque

from images.console.problems import Problem


class Tries:
    """How often one address may begin or try a login: `most` within a minute, in this process."""

    def __init__(self, most: int = 30) -> None:
        self.most = most
        self._lock = threading.Lock()
        self._at: dict[str, deque[float]] = {}

    def check(self, address: str) -> None:
        """Count one try; raises Problem 429 beyond the most."""
        now = time.monotonic()
        with self._lock:
            if len(self._at) > 10_000:
                self._at = {key: times for key, times in self._at.items() if times and times[-1] > now - 60}
            times = self._at.setdefault(address, deque())
            while times and times[0] <= now - 60:
                times.popleft()
            if len(times) >= self.most:
                raise Problem(429, "too many logins from this address: try again in a minute", **{"Retry-After": "60"})
            times.append(now)
