"""The gateway as an ASGI application: one OpenAI-compatible address in front of all endpoints."""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from images.gateway import api, pipeline
from images.gateway.body import ClientGone
from images.gateway.call import Answer, Call, Operation, Proceed
from images.gateway.errors import ApiError
from images.gateway.events import STALL_SECONDS
from images.gateway.gateway import PING_SECONDS, Gateway
from images.gateway.reply import Reply, Send, Soon, Waiting
from llmops_assets.specs.policy import Policy
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog

log = logging.getLogger("gateway")

Receive = Callable[[], Awaitable[dict[str, Any]]]


class App:
    """Takes requests, sends each through the layers of its operation, and closes it exactly once."""

    def __init__(self, gateway: Gateway, router: api.Router) -> None:
        self.gateway = gateway
        self.router = router
        self.layers = pipeline.build(gateway)
        self.soon = Soon()
        known = (*router.operations, router.unknown_path, router.unknown_method)
        self.steps: dict[Operation, Proceed] = {
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
        reply = Reply(call, send)
        waiting = Waiting(call, reply, self.gateway.ping_seconds, self.soon)
        try:
            try:
                answer = await self.steps[operation](call)
            except ApiError as error:
                call.end(error.status, error.message)
                if call.exposure is None:
                    call.refusal = error.code or error.kind
                answer = Answer.of_error(error)
            except Exception as error:  # noqa: BLE001  a fault of ours is one request's, its words for the log alone
                answer = Answer.of_error(self._fault(call, error))
            if answer.events is None:
                call.end(answer.status)
                await reply.whole(answer)
            else:
                await self._send_events(call, answer, reply)
        except ClientGone:
            pass
        except asyncio.CancelledError:
            if not waiting.client_left:
                raise
        finally:
            waiting.stop()
            call.close()

    async def _send_events(self, call: Call, answer: Answer, reply: Reply) -> None:
        try:
            await reply.begin(answer)
            async for events in answer.events:
                await reply.events(events)
            call.end(answer.status)
            await reply.end()
        except Exception as error:  # noqa: BLE001  the status is sent already: an event tells the client
            await reply.end(self._fault(call, error).event())
        finally:
            try:
                await answer.events.aclose()
            except Exception:  # what was sent stays sent, whatever is wrong with closing it
                log.exception("request %s: its stream could not be closed", call.request_id)

    def _fault(self, call: Call, error: Exception) -> ApiError:
        log.exception("request %s failed", call.request_id, exc_info=error)
        call.end(500, f"{type(error).__name__} in the gateway")
        return ApiError(500, "the gateway failed; its log says why", code="internal_error")

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


def create_app(
    catalog: Catalog,
    mask: Callable[[str], str] | None = None,
    *,
    settings: Settings | None = None,
    policy: Policy | None = None,
    read_seconds: float = 300.0,
    stall_seconds: float = STALL_SECONDS,
    ping_seconds: float = PING_SECONDS,
    scale: tuple[int, int] = (1, 5),
) -> App:
    """The gateway as an ASGI application over a catalog.

    `mask` replaces personal data in what is logged, by default as the policy says; `scale` is the lowest and the
    highest rating that is taken. A model server may take `read_seconds` to begin an answer and `stall_seconds` for each
    piece; a client that waits for a stream hears something every `ping_seconds`.
    """
    gateway = Gateway(
        catalog,
        mask,
        settings=settings,
        policy=policy,
        read_seconds=read_seconds,
        stall_seconds=stall_seconds,
        ping_seconds=ping_seconds,
        scale=scale,
    )
    return App(gateway, api.Router(api.operations(gateway)))
