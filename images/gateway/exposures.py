"""The log of what users asked and got: spooled beside the gateway at once, and shipped to the catalog from there."""

import logging
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from images.gateway.metrics import Metrics
from resources.catalog import Catalog
from resources.encryption import NO_KEYS, Keyring
from resources.traffic.completions import ParsedCompletion, read_answer
from resources.traffic.entries import Embedded, Exposure, Rating, Refusal, ShadowAnswer, now
from resources.traffic.shipper import CannotShip, Shipper
from resources.traffic.spool import CAP_BYTES, Position, Spool, fault_of

__all__ = ["Exposure", "ExposureLog", "ParsedCompletion", "Rating", "now", "read_answer"]

log = logging.getLogger("gateway.exposures")

_LOOK_SECONDS = 0.2
_MOST_PAUSE_SECONDS = 2.0
_MOST_PENDING = 200_000


class ExposureLog:
    """Takes exposures, ratings and refusals without ever waiting; counts what there is no room for.

    They go to a spool in `folder`, and what ships spools writes them to the catalog: a process of its own
    (`images.gateway.ship`), or where none runs a thread of this one. `mask` replaces personal data in a text before
    anything is written to the catalog. Without a folder the spool is a temporary one, and ends with this log.
    """

    def __init__(
        self,
        catalog: Catalog,
        mask: Callable[[str], str],
        metrics: Metrics,
        *,
        capacity: int = 10_000,
        folder: Path | None = None,
        keys: Keyring = NO_KEYS,
        cap_bytes: int = CAP_BYTES,
        slow_ms: float = 2000.0,
    ) -> None:
        self._catalog = catalog
        self._metrics = metrics
        self._temporary = None if folder else tempfile.TemporaryDirectory(prefix="llmops-spool-")
        self.root = folder or Path(self._temporary.name)
        self.spool = Spool(self.root, keys, capacity=capacity, cap_bytes=cap_bytes, on_lost=self._lost)
        self._shipper = Shipper(self.root, catalog, mask, keys, slow_ms=slow_ms, on_position=self._note)
        self.mask = mask
        self.pseudonym = self._shipper.rows.pseudonym
        self.fault: str | None = None
        # Announced or spooled, and not in the catalog yet: the salt that the user's pseudonym is made with.
        self._pending: dict[str, str] = {}
        self._numbered: deque[tuple[int, str | None]] = deque()
        self._position = Position()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._ship_all, name="exposures", daemon=True)
        self._thread.start()

    def expect(self, exposure: Exposure) -> None:
        """Announce an exposure that is to come, so that its answer can be rated as soon as it is read."""
        self._pending[exposure.request_id] = exposure.salt

    def put(self, exposure: Exposure) -> None:
        number = self.spool.append(exposure)
        if number is None:
            self._pending.pop(exposure.request_id, None)
            return
        self.expect(exposure)
        self._numbered.append((number, exposure.request_id))
        if len(self._pending) > _MOST_PENDING:
            # The catalog has been away for long: who rates these later is looked up when it is back.
            self._pending.pop(next(iter(self._pending)))

    def put_rating(self, rating: Rating) -> bool:
        """Spool a rating that the catalog cannot take now; False when there is no room for it."""
        number = self.spool.append(rating)
        if number is not None:
            self._numbered.append((number, None))
        return number is not None

    def put_refusal(self, refusal: Refusal) -> None:
        """Spool what was refused, or how much of it was; counted as lost where there is no room for it."""
        self._append(refusal)

    def put_shadow(self, answer: ShadowAnswer) -> None:
        """Spool what a candidate answered; counted as lost where there is no room for it."""
        self._append(answer)

    def put_embedded(self, used: Embedded) -> None:
        """Spool what embeddings used; counted as lost where there is no room for it."""
        self._append(used)

    def _append(self, entry: Refusal | ShadowAnswer | Embedded) -> None:
        if (number := self.spool.append(entry)) is not None:
            self._numbered.append((number, None))

    def write_rating(self, rating: Rating) -> None:
        """Write a rating to the catalog at once."""
        self._catalog.add_traffic([], [self._shipper.rows.rating(rating)])

    def is_pending(self, request_id: str) -> bool:
        """Whether an exposure is announced or spooled, and not in the catalog yet."""
        return request_id in self._pending

    def pending_salt(self, request_id: str) -> str | None:
        """The salt that an exposure not written yet will name its user with, or None where none is pending."""
        return self._pending.get(request_id)

    @property
    def queued(self) -> int:
        """Entries that are not in the spool's files yet."""
        return self.spool.queued

    @property
    def waiting(self) -> int:
        """Entries that are not in the catalog yet."""
        return len(self._numbered)

    def close(self, seconds: float = 10.0) -> None:
        """Write what is queued, ship it for at most `seconds` unless another process does, and end the threads."""
        until = time.monotonic() + seconds
        self._closing.set()
        self._thread.join(seconds)
        self.spool.close()
        while (pause := until - time.monotonic()) > 0 and self._ship() is False:
            time.sleep(min(0.1, pause))
        left = self.waiting
        if left and self._temporary is not None:
            log.error("%d exposures were not written before the gateway ended", left)
            self._metrics.dropped.labels("not written").inc(left)
        elif left:
            log.info("%d entries of the log stay in the spool %s until they are shipped", left, self.spool.folder)
        if self._temporary is not None:
            self._temporary.cleanup()

    def _ship_all(self) -> None:
        pause = _LOOK_SECONDS
        while not self._closing.wait(pause):
            shipped = self._ship()
            pause = min(2 * pause, _MOST_PAUSE_SECONDS) if shipped is False else _LOOK_SECONDS
            if shipped is None:
                self._note(self.spool.name, Position.read(self.spool.folder))
            self._metrics.spool(self.waiting, self.spool.fault, self.fault)

    def _ship(self) -> bool | None:
        """Ship what there is; False when it has to be tried again, None when another process does it."""
        try:
            with self._shipper.turn(wait=False) as is_ours:
                if not is_ours:
                    # Whoever does has written it to the log.
                    self.fault = fault_of(self.root)
                    return None
                self._shipper.ship()
        except (CannotShip, OSError) as error:
            if self.fault is None:
                log.error("%s", error)
            self.fault = str(error)
            return False
        except Exception:  # shipping that ended for good would fill the disk
            log.exception("the log could not be shipped; trying again")
            return False
        self.fault = None
        return True

    def _note(self, worker: str, position: Position) -> None:
        """Note how far this worker's spool is shipped."""
        before = self._position
        if worker != self.spool.name or position.sequence < before.sequence:
            return
        self._position = position
        self._metrics.exposures.inc(max(0, position.exposures - before.exposures))
        self._metrics.dropped.labels("refused").inc(max(0, position.refused - before.refused))
        self._metrics.dropped.labels("damaged").inc(max(0, position.lost - before.lost))
        while self._numbered and self._numbered[0][0] <= position.sequence:
            self._pending.pop(self._numbered.popleft()[1] or "", None)

    def _lost(self, reason: str) -> None:
        self._metrics.dropped.labels(reason).inc()
