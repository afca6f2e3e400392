"""Routes of datasets: enter, upload, register, look at."""

import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from images.console import parts, uploads
from images.console.bodies import DatasetBody, ForgetBody
from images.console.pages import Cursor, Limit, page, tagged
from images.console.problems import Problem
from images.console.state import Asking, Here, State
from llmops_assets.operations import dataset_entries as entries
from llmops_assets.operations import dataset_reports, erasures
from llmops_assets.operations.access import authorise
from llmops_assets.operations.datasets import Registered

router = APIRouter(prefix="/catalog/datasets", tags=["datasets"])
OPERATIONS = "/llm-ops/v1/operations"


def plain(version: entries.Version) -> dict[str, Any]:
    """A version as JSON; `id` is how other routes name it."""
    values = asdict(version)
    return {"id": values.pop("key"), "status": version.state, **values}


@router.post("", status_code=201)
def create(body: DatasetBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Enter a dataset version; its files follow by `…/upload`, or from its storage_uri by `…/register`."""
    fields = {
        "name": body.name,
        "version": body.version,
        "type": body.type,
        "owner": body.owner_team,
        "description": body.description or f"{body.type} of {body.owner_team}",
        "storage_uri": body.storage_uri,
        "license": body.license,
        "mapping": body.mapping,
        "split": body.split,
        "suite": body.suite,
    }
    given = {name: value for name, value in fields.items() if value is not None}
    return plain(entries.enter_dataset(here.wiring, asking.name, given))


@router.get("")
def list_(here: Here, asking: Asking, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """Dataset versions, newest first."""
    found = page(entries.list_versions(here.wiring), limit, cursor, lambda one: one.key)
    return {**found, "items": [plain(one) for one in found["items"]]}


@router.post("/{dataset_id}/upload", status_code=201)
async def upload(dataset_id: str, request: Request, here: Here, asking: Asking) -> JSONResponse:
    """Upload files (multipart, any number of parts named `files`) and register them under an entered version."""
    key = await run_in_threadpool(entries.find_version, here.wiring, dataset_id)
    folder = await run_in_threadpool(uploads.Folder, here.uploads)
    try:
        names = await uploads.receive(request, folder.path, here.wiring.policy.limits.max_upload_bytes)
        if not names:
            raise Problem(422, "files: there is no part with a file; send multipart/form-data with files=@NAME")
    except BaseException:
        folder.close()
        raise

    def register_uploaded() -> dict[str, Any]:
        try:
            return _registered(here, entries.add_files(here.wiring, asking.name, key, folder.path))
        finally:
            folder.close()

    return await here.works.run(register_uploaded, OPERATIONS, 201)


def _register_pieces(here: State, actor: str, key: str, pieces: Path) -> dict[str, Any]:
    """Register files that came in pieces, put together in a folder that is gone with this process. The pieces go
    whatever comes of it, so that other files may be sent; they stay where this is killed, or has no key to them."""
    folder = uploads.Folder(here.uploads)
    try:
        parts.collect(pieces, folder.path, here.wiring.keys)
        try:
            return _registered(here, entries.add_files(here.wiring, actor, key, folder.path))
        finally:
            shutil.rmtree(pieces, ignore_errors=True)
    finally:
        folder.close()


def _registered(here: State, done: Registered) -> dict[str, Any]:
    return {
        **plain(entries.version(here.wiring, done.key)),
        "is_new": done.new,
        "notes": list(done.notes),
        "blocked": done.blocked,
    }


@router.put("/{dataset_id}/files/{name}", status_code=204, response_class=Response)
async def put_part(dataset_id: str, name: str, request: Request, here: Here, asking: Asking) -> Response:
    """Upload one file in pieces: each at its `Upload-Offset`; where a piece broke off, HEAD says how far it came."""
    key = await run_in_threadpool(entries.find_version, here.wiring, dataset_id)
    part = _part(here, asking.name, key, name)
    offset = await uploads.append(part, request, here.wiring.policy.limits.max_upload_bytes)
    return Response(status_code=204, headers={"Upload-Offset": str(offset)})


def _part(here: State, actor: str, key: str, name: str) -> parts.Part:
    return parts.Part(parts.folder_of(here.uploads, actor, key), uploads.safe_name(name), here.wiring.keys)


@router.head("/{dataset_id}/files/{name}", response_class=Response)
def part_offset(dataset_id: str, name: str, here: Here, asking: Asking) -> Response:
    """How many bytes of a file have arrived, in `Upload-Offset`."""
    part = _part(here, asking.name, entries.find_version(here.wiring, dataset_id), name)
    return Response(headers={"Upload-Offset": str(part.size)})


@router.post("/{dataset_id}/register", status_code=201)
async def register(dataset_id: str, here: Here, asking: Asking) -> JSONResponse:
    """Register an entered version: from the files that were uploaded in pieces, or else from its storage_uri."""
    key = await run_in_threadpool(entries.find_version, here.wiring, dataset_id)
    pieces = parts.folder_of(here.uploads, asking.name, key)
    if pieces.is_dir() and any(pieces.iterdir()):
        return await here.works.run(lambda: _register_pieces(here, asking.name, key, pieces), OPERATIONS, 201)

    def stored() -> dict[str, Any]:
        done = entries.register_stored(here.wiring, asking.name, key, here.import_roots)
        return _registered(here, done)

    return await here.works.run(stored, OPERATIONS, 201)


@router.get("/{dataset_id}")
def show(dataset_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """One version: where it stands, and how many rows it has."""
    return tagged(request, plain(entries.version(here.wiring, entries.find_version(here.wiring, dataset_id))))


@router.get("/{dataset_id}/stats")
def stats(dataset_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """What each step of the graph left behind of a version; null of a step that was not made yet."""
    key = entries.find_version(here.wiring, dataset_id)
    if entries.version(here.wiring, key).state == "awaiting_files":
        raise Problem(409, f"{key} has no files yet: upload them first")
    return tagged(request, {"id": key, **entries.reports(here.wiring, key)})


@router.get("/{dataset_id}/versions")
def versions(dataset_id: str, here: Here, asking: Asking, limit: Limit = 50) -> dict[str, Any]:
    """The versions of the same dataset, those that wait for their files first, then the newest."""
    name = entries.find_version(here.wiring, dataset_id).partition("@")[0]
    found, total = entries.versions_page(here.wiring, 0, limit, name)
    return {"items": [plain(one) for one in found], "total": total}


@router.get("/{dataset_id}/diff")
def diff(dataset_id: str, against: str, request: Request, here: Here, asking: Asking, step: str = "clean") -> Response:
    """What was added, removed and changed against another version; `step`: dataset, clean, train, validation, test."""
    return tagged(request, dataset_reports.compare_versions(here.wiring, against, dataset_id, step))


@router.get("/{dataset_id}/quarantine")
def quarantine(
    dataset_id: str, here: Here, asking: Asking, skip: Annotated[int, Query(ge=0, le=10**9)] = 0, limit: Limit = 50
) -> dict[str, Any]:
    """Rows that were refused, masked: file, line, field and reason."""
    found = dataset_reports.quarantine(here.wiring, dataset_id, skip, limit)
    return {"items": found.rows, "total": found.total}


@router.post("/{dataset_id}/forget")
async def forget(dataset_id: str, body: ForgetBody, here: Here, asking: Asking) -> JSONResponse:
    """Erase a person's rows from every version and all that was made of them; with `dry_run`, only say what would be.

    `dataset_id` is the name of the dataset, without a version.
    """
    authorise(here.wiring, asking.name, "dataset.forget")
    request = erasures.erasure_request(
        dataset_id, texts=body.texts, rows=body.rows, everywhere=body.everywhere, reason=body.reason
    )

    def work() -> dict[str, Any]:
        planned = erasures.plan_erasure(here.wiring, request)
        plan = {**planned.plan.as_json(), "unfinished": planned.unfinished}
        if body.dry_run or not planned.anything:
            return {**plan, "erasure": None}
        done = erasures.erase(here.wiring, asking.name, request, planned)
        return {**plan, "erasure": done.erasure.id, "left": [one.path for one in done.left], "awaited": done.awaited}

    return await here.works.run(work, OPERATIONS)


@router.post("/{dataset_id}/validate")
def validate(dataset_id: str, here: Here, asking: Asking) -> Any:
    """Whether a version may be trained on: every check with its verdict. 202 while the checks are not done."""
    return validated(here, entries.find_version(here.wiring, dataset_id))


def validated(here: State, key: str) -> JSONResponse:
    """The checks of a version; 202 while its splits are not there."""
    version = entries.version(here.wiring, key)
    if version.state == "awaiting_files":
        raise Problem(409, f"{key} has no files yet: upload them first")
    body = {
        "id": key,
        "status": version.state,
        "is_valid": version.state == "ready" if version.state != "ingesting" else None,
        "detail": version.detail,
        "checks": entries.checks(here.wiring, key),
    }
    return JSONResponse(body, 202 if version.state == "ingesting" else 200)
