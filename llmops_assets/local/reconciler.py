"""The process that keeps model servers as they are wanted: `python -m llmops_assets.local.reconciler`."""

import logging
import signal
import sys
import threading

from llmops_assets.operations.rollouts import look_at_rollout
from llmops_assets.operations.scaling import Scaler
from llmops_assets.specs.settings import Settings
from llmops_assets.wiring import Wiring
from resources.backends.service import Service


def run(settings: Settings) -> None:
    """Reconcile the installation's model servers until SIGTERM or SIGINT; the servers go on without us."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stop.set())
    wiring = Wiring(settings)
    Service(wiring.servers, also=[lambda name: look_at_rollout(wiring, name), Scaler(wiring).look]).run(stop)


if __name__ == "__main__":
    run(Settings())
