"""Finds out who calls, and refuses whom it does not know."""

from collections.abc import Awaitable

from images.gateway.call import Answer, Call, Identity, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.layers.limit import refuse_address


class Authenticate(Layer):
    """Sets `call.caller` from the request's credential, an API key or a token, and whether a role of it may call
    endpoints; 401 without a right one.

    Reads headers alone: the body is read only of who may send one. Who tries too often from one address gets 429. What
    a known caller may call is decided where the endpoint is known (`authorize`).
    """

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        callers = self.gateway.callers
        if not callers.access.is_on or call.is_probe:
            return proceed(call)
        known = callers.remembered(call)
        found = None if known is None else callers.has_role(known)
        if known is None or not isinstance(found, bool):
            return self._identified(call, proceed, known, found)
        call.caller, call.has_role = known, found
        return proceed(call)

    async def _identified(
        self, call: Call, proceed: Proceed, known: Identity | None, found: Awaitable[bool] | None
    ) -> Answer:
        callers = self.gateway.callers
        try:
            call.caller = known or await callers.identify(call)
        except ApiError as error:
            if error.status == 401:
                await refuse_address(callers, call)
            raise
        has_role = found or callers.has_role(call.caller)
        call.has_role = has_role if isinstance(has_role, bool) else await has_role
        return await proceed(call)
