"""Refuses what is too much: requests a minute of an address, and of a key or the subject of a token."""

import math
from collections.abc import Awaitable, Sequence

from images.gateway.access.callers import Callers
from images.gateway.call import Answer, Call, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.limits.counted import Counted, Rate


class Limit(Layer):
    """429 with the usual headers. A caller with a rate of its own is held to that alone: many users may be behind it.

    Budgets and places of endpoints are `reserve`'s, below `validate`, where the endpoint is known.
    """

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        callers, caller = self.gateway.callers, call.caller
        if not callers.access.limits_on or call.is_probe:
            return proceed(call)
        usual, rates = callers.policy.limits, []
        if caller.requests_per_minute is None:
            rates.append(address_rate(callers, call))
        if not caller.is_anonymous:
            rates.append(Rate(f"caller:{caller.name}", caller.requests_per_minute or usual.requests_per_minute))
        found = callers.limiter.count(rates)
        if not isinstance(found, list):
            return self._when_counted(call, proceed, rates, found)
        call.headers.update(check(found, rates))
        return proceed(call)

    async def _when_counted(
        self, call: Call, proceed: Proceed, rates: list[Rate], counting: Awaitable[list[Counted]]
    ) -> Answer:
        call.headers.update(check(await counting, rates))
        return await proceed(call)


def address_rate(callers: Callers, call: Call) -> Rate:
    """What the address of a request may ask."""
    return Rate(f"address:{callers.address_of(call)}", callers.policy.limits.requests_per_minute_per_address)


async def refuse_address(callers: Callers, call: Call) -> None:
    """Count a request that was refused; ApiError 429 where its address has sent too many."""
    if callers.access.limits_on:
        rates = [address_rate(callers, call)]
        found = callers.limiter.count(rates)
        check(found if isinstance(found, list) else await found, rates)


def check(found: Sequence[Counted], rates: Sequence[Rate]) -> dict[str, str]:
    """The headers of an answer by the tightest of the limits, named as OpenAI names them; ApiError 429."""
    tightest = found[0]
    for one in found[1:]:
        if (one.allowed, one.remaining) < (tightest.allowed, tightest.remaining):
            tightest = one
    headers = {
        "x-ratelimit-limit-requests": str(tightest.limit),
        "x-ratelimit-remaining-requests": str(tightest.remaining),
        "x-ratelimit-reset-requests": f"{math.ceil(tightest.reset)}s",
    }
    if tightest.allowed:
        return headers
    of_what = "this address" if rates[list(found).index(tightest)].name.startswith("address:") else "this key"
    seconds = max(1, math.ceil(tightest.retry_after))
    raise ApiError(
        429,
        f"{of_what} may send {tightest.limit} requests a minute: try again in {seconds} s",
        code="rate_limit_exceeded",
        retry_after=seconds,
        extra=headers,
    )
