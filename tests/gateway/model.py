"""A model server of the tests' own that counts what it is asked and can be held, and endpoints in front of it."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from resources.catalog import Catalog
from tests.serving.conftest import backend, deployment_spec


class Model:
    """A model server that answers ten tokens for a prompt of five, and holds answers while `gate` is closed."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_held = False
        self.breaks_off = False
        self.words = 10

    async def complete(self, request: Request) -> Response:
        self.asked += 1
        body = await request.json()
        while self.is_held:
            await asyncio.sleep(0.01)
        if body.get("stream"):
            return StreamingResponse(self.events(), media_type="text/event-stream")
        choice = {"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}
        return JSONResponse({"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": usage})

    async def events(self) -> Any:
        for n in range(self.words):
            chunk = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {"content": f"w{n} "}}]}
            yield f"data: {json.dumps(chunk)}\n\n".encode()
            if self.breaks_off and n == 3:
                return
        end = {"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
        usage = {"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 10, "total_tokens": 15}}
        yield f"data: {json.dumps(end)}\n\ndata: {json.dumps(usage)}\n\ndata: [DONE]\n\n".encode()


@pytest.fixture
def model(catalog: Catalog, start_upstream: Callable) -> Model:
    """The server behind endpoints `desk` (eight places) and `other`."""
    server = Model()
    upstream = start_upstream(Starlette(routes=[Route("/v1/chat/completions", server.complete, methods=["POST"])]))
    for name in ("desk", "other"):
        catalog.want_endpoint(deployment_spec(name, runtime={"max_concurrent_requests": 8, "max_output_tokens": 64}))
        catalog.add_backend(backend(f"{name}-1", endpoint=name, url=upstream.url, engine="vllm"))
        catalog.set_routes(name, [{"backend_id": f"{name}-1", "model_ref": "desk@1", "weight": 1}])
    return server


def ask(url: str, credential: str | None, endpoint: str = "desk", **more: Any) -> httpx.Response:
    """One chat request; `headers` among `more` are sent beside the credential."""
    headers = {**({} if credential is None else {"Authorization": f"Bearer {credential}"}), **more.pop("headers", {})}
    body = {"model": endpoint, "messages": [{"role": "user", "content": "안녕"}], **more}
    return httpx.post(f"{url}/v1/chat/completions", json=body, headers=headers, timeout=30)
