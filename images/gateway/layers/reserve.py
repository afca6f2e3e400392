"""Holds a place of the endpoint, and tokens of the caller's monthly budget, until the call is over."""

from collections.abc import Awaitable, Callable

from images.gateway.access.callers import this_month
from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.limits.counted import Budget, Place
from images.gateway.limits.limiter import Entered
from images.gateway.usage import asked_tokens, tokens_of


class Reserve(Layer):
    """429 where all places of the endpoint are taken, or the tokens of the month used up.

    What a request may use at most is reserved while it runs: of many at once no more than the last one goes beyond a
    budget. What it used is counted when it is over.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        limiter, endpoint = self.gateway.callers.limiter, call.endpoint
        budget = self._budget(call)
        found = limiter.enter(call.request_id, endpoint.name, endpoint.max_concurrent_requests, budget)
        if not isinstance(found, tuple):
            return self._when_entered(call, proceed, budget, found)
        self._hold(call, budget, *found)
        return proceed(call)

    async def _when_entered(
        self, call: Call, proceed: Proceed, budget: Budget | None, entering: Awaitable[Entered]
    ) -> Answer:
        self._hold(call, budget, *await entering)
        return await proceed(call)

    def _hold(self, call: Call, budget: Budget | None, place: Place, leave: Callable[[int], None]) -> None:
        if place.refused == "budget":
            raise ApiError(
                429,
                f"the {budget.limit} tokens of this month are used up ({place.used} used, the rest is reserved by "
                "requests that are under way)",
                code="insufficient_quota",
                # Trying again helps next month; OpenAI's clients heed this.
                extra={"x-should-retry": "false"},
            )
        if place.refused is not None:
            raise ApiError(429, f"endpoint {call.endpoint.name!r} is busy: try again in a moment", code="busy")
        call.on_close(lambda: leave(sum(tokens_of(call)[:2]) if budget is not None else 0))

    def _budget(self, call: Call) -> Budget | None:
        caller = call.caller
        if caller.monthly_tokens is None or call.is_probe:
            return None
        month = this_month()
        used = self.gateway.callers.used(caller.name, month)
        return Budget(caller.name, month, caller.monthly_tokens, used, asked_tokens(call))
