"""The gateway as an ASGI application: one OpenAI-compatible address in front of all endpoints."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from images.gateway import api, pipeline
from images.gateway.body import ClientGone
from images.gateway.call import Answer, Call, Proceed
from images.gateway.errors import ApiError
from images.gateway.gateway import Gateway
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog

log = logging.getLogger("gateway")

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

# An answer that is there by then needs nobody who watches whether the client is.
_WATCH_AFTER_SECONDS = 0.02


class App:
    """Takes requests, sends each through the layers of its operation, and closes it exactly once."""

    def __init__(self, gateway: Gateway, router: api.Router) -> None:
        self.gateway = gateway
        self.router = router
        self.layers = pipeline.build(gateway)
        known = (*router.operations, router.unknown_path, router.unknown_method)
        self.steps: dict[api.Operation, Proceed] = {
            operation: operation.answer if operation.is_open else pipeline.compose(operation, self.layers)
            for operation in known
        }

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._answer(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await send({"type": "websocket.close", "code": 1000})

    async def _answer(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        operation, parameters = self.router.find(scope["method"], scope["path"])
        call = Call(operation, scope, receive, parameters)
        watch = _Watch(call)
        try:
            try:
                answer = await self.steps[operation](call)
            except ApiError as error:
                call.end(error.status, error.message)
                answer = Answer.of_error(error)
            except ClientGone:
                return
            except asyncio.CancelledError:
                if not watch.client_left:
                    raise
                return
            except Exception as error:  # a fault of ours is one request's, with words for the log alone
                log.exception("request %s failed", call.request_id)
                call.end(500, f"{type(error).__name__} in the gateway")
                answer = Answer.of_error(ApiError(500, "the gateway failed; its log says why", code="internal_error"))
            if answer.events is None:
                call.end(answer.status)
                await _send_whole(send, call, answer)
            else:
                await self._send_events(send, call, answer, watch)
        finally:
            watch.stop()
            call.close()

    async def _send_events(self, send: Send, call: Call, answer: Answer, watch: "_Watch") -> None:
        try:
            await send({"type": "http.response.start", "status": answer.status, "headers": _headers(call, answer)})
            async for events in answer.events:
                await send({"type": "http.response.body", "body": events, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            call.end(answer.status)
        except asyncio.CancelledError:
            if not watch.client_left:
                raise
        except Exception as error:  # the status is sent already: an event tells the client
            call.end(500, f"{type(error).__name__} in the gateway")
            log.exception("request %s failed in the middle of its answer", call.request_id)
            fault = ApiError(500, "the gateway failed; its log says why", code="internal_error")
            await send({"type": "http.response.body", "body": fault.event()})
        finally:
            watch.stop()
            call.close()
            with contextlib.suppress(Exception):
                await answer.events.aclose()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        stack = contextlib.AsyncExitStack()
        try:
            await stack.enter_async_context(self.gateway.running())
            for layer in self.layers:
                await layer.open()
                stack.push_async_callback(layer.close)
        except Exception as error:
            await stack.aclose()
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await stack.aclose()
        await send({"type": "lifespan.shutdown.complete"})


class _Watch:
    """Ends a call whose client goes away: at once, whether an answer has begun or not.

    Nobody watches for the first moments, in which most short answers are ready; a watching task for each would cost
    more than the rest of the gateway.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._timer = self._loop.call_later(_WATCH_AFTER_SECONDS, self._begin)
        self._watcher: asyncio.Task | None = None
        self.client_left = False

    def _begin(self) -> None:
        # Until its body is read, what comes is the body's, and who reads it sees the client leave.
        if self._call.scope["method"] == "POST" and not self._call.is_read:
            self._timer = self._loop.call_later(_WATCH_AFTER_SECONDS, self._begin)
        else:
            self._watcher = self._loop.create_task(self._until_gone())

    async def _until_gone(self) -> None:
        while (await self._call.receive())["type"] != "http.disconnect":
            pass
        self.client_left = True
        self._task.cancel()

    def stop(self) -> None:
        self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()


def _headers(call: Call, answer: Answer) -> list[tuple[bytes, bytes]]:
    found = [(b"content-type", answer.content_type.encode())]
    for headers in (call.headers, answer.headers):
        found += [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return found


async def _send_whole(send: Send, call: Call, answer: Answer) -> None:
    headers = _headers(call, answer)
    headers.append((b"content-length", str(len(answer.body)).encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


def create_app(
    catalog: Catalog,
    mask: Callable[[str], str],
    *,
    settings: Settings | None = None,
    policy: Policy | None = None,
    read_seconds: float = 300.0,
    scale: tuple[int, int] = (1, 5),
) -> App:
    """The gateway as an ASGI application over a catalog.

    `mask` replaces personal data in what is logged; `scale` is the lowest and the highest rating that is taken.
    """
    gateway = Gateway(catalog, mask, settings=settings, policy=policy, read_seconds=read_seconds, scale=scale)
    return App(gateway, api.Router(api.operations(gateway)))
