"""Runs the gateway's two ports in one process: the API for everybody, and the administrative one."""

import asyncio
import contextlib
import gc
import socket
from collections.abc import Iterator, Sequence

import uvicorn
import uvloop

from images.gateway.admin import admin_app
from images.gateway.app import App
from images.gateway.protocol import BoundedProtocol

# On SIGTERM new connections are refused and what is in flight is answered, then the log is written out.
_DRAIN_SECONDS = 30
KEEP_ALIVE_SECONDS = 75.0
"""Longer than clients keep a connection that they do not use: else they send on one that is being closed."""
# New objects that were not freed, more than freed ones, that make the youngest be gone through.
_GARBAGE = 10_000


class Beside(uvicorn.Server):
    """A server that leaves signals to the one that it runs beside."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class Ready(uvicorn.Server):
    """A server that leaves what was made for its start out of every later collection of garbage.

    Requests make little that refers to itself: collections are rare, and go through what requests left alone, instead
    of a hundred thousand objects of libraries for some ten milliseconds each.
    """

    ended_by: tuple[int, ...] = ()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            # Uvicorn would end the process by them here, before what is around the server has ended.
            self.ended_by, self._captured_signals = tuple(reversed(self._captured_signals)), []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        gc.collect()
        gc.freeze()
        gc.set_threshold(_GARBAGE)


def config(
    app: object, host: str, port: int, *, keep_alive_seconds: float = KEEP_ALIVE_SECONDS, **more: object
) -> uvicorn.Config:
    """How the gateway listens. No layer of uvicorn's own stands in front of the application.

    Clients that heed it (Node's, Java's) are told how long a connection is kept, and never use one that is ending.
    """
    return uvicorn.Config(
        app,
        host=host,
        port=port,
        http=BoundedProtocol,
        loop="none",
        ws="none",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        log_config=None,
        backlog=4096,
        timeout_keep_alive=keep_alive_seconds,
        headers=[("keep-alive", f"timeout={int(keep_alive_seconds)}")],
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        **more,
    )


async def _serve(
    app: App, host: str, port: int, admin_port: int, listener: socket.socket | None, admin_socket: str | None
) -> Sequence[int]:
    server = Ready(config(app, host, port, keep_alive_seconds=app.gateway.settings.gateway_keep_alive_seconds))
    admin = Beside(config(admin_app(app.gateway), host, admin_port, lifespan="off", uds=admin_socket))
    beside = asyncio.create_task(admin.serve())
    try:
        await server.serve(None if listener is None else [listener])
    finally:
        # To the last answer the platform may ask how many are left.
        admin.should_exit = True
        await beside
    return server.ended_by


def serve(
    app: App,
    host: str,
    port: int,
    admin_port: int,
    *,
    listener: socket.socket | None = None,
    admin_socket: str | None = None,
) -> Sequence[int]:
    """Serve until SIGTERM or SIGINT; the signals that came, which have not ended the process yet.

    A worker among several takes connections from a `listener` that it shares with the others, and answers for itself on
    `admin_socket`, a path.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(app, host, port, admin_port, listener, admin_socket))
