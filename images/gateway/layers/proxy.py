"""Asks a model server of the assigned variant, and another one where it does not answer."""

import logging
import time
from collections.abc import AsyncIterator

import msgspec

from images.gateway import proxy
from images.gateway.as_events import as_events
from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.chat_request import with_usage
from images.gateway.engine_support import supports
from images.gateway.errors import ApiError
from images.gateway.events import BackendFailed, Stream, renamed
from images.gateway.key_of import key_of
from images.gateway.layers.base import Layer
from images.gateway.routes import Replica, Route
from images.gateway.shaping import Shaper, shaper_of
from images.gateway.usage import counted_in, counted_of, estimated

log = logging.getLogger("gateway")

_STREAM_HEADERS = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


_EVENTS = "text/event-stream; charset=utf-8"


class Proxy(Layer):
    """The end of the way down: what comes up from here is the model server's, in the shape that was asked for.

    The request goes to the replica of the assigned route with the fewest requests out. Where that does not answer, one
    other server is asked, of the same route if there is one: never once a part of an answer came, nor after waiting in
    vain for a server that may be at work on it still.
    """

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        call.timings["asked"] = time.monotonic() - call.begun
        found = await _Asking(self, call).answer()
        shaper = shaper_of(call.body, call.operation.kind)
        if isinstance(found, proxy.Whole):
            call.usage = counted_of(found.body if found.content is None else found.content)
            if not call.is_streamed or call.operation.kind not in ("chat", "completions"):
                return self._whole(call, found, shaper)
            # The server does not stream: a client that reads events would find none, and take that for an answer.
            events = self._whole_as_events(call, found.body, shaper)
            return Answer(events=events, content_type=_EVENTS, headers=dict(_STREAM_HEADERS))
        events = self._relay(call, found, shaper)
        return Answer(events=events, content_type=_EVENTS, headers=dict(_STREAM_HEADERS))

    def _whole(self, call: Call, found: proxy.Whole, shaper: Shaper) -> Answer:
        body, content = shaper.whole(found.body), found.content
        if body is not found.body:
            content = None
        elif content is not None and "model" in content:
            # As in the body.
            content["model"] = call.endpoint.name
        return Answer(found.status, body, content=content)

    async def _whole_as_events(self, call: Call, body: bytes, shaper: Shaper) -> AsyncIterator[bytes]:
        events = as_events(body, call.operation.kind)
        if events is None:
            call.end(502, "the model server's answer has no finish_reason")
            yield ApiError(502, "the model server did not end its answer", code="backend_failed").event()
            return
        if shaped := shaper.feed(events):
            yield shaped
        call.end(200)

    async def _relay(self, call: Call, stream: Stream, shaper: Shaper) -> AsyncIterator[bytes]:
        """The stream's events; a failure in its middle becomes one that OpenAI's clients raise as an error."""
        breakers, url = self.gateway.breakers, call.replica.url
        pieces, last_usage = 0, b""
        try:
            async for read in stream.events():
                # Noted as they come: who closes the call may come before this generator is closed.
                call.notes["pieces"] = pieces = pieces + read.count(b'"delta"') + read.count(b'"text"')
                if b'"usage"' in read:
                    last_usage = read
                events = shaper.feed(read)
                if events:
                    yield events
                if shaper.is_over:
                    break
            breakers.succeeded(url)
            call.end(200)
        except BackendFailed as failure:
            log.warning("%s: %s: %s", call.endpoint.name, call.replica.backend, failure)
            breakers.failed(url)
            call.end(502, str(failure))
            fault = ApiError(
                502,
                "the model server broke off in the middle of its answer: the answer is not whole",
                code="backend_failed",
            )
            yield fault.event()
        finally:
            call.usage = shaper.counted or counted_in(last_usage) or estimated(call, pieces)
            stream.close()


