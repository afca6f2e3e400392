"""Ships what the gateways of this machine spooled: masks it and writes it to the catalog, as a process of its own."""

import argparse
import logging
import signal
import sys
import threading
import time

from llmops_assets.privacy.masker import Masker
from llmops_assets.specs.policy import load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.encryption import Keyring
from resources.traffic import spool
from resources.traffic.shipper import CannotShip, Shipper

log = logging.getLogger("gateway.shipper")

_LOOK_SECONDS = 0.25
_MOST_PAUSE_SECONDS = 5.0
# A gateway that is told to end with this answers what is in flight first, for up to 30 seconds.
_DRAIN_SECONDS = 25.0


def main(arguments: list[str] | None = None) -> None:
    """Ship until SIGTERM, and then what the gateways that are ending still write; exit code 1 when something stays."""
    parser = argparse.ArgumentParser(prog="python -m images.gateway.ship", description=__doc__)
    parser.add_argument("--once", action="store_true", help="ship what is there, and end")
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    policy = load_policy(settings.policy_file)
    shipper = Shipper(
        spool.spool_root(settings),
        Catalog(settings.catalog),
        Masker.of(policy),
        Keyring.of_settings(settings),
        slow_ms=policy.experiments.latency_threshold_ms,
    )
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    with shipper.turn(wait=True):
        if a.once:
            sys.exit(0 if _ship(shipper) is not None else 1)
        sys.exit(0 if _ship_until(shipper, stopping) else 1)


def _ship_until(shipper: Shipper, stopping: threading.Event) -> bool:
    """Ship until told to stop; then on, until no gateway of this machine runs and nothing is left, or time is up."""
    pause, give_up_at = _LOOK_SECONDS, None
    while True:
        is_last = stopping.wait(pause)
        if is_last and give_up_at is None:
            give_up_at = time.monotonic() + _DRAIN_SECONDS
        shipped = _ship(shipper)
        pause = min(2 * pause, _MOST_PAUSE_SECONDS) if shipped is None else _LOOK_SECONDS
        if is_last:
            left = spool.worker_folders(shipper.root)
            if not left:
                return True
            if time.monotonic() > give_up_at or shipped is None:
                log.warning("%d spools stay as they are: they are shipped at the next start", len(left))
                return False
            time.sleep(_LOOK_SECONDS)


def _ship(shipper: Shipper) -> int | None:
    """How many entries were shipped; None when they have to wait."""
    try:
        return shipper.ship()
    except (CannotShip, OSError) as error:
        log.error("%s", error)
    except Exception:  # shipping that ended for good would fill the disk
        log.exception("the log could not be shipped; trying again")
    return None


if __name__ == "__main__":
    main()
