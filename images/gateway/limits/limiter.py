"""Who counts: this process alone, or a store for all workers, and what happens while that is away."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Literal

from images.gateway.errors import ApiError
from images.gateway.limits.counted import Budget, Counted, Place, Rate, StoreAway
from images.gateway.limits.local import LocalCounter
from images.gateway.limits.shared import SharedCounter

log = logging.getLogger("gateway.limits")

Entered = tuple[Place, Callable[[int], None]]
"""A place, and what gives it back."""


class Limiter:
    """Counts in the store where there is one.

    While the store is away, `open` lets every worker count by itself, so that a caller may get the limit once a worker;
    `closed` answers 503.
    """

    def __init__(self, shared: SharedCounter | None = None, *, on_failure: Literal["open", "closed"] = "open") -> None:
        self.shared = shared
        self.on_failure = on_failure
        self.local = LocalCounter()

    @property
    def fault(self) -> str | None:
        """What is wrong with the store, and what that means; None while nothing is."""
        if self.shared is None or self.shared.fault is None:
            return None
        meaning = "each worker counts by itself" if self.on_failure == "open" else "requests are refused"
        return f"the store of the limits does not answer: {meaning}"

    async def open(self) -> None:
        if self.shared is not None:
            await self.shared.open()

    async def close(self) -> None:
        if self.shared is not None:
            await self.shared.close()

    def count(self, rates: Sequence[Rate]) -> list[Counted] | Awaitable[list[Counted]]:
        """Count a request under all of the rates, or under none where one is used up; ApiError 503 as `closed` says.

        What a store counts is to be awaited.
        """
        return self.local.counted(rates) if self.shared is None else self._count(self.shared, rates)

    async def _count(self, shared: SharedCounter, rates: Sequence[Rate]) -> list[Counted]:
        try:
            return await shared.count(rates)
        except StoreAway as error:
            self._may_go_on(error)
        return self.local.counted(rates)

    def enter(self, place: str, endpoint: str, most: int, budget: Budget | None) -> Entered | Awaitable[Entered]:
        """Hold a place of an endpoint, and tokens of a budget; what gives both back, with the tokens that were used.

        What a store gives is to be awaited. ApiError 503 as `closed` says.
        """
        if self.shared is not None:
            return self._enter(self.shared, place, endpoint, most, budget)
        found = self.local.entered(endpoint, most, budget)
        return found, lambda tokens: self.local.leave(place, endpoint, budget, tokens)

    async def _enter(
        self, shared: SharedCounter, place: str, endpoint: str, most: int, budget: Budget | None
    ) -> Entered:
        try:
            found = await shared.enter(place, endpoint, most, budget)
            return found, lambda tokens: shared.leave(place, endpoint, budget, tokens)
        except StoreAway as error:
            self._may_go_on(error)
        found = self.local.entered(endpoint, most, budget)
        if found.refused is None:
            shared.hold(place, endpoint, budget)

        def leave(tokens: int) -> None:
            self.local.leave(place, endpoint, budget, tokens)
            shared.leave(place, endpoint, budget, tokens)

        return found, leave

    def _may_go_on(self, error: StoreAway) -> None:
        if self.on_failure == "closed":
            raise ApiError(
                503, "limits cannot be counted now: try again in a moment", code="limits_unavailable", retry_after=1
            ) from error
