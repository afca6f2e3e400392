"""What was spent, and what an improvement cost: its price by the point, with the interval of the gain."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from llmops_assets.specs.prices import Prices


@dataclass(frozen=True)
class Spending:
    """What was used: tokens and requests; seconds of GPUs (of all of them added up) and of machines without; minutes of
    people."""

    requests: int = 0
    tokens: int = 0
    gpu_seconds: float = 0.0
    cpu_seconds: float = 0.0
    human_minutes: float = 0.0

    def __add__(self, other: "Spending") -> "Spending":
        return replace(self, **{name: getattr(self, name) + getattr(other, name) for name in vars(self)})

    def kwh(self, prices: Prices) -> float:
        """An estimate of the energy, by what the policy says that devices draw."""
        return (self.gpu_seconds * prices.gpu_watts + self.cpu_seconds * prices.cpu_watts) / 3.6e6

    def cost(self, prices: Prices) -> float:
        """In the currency of the policy, energy included."""
        hours = self.gpu_seconds / 3600 * prices.gpu_hour + self.cpu_seconds / 3600 * prices.cpu_hour
        people = self.human_minutes / 60 * prices.human_hour
        return hours + people + self.kwh(prices) * prices.kwh + self.tokens / 1e6 * prices.million_tokens


@dataclass(frozen=True)
class Candidate:
    """A training that was to become the improvement; outcome: promoted, rolled back, withheld, failed, not tried …"""

    cell: str
    outcome: str
    spending: Spending


@dataclass(frozen=True)
class Improvement:
    """A promoted gain and what it cost, failed candidates included.

    gain, low, high: of the deciding metric, with the interval that the test decided on. price: cost by one unit
    of gain; price_low and price_high are its interval, None where the gain may be nothing.
    """

    experiment: str
    model_ref: str
    gain: float
    low: float
    high: float
    cost: float
    candidates: Sequence[Candidate]
    human_minutes: float
    price: float | None
    price_low: float | None
    price_high: float | None


def improvement(
    experiment: str,
    model_ref: str,
    gain: tuple[float, float, float],
    candidates: Sequence[Candidate],
    reviews: Spending,
    prices: Prices,
) -> Improvement:
    """What a gain (estimate, low, high) cost: all that was tried for it since the one before, and the people.

    The cost is known and the gain is not, so the interval of the price is the cost over that of the gain, turned round:
    monotone as long as the gain is above 0 (Fieller, JRSS B 1954, for a ratio whose numerator has no error).
    """
    spent = sum((one.spending for one in candidates), reviews)
    cost = spent.cost(prices)
    estimate, low, high = gain

    def over(value: float) -> float | None:
        return cost / value if value > 0 else None

    return Improvement(
        experiment, model_ref, estimate, low, high, cost, tuple(candidates), spent.human_minutes,
        over(estimate), over(high), over(low),
    )  # fmt: skip
