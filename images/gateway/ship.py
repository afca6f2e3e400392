"""Ships what the gateways of this machine spooled: masks it and writes it to the catalog, as a process of its own."""

import argparse
import logging
import signal
import sys
import threading
import time

from llmops_assets.privacy.masker import Masker
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.encryption import Keyring
from resources.traffic import spool
from resources.traffic.shipper import CannotShip, Shipper

log = logging.getLogger("gateway.shipper")

LOOK_SECONDS = 0.25
MOST_PAUSE_SECONDS = 5.0
"""Between two looks at the spools, and after one whose entries had to wait."""
# A gateway that is told to end with this answers what is in flight first, for up to 30 seconds.
_DRAIN_SECONDS = 25.0


def main(arguments: list[str] | None = None) -> None:
    """Ship until SIGTERM, and then what the gateways that are ending still write; exit code 1 when something stays."""
    parser = argparse.ArgumentParser(prog="python -m images.gateway.ship", description=__doc__)
    parser.add_argument("--once", action="store_true", help="ship what is there, and end")
    a = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = Settings()
    shipper = shipper_of(settings, load_policy(settings.policy_file))
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.is_set():
        # A turn that is waited for in the kernel would be waited for through every signal.
        with shipper.turn(wait=False) as is_ours:
            if is_ours and a.once:
                sys.exit(0 if try_to_ship(shipper) is not None else 1)
            if is_ours:
                sys.exit(0 if _ship_until(shipper, stopping) else 1)
        stopping.wait(LOOK_SECONDS)


def shipper_of(settings: Settings, policy: Policy) -> Shipper:
    """What ships the spools of an installation on this machine to its catalog."""
    return Shipper(
        spool.spool_root(settings),
        Catalog(settings.catalog),
        Masker.of(policy),
        Keyring.of_settings(settings),
        slow_ms=policy.experiments.latency_threshold_ms,
    )


def _ship_until(shipper: Shipper, stopping: threading.Event) -> bool:
    """Ship until told to stop; then on, until no gateway of this machine runs and nothing is left, or time is up."""
    pause, give_up_at = LOOK_SECONDS, None
    while True:
        is_last = stopping.wait(pause)
        if is_last and give_up_at is None:
            give_up_at = time.monotonic() + _DRAIN_SECONDS
        shipped = try_to_ship(shipper)
        pause = min(2 * pause, MOST_PAUSE_SECONDS) if shipped is None else LOOK_SECONDS
        if is_last:
            left = spool.worker_folders(shipper.root)
            if not left:
                return True
            if time.monotonic() > give_up_at or shipped is None:
                log.warning("%d spools stay as they are: they are shipped at the next start", len(left))
                return False
            time.sleep(LOOK_SECONDS)


def try_to_ship(shipper: Shipper) -> int | None:
    """How many entries were shipped; None when they have to wait. The gateways of this machine hear why."""
    try:
        shipped = shipper.ship()
        spool.note_fault(shipper.root, None)
        return shipped
    except (CannotShip, OSError) as error:
        log.error("%s", error)
        spool.note_fault(shipper.root, str(error))
    except Exception:  # shipping that ended for good would fill the disk
        log.exception("the log could not be shipped; trying again")
    return None


if __name__ == "__main__":
    main()
