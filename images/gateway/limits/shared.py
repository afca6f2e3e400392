"""Limits counted by a Valkey or Redis server, exactly, for all workers that ask it."""

import asyncio
import contextlib
import json
import logging
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import redis.asyncio as redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from images.gateway.limits.counted import LEASE_SECONDS, WINDOW_SECONDS, Budget, Counted, Place, Rate, StoreAway

log = logging.getLogger("gateway.limits")

ANSWER_SECONDS = 0.5
"""How long a request waits for the store. Where that is too short, the store is away for all that come after it."""
_MOST_AT_ONCE = 200
_LUA = Path(__file__).with_name("limits.lua")


class SharedCounter:
    """Asks the store at `url`.

    What requests ask at the same time goes to the store together, in one call of one script: it answers a hundred
    requests as fast as one. While it is away, `StoreAway` is raised at once, and a task of its own looks for it.
    """

    def __init__(self, url: str, *, prefix: str = "llmops", lease: float = LEASE_SECONDS) -> None:
        # In braces: a cluster keeps all keys of one script on one node.
        self.prefix = f"{{{prefix}}}:"
        self.lease = lease
        self._client = redis.Redis.from_url(
            url,
            socket_timeout=ANSWER_SECONDS,
            socket_connect_timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 0),
            max_connections=8,
        )
        self._script = self._client.register_script(_LUA.read_text(encoding="utf-8"))
        self._worker = uuid.uuid4().hex[:12]
        self._asked: list[tuple[list[Any], asyncio.Future[Any] | None]] = []
        self._sending: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._held: dict[str, tuple[str, list[Any] | None]] = {}
        self.fault: str | None = None

    async def open(self) -> None:
        """Ask for the store once; it may be away."""
        await self._look()
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._renew())]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._sending is not None:
            await self._sending
        with contextlib.suppress(RedisError, OSError):
            await self._client.aclose()

    async def count(self, rates: Sequence[Rate]) -> list[Counted]:
        answers = await self._ask(["count", [[rate.name, rate.limit] for rate in rates]])
        return [_counted(rate, *answer) for rate, answer in zip(rates, answers, strict=True)]

    async def enter(self, place: str, endpoint: str, most: int, budget: Budget | None) -> Place:
        place, of_budget = f"{self._worker}:{place}", _listed(budget)
        try:
            refused, used = await self._ask(["enter", place, endpoint, most, of_budget])
        except asyncio.CancelledError:
            # The client left meanwhile; what was asked for may have been given.
            self._put(["leave", place, endpoint, of_budget, 0], None)
            raise
        if refused:
            return Place(refused, int(used))
        self._held[place] = (endpoint, of_budget)
        return Place(None, int(used))

    def hold(self, place: str, endpoint: str, budget: Budget | None) -> None:
        """Note a place that was given while the store was away; it will know of it when it is back."""
        self._held[f"{self._worker}:{place}"] = (endpoint, _listed(budget))

    def leave(self, place: str, endpoint: str, budget: Budget | None, tokens: int) -> None:
        place = f"{self._worker}:{place}"
        self._held.pop(place, None)
        if self.fault is None:
            self._put(["leave", place, endpoint, _listed(budget), tokens], None)

    async def _ask(self, what: list[Any]) -> Any:
        if self.fault is not None:
            raise StoreAway(self.fault)
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._put(what, answer)
        return await answer

    def _put(self, what: list[Any], answer: asyncio.Future[Any] | None) -> None:
        self._asked.append((what, answer))
        if self._sending is None or self._sending.done():
            self._sending = asyncio.get_running_loop().create_task(self._send())

    async def _send(self) -> None:
        while self._asked:
            batch, self._asked = self._asked[:_MOST_AT_ONCE], self._asked[_MOST_AT_ONCE:]
            try:
                answers = await self._call([what for what, _ in batch])
            except (RedisError, OSError, TimeoutError, ValueError) as error:
                self._note(error)
                for _, answer in [*batch, *self._asked]:
                    if answer is not None and not answer.done():
                        answer.set_exception(StoreAway(self.fault))
                self._asked = []
                return
            for (_, answer), found in zip(batch, answers, strict=True):
                if answer is not None and not answer.done():
                    answer.set_result(found)

    async def _call(self, asked: list[list[Any]]) -> list[Any]:
        async with asyncio.timeout(ANSWER_SECONDS):
            return json.loads(await self._script(keys=[self.prefix], args=[json.dumps(asked), self.lease]))

    def _note(self, error: Exception) -> None:
        if self.fault is None:
            log.error("the store of the limits does not answer: %s", error or type(error).__name__)
        self.fault = f"the store of the limits does not answer: {error or type(error).__name__}"

    async def _look(self) -> None:
        try:
            await self._call(self._renewals())
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            self._note(error)
            return
        if self.fault is not None:
            log.info("the store of the limits answers again")
        self.fault = None

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(ANSWER_SECONDS)
            if self.fault is not None:
                await self._look()

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self.lease / 3)
            if self.fault is None and (renewals := self._renewals()):
                # In one row with all else: a place that is left after this is left there too.
                for renewal in renewals:
                    self._put(renewal, None)

    def _renewals(self) -> list[list[Any]]:
        return [["renew", place, endpoint, budget] for place, (endpoint, budget) in self._held.items()]


def _listed(budget: Budget | None) -> list[Any] | None:
    return budget and [budget.name, budget.month, budget.limit, budget.used, budget.reserved]


def _counted(rate: Rate, allowed: bool, total: int, oldest: float, newest: float) -> Counted:
    is_full = total >= rate.limit
    return Counted(
        allowed=allowed or not is_full,
        limit=rate.limit,
        remaining=max(0, rate.limit - int(total)),
        retry_after=max(0.0, min(oldest, WINDOW_SECONDS + 1)) if is_full else 0.0,
        reset=max(0.0, newest) if total else 0.0,
    )
