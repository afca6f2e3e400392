"""Pages of trainings: the list, and one of them as it goes: its plan, its curve, its log."""

import asyncio
import json
from collections.abc import AsyncIterator
from itertools import islice
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.concurrency import run_in_threadpool

from images.console.api.trainings import LOOK_SECONDS, STATE_SECONDS, id_of, partition_of
from images.console.web.i18n import N_
from images.console.web.page import PER_PAGE, Asked, Page, Posted, Slice, address, go, router, start_of
from llmops_assets.operations import training_status as statuses
from llmops_assets.operations import trainings
from llmops_assets.operations.overview import share_of
from llmops_assets.operations.training_logs import TrainingLog, curve, plan_of, training_checks

pages = router()
FOLLOWED = (*trainings.UNDER_WAY, "trained")
"""States that another one follows by itself: what was trained is evaluated and registered by runs of their own."""
LONGEST_SECONDS = 6 * 3600.0
"""How long one connection follows a training; the page connects again."""
LINES = 400
"""Lines of a log that a page begins with; all of it is at the interface."""


@pages.get("/training/jobs")
def list_(page: Asked) -> Response:
    """Trainings, the newest request first."""
    start = start_of(page.request)
    found, total = statuses.statuses_page(page.here.wiring, start, PER_PAGE)
    rows = [(one, id_of(one.partition), share_of(one)) for one in found]
    is_busy = any(one.state in trainings.UNDER_WAY for one in found)
    return page.show("trainings.html", found=Slice(rows, start, total), is_busy=is_busy)


def series(curves: dict[str, list[dict[str, Any]]], page: Page) -> dict[str, Any]:
    """The losses of a training as lines over its steps."""
    shown = {"loss": page.t(N_("training loss")), "eval_loss": page.t(N_("validation loss"))}
    lines = {name: {p["step"]: p["value"] for p in curves.get(name, [])} for name in shown}
    steps = sorted({step for line in lines.values() for step in line})
    drawn = [
        {"name": words, "values": [lines[name].get(step) for step in steps], "dashed": name == "eval_loss"}
        for name, words in shown.items()
        if lines[name]
    ]
    return {"label": page.t(N_("step")), "x": steps, "lines": drawn}


@pages.get("/training/jobs/{training_id}")
def show(page: Asked, training_id: str) -> Response:
    """One training: where it stands, what was planned, its curve and its log."""
    wiring = page.here.wiring
    partition = partition_of(page.here, training_id)
    status = statuses.training_status(wiring, partition)
    log = [] if status.state in FOLLOWED else list(TrainingLog(wiring, partition).lines())
    dataset, recipe = partition.split("|")
    curves = curve(wiring, partition)
    return page.show(
        "training.html",
        status=status,
        id=id_of(partition),
        dataset=dataset,
        recipe=recipe,
        share=share_of(status),
        is_busy=status.state in FOLLOWED,
        series=series(curves, page),
        curves={name: points[-1]["value"] for name, points in curves.items() if points},
        log=log[-LINES:],
        plan=plan_of(wiring, partition),
        checks=training_checks(wiring, partition),
        spec=wiring.catalog.recipe(recipe),
        dagster=f"{wiring.settings.dagster_url}/runs/{status.run_id}" if status.run_id else None,
    )


@pages.post("/training/jobs/{training_id}/stop")
def stop(page: Asked, training_id: str, form: Posted) -> Response:
    """Have a training save a checkpoint and end."""
    trainings.stop_training(page.here.wiring, page.name, partition_of(page.here, training_id))
    return go(address("training", "jobs", training_id), "stopped")


@pages.post("/training/jobs/{training_id}/resume")
def resume(page: Asked, training_id: str, form: Posted) -> Response:
    """Have it go on from its last whole checkpoint."""
    trainings.resume_training(page.here.wiring, page.name, partition_of(page.here, training_id))
    return go(address("training", "jobs", training_id), "resumed")


@pages.get("/training/jobs/{training_id}/events")
async def events(page: Asked, training_id: str) -> Response:
    """What happens to a training, as server-sent events: its state as a part of the page, `curve`, `log`, `end`.

    `alive` says nothing but that the connection is.
    """
    partition = await run_in_threadpool(partition_of, page.here, training_id)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(page, partition), headers=headers, media_type="text/event-stream")


async def _events(page: Page, partition: str) -> AsyncIterator[str]:
    wiring, loop = page.here.wiring, asyncio.get_running_loop()
    log, looked, drawn, shown, fresh = TrainingLog(wiring, partition), -STATE_SECONDS, "", "", True
    until = loop.time() + LONGEST_SECONDS
    status = await run_in_threadpool(statuses.training_status, wiring, partition)
    while True:
        if loop.time() - looked > STATE_SECONDS:
            looked = loop.time()
            status = await run_in_threadpool(statuses.training_status, wiring, partition)
            now = page.part("training_status.html", status=status, share=share_of(status))
            if now != shown:
                shown = now
                yield _event(None, now)
            points = json.dumps(series(await run_in_threadpool(curve, wiring, partition), page), ensure_ascii=False)
            if points != drawn:
                drawn = points
                yield _event("curve", points)
        over = status.state not in FOLLOWED
        lines = await run_in_threadpool(lambda: list(islice(log.lines(), 2000)))
        if lines or fresh:
            # A connection that was lost begins anew, and so does the log in the page.
            yield _event("log", json.dumps({"lines": lines, "fresh": fresh}, ensure_ascii=False))
            fresh = False
        if over:
            yield _event("end", json.dumps({"state": status.state}))
            return
        if not lines:
            # A comment would keep the connection open too, and the page would not know that it is.
            yield _event("alive", "{}")
        if loop.time() > until or await page.request.is_disconnected():
            return
        await asyncio.sleep(LOOK_SECONDS)


def _event(name: str | None, data: str) -> str:
    head = f"event: {name}\n" if name else ""
    return head + "".join(f"data: {line}\n" for line in data.split("\n")) + "\n"
