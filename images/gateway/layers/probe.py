"""Knows the platform's own probes, which are no exposures, by the administrative token."""

from collections.abc import Awaitable

from images.gateway.admin import holds_token
from images.gateway.call import Answer, Call, Identity, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.base import Layer

PLATFORM = Identity(subject="platform", owner="platform")
"""Who sends probes: the platform itself, which needs no key beside its token."""


class Probe(Layer):
    """Marks a call whose header `x-llmops-probe` holds the token; nobody else keeps a request out of the log."""

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        if (given := call.header(b"x-llmops-probe")) is not None:
            if not holds_token(given, self.gateway.admin_token):
                raise ApiError(
                    403, "x-llmops-probe should be the gateway's administrative token", code="not_the_platform"
                )
            call.is_probe, call.caller = True, PLATFORM
        return proceed(call)
