"""Routes of trainings: request, watch, stop, resume."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.concurrency import run_in_threadpool

from images.console import translate
from images.console.api.datasets import OPERATIONS
from images.console.bodies import TrainingBody
from images.console.pages import Cursor, Limit, page, tagged
from images.console.state import Asking, Here, State
from llmops_assets.operations import training_status as statuses
from llmops_assets.operations import trainings
from llmops_assets.operations.dataset_entries import find_version, version
from llmops_assets.operations.forms import TrainingForm, training_spec
from llmops_assets.operations.training_logs import TrainingLog, curve

router = APIRouter(prefix="/training/jobs", tags=["training"])
LOOK_SECONDS = 0.3
"""How often a log that is followed is read: a line is there within a second."""
STATE_SECONDS = 2.0


def id_of(partition: str) -> str:
    """How routes name a training: its partition with a mark that an address may hold."""
    return partition.replace("|", "~")


def partition_of(here: State, training_id: str) -> str:
    """The partition that an id, a recipe's key or a name means; raises NotFound, or Conflict where several fit."""
    return statuses.find_training(here.wiring, training_id.replace("~", "|"))


def plain(status: statuses.TrainingStatus) -> dict[str, Any]:
    """A training as JSON."""
    values = status.as_dict()
    dataset, recipe = status.partition.split("|")
    live = status.progress
    share = None if live is None or not live.steps else min(1.0, live.step / live.steps)
    values |= {"id": id_of(status.partition), "status": status.state, "dataset": dataset, "recipe": recipe}
    # A path of this machine is none of the caller's business.
    del values["model_dir"]
    return {**values, "progress_share": share}


def request_training(here: State, actor: str, form: TrainingForm, notes: list[str]) -> dict[str, Any]:
    """Ask for a training; the training as it stands then, with notes."""
    spec = training_spec(here.wiring, form)
    done = trainings.request_training(here.wiring, actor, spec)
    status = statuses.training_status(here.wiring, done.partition)
    return {**plain(status), "notes": notes, "spec": spec.model_dump(mode="json", exclude_none=True)}


@router.post("", status_code=202)
def create(body: TrainingBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Ask for a training; the graph plans, trains, merges, evaluates and registers it."""
    named = body.dataset_id or body.spec.dataset_ref
    known = version(here.wiring, find_version(here.wiring, named)).type if named else None
    form, notes = translate.training(body, known)
    return request_training(here, asking.name, form, notes)


@router.get("")
def list_(here: Here, asking: Asking, status: str | None = None, limit: Limit = 50, cursor: Cursor = None) -> dict:
    """Trainings, the newest request first."""
    wanted = [one for one in statuses.training_statuses(here.wiring) if status in (None, one.state)]
    found = page(wanted, limit, cursor, lambda one: one.partition)
    return {**found, "items": [plain(one) for one in found["items"]]}


@router.get("/{training_id}")
def show(training_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """One training: its state and its reason, step, loss, tokens a second, memory and the time left."""
    return tagged(request, plain(statuses.training_status(here.wiring, partition_of(here, training_id))))


@router.post("/{training_id}/stop")
async def stop(training_id: str, here: Here, asking: Asking) -> JSONResponse:
    """Stop a training: it saves a checkpoint, and its run ends."""
    partition = await run_in_threadpool(partition_of, here, training_id)
    return await here.works.run(lambda: plain(trainings.stop_training(here.wiring, asking.name, partition)), OPERATIONS)


@router.post("/{training_id}/resume", status_code=202)
def resume(training_id: str, here: Here, asking: Asking) -> dict[str, Any]:
    """Take up a training that was stopped or failed, from its last whole checkpoint."""
    partition = partition_of(here, training_id)
    trainings.resume_training(here.wiring, asking.name, partition)
    return plain(statuses.training_status(here.wiring, partition))


@router.get("/{training_id}/metrics")
def metrics(training_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """The curves of a training: a list a metric of step and value."""
    partition = partition_of(here, training_id)
    return tagged(request, {"id": id_of(partition), "metrics": curve(here.wiring, partition)})


@router.get("/{training_id}/logs")
async def logs(training_id: str, request: Request, here: Here, asking: Asking, follow: bool = True) -> Response:
    """What the workers of a training say, as server-sent events: `log` a line, and `end` with the state at the end."""
    partition = await run_in_threadpool(partition_of, here, training_id)
    headers = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    return StreamingResponse(_events(request, here, partition, follow), headers=headers, media_type="text/event-stream")


async def _events(request: Request, here: State, partition: str, follow: bool) -> AsyncIterator[str]:
    log, loop = TrainingLog(here.wiring, partition), asyncio.get_running_loop()
    looked = 0.0
    status = await run_in_threadpool(statuses.training_status, here.wiring, partition)
    while True:
        # Asked before the last lines are read, so that none is missed.
        if follow and loop.time() - looked > STATE_SECONDS:
            looked = loop.time()
            status = await run_in_threadpool(statuses.training_status, here.wiring, partition)
        over = not follow or status.state not in trainings.UNDER_WAY
        lines = await run_in_threadpool(lambda: list(log.lines()))
        for line in lines:
            yield f"event: log\ndata: {json.dumps({'line': line}, ensure_ascii=False)}\n\n"
        if over:
            end = {"status": status.state, "detail": status.detail}
            yield f"event: end\ndata: {json.dumps(end, ensure_ascii=False)}\n\n"
            return
        if not lines:
            yield ": still here\n\n"
        if await request.is_disconnected():
            return
        await asyncio.sleep(LOOK_SECONDS)
