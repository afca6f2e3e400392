"""The layers that every request passes, in one visible order."""

from collections.abc import Sequence
from functools import partial

from images.gateway.call import Operation, Proceed
from images.gateway.gateway import Gateway
from images.gateway.layers.assign import Assign
from images.gateway.layers.authenticate import Authenticate
from images.gateway.layers.authorize import Authorize
from images.gateway.layers.base import Layer
from images.gateway.layers.cache import Cache
from images.gateway.layers.count import Count
from images.gateway.layers.guard import Guard
from images.gateway.layers.limit import Limit
from images.gateway.layers.log import Log
from images.gateway.layers.meter import Meter
from images.gateway.layers.probe import Probe
from images.gateway.layers.prompt import Prompt
from images.gateway.layers.proxy import Proxy
from images.gateway.layers.refuse import Refuse
from images.gateway.layers.reserve import Reserve
from images.gateway.layers.retrieval import Retrieval
from images.gateway.layers.shadow import Shadow
from images.gateway.layers.validate import Validate

# A request goes down: authenticate, limit (requests; below `validate` what it may call, places and budgets), validate,
# guard in, assign, cache, prompt or retrieval, proxy. Its answer
# comes up again: guard out, count, log. So those that act on the way back alone stand first, the last to act outermost.
LAYERS: tuple[type[Layer], ...] = (
    Log,
    Meter,
    Refuse,
    Count,
    Probe,
    Authenticate,
    Limit,
    Validate,
    Authorize,
    Reserve,
    Guard,
    Assign,
    Shadow,
    Cache,
    Prompt,
    Retrieval,
    Proxy,
)


def build(gateway: Gateway, layers: Sequence[type[Layer]] = LAYERS) -> list[Layer]:
    """The layers of one gateway, in their order."""
    return [layer(gateway) for layer in layers]


def layers_of(operation: Operation, layers: Sequence[Layer]) -> list[Layer]:
    """Those of `layers` that requests for `operation` pass."""
    return [layer for layer in layers if layer.applies(operation)]


def compose(operation: Operation, layers: Sequence[Layer]) -> Proceed:
    """One callable for `operation`: its layers around what it answers."""
    step: Proceed = operation.answer
    for layer in reversed(layers_of(operation, layers)):
        step = partial(layer, proceed=step)
    return step
