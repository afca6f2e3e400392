"""The reconciler as a service: it acts while it has the lease, on all endpoints side by side, until it is stopped."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from resources.catalog import LeaseLost
from resources.model_server import ModelServers

log = logging.getLogger("reconciler")

IDLE_SECONDS = 2.0
BUSY_SECONDS = 0.3
"""Between two looks: while nothing changes, and while a server is on its way up or down."""
_SIDE_BY_SIDE = 8

Look = Callable[[str], list[str]]
"""What else is looked at of an endpoint, after its servers; what was done, a sentence each."""


class Service:
    """Reconciles the servers of one installation. `also` are further looks at each endpoint, made by who has the lease.

    What concerns one endpoint never waits for another: each is looked at in a thread of its own.
    """

    def __init__(self, servers: ModelServers, also: Sequence[Look] = ()) -> None:
        self.servers = servers
        self.also = tuple(also)
        self._busy: dict[str, Future[None]] = {}
        self._faults: dict[str, str] = {}

    def run(self, stop: threading.Event) -> None:
        """Reconcile until `stop` is set. A database that is away, or a lease that another has, is waited for."""
        with ThreadPoolExecutor(_SIDE_BY_SIDE, thread_name_prefix="reconcile") as pool:
            while not stop.is_set():
                try:
                    with self.servers.lease.held() as ours:
                        if ours:
                            log.info("reconciling as %s", self.servers.lease.holder())
                            self._reconcile(pool, stop)
                except Exception as error:  # noqa: BLE001  whatever the database raises, serving is kept up
                    self._fault("the catalog", error)
                stop.wait(1.0)

    def _reconcile(self, pool: ThreadPoolExecutor, stop: threading.Event) -> None:
        """Look after everything for as long as the lease is ours."""
        try:
            while not stop.is_set():
                self.servers.lease.check()
                names = self.servers.reconciler.names()
                self._busy = {name: look for name, look in self._busy.items() if not look.done()}
                for name in names:
                    if name not in self._busy:
                        self._busy[name] = pool.submit(self._look, name)
                self._faults.pop("the catalog", None)
                stop.wait(IDLE_SECONDS if all(map(self.servers.reconciler.is_settled, names)) else BUSY_SECONDS)
        finally:
            self._wait_for_looks()

    def _look(self, name: str) -> None:
        try:
            done = self.servers.reconciler.step(name, self.servers.lease)
            for look in self.also:
                done += look(name)
        except LeaseLost as error:
            log.warning("%s: %s", name, error)
            return
        except Exception as error:  # noqa: BLE001  one endpoint, whatever is wrong with it, stops no other's
            self._fault(name, error)
            return
        self._faults.pop(name, None)
        for line in done:
            log.warning("%s", line)

    def _fault(self, what: str, error: Exception) -> None:
        """Log a fault once, as long as it stays the same."""
        reason = f"{type(error).__name__}: {error}"
        if self._faults.get(what) != reason:
            log.error("%s cannot be reconciled, it is tried again: %s", what, reason)
            self._faults[what] = reason

    def _wait_for_looks(self) -> None:
        """Let no look outlive our lease: another who has it would start what is being started here."""
        deadline = time.monotonic() + 2 * self.servers.lease.seconds
        while any(not look.done() for look in self._busy.values()) and time.monotonic() < deadline:
            time.sleep(0.05)
