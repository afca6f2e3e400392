"""Knows which model servers fail, each by its own failures, and lets one request find out whether one is back."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

from images.gateway.routes import Replica, Route

log = logging.getLogger("gateway.breaker")

FAILURES = 5
"""Failures one after another, with no answer in between, that open a breaker."""
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 30.0
# A server whose tokens advanced this recently is busy, not dead, however long one request waited for it.
_ADVANCED_SECONDS = 30.0


@dataclass(slots=True)
class _Server:
    """What is known of the server at one address; times are on the monotonic clock."""

    failures: int = 0
    failed_at: float = -1e9
    advanced_at: float = -1e9
    is_open: bool = False
    pause: float = _FIRST_PAUSE
    # Since when its health page answers again, while it is open: one request may then try it.
    may_try: bool = False
    is_probed: bool = False


class Breakers:
    """A breaker for each server's address, and how many requests are out on each backend.

    Closed: requests go to it. After `FAILURES` in a row it is open: none do, and its `/health` is asked (`is_healthy`),
    with longer pauses each time. Once that answers, one request may go: its success closes the breaker, its failure
    opens it for longer.
    """

    def __init__(self, is_healthy: Callable[[str], Awaitable[bool]]) -> None:
        self._is_healthy = is_healthy
        self._servers: dict[str, _Server] = {}
        self._probes: set[asyncio.Task[None]] = set()
        self._turn = 0
        self.outstanding: Counter[str] = Counter()

    def usable(self, replica: Replica) -> bool:
        """Whether a request may go to a replica now."""
        if replica.url is None:
            return False
        server = self._servers.get(replica.url)
        return server is None or not server.is_open or server.may_try

    def failed_lately(self, url: str, seconds: float = 5.0) -> bool:
        server = self._servers.get(url)
        return server is not None and server.failed_at > time.monotonic() - seconds

    def choose(self, route: Route, but: Iterable[str] = ()) -> Replica | None:
        """The usable replica of a route with the fewest requests out, those that failed lately last; None without any.

        `but` are backends that were asked already. Among equals they take turns.
        """
        if len(route.replicas) == 1:
            replica = route.replicas[0]
            return replica if replica.backend not in but and self.usable(replica) else None
        self._turn += 1
        at, count = self._turn, len(route.replicas)
        turns = [route.replicas[(at + n) % count] for n in range(count)]
        found = [r for r in turns if r.backend not in but and self.usable(r)]
        return min(found, key=lambda r: (self.failed_lately(r.url), self.outstanding[r.backend]), default=None)

    def begin(self, replica: Replica) -> None:
        """Count a request that goes to a replica. Of an open breaker it is the one that tries."""
        self.outstanding[replica.backend] += 1
        server = self._servers.get(replica.url)
        if server is not None and server.is_open:
            server.may_try = False

    def end(self, replica: Replica) -> None:
        """Count a request that is over, well or not."""
        left = self.outstanding[replica.backend] - 1
        if left > 0:
            self.outstanding[replica.backend] = left
        else:
            del self.outstanding[replica.backend]
        server = self._servers.get(replica.url)
        if server is not None and server.is_open and not server.may_try and not server.is_probed:
            # The request that was to find out ended without a verdict: its client went away.
            self._probe(replica.url, server)

    def advanced(self, url: str) -> None:
        """Note that a server sent a part of an answer."""
        server = self._servers.get(url)
        if server is None:
            server = self._servers[url] = _Server()
        server.advanced_at = time.monotonic()

    def succeeded(self, url: str) -> None:
        """Note a whole answer, or the server's refusal of a request: it does its work."""
        server = self._servers.get(url)
        if server is None:
            server = self._servers[url] = _Server()
        server.advanced_at = time.monotonic()
        server.failures = 0
        if server.is_open:
            log.warning("%s answers again", url)
            server.is_open, server.pause = False, _FIRST_PAUSE

    def failed(self, url: str, *, by_waiting: bool = False) -> None:
        """Note a failure of the server's own; `by_waiting`: all that is known is that no answer came in time."""
        server = self._servers.setdefault(url, _Server())
        server.failed_at = time.monotonic()
        if by_waiting and server.advanced_at > server.failed_at - _ADVANCED_SECONDS:
            return
        server.failures += 1
        if server.failures >= FAILURES and not server.is_open:
            log.error("%s failed %d times in a row: no request goes to it until it is back", url, server.failures)
            server.is_open, server.may_try = True, False
            self._probe(url, server)
        elif server.is_open:
            server.pause = min(2 * server.pause, _LONGEST_PAUSE)

    def open_ones(self) -> list[str]:
        """The addresses whose breaker is open."""
        return [url for url, server in self._servers.items() if server.is_open]

    def keep(self, urls: Iterable[str]) -> None:
        """Forget the servers at all other addresses."""
        for url in self._servers.keys() - set(urls):
            del self._servers[url]

    def _probe(self, url: str, server: _Server) -> None:
        server.is_probed = True
        task = asyncio.get_running_loop().create_task(self._until_healthy(url, server), name=f"probe {url}")
        self._probes.add(task)
        task.add_done_callback(self._probes.discard)

    async def _until_healthy(self, url: str, server: _Server) -> None:
        try:
            while server.is_open and self._servers.get(url) is server and not server.may_try:
                await asyncio.sleep(server.pause)
                if await self._is_healthy(url):
                    server.may_try = True
                else:
                    server.pause = min(2 * server.pause, _LONGEST_PAUSE)
        finally:
            server.is_probed = False

    async def close(self) -> None:
        """End the probes."""
        for task in list(self._probes):
            task.cancel()
        await asyncio.gather(*self._probes, return_exceptions=True)