class _Asking:
    """One request's way to the first bytes of an answer."""

    def __init__(self, layer: Proxy, call: Call) -> None:
        self.gateway = layer.gateway
        self.call = call
        self.failures: list[str] = []
        self.asked: set[str] = set()

    async def answer(self) -> proxy.Whole | Stream:
        """What a server answers. ApiError: 502 where none does, 503 while none is up, 504 where one was waited for."""
        call, breakers = self.call, self.gateway.breakers
        assigned = call.route
        while (place := self._next(assigned)) is not None:
            route, replica = place
            if self.failures or route is not assigned:
                self._note(route, replica)
            try:
                return await self._ask(route, replica)
            except BackendFailed as failure:
                breakers.failed(replica.url, by_waiting=failure.waited_in_vain)
                log.warning("%s: %s", call.endpoint.name, failure)
                self.failures.append(str(failure))
                if not failure.may_ask_again or len(self.asked) == 2:
                    raise self._given_up(failure) from failure
        raise self._given_up(None)

    def _next(self, assigned: Route) -> tuple[Route, Replica] | None:
        """Where to ask next: the assigned route, else another one."""
        call, breakers = self.call, self.gateway.breakers
        if (replica := breakers.choose(assigned, self.asked)) is not None:
            return assigned, replica
        if not self.asked:
            self.failures.append(self._why_not(assigned))
        other = call.endpoint.instead_of(assigned, lambda r: r.backend not in self.asked and breakers.usable(r))
        if other is None or (other.engine != assigned.engine and not self._can_answer(other)):
            return None
        replica = breakers.choose(other, self.asked)
        return None if replica is None else (other, replica)

    def _can_answer(self, route: Route) -> bool:
        return self.call.is_probe or supports(self.call.operation.kind, self.call.body, route.engine)

    def _why_not(self, route: Route) -> str:
        names = ", ".join(sorted(route.backends))
        return f"backend {names} " + ("failed too often and is not back yet" if route.urls else "is not running")

    def _note(self, route: Route, replica: Replica) -> None:
        """Say in the exposure who answers instead. The variant stays the assigned one: an analysis by what was meant
        must not lose its failures."""
        call, exposure = self.call, self.call.exposure
        self.gateway.metrics.count(self.gateway.metrics.retries, call.endpoint.name)
        call.route = route
        exposure.backend, exposure.model_ref = replica.backend, route.model_ref
        exposure.error = f"{'; '.join(self.failures)}; {replica.backend} answered instead"

    async def _ask(self, route: Route, replica: Replica) -> proxy.Whole | Stream:
        call, breakers, metrics = self.call, self.gateway.breakers, self.gateway.metrics
        self.asked.add(replica.backend)
        call.replica = replica
        call.exposure.backend = replica.backend
        question = proxy.Question(
            path=call.operation.path,
            kind=call.operation.kind,
            payload=msgspec.json.encode(with_usage({**call.payload, "model": replica.model}, route.engine)),
            key=key_of(replica),
            request_id=call.request_id,
            name=renamed(call.endpoint.name),
            is_streamed=call.is_streamed,
            choices=call.body.get("n", 1),
            stall_seconds=self.gateway.stall_seconds,
        )
        breakers.begin(replica)
        is_kept = False
        try:
            found = await proxy.ask(
                self.gateway.connections,
                replica.backend,
                replica.url,
                question,
                on_reconnect=lambda: metrics.count(metrics.reconnects, call.endpoint.name),
                on_advance=lambda: breakers.advanced(replica.url),
            )
            if isinstance(found, Stream):
                is_kept = True
                call.on_close(lambda: (found.close(), breakers.end(replica)))
            else:
                breakers.succeeded(replica.url)
            return found
        except ApiError:
            # It refuses this request, and so does its work.
            breakers.succeeded(replica.url)
            raise
        finally:
            if not is_kept:
                breakers.end(replica)

    def _given_up(self, failure: BackendFailed | None) -> ApiError:
        name = self.call.endpoint.name
        self.call.exposure.error = "; ".join(self.failures)
        if failure is None and not self.asked:
            return ApiError(503, f"no model server of endpoint {name!r} is up", code="backend_unavailable")
        if failure is not None and failure.waited_in_vain:
            return ApiError(504, f"endpoint {name!r} did not answer in time", code="backend_timeout")
        return ApiError(502, f"endpoint {name!r} does not answer", code="backend_failed")
