"""What the layers of a gateway share: the routes, the connections to model servers, the log and the counters."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable

from starlette.concurrency import run_in_threadpool

from images.gateway.access.callers import Callers
from images.gateway.access.last_keys import LastKeys
from images.gateway.arms import Arms
from images.gateway.breaker import Breakers
from images.gateway.embedded import EmbeddingsUsed
from images.gateway.events import STALL_SECONDS
from images.gateway.exposures import ExposureLog
from images.gateway.last_routes import LastRoutes
from images.gateway.metrics import Metrics
from images.gateway.refusals import Refusals
from images.gateway.routes import RouteTable
from images.gateway.shadows import Shadows
from images.gateway.upstream.pool import Pool
from llmops_assets.privacy.masker import Masker
from llmops_assets.specs.policy import Policy, load_policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog
from resources.encryption import Keyring
from resources.traffic import owner
from resources.traffic.shipper import AWAY
from resources.traffic.spool import spool_root

log = logging.getLogger("gateway")

REFRESH_SECONDS = 0.5
_FIRST_LOOK_SECONDS = 5.0
PING_SECONDS = 15.0
"""How long a client that waits for a stream hears nothing, at most."""


class Gateway:
    """The state of one gateway's process; what has to hold across several of them is not here."""

    def __init__(
        self,
        catalog: Catalog,
        mask: Callable[[str], str] | None = None,
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
        # Without settings of its own it leaves nothing behind: its spool is a temporary one.
        self.spool_folder = spool_root(settings) if settings else None
        self.admin_token = self.settings.admin_token
        self.callers = Callers(self.settings, self.policy.access)
        self.scale = scale
        self.mask = mask or Masker.of(self.policy)
        self.read_seconds = read_seconds
        self.stall_seconds = stall_seconds
        self.ping_seconds = ping_seconds
        self.table = RouteTable()
        self.arms = Arms(self.policy.experiments.breaker, self.table)
        self.metrics = Metrics()
        self.in_flight: Counter[str] = Counter()
        self.exposures: ExposureLog
        self.embeddings_used: EmbeddingsUsed
        self.refusals: Refusals
        self.connections: Pool
        self.breakers: Breakers
        self.shadows: Shadows
        self.last_routes: LastRoutes | None = None
        self.is_running = False

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """From the first reading of the catalog to the last written exposure."""
        keys = Keyring.of_settings(self.settings)
        last_keys = None
        if self.spool_folder is not None:
            if (identity := await self._identity()) is not None:
                owner.claim(self.spool_folder, identity, self.catalog.url)
            last_keys = LastKeys(self.spool_folder, keys)
            self.last_routes = LastRoutes(self.spool_folder, keys)
            self.last_routes.restore(self.table)
        await self._first_look()
        self.metrics.routes_read(self.table.fault, self.table.faults)
        await self.callers.open(self.catalog, last_keys)
        self.exposures = ExposureLog(
            self.catalog,
            self.mask,
            self.metrics,
            folder=self.spool_folder,
            keys=keys,
            slow_ms=self.policy.experiments.latency_threshold_ms,
        )
        self.embeddings_used = EmbeddingsUsed(self.exposures.put_embedded)
        self.refusals = Refusals(self.exposures.put_refusal, knows_callers=lambda: self.callers.access.is_on)
        refresher = asyncio.create_task(self._refresh())
        try:
            async with Pool(read_seconds=self.read_seconds) as self.connections:
                self.breakers = Breakers(self.connections.is_healthy)
                self.shadows = Shadows(
                    self.table, self.connections, self.breakers, self.metrics, self.exposures.put_shadow
                )
                self.is_running = True
                try:
                    yield
                finally:
                    await self.shadows.close()
                    await self.breakers.close()
        finally:
            refresher.cancel()
            await self.callers.close()
            self.refusals.flush()
            self.embeddings_used.flush()
            await run_in_threadpool(self.exposures.close)

    async def _identity(self) -> str | None:
        """What names the catalog; None while it is away."""
        asking = asyncio.ensure_future(run_in_threadpool(lambda: self.catalog.identity))
        try:
            return await asyncio.wait_for(asyncio.shield(asking), _FIRST_LOOK_SECONDS)
        except (*AWAY, TimeoutError):
            return None

    async def _first_look(self) -> None:
        """Read the catalog; where it hangs and there are routes of before, go on with these."""
        looking = asyncio.ensure_future(run_in_threadpool(self.table.refresh, self.catalog))
        try:
            await asyncio.wait_for(asyncio.shield(looking), _FIRST_LOOK_SECONDS if self.table.endpoints else None)
        except TimeoutError:
            log.error("the catalog does not answer: the routes of before are served")

    async def _refresh(self) -> None:
        while True:
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                self.arms.look()
                await run_in_threadpool(self._read_routes)
                self.arms.heed()
                self.metrics.routes_read(self.table.fault, self.table.faults)
                self.breakers.keep(
                    url for e in self.table.endpoints.values() for route in e.routes for url in route.urls
                )
                await run_in_threadpool(self.callers.refresh, self.catalog)
            except Exception:  # a refresh that ended for good would serve old routes for ever
                log.exception("the routes could not be renewed; trying again in %s s", REFRESH_SECONDS)

    def _read_routes(self) -> None:
        self.arms.note(self.catalog)
        self.table.refresh(self.catalog)
        if self.last_routes is not None and self.table.fault is None:
            self.last_routes.keep(self.table)
