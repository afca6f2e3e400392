"""Long work: a request is answered within seconds, and where the work is not done by then, with a place to look."""

import asyncio
import secrets
import time
from collections.abc import Callable
from typing import Any

from fastapi.encoders import jsonable_encoder
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from images.console.problems import Problem, answer_to

PATIENCE_SECONDS = 1.5
"""How long a request waits for work to be done: an answer is there within two seconds."""
KEPT_SECONDS = 3600
"""How long the outcome of work can be looked up."""


class Works:
    """The work that was begun in this process. What it does is on record in the catalog; a restart forgets the rest,
    and whoever asked sends the request again."""

    def __init__(self, patience: float = PATIENCE_SECONDS) -> None:
        self.patience = patience
        self._tasks: dict[str, asyncio.Task[JSONResponse]] = {}
        self._ended: dict[str, float] = {}

    async def run(self, work: Callable[[], Any], at: str, status: int = 200) -> JSONResponse:
        """Do `work` in a thread. Its outcome is the answer where it is done in time; else 202, with the address `at`
        under which `look` finds it."""
        self._forget()
        id = f"op-{secrets.token_hex(8)}"
        task = asyncio.create_task(self._do(id, work, status))
        self._tasks[id] = task
        done, _ = await asyncio.wait({task}, timeout=self.patience)
        if done:
            del self._tasks[id]
            self._ended.pop(id, None)
            return _outcome(task)
        place = f"{at}/{id}"
        return JSONResponse({"id": id, "status": "running", "location": place}, 202, {"Location": place})

    def look(self, id: str) -> JSONResponse:
        """The outcome of work, or that it still goes on; raises Problem 404."""
        task = self._tasks.get(id)
        if task is None:
            raise Problem(404, f"there is no work {id!r} here: it was begun before a restart, or long ago. Ask again")
        if not task.done():
            return JSONResponse({"id": id, "status": "running"})
        return _outcome(task)

    async def _do(self, id: str, work: Callable[[], Any], status: int) -> JSONResponse:
        try:
            return JSONResponse(jsonable_encoder(await run_in_threadpool(work)), status)
        finally:
            self._ended[id] = time.monotonic()

    def _forget(self) -> None:
        old = time.monotonic() - KEPT_SECONDS
        for id in [id for id, at in self._ended.items() if at < old]:
            del self._ended[id]
            self._tasks.pop(id, None)


def _outcome(task: asyncio.Task[JSONResponse]) -> JSONResponse:
    """What ended work came to; an error is the answer that a request would have got."""
    error = task.exception()
    if isinstance(error, Exception):
        return answer_to(error)
    return task.result()
