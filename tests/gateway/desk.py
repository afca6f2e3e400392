"""What the gateway's tests share: an upstream that says what it is told, over real HTTP, and the gateway's process."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from resources.catalog import Catalog
from tests.serving.conftest import (
    ADMIN_TOKEN,
    RunningGateway,
    Upstream,
    backend,
    deployment_spec,
    free_port,
    get,
    until,
)


class Script:
    """A model server that answers with `pieces` (a list a choice), and remembers what it was asked."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.reset()

    def reset(self) -> None:
        self.pieces: list[list[Any]] = [["네"]]
        self.finish = "stop"
        self.asked: list[dict[str, Any]] = []
        self.endless = False
        self.broken = False
        self.fail: int | None = None

    def app(self) -> Starlette:
        return Starlette(routes=[Route("/v1/chat/completions", self.chat, methods=["POST"])])

    async def chat(self, request: Request) -> Response:
        body = await request.json()
        self.asked.append(body)
        if self.fail is not None:
            return JSONResponse({"error": {"message": "the model is broken"}}, status_code=self.fail)
        request_id = request.headers["x-request-id"]
        head = {"id": f"chatcmpl-{request_id}", "created": 1, "model": "model"}
        if body.get("stream"):
            return StreamingResponse(self.events(head), media_type="text/event-stream")
        choices = [
            {"index": n, "message": _message(pieces), "finish_reason": self.finish}
            for n, pieces in enumerate(self.pieces)
        ]
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage})

    async def events(self, head: dict[str, Any]):
        def event(index: int, delta: dict, finish: str | None = None) -> bytes:
            choice = {"index": index, "delta": delta, "finish_reason": finish}
            chunk = {**head, "object": "chat.completion.chunk", "choices": [choice]}
            return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()

        try:
            for n in range(len(self.pieces)):
                yield event(n, {"role": "assistant", "content": ""})
            for row in range(max(map(len, self.pieces))):
                for n, pieces in enumerate(self.pieces):
                    if row < len(pieces):
                        piece = pieces[row]
                        yield event(n, piece if isinstance(piece, dict) else {"content": piece})
                        await asyncio.sleep(0)
            while self.endless:
                await asyncio.sleep(0.01)
                yield event(0, {"content": "."})
            if self.broken:
                raise RuntimeError("the server falls over")
            for n in range(len(self.pieces)):
                yield event(n, {}, self.finish)
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            yield f"data: {json.dumps({**head, 'choices': [], 'usage': usage})}\n\ndata: [DONE]\n\n".encode()
        except (GeneratorExit, asyncio.CancelledError):
            self.cancelled += 1
            raise


def _message(pieces: list[Any]) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(p for p in pieces if isinstance(p, str))}
    for piece in pieces:
        if isinstance(piece, dict) and "tool_calls" in piece:
            message["tool_calls"] = [
                {"id": "call_1", "type": "function", "function": c["function"]} for c in piece["tool_calls"]
            ]
    return message


@dataclass
class Desk:
    """A gateway's process over a catalog of its own, and the model server behind all of its endpoints."""

    catalog: Catalog
    script: Script
    upstream: Upstream
    gateway: RunningGateway
    page: str = ""

    def serve(self, name: str, *, model_ref: str = "desk@1", **spec: Any) -> None:
        """Put an endpoint on record (its model server has vllm's abilities), and wait until the gateway serves it."""
        id = f"{name}-{model_ref.partition('@')[2]}"
        if not any(known.id == id for known in self.catalog.backends()):
            self.catalog.add_backend(
                backend(id, endpoint=name, model_ref=model_ref, url=self.upstream.url, engine="vllm")
            )
        self.catalog.want_endpoint(deployment_spec(name, model_ref, engine="vllm", **spec), "tests")
        phase = self.catalog.set_routes(name, [{"backend_id": id, "model_ref": model_ref, "weight": 1.0}], "tests")
        until(lambda: self.gateway.routes()["endpoints"].get(name, {}).get("phase", -1) >= phase)

    def client(self, **more: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.gateway.url}/v1", api_key="unused", max_retries=0, timeout=20, **more)

    def exposure(self, request_id: str) -> dict[str, Any]:
        """What is on record of a request, once it is written."""
        found: list[dict[str, Any]] = []

        def written() -> bool:
            found[:] = [row for row in self.catalog.exposures().to_dicts() if row["request_id"] == request_id]
            return bool(found)

        until(written)
        return found[0]


@contextlib.contextmanager
def running_gateway(home: Path, catalog: Catalog, **more: str) -> Iterator[RunningGateway]:
    """The gateway as `python -m images.gateway` starts it; `more` are settings, in small letters without the prefix."""
    port, admin_port = free_port(), free_port()
    settings = {"home": str(home), "catalog_url": catalog.url, "gateway_port": str(port), **more}
    settings |= {"gateway_admin_port": str(admin_port), "gateway_admin_token": ADMIN_TOKEN}
    environment = os.environ | {f"LLMOPS_{name.upper()}": value for name, value in settings.items()}
    log = home / f"gateway-{port}.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "images.gateway"], env=environment, stdout=output, stderr=output
        )
    addresses = (f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}")
    gateway = RunningGateway(*addresses, ADMIN_TOKEN, process, log)

    def is_up() -> bool:
        assert process.poll() is None, log.read_text()
        try:
            return get(f"{gateway.url}/readyz")["status"] == "ok"
        except OSError:
            return False

    try:
        until(is_up, 60)
        yield gateway
    finally:
        if process.poll() is None:
            gateway.stop()
