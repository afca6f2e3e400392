"""Limits counted in the memory of one process."""

import time
from collections import deque
from collections.abc import Callable, Sequence

from images.gateway.limits.counted import WINDOW_SECONDS, Budget, Counted, Place, Rate

_MOST_NAMES = 100_000


class _Window:
    """Requests by the second, over the last minute and the second that is running."""

    __slots__ = ("seconds", "total")

    def __init__(self) -> None:
        self.seconds: deque[list[int]] = deque()
        self.total = 0

    def advance(self, now: int) -> None:
        while self.seconds and self.seconds[0][0] < now - WINDOW_SECONDS:
            self.total -= self.seconds.popleft()[1]

    def add(self, now: int) -> None:
        if self.seconds and self.seconds[-1][0] == now:
            self.seconds[-1][1] += 1
        else:
            self.seconds.append([now, 1])
        self.total += 1


class LocalCounter:
    """Counts by the monotonic clock, which nobody sets. One event loop uses it, so nothing comes in between."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._windows: dict[str, _Window] = {}
        self._swept_at = 0
        self._taken: dict[str, int] = {}
        self._month = ""
        self._used: dict[str, int] = {}
        self._reserved: dict[str, int] = {}

    async def count(self, rates: Sequence[Rate]) -> list[Counted]:
        return self.counted(rates)

    def counted(self, rates: Sequence[Rate]) -> list[Counted]:
        """`count`, which waits for nothing here."""
        at = self._clock()
        now = int(at)
        if now - self._swept_at >= WINDOW_SECONDS or len(self._windows) >= _MOST_NAMES:
            self._sweep(now)
        windows, is_allowed = [], True
        for rate in rates:
            window = self._windows.get(rate.name)
            if window is None:
                window = self._windows[rate.name] = _Window()
            elif window.seconds and window.seconds[0][0] < now - WINDOW_SECONDS:
                window.advance(now)
            if window.total >= rate.limit:
                is_allowed = False
            windows.append(window)
        if is_allowed:
            for window in windows:
                window.add(now)
        return [_counted(rate, window, at, is_allowed) for window, rate in zip(windows, rates, strict=True)]

    def _sweep(self, now: int) -> None:
        """Forget who has not come for a minute, once a minute; and everybody where they are too many."""
        self._swept_at = now
        for name, window in list(self._windows.items()):
            window.advance(now)
            if not window.total:
                del self._windows[name]
        while len(self._windows) >= _MOST_NAMES:
            del self._windows[next(iter(self._windows))]

    async def enter(self, place: str, endpoint: str, most: int, budget: Budget | None) -> Place:
        return self.entered(endpoint, most, budget)

    def entered(self, endpoint: str, most: int, budget: Budget | None) -> Place:
        """`enter`, which waits for nothing here."""
        used = 0
        if budget is not None:
            if budget.month != self._month:
                self._month, self._used = budget.month, {}
            used = self._used[budget.name] = max(self._used.get(budget.name, 0), budget.used)
            if used + self._reserved.get(budget.name, 0) >= budget.limit:
                return Place("budget", used)
        if self._taken.get(endpoint, 0) >= most:
            return Place("busy", used)
        self._taken[endpoint] = self._taken.get(endpoint, 0) + 1
        if budget is not None:
            self._reserved[budget.name] = self._reserved.get(budget.name, 0) + budget.reserved
        return Place(None, used)

    def leave(self, place: str, endpoint: str, budget: Budget | None, tokens: int) -> None:
        self._taken[endpoint] = self._taken.get(endpoint, 1) - 1
        if budget is None:
            return
        left = self._reserved.get(budget.name, 0) - budget.reserved
        if left > 0:
            self._reserved[budget.name] = left
        else:
            self._reserved.pop(budget.name, None)
        # What a request of last month used is for the ledger alone.
        if budget.month == self._month:
            self._used[budget.name] = self._used.get(budget.name, 0) + tokens


def _counted(rate: Rate, window: _Window, at: float, is_allowed: bool) -> Counted:
    """How a rate stands."""
    limit, seconds = rate.limit, window.seconds
    if not seconds:
        return Counted(True, limit, limit, 0.0, 0.0)
    left, reset = limit - window.total, seconds[-1][0] + WINDOW_SECONDS + 1 - at
    if left > 0:
        return Counted(True, limit, left, 0.0, reset)
    return Counted(is_allowed, limit, 0, max(0.0, seconds[0][0] + WINDOW_SECONDS + 1 - at), reset)
