"""Whether a caller's roles may call endpoints, as Cerbos decides it: asked once for many requests, and kept briefly."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable

import aiohttp

from images.gateway.call import Identity
from images.gateway.errors import ApiError
from llmops_assets.specs.access import CALL
from resources.cerbos import ANSWER_SECONDS, allowed_of, question_of

log = logging.getLogger("gateway.access")

FRESH_SECONDS = 10.0
"""So long a decision holds without another question: a role that Cerbos takes away is gone within that time."""
AWAY_SECONDS = 60.0
"""So long the last decision holds while Cerbos does not answer. Afterwards nobody is let in, nor refused for good."""
COOL_DOWN_SECONDS = 1.0
_MOST = 10_000

_Who = tuple[str, frozenset[str]]


class Decisions:
    """Asks the decision point at `url` for `endpoint.call`, once at a time for one caller with the same roles."""

    def __init__(self, url: str, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url.rstrip("/")
        self.clock = clock
        self.fault: str | None = None
        self._kept: OrderedDict[_Who, tuple[bool, float]] = OrderedDict()
        self._asking: dict[_Who, asyncio.Task[bool | None]] = {}
        self._failed_at: float | None = None
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def may_call(self, caller: Identity) -> bool:
        """Whether a caller may call endpoints; ApiError 503 where nobody can say, nor has within the last minute."""
        who = (caller.owner or caller.name, caller.roles)
        if not caller.roles:
            return False
        kept = self._kept.get(who)
        if kept is not None and self.clock() - kept[1] < FRESH_SECONDS:
            return kept[0]
        found = await self._asked(who)
        if found is not None:
            return found
        if kept is not None and self.clock() - kept[1] < AWAY_SECONDS:
            return kept[0]
        raise ApiError(
            503, "who may call is not known now: what decides it does not answer", code="access_unavailable",
            retry_after=round(COOL_DOWN_SECONDS),
        )  # fmt: skip

    async def _asked(self, who: _Who) -> bool | None:
        """What is decided of somebody; None while nobody answers. Who comes meanwhile waits for the same question."""
        running = self._asking.get(who)
        if running is None:
            if self._failed_at is not None and self.clock() - self._failed_at < COOL_DOWN_SECONDS:
                # Else each request would wait for a server that hangs.
                return None
            running = self._asking[who] = asyncio.ensure_future(self._ask(who))
            running.add_done_callback(lambda _: self._asking.pop(who, None))
        # A client that goes away ends its own request, and nobody else's question.
        return await asyncio.shield(running)

    async def _ask(self, who: _Who) -> bool | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_SECONDS))
        body = question_of(who[0], who[1], [CALL])
        try:
            async with self._session.post(f"{self.url}/api/check/resources", json=body) as answer:
                answer.raise_for_status()
                found = CALL in allowed_of(await answer.json(content_type=None), [CALL])
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            self._failed_at = self.clock()
            reason = f"Cerbos at {self.url} does not answer: {type(error).__name__}"
            if self.fault is None:
                log.error("%s: decisions of the last %d seconds hold, others are refused", reason, AWAY_SECONDS)
            self.fault = "what decides who may call does not answer"
            return None
        if self.fault is not None:
            log.info("Cerbos at %s answers again", self.url)
        self.fault = self._failed_at = None
        self._kept[who] = (found, self.clock())
        self._kept.move_to_end(who)
        while len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        return found
