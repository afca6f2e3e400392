"""What the layers of a gateway share: the routes, the connections to model servers, the log and the counters."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

import aiohttp
from starlette.concurrency import run_in_threadpool

from images.gateway import proxy
from images.gateway.access.callers import Callers
from images.gateway.breaker import Breakers
from images.gateway.events import STALL_SECONDS
from images.gateway.exposures import ExposureLog
from images.gateway.metrics import Metrics
from images.gateway.routes import RouteTable
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog

log = logging.getLogger("gateway")

REFRESH_SECONDS = 0.5
PING_SECONDS = 15.0
"""How long a client that waits for a stream hears nothing, at most."""


class Gateway:
    """The state of one gateway's process; what has to hold across several of them is not here."""

    def __init__(
        self,
        catalog: Catalog,
        mask: Callable[[str], str],
        *,
        settings: Settings | None = None,
        policy: Policy | None = None,
        read_seconds: float = 300.0,
        stall_seconds: float = STALL_SECONDS,
        ping_seconds: float = PING_SECONDS,
        scale: tuple[int, int] = (1, 5),
    ) -> None:
        self.catalog = catalog
        self.settings = settings or Settings()
        self.policy = policy or load_policy(self.settings.policy_file)
        self.admin_token = self.settings.admin_token
        self.callers = Callers(self.settings, self.policy.access)
        self.scale = scale
        self.mask = mask
        self.read_seconds = read_seconds
        self.stall_seconds = stall_seconds
        self.ping_seconds = ping_seconds
        self.table = RouteTable()
        self.metrics = Metrics()
        self.in_flight: Counter[str] = Counter()
        self.exposures: ExposureLog
        self.connections: proxy.Connections
        self.breakers: Breakers

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From the first reading of the catalog to the last written exposure."""
        await run_in_threadpool(self.table.refresh, self.catalog)
        self.metrics.routes_read(self.table.fault, self.table.faults)
        await self.callers.open(self.catalog)
        self.exposures = ExposureLog(self.catalog, self.mask, self.metrics)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=self.read_seconds)
        refresher = asyncio.create_task(self._refresh())
        try:
            async with proxy.Connections(timeout) as self.connections:
                self.breakers = Breakers(self.connections.is_healthy)
                try:
                    yield
                finally:
                    await self.breakers.close()
        finally:
            refresher.cancel()
            await self.callers.close()
            await run_in_threadpool(self.exposures.close)

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await run_in_threadpool(self.table.refresh, self.catalog)
                self.metrics.routes_read(self.table.fault, self.table.faults)
                self.breakers.keep(
                    url for e in self.table.endpoints.values() for route in e.routes for url in route.urls
                )
                await run_in_threadpool(self.callers.refresh, self.catalog)
            except Exception:  # a refresh that ended for good would serve old routes for ever
                log.exception("the routes could not be renewed; trying again in %s s", REFRESH_SECONDS)
