"""Finds out who calls, and refuses whom it does not know."""

from images.gateway.call import Answer, Call, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer
from images.gateway.layers.limit import refuse_address


class Authenticate(Layer):
    """Sets `call.caller` from the request's credential, an API key or a token, and whether a role of it may call
    endpoints; 401 without a right one.

    Reads headers alone: the body is read only of who may send one. Who tries too often from one address gets 429. What
    a known caller may call is decided where the endpoint is known (`authorize`).
    """

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        callers = self.gateway.callers
        if not callers.access.is_on or call.is_probe:
            return await proceed(call)
        try:
            call.caller = await callers.identify(call)
        except ApiError as error:
            if error.status == 401:
                await refuse_address(callers, call)
            raise
        found = callers.has_role(call.caller)
        call.has_role = found if isinstance(found, bool) else await found
        return await proceed(call)
