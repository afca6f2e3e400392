"""Ships a gateway's log in a process of its own, forked before the gateway begins: masking never holds up answers."""

import contextlib
import gc
import logging
import os
import select
import signal
import time
from collections.abc import Iterator

from images.gateway.ship import LOOK_SECONDS, MOST_PAUSE_SECONDS, shipper_of, try_to_ship
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from resources.traffic.shipper import Shipper

log = logging.getLogger("gateway.shipper")

_END_SECONDS = 10.0
_NICENESS = 5
"""Where cores are short answers come first; a third of an answer's share is left, which is more than shipping takes."""


@contextlib.contextmanager
def shipping(settings: Settings, policy: Policy) -> Iterator[int | None]:
    """Have a child ship what is spooled, for as long as the block lasts and once more after it; its process id.

    Nothing depends on it: where it cannot be made, or is gone, the gateway's own thread ships. It ends with this
    process, however that ends. Call it before there are threads.
    """
    reading, writing = os.pipe()
    try:
        # What is there now stays as it is in both.
        gc.freeze()
        child = os.fork()
    except OSError as error:
        log.error("no process for shipping the log (%s): the gateway does it itself", error.strerror)
        os.close(reading)
        os.close(writing)
        yield None
        return
    if not child:
        os.close(writing)
        _ship_beside(settings, policy, reading)
    os.close(reading)
    try:
        yield child
    finally:
        os.close(writing)
        _wait(child)


def _ship_beside(settings: Settings, policy: Policy, parent: int) -> None:
    """Ship until the end of the pipe `parent`, then what is left. Never returns."""
    code = 1
    try:
        # They are sent to all of a group: the gateway heeds them, and its end is heard by the pipe.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        with contextlib.suppress(OSError):
            os.nice(_NICENESS)
        _ship_until_ended(shipper_of(settings, policy), parent)
        code = 0
    except BaseException:
        log.exception("the log is shipped by the gateway itself from here on")
    finally:
        # Not the way of the parent's exit handlers.
        logging.shutdown()
        os._exit(code)


def _ship_until_ended(shipper: Shipper, parent: int) -> None:
    has_ended = False
    while not has_ended:
        with shipper.turn(wait=False) as is_ours:
            pause = 0.0
            while is_ours and not has_ended:
                has_ended = _is_over(parent, pause)
                shipped = try_to_ship(shipper)
                pause = min(max(2 * pause, LOOK_SECONDS), MOST_PAUSE_SECONDS) if shipped is None else LOOK_SECONDS
        has_ended = has_ended or _is_over(parent, LOOK_SECONDS)


def _is_over(parent: int, seconds: float) -> bool:
    """Whether the gateway has closed its end of the pipe, or ends within some seconds."""
    return bool(select.select([parent], [], [], seconds)[0])


def _wait(child: int) -> None:
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(child, os.WNOHANG)[0] == 0:
                time.sleep(0.02)
                continue
        return
    log.warning("the log is still being shipped: what is left is shipped at the next start")
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        os.waitpid(child, 0)
