"""The gateway: one OpenAI-compatible address in front of all endpoints, that assigns, passes on, logs and counts."""

import asyncio
import contextlib
import ipaddress
import logging
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable

import aiohttp
import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route as Path

from images.gateway import proxy
from images.gateway.chat_request import (
    SESSION_COOKIE,
    Caller,
    check_fields,
    check_messages,
    for_upstream,
    read_json,
    unmet_wishes,
    who_asks,
    with_usage,
)
from images.gateway.errors import ApiError
from images.gateway.exposures import Exposure, ExposureLog, now
from images.gateway.metrics import Metrics
from images.gateway.routes import Endpoint, Route, RouteTable
from images.gateway.shaping import Shaper, shaper_of
from resources.catalog import Catalog

log = logging.getLogger("gateway")

REFRESH_SECONDS = 0.5
_STALE_SECONDS = 10.0
# How long a backend that failed is asked last.
_AVOID_SECONDS = 5.0
_MOST_LOGGED_BYTES = 512 * 1024


class Gateway:
    """What the handlers share: the route table, the connections to model servers, the log and the counters.

    One process serves all requests: limits and counters are its own, so a second process would double them.
    """

    def __init__(
        self,
        catalog: Catalog,
        mask: Callable[[str], str],
        *,
        read_seconds: float = 300.0,
        scale: tuple[int, int] = (1, 5),
    ) -> None:
        self.catalog = catalog
        self.scale = scale
        self.mask = mask
        self.read_seconds = read_seconds
        self.table = RouteTable()
        self.metrics = Metrics()
        self.in_flight: Counter[str] = Counter()
        self.on_backend: Counter[str] = Counter()
        self.failed_at: dict[str, float] = {}
        self.exposures: ExposureLog
        self.connections: proxy.Connections

    @contextlib.asynccontextmanager
    async def running(self, _app: Starlette) -> AsyncIterator[None]:
        """From the first reading of the catalog to the last written exposure."""
        await run_in_threadpool(self.table.refresh, self.catalog)
        self.exposures = ExposureLog(self.catalog, self.mask, self.metrics)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=3, sock_read=self.read_seconds)
        refresher = asyncio.create_task(self._refresh())
        try:
            async with proxy.Connections(timeout) as self.connections:
                yield
        finally:
            refresher.cancel()
            await run_in_threadpool(self.exposures.close)

    async def _refresh(self) -> None:
        while True:
            self.metrics.routes_read(self.table.fault, self.table.faults)
            await asyncio.sleep(REFRESH_SECONDS)
            try:
                await run_in_threadpool(self.table.refresh, self.catalog)
            except Exception:  # a refresh that ended for good would serve old routes for ever
                log.exception("the routes could not be renewed; trying again in %s s", REFRESH_SECONDS)

    # chat

    async def chat(self, request: Request) -> Response:
        """POST /v1/chat/completions, as OpenAI's API has it; `model` is the name of an endpoint."""
        begun = time.monotonic()
        request_id = f"req-{uuid.uuid4().hex}"
        headers = {"x-request-id": request_id}
        endpoint: Endpoint | None = None
        try:
            body = await read_json(request)
            # A probe of the platform itself is no exposure. Nobody else may keep a request out of the log.
            is_probe = "x-llmops-probe" in request.headers and _from_here(request)
            endpoint = self._endpoint(body.get("model"))
            caller = who_asks(request, body)
            check_fields(body)
            query = check_messages(body)
            size = len(msgspec.json.encode(body["messages"]))
            sent = for_upstream(body, endpoint, size)
            if not any(weight > 0 for weight in endpoint.weights):
                raise ApiError(503, f"endpoint {endpoint.name!r} serves no model yet", code="not_ready")
            route = endpoint.assigned(caller.user)
            if unmet := unmet_wishes(body, route.engine, is_probe=is_probe):
                headers["x-ignored-parameters"] = ", ".join(unmet)
            if self.in_flight[endpoint.name] >= endpoint.max_concurrent_requests:
                raise ApiError(429, f"endpoint {endpoint.name!r} is busy: try again in a moment", code="busy")
        except ApiError as error:
            self.metrics.requests.labels(endpoint.name if endpoint else "", "", error.status).inc()
            return error.response(headers)
        if caller.new_session:
            headers["Set-Cookie"] = f"{SESSION_COOKIE}={caller.new_session}; Path=/; HttpOnly; SameSite=Lax"
        exposure = _exposure(request_id, endpoint, route, caller, query, bool(body.get("stream")))
        call = _Call(self, endpoint, route, exposure, begun, shaper_of(body), is_logged=not is_probe)
        return await call.answer(msgspec.json.encode(with_usage(sent, route.engine)), headers)

    def _endpoint(self, name: object) -> Endpoint:
        if not isinstance(name, str):
            raise ApiError(400, "`model` should be the name of an endpoint", param="model")
        endpoint = self.table.endpoints.get(name)
        if endpoint is None and name in self.table.faults:
            raise ApiError(
                503, f"the routes of endpoint {name!r} cannot be read; the gateway's log says why", code="not_ready"
            )
        if endpoint is None:
            known = ", ".join(sorted(self.table.endpoints)) or "none yet"
            raise ApiError(
                404, f"there is no endpoint {name!r}; known are: {known}", code="model_not_found", param="model"
            )
        return endpoint

    # the rest

    async def models(self, _request: Request) -> Response:
        """GET /v1/models: the endpoints that serve a model."""
        data = [
            {"id": e.name, "object": "model", "created": int(e.created_at.timestamp()), "owned_by": "llmops"}
            for e in sorted(self.table.endpoints.values(), key=lambda e: e.created_at, reverse=True)
            if e.routes
        ]
        return JSONResponse({"object": "list", "data": data})

    async def feedback(self, request: Request) -> Response:
        """POST /v1/feedback: {request_id, rating, comment?, user?} on an answer."""
        try:
            body = await read_json(request)
            request_id, rating, comment = body.get("request_id"), body.get("rating"), body.get("comment")
            if not isinstance(request_id, str) or not request_id:
                raise ApiError(400, "`request_id` should be that of an answer's x-request-id", param="request_id")
            low, high = self.scale
            if not isinstance(rating, int) or isinstance(rating, bool) or not low <= rating <= high:
                raise ApiError(400, f"`rating` should be a whole number from {low} to {high}", param="rating")
            if comment is not None and not (isinstance(comment, str) and len(comment) <= 4000):
                raise ApiError(400, "`comment` should be a text of at most 4000 characters", param="comment")
            user = body.get("user")
            if user is not None and not (isinstance(user, str) and len(user) <= 200):
                raise ApiError(400, "`user` should be a text of at most 200 characters", param="user")
            # vLLM puts its own word before our id in the body of an answer.
            request_id = request_id.removeprefix("chatcmpl-")
            await run_in_threadpool(self._keep_feedback, request_id, rating, user, comment)
        except ApiError as error:
            return error.response()
        self.metrics.feedback.labels(rating).inc()
        return JSONResponse({"request_id": request_id, "rating": rating}, status_code=201)

    def _keep_feedback(self, request_id: str, rating: int, user: str | None, comment: str | None) -> None:
        # Who rates must get the very name that the answer's exposure has: a rating by another user does not count.
        salt = self.exposures.pending_salt(request_id)
        if salt is None:
            endpoint = self.catalog.exposed_by(request_id)
            if endpoint is None:
                raise ApiError(404, f"there was no answer {request_id!r} to rate", code="unknown_request")
            known = self.table.endpoints.get(endpoint)
            salt = known.salt if known else ""
        self.catalog.add_feedback(
            request_id,
            rating,
            user=None if user is None else self.exposures.pseudonym(user, salt),
            comment=None if comment is None else self.mask(comment),
        )

    async def health(self, _request: Request) -> Response:
        """GET /health and /readyz: 503 until the catalog was read once.

        `degraded` while it cannot be read, or while some endpoint's entry in it cannot (`faults`, by name).
        """
        if self.table.loaded_at is None:
            return JSONResponse({"status": "starting", "fault": self.table.fault}, status_code=503)
        stale = time.monotonic() - self.table.loaded_at > _STALE_SECONDS
        is_degraded = stale or bool(self.table.faults)
        state = {"status": "degraded" if is_degraded else "ok", "endpoints": len(self.table.endpoints)}
        if self.table.faults:
            state["faults"] = self.table.faults
        return JSONResponse(state)

    async def metrics_page(self, _request: Request) -> Response:
        """GET /metrics, for Prometheus."""
        return Response(self.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def state(self, request: Request) -> Response:
        """GET /admin/routes, for this machine only: what is served in which phase, and what is in flight."""
        if not _from_here(request):
            return ApiError(403, "only for programs on the gateway's own machine").response()
        endpoints = {
            e.name: {
                "phase": e.phase,
                "experiment": e.experiment,
                "routes": [{"backend": r.backend, "model_ref": r.model_ref, "weight": r.weight} for r in e.routes],
                "in_flight": self.in_flight[e.name],
            }
            for e in self.table.endpoints.values()
        }
        on_backend = {backend: count for backend, count in self.on_backend.items() if count}
        return JSONResponse(
            {
                "endpoints": endpoints,
                "in_flight": on_backend,
                "queued": self.exposures.queued,
                "faults": self.table.faults,
            }
        )


class _Call:
    """One chat request between its assignment and the end of its answer."""

    def __init__(
        self,
        gateway: Gateway,
        endpoint: Endpoint,
        route: Route,
        exposure: Exposure,
        begun: float,
        shaper: Shaper,
        *,
        is_logged: bool = True,
    ) -> None:
        self.gateway = gateway
        self.endpoint = endpoint
        self.route = route
        self.exposure = exposure
        self.begun = begun
        self.shaper = shaper
        self.is_logged = is_logged
        self.is_open = True
        gateway.in_flight[endpoint.name] += 1
        gateway.on_backend[route.backend] += 1
        gateway.metrics.in_flight.labels(endpoint.name).inc()
        if is_logged:
            gateway.exposures.expect(exposure)

    async def answer(self, payload: bytes, headers: dict[str, str]) -> Response:
        try:
            got = await self._ask_one_or_another(payload)
        except ApiError as error:
            self._close(error.status, error.message)
            return error.response(headers)
        except BaseException:
            self._close(499, "the client went away")
            raise
        if isinstance(got, proxy.Whole):
            self.exposure.body = body = self.shaper.whole(got.body)
            self._close(got.status)
            return Response(body, status_code=got.status, headers=headers, media_type="application/json")
        headers["Cache-Control"] = "no-cache"
        headers["X-Accel-Buffering"] = "no"
        return _Streaming(self, got, headers)

    async def _ask_one_or_another(self, payload: bytes) -> proxy.Whole | proxy.Stream:
        """Ask the assigned backend and, when it fails, one other; ApiError 502 when neither answers."""
        try:
            return await self._ask(self.route, payload)
        except proxy.BackendFailed as failure:
            first = failure
        self.gateway.failed_at[self.route.backend] = time.monotonic()
        log.warning("%s: %s", self.endpoint.name, first)
        other = self.endpoint.instead_of(self.route, self._to_avoid())
        if other is None:
            raise ApiError(502, f"endpoint {self.endpoint.name!r} does not answer", code="backend_failed") from first
        self.gateway.metrics.retries.labels(self.endpoint.name).inc()
        self.gateway.on_backend[self.route.backend] -= 1
        self.gateway.on_backend[other.backend] += 1
        # The variant stays the assigned one: an analysis by what was meant must not lose its failures.
        self.route = other
        self.exposure.backend, self.exposure.model_ref = other.backend, other.model_ref
        self.exposure.error = f"{first}; {other.backend} answered instead"
        try:
            return await self._ask(other, payload)
        except proxy.BackendFailed as second:
            self.gateway.failed_at[other.backend] = time.monotonic()
            log.warning("%s: %s", self.endpoint.name, second)
            self.exposure.error = f"{first}; {second}"
            raise ApiError(502, f"endpoint {self.endpoint.name!r} does not answer", code="backend_failed") from second

    async def _ask(self, route: Route, payload: bytes) -> proxy.Whole | proxy.Stream:
        return await proxy.ask(
            self.gateway.connections,
            route,
            payload,
            request_id=self.exposure.request_id,
            name=proxy.renamed(self.endpoint.name),
            streamed=self.exposure.streamed,
            on_reconnect=self.gateway.metrics.reconnects.labels(self.endpoint.name).inc,
        )

    def _to_avoid(self) -> set[str]:
        recently = time.monotonic() - _AVOID_SECONDS
        return {backend for backend, at in self.gateway.failed_at.items() if at > recently}

    async def relay(self, stream: proxy.Stream) -> AsyncIterator[bytes]:
        """The stream's lines; a failure in its middle becomes an event that OpenAI's clients raise as an error."""
        parts, size = [], 0
        status, error = 499, "the client went away"
        try:
            async for read in stream.lines():
                lines = self.shaper.feed(read)
                if not lines:
                    continue
                if self.exposure.ttft_ms is None and proxy.has_text(lines):
                    self.exposure.ttft_ms = 1000 * (time.monotonic() - self.begun)
                if size < _MOST_LOGGED_BYTES:
                    parts.append(lines)
                    size += len(lines)
                yield lines
                if self.shaper.is_over:
                    break
            status, error = 200, None
            parts.append(self.shaper.logged_usage)
        except proxy.BackendFailed as failure:
            log.warning("%s: %s", self.endpoint.name, failure)
            status, error = 502, str(failure)
            fault = ApiError(502, "the model server broke off in the middle of its answer", code="backend_failed")
            yield b"data: " + msgspec.json.encode(fault.body()) + b"\n\n"
        finally:
            stream.close()
            self.exposure.body = b"".join(parts)
            self._close(status, error)

    def _close(self, status: int, error: str | None = None) -> None:
        """Count the request and hand it to the log, once."""
        if not self.is_open:
            return
        self.is_open = False
        gateway, name, exposure = self.gateway, self.endpoint.name, self.exposure
        seconds = time.monotonic() - self.begun
        gateway.in_flight[name] -= 1
        gateway.on_backend[self.route.backend] -= 1
        gateway.metrics.in_flight.labels(name).dec()
        gateway.metrics.requests.labels(name, exposure.model_ref, status).inc()
        gateway.metrics.seconds.labels(name, exposure.model_ref).observe(seconds)
        if exposure.ttft_ms is not None:
            gateway.metrics.first_token.labels(name, exposure.model_ref).observe(exposure.ttft_ms / 1000)
        exposure.status = status
        exposure.error = exposure.error or error
        exposure.latency_ms = 1000 * seconds
        if self.is_logged:
            gateway.exposures.put(exposure)


class _Streaming(StreamingResponse):
    """A streamed answer that closes its call even when the client is gone before the first line was read."""

    def __init__(self, call: _Call, stream: proxy.Stream, headers: dict[str, str]) -> None:
        super().__init__(call.relay(stream), headers=headers, media_type="text/event-stream")
        self._call = call
        self._stream = stream

    async def __call__(self, scope, receive, send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()
            await self.body_iterator.aclose()
            self._call._close(499, "the client went away")


def _from_here(request: Request) -> bool:
    """Whether a request comes from the gateway's own machine."""
    return request.client is not None and ipaddress.ip_address(request.client.host).is_loopback


def _exposure(
    request_id: str, endpoint: Endpoint, route: Route, caller: Caller, query: str, streamed: bool
) -> Exposure:
    return Exposure(
        request_id=request_id,
        at=now(),
        endpoint=endpoint.name,
        salt=endpoint.salt,
        experiment=endpoint.experiment,
        phase=endpoint.phase,
        variant=route.index,
        backend=route.backend,
        model_ref=route.model_ref,
        user=caller.user,
        session=caller.session,
        query=query,
        streamed=streamed,
    )


def create_app(
    catalog: Catalog, mask: Callable[[str], str], *, read_seconds: float = 300.0, scale: tuple[int, int] = (1, 5)
) -> Starlette:
    """The gateway as an ASGI application over a catalog.

    `mask` replaces personal data in what is logged; `scale` is the lowest and the highest rating that is taken.
    """
    gateway = Gateway(catalog, mask, read_seconds=read_seconds, scale=scale)
    return Starlette(
        routes=[
            Path("/v1/chat/completions", gateway.chat, methods=["POST"]),
            Path("/v1/feedback", gateway.feedback, methods=["POST"]),
            Path("/v1/models", gateway.models),
            Path("/health", gateway.health),
            Path("/readyz", gateway.health),
            Path("/metrics", gateway.metrics_page),
            Path("/admin/routes", gateway.state),
        ],
        lifespan=gateway.running,
    )
