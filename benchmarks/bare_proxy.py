"""What is written in an afternoon: a proxy of Starlette and aiohttp's client that passes everything on as it comes.

It checks, counts and logs nothing: what it costs is what a proxy of these libraries costs at least on this machine, and
so the unit for figures of one machine on another. Run by the gateway's benchmark, in a process of its own.
"""

import argparse
import contextlib
from collections.abc import AsyncIterator

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route


def proxy(upstream: str) -> Starlette:
    """The application before the server at `upstream`."""

    @contextlib.asynccontextmanager
    async def client(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
            yield

    async def complete(request: Request) -> Response:
        data, headers = await request.body(), {"content-type": "application/json"}
        answer = await request.app.state.session.post(f"{upstream}/v1/chat/completions", data=data, headers=headers)
        kind = answer.headers.get("content-type", "")
        if "event-stream" in kind:
            return StreamingResponse(answer.content.iter_any(), answer.status, media_type=kind)
        return Response(await answer.read(), answer.status, media_type=kind)

    async def health(_request: Request) -> Response:
        return PlainTextResponse("ok")

    routes = [Route("/v1/chat/completions", complete, methods=["POST"]), Route("/health", health)]
    return Starlette(routes=routes, lifespan=client)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--upstream", required=True)
    arguments = parser.parse_args()
    app = proxy(arguments.upstream.rstrip("/"))
    uvicorn.run(app, host="127.0.0.1", port=arguments.port, access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
