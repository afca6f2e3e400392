"""Answers again what was answered before, where the endpoint's spec asks for it."""

from collections.abc import AsyncIterator, Awaitable

from images.gateway.caching.kept import MAX_BYTES, Kept, is_complete
from images.gateway.caching.key import cache_key, is_sampled
from images.gateway.caching.stores import Memory, Shared, Store
from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.gateway import Gateway
from images.gateway.layers.base import Layer
from llmops_assets.specs.cache import Cache as CacheSpec
from resources.encryption import Keyring


class Cache(Layer):
    """Its key is the whole request, the caller's scope, the version of the prompt and the model that answers
    (`call.route`). Errors, answers that broke off and those of another model than the assigned one are never kept; the
    exposure says what came from here.
    """

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway)
        url = gateway.settings.gateway_store_url
        self.store: Store = Shared(url, Keyring.from_environment()) if url else Memory()

    def applies(self, operation: Operation) -> bool:
        return operation.asks_model

    async def close(self) -> None:
        await self.store.close()

    def __call__(self, call: Call, proceed: Proceed) -> Awaitable[Answer]:
        spec = call.endpoint.cache
        return proceed(call) if spec is None or call.is_probe else self._answer(call, spec, proceed)

    async def _answer(self, call: Call, spec: CacheSpec, proceed: Proceed) -> Answer:
        wishes = (call.header(b"cache-control") or "").lower()
        if "no-store" in wishes or (is_sampled(call.body, call.route.engine) and not spec.sampled):
            return await self._asked(call, proceed, "bypass")
        key = cache_key(call, spec)
        if "no-cache" not in wishes and (kept := await self.store.get(call.endpoint.name, key)) is not None:
            return self._again(call, kept.for_request(call.request_id))
        route = call.route
        answer = await self._asked(call, proceed, "miss")
        if answer.status != 200 or call.route is not route:
            return answer
        if answer.events is not None:
            answer.events = self._kept_at_end(call, key, spec, answer, answer.events)
        elif len(answer.body) <= MAX_BYTES and is_complete(answer.body, None, call.body.get("n") or 1):
            kept = Kept(call.request_id, answer.body, None, answer.content_type, _plain(answer))
            await self.store.put(call.endpoint.name, key, kept, spec)
        return answer

    async def _asked(self, call: Call, proceed: Proceed, outcome: str) -> Answer:
        self.gateway.metrics.count(self.gateway.metrics.cache, call.endpoint.name, outcome)
        answer = await proceed(call)
        answer.headers = {**answer.headers, "x-cache": outcome}
        return answer

    def _again(self, call: Call, kept: Kept) -> Answer:
        self.gateway.metrics.count(self.gateway.metrics.cache, call.endpoint.name, "hit")
        if call.exposure is not None:
            call.exposure.source = "cache"
        call.notes["cached"] = True
        answer = Answer(content_type=kept.content_type, headers={**kept.headers, "x-cache": "hit"})
        if kept.events is None:
            answer.body = kept.body or b""
        else:
            answer.events = _replayed(kept.events)
        return answer

    async def _kept_at_end(
        self, call: Call, key: str, spec: CacheSpec, answer: Answer, came: AsyncIterator[bytes]
    ) -> AsyncIterator[bytes]:
        """The events as they come; kept once the last one is there, unless the client left before."""
        events, size = [], 0
        async for block in came:
            size += len(block)
            if size <= MAX_BYTES:
                events.append(block)
            yield block
        if size <= MAX_BYTES and is_complete(None, events, call.body.get("n") or 1):
            kept = Kept(call.request_id, None, events, answer.content_type, _plain(answer))
            await self.store.put(call.endpoint.name, key, kept, spec)


def _plain(answer: Answer) -> dict[str, str]:
    return {name: value for name, value in answer.headers.items() if name != "x-cache"}


async def _replayed(events: list[bytes]) -> AsyncIterator[bytes]:
    for event in events:
        yield event
