"""What limits are asked, what they answer, and the interface of those who count."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

WINDOW_SECONDS = 60
"""Requests are counted over the last minute, by the second: never more than the limit within any 60 seconds."""
LEASE_SECONDS = 6.0
"""How long a place is kept for a worker that says nothing more; it says so three times in that time."""


class Rate(NamedTuple):
    """So many requests a minute, of what `name` says."""

    name: str
    limit: int


class Counted(NamedTuple):
    """How a rate stands: `remaining` after this request; seconds until one more may come, and until all may."""

    allowed: bool
    limit: int
    remaining: int
    retry_after: float
    reset: float


@dataclass(frozen=True, slots=True)
class Budget:
    """So many tokens in a month, of what `name` says.

    `used` is what the ledger knows of; what is counted here may be ahead of it, and is never less. `reserved` is what
    this request may use at most.
    """

    name: str
    month: str
    limit: int
    used: int
    reserved: int


class Place(NamedTuple):
    """Whether a request may go on; `refused` is `busy` or `budget` where it may not."""

    refused: str | None = None
    used: int = 0


class StoreAway(Exception):
    """The store that counts for several workers does not answer."""


class Counter(Protocol):
    """Counts for one process or for many. What refuses a request does not count it."""

    async def count(self, rates: Sequence[Rate]) -> list[Counted]:
        """Count one request under all of the rates, or, where one of them is used up, under none."""

    async def enter(self, place: str, endpoint: str, most: int, budget: Budget | None) -> Place:
        """Hold a place at an endpoint that has `most`, and reserve tokens of a budget, under the name `place`."""

    def leave(self, place: str, endpoint: str, budget: Budget | None, tokens: int) -> None:
        """Give both back, and note what was used in the end. Never waits."""
