"""No request gets around a layer, whichever path it takes, and every call is closed once."""

import asyncio
import gc
import json
import weakref
from pathlib import Path
from typing import Any

import pytest

from images.gateway import pipeline
from images.gateway.app import App, create_app
from images.gateway.call import Answer, Call, Proceed
from images.gateway.errors import ApiError
from images.gateway.layers.authenticate import Authenticate
from images.gateway.layers.base import Layer
from images.gateway.layers.limit import Limit
from images.gateway.layers.log import Log
from images.gateway.layers.meter import Meter
from llmops_assets.specs.settings import Settings
from resources.catalog import Catalog

OPEN = {"/chat", "/healthz", "/readyz"}


@pytest.fixture
def app(catalog: Catalog, tmp_path: Path) -> App:
    catalog.open()
    return create_app(catalog, lambda text: text, settings=Settings(home=tmp_path, _env_file=None))


async def asked(app: App, method: str, path: str, body: bytes = b"{}", stays: bool = True) -> tuple[int, bytes, dict]:
    """What the application answers to one request; with `stays` false the client is gone once the body is sent."""
    messages: list[dict[str, Any]] = [{"type": "http.request", "body": body, "more_body": False}]
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if messages:
            return messages.pop()
        if stays:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": [], "client": ("127.0.0.1", 1)}
    await app(scope, receive, send)
    if not sent:
        return 0, b"", {}
    headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], b"".join(m.get("body", b"") for m in sent[1:]), headers


class Refuse(Layer):
    async def __call__(self, call: Call, proceed: Proceed) -> Answer:
        raise ApiError(401, "who are you?")


def test_every_route_passes_whoever_authenticates(app: App, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Authenticate, "__call__", Refuse.__call__)
    ways = [(o.method, o.path.replace("{id}", "desk")) for o in app.router.operations]
    ways += [("GET", "/"), ("GET", "/nowhere"), ("PUT", "/v1/chat/completions"), ("HEAD", "/v1/models")]
    ways += [("POST", "/v1/chat/completions/"), ("GET", "//v1/models"), ("GET", "/healthz/.."), ("GET", "/readyz/x")]
    for method, path in ways:
        status, body, _ = asyncio.run(asked(app, method, path))
        if path in OPEN:
            assert status in (200, 503), path
        else:
            assert (status, json.loads(body)["error"]["message"]) == (401, "who are you?"), (method, path)
    assert {path for _, path in ways} >= OPEN


def test_no_operation_leaves_out_what_guards_all(app: App):
    for operation in (*app.router.operations, app.router.unknown_path, app.router.unknown_method):
        kinds = [type(layer) for layer in pipeline.layers_of(operation, app.layers)]
        assert {Authenticate, Limit} <= set(kinds), operation
        if operation.asks_model:
            but = {Meter} if operation.is_logged else {Log}
            assert kinds == [layer for layer in pipeline.LAYERS if layer not in but], operation
    # What nobody reads is no exposure.
    assert {o.kind for o in app.router.operations if o.asks_model and not o.is_logged} == {"embeddings"}
    assert {o.path for o in app.router.operations if o.is_open} == OPEN


@pytest.mark.parametrize(
    "ending", ["answers", "refuses", "fails", "streams", "breaks off", "waits", "waits in a stream"]
)
def test_a_call_is_closed_once_however_it_ends(app: App, monkeypatch: pytest.MonkeyPatch, ending: str):
    closed: list[tuple[int, str | None]] = []

    async def events(call: Call):
        yield b"data: 1\n\n"
        if ending == "breaks off":
            raise RuntimeError("no more")
        if ending == "waits in a stream":
            await asyncio.Event().wait()

    async def layer(self: Layer, call: Call, proceed: Proceed) -> Answer:
        call.on_close(lambda: closed.append((call.status, call.error)))
        call.is_read = True
        if ending == "refuses":
            raise ApiError(400, "no")
        if ending == "fails":
            raise RuntimeError("secret")
        if ending == "waits":
            await asyncio.Event().wait()
        if ending == "answers":
            return Answer(body=b"{}")
        return Answer(events=events(call), content_type="text/event-stream")

    monkeypatch.setattr(Limit, "__call__", layer)
    status, body, _ = asyncio.run(asked(app, "POST", "/v1/chat/completions", stays=not ending.startswith("waits")))
    assert b"secret" not in body
    left = (499, "the client went away")
    expected = {
        "answers": (200, (200, None)),
        "refuses": (400, (400, "no")),
        "fails": (500, (500, "RuntimeError in the gateway")),
        "streams": (200, (200, None)),
        "breaks off": (200, (500, "RuntimeError in the gateway")),
        "waits": (0, left),
        "waits in a stream": (200, left),
    }
    assert (status, closed) == (expected[ending][0], [expected[ending][1]])
    if ending == "breaks off":
        assert body.startswith(b'data: 1\n\ndata: {"error"') and b"[DONE]" not in body


def test_a_call_that_is_over_is_gone_without_the_collector(app: App):
    class Watched(Call):
        __slots__ = ("__weakref__",)

    call = Watched(app.router.operations[0], {"type": "http", "headers": []}, asyncio.sleep)
    found, closed = weakref.ref(call), []
    call.on_close(lambda call=call: closed.append(call.status))
    gc.disable()
    try:
        call.close()
        del call
        assert (found(), closed) == (None, [499])
    finally:
        gc.enable()


def test_what_is_no_operation_is_told_in_the_shape_of_openai(app: App):
    status, body, headers = asyncio.run(asked(app, "GET", "/v1/chat/completions"))
    assert (status, headers["allow"]) == (405, "POST")
    assert json.loads(body)["error"]["code"] == "method_not_allowed"
    status, body, headers = asyncio.run(asked(app, "POST", "/v1/nothing"))
    assert (status, json.loads(body)["error"]["type"]) == (404, "invalid_request_error")
    assert headers["x-request-id"].startswith("req-")
