"""Several processes on the gateway's port, started again when they end, behind one administrative port."""

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from images.gateway.admin import TokenAsked
from images.gateway.merged import merged_metrics, merged_state
from images.gateway.server import Beside, config
from llmops_assets.specs.settings import Settings
from llmops_assets.with_parent import MODULE, PARENT
from resources.gateway_token import ensure_admin_token

log = logging.getLogger("gateway.workers")

_ASK_SECONDS = 3.0
_STOP_SECONDS = 40.0
MOST_FAILURES = 5
"""How often in a row a worker may end before it answers; then the gateway ends, and says so. At the start, once."""
_LONGEST_PAUSE = 10.0


@dataclass
class Worker:
    """One process, which answers for itself on a socket in the file system."""

    number: int
    admin: Path
    process: asyncio.subprocess.Process | None = None
    is_ready: bool = False
    failures: int = 0
    started: int = 0


@dataclass
class Supervisor:
    """Holds the listening socket, so that no connection is refused while a worker is started again.

    Each connection is taken by one of the workers that live. It serves none itself. When it ends, however it ends, they
    end with it.
    """

    settings: Settings
    host: str
    port: int
    admin_port: int
    workers: list[Worker] = field(default_factory=list)
    given_up: str | None = None
    _has_answered: bool = False
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> int:
        """Serve until SIGTERM or SIGINT; the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        folder = Path(tempfile.mkdtemp(prefix="llmops-gateway-"))
        self.workers = [Worker(n, folder / f"{n}.sock") for n in range(self.settings.gateway_workers)]
        admin = Beside(config(self._admin_app(), self.host, self.admin_port, lifespan="off"))
        try:
            with _listening(self.host, self.port) as listener:
                beside = asyncio.create_task(admin.serve())
                keepers = [asyncio.create_task(self._keep(worker, listener)) for worker in self.workers]
                await self._stopping.wait()
            await self._stop(keepers)
            admin.should_exit = True
            await beside
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        if self.given_up is not None:
            log.error("%s", self.given_up)
        return 1 if self.given_up is not None else 0

    async def _keep(self, worker: Worker, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            worker.is_ready = False
            worker.started += 1
            worker.process = await self._start(worker, listener)
            looking = asyncio.create_task(self._look(worker))
            code = await worker.process.wait()
            looking.cancel()
            if self._stopping.is_set():
                return
            worker.failures = 0 if worker.is_ready else worker.failures + 1
            log.error("worker %d ended with exit code %s", worker.number, code)
            if worker.failures >= (MOST_FAILURES if self._has_answered else 1):
                self.given_up = (
                    f"worker {worker.number} ended before it answered, {worker.failures} times in a row: what it wrote "
                    "above says why"
                )
                self._stopping.set()
                return
            pause = min(0.2 * 2**worker.failures, _LONGEST_PAUSE)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    async def _start(self, worker: Worker, listener: socket.socket) -> asyncio.subprocess.Process:
        worker.admin.unlink(missing_ok=True)
        arguments = ["--host", self.host, "--port", str(self.port)]
        arguments += ["--listen-fd", str(listener.fileno()), "--admin-socket", str(worker.admin)]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            MODULE,
            "images.gateway",
            *arguments,
            pass_fds=[listener.fileno()],
            env={**os.environ, PARENT: str(os.getpid())},
            stdin=asyncio.subprocess.DEVNULL,
            # What ends an orphan ends its group, and a signal from a terminal is the supervisor's to pass on.
            start_new_session=True,
        )

    async def _look(self, worker: Worker) -> None:
        while not worker.is_ready:
            await asyncio.sleep(0.1)
            with contextlib.suppress(aiohttp.ClientError, OSError, TimeoutError):
                await self._ask(worker, "/admin/routes")
                worker.is_ready = self._has_answered = True
                log.info("worker %d answers", worker.number)

    async def _stop(self, keepers: Sequence[asyncio.Task[None]]) -> None:
        living = [w.process for w in self.workers if w.process is not None and w.process.returncode is None]
        for process in living:
            process.terminate()
        done = asyncio.gather(*(process.wait() for process in living))
        try:
            await asyncio.wait_for(done, _STOP_SECONDS)
        except TimeoutError:
            for process in living:
                if process.returncode is None:
                    process.kill()
        await asyncio.gather(*keepers)

    async def _ask(self, worker: Worker, path: str) -> bytes:
        headers = {"Authorization": f"Bearer {self.settings.admin_token or ''}"}
        timeout = aiohttp.ClientTimeout(total=_ASK_SECONDS)
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(worker.admin)), timeout=timeout) as session,
            session.get(f"http://worker{path}", headers=headers) as response,
        ):
            response.raise_for_status()
            return await response.read()

    async def _ask_all(self, path: str) -> list[bytes]:
        """What every worker answers that serves; one that is being started reads the newest routes first."""
        serving = [w for w in self.workers if w.is_ready and w.process is not None and w.process.returncode is None]
        processes = [worker.process for worker in serving]
        found = await asyncio.gather(*(self._ask(worker, path) for worker in serving), return_exceptions=True)
        answers = []
        for process, answer in zip(processes, found, strict=True):
            if isinstance(answer, bytes):
                answers.append(answer)
            elif not await _has_ended(process):
                raise answer
        return answers

    def _admin_app(self) -> TokenAsked:
        async def routes(_request: Request) -> Response:
            begun = time.monotonic()
            try:
                states = [json.loads(state) for state in await self._ask_all("/admin/routes")]
            except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
                # What one of them serves is not known: to leave it out would say that all follow.
                seconds = time.monotonic() - begun
                return JSONResponse({"error": f"a worker does not answer ({seconds:.1f} s): {error!r}"}, 503)
            return JSONResponse({**merged_state(states), "workers": self._about()})

        async def metrics(_request: Request) -> Response:
            try:
                pages = [page.decode() for page in await self._ask_all("/metrics")]
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                return Response(f"a worker does not answer: {error!r}", 503)
            return Response(merged_metrics(pages), media_type="text/plain; version=0.0.4; charset=utf-8")

        app = Starlette(routes=[Route("/metrics", metrics), Route("/admin/routes", routes)])
        return TokenAsked(app, SimpleNamespace(admin_token=self.settings.admin_token))

    def _about(self) -> list[dict[str, Any]]:
        return [
            {"pid": w.process.pid if w.process else None, "ready": w.is_ready, "started": w.started}
            for w in self.workers
        ]


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    """Whether a process that did not answer is gone; that is known a moment after its connections end."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(asyncio.shield(process.wait()), 0.5)
    return process.returncode is not None


@contextlib.contextmanager
def _listening(host: str, port: int) -> Any:
    """A socket that listens; workers inherit it. OSError where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(4096)
        listener.setblocking(False)
        listener.set_inheritable(True)
        yield listener


def supervise(settings: Settings, host: str, port: int, admin_port: int) -> int:
    """Run the workers until SIGTERM or SIGINT; the exit code, 1 where they would not stay."""
    ensure_admin_token(settings)
    return asyncio.run(Supervisor(settings, host, port, admin_port).run())
