"""Asks a candidate what users asked, once they have their answers, and puts on record what it says; nobody hears it."""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from images.gateway import proxy
from images.gateway.breaker import Breakers
from images.gateway.call import Call
from images.gateway.engine_support import supports
from images.gateway.errors import ApiError
from images.gateway.events import BackendFailed, renamed
from images.gateway.key_of import key_of
from images.gateway.metrics import Metrics
from images.gateway.routes import Replica, Route, RouteTable
from images.gateway.upstream.pool import Pool
from resources.traffic.entries import ShadowAnswer, now

log = logging.getLogger("gateway.shadows")

AT_ONCE = 4
MOST_WAITING = 64
MOST_BYTES = 256 * 1024
"""Of a request: larger ones are not copied, so that those that wait take 16 MiB at most."""
ANSWER_SECONDS = 60.0
_MOST_LOGGED_BYTES = 512 * 1024
_NOT_COPIED = ("stream", "stream_options", "model")


@dataclass(frozen=True, slots=True)
class _Copy:
    request_id: str
    endpoint: str
    candidate: str
    path: str
    kind: str
    user: str
    body: bytes
    agreed: bool | None


class Shadows:
    """The copies that wait for a candidate, a few asked at once. What finds no room is dropped and counted.

    A copy is made when its request is over. It is no exposure: it is neither limited, cached nor rated, and nobody who
    asked waits for it. Tools that a candidate would call are called by nobody.
    """

    def __init__(
        self,
        table: RouteTable,
        connections: Pool,
        breakers: Breakers,
        metrics: Metrics,
        put: Callable[[ShadowAnswer], object],
    ) -> None:
        self._table = table
        self._connections = connections
        self._breakers = breakers
        self._metrics = metrics
        self._put = put
        self._waiting: deque[_Copy] = deque()
        self._workers: set[asyncio.Task[None]] = set()

    def offer(self, call: Call) -> None:
        """Copy a call that is over, if it is of the share that its endpoint wants copied. Never waits."""
        spec, exposure = call.endpoint.shadow if call.endpoint else None, call.exposure
        if spec is None or exposure is None or call.is_probe or call.status != 200 or exposure.source != "model":
            return
        if int(call.request_id[4:12], 16) % 10_000 >= spec.percent * 100:
            return
        self._count(call.endpoint.name, self._queue(call, spec.endpoint))

    def _queue(self, call: Call, candidate: str) -> str | None:
        """Have a call wait for its candidate; why it does not, None where it does."""
        consent = call.header(b"x-llmops-consent")
        if consent is not None and consent.strip().lower() not in ("yes", "true", "1"):
            return "no consent"
        if (call.body.get("n") or 1) != 1:
            return "unsupported"
        if len(self._waiting) >= MOST_WAITING:
            return "dropped"
        body = msgspec.json.encode({name: value for name, value in call.payload.items() if name not in _NOT_COPIED})
        if len(body) > MOST_BYTES:
            return "too large"
        operation, user = call.operation, call.end_user.user
        self._waiting.append(
            _Copy(
                call.request_id, call.endpoint.name, candidate, operation.path, operation.kind, user, body,
                None if consent is None else True,
            )
        )  # fmt: skip
        if len(self._workers) < AT_ONCE:
            worker = asyncio.get_running_loop().create_task(self._work(), name="shadow")
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)
        return None

    def _count(self, endpoint: str, outcome: str | None) -> None:
        if outcome is not None:
            self._metrics.count(self._metrics.shadows, endpoint, outcome)

    async def _work(self) -> None:
        while self._waiting:
            copy = self._waiting.popleft()
            try:
                outcome = await self._ask(copy)
            except Exception:  # a copy that fails, whatever of, is no other's failure
                log.exception("request %s could not be copied to %s", copy.request_id, copy.candidate)
                outcome = "failed"
            self._count(copy.endpoint, outcome)

    async def _ask(self, copy: _Copy) -> str:
        endpoint = self._table.endpoints.get(copy.candidate)
        if endpoint is None or not endpoint.serves:
            return "no candidate"
        route = endpoint.assigned(copy.user)
        body = msgspec.json.decode(copy.body)
        if not supports(copy.kind, body, route.engine):
            return "unsupported"
        replica = self._breakers.choose(route)
        entry = ShadowAnswer(
            copy.request_id, now(), copy.endpoint, copy.candidate, route.model_ref, consent=copy.agreed
        )
        begun = time.monotonic()
        if replica is None:
            entry.status, entry.error = 503, "no model server of the candidate is up"
        else:
            await self._answer(entry, copy, route, replica, body)
        entry.latency_ms = 1000 * (time.monotonic() - begun)
        self._put(entry)
        return "answered" if entry.status == 200 else "refused" if entry.status < 500 else "failed"

    async def _answer(self, entry: ShadowAnswer, copy: _Copy, route: Route, replica: Replica, body: dict) -> None:
        breakers = self._breakers
        breakers.begin(replica)
        try:
            question = proxy.Question(
                path=copy.path,
                kind=copy.kind,
                payload=msgspec.json.encode({**body, "model": replica.model}),
                key=key_of(replica),
                request_id=f"shadow-{copy.request_id}",
                name=renamed(copy.candidate),
                is_streamed=False,
            )
            async with asyncio.timeout(ANSWER_SECONDS):
                found = await proxy.ask(
                    self._connections, replica.backend, replica.url, question, on_reconnect=lambda: None
                )
            breakers.succeeded(replica.url)
            entry.body = found.body if isinstance(found, proxy.Whole) else b""
            if len(entry.body) > _MOST_LOGGED_BYTES:
                entry.status, entry.error, entry.body = 502, "an answer too long to be compared", b""
        except ApiError as error:
            breakers.succeeded(replica.url)
            entry.status, entry.error = error.status, error.message
        except BackendFailed as failure:
            breakers.failed(replica.url, by_waiting=failure.waited_in_vain)
            entry.status, entry.error = 504 if failure.waited_in_vain else 502, str(failure)
        except TimeoutError:
            entry.status, entry.error = 504, f"no whole answer within {ANSWER_SECONDS:g} s"
        finally:
            breakers.end(replica)

    async def close(self) -> None:
        """Give up what waits and what is asked, and count it."""
        for copy in self._waiting:
            self._count(copy.endpoint, "dropped")
        self._waiting.clear()
        for worker in list(self._workers):
            worker.cancel()
        for worker in list(self._workers):
            with contextlib.suppress(asyncio.CancelledError):
                await worker
