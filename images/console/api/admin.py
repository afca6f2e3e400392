"""The fine-tuning interface, `/api/v1/admin`: other words for the same operations."""

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from images.console import translate, uploads
from images.console.api import datasets, endpoints, experiments, models, trainings
from images.console.bodies import (
    AbTestBody,
    ConcludeBody,
    EndpointBody,
    EvaluateBody,
    FinetuningBody,
    RegisterBody,
    SplitBody,
    StopBody,
)
from images.console.problems import Problem
from images.console.state import Asking, Here
from llmops_assets.operations import dataset_entries, model_entries
from llmops_assets.operations.training_logs import TrainingLog

router = APIRouter(prefix="/api/v1/admin", tags=["admin"])
OPERATIONS = datasets.OPERATIONS
Skip = Annotated[int, Query(ge=0)]
Most = Annotated[int, Query(ge=1, le=1000)]


def _part(items: list[Any], skip: int, limit: int) -> dict[str, Any]:
    return {"items": items[skip : skip + limit], "total": len(items), "skip": skip, "limit": limit}


@router.post("/training/datasets", status_code=201)
async def create_dataset(request: Request, here: Here, asking: Asking) -> JSONResponse:
    """Create a dataset by upload: multipart with `file`, `name`, `description`, and `type` where it is no chat data."""
    folder = await run_in_threadpool(uploads.Folder, here.uploads)
    try:
        fields = await uploads.receive_form(request, folder.path, here.wiring.policy.limits.max_upload_bytes)
        if unknown := set(fields) - {"name", "description", "type", "version", "owner"}:
            raise Problem(422, f"{min(unknown)}: there is no such field")
        if "name" not in fields:
            raise Problem(422, "name: the dataset needs one")
        if not any(folder.path.iterdir()):
            raise Problem(422, "file: there is no part with a file")
        about = {"type": "sft_pair", "version": "v1", "owner": "unassigned", **fields}
        about.setdefault("description", f"uploaded by {asking.name}")
        key = f"{about['name']}@{about['version']}"
    except BaseException:
        folder.close()
        raise

    def register() -> dict[str, Any]:
        try:
            known = {entry.key for entry in here.wiring.catalog.datasets()}
            if key not in known:
                dataset_entries.enter_dataset(here.wiring, asking.name, about)
            done = dataset_entries.add_files(here.wiring, asking.name, key, folder.path)
            return {**datasets.plain(dataset_entries.version(here.wiring, done.key)), "notes": list(done.notes)}
        finally:
            folder.close()

    return await here.works.run(register, OPERATIONS, 201)


@router.get("/training/datasets")
def list_datasets(
    here: Here, asking: Asking, status: str | None = None, skip: Skip = 0, limit: Most = 100
) -> dict[str, Any]:
    """Datasets, newest first."""
    found = [datasets.plain(one) for one in dataset_entries.list_versions(here.wiring) if status in (None, one.state)]
    return _part(found, skip, limit)


@router.get("/training/datasets/{dataset_id}/stats")
def dataset_stats(dataset_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """Statistics of a dataset."""
    return datasets.stats(dataset_id, request, here, asking)


@router.post("/training/datasets/{dataset_id}/validate")
def validate_dataset(dataset_id: str, here: Here, asking: Asking) -> Any:
    """The validation report: every check with its verdict."""
    return datasets.validated(here, dataset_entries.find_version(here.wiring, dataset_id))


@router.post("/training/datasets/{dataset_id}/split")
def split_dataset(dataset_id: str, body: SplitBody, here: Here, asking: Asking) -> JSONResponse:
    """The splits of a dataset: made when it is registered, in the shares of its entry."""
    version, is_split = dataset_entries.split(
        here.wiring, asking.name, dataset_id, (body.train_ratio, body.val_ratio, body.test_ratio)
    )
    content = {"id": version.key, "status": version.state, "splits": version.splits, "detail": version.detail}
    return JSONResponse(content, 200 if is_split else 202)


@router.post("/finetuning/jobs", status_code=202)
def create_job(body: FinetuningBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Ask for a fine-tuning."""
    form, notes = translate.finetuning(body)
    return trainings.request_training(here, asking.name, form, notes)


@router.get("/finetuning/jobs")
def list_jobs(
    here: Here, asking: Asking, status: str | None = None, skip: Skip = 0, limit: Most = 100
) -> dict[str, Any]:
    """Fine-tunings, the newest request first."""
    found = [
        trainings.plain(one) for one in trainings.statuses.training_statuses(here.wiring) if status in (None, one.state)
    ]
    return _part(found, skip, limit)


@router.get("/finetuning/jobs/{job_id}")
def show_job(job_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """One fine-tuning: its state, its progress, the time left."""
    return trainings.show(job_id, request, here, asking)


@router.post("/finetuning/jobs/{job_id}/stop")
async def stop_job(job_id: str, here: Here, asking: Asking) -> JSONResponse:
    """Stop a fine-tuning: it saves a checkpoint first."""
    return await trainings.stop(job_id, here, asking)


@router.post("/finetuning/jobs/{job_id}/resume", status_code=202)
async def resume_job(job_id: str, request: Request, here: Here, asking: Asking) -> dict[str, Any]:
    """Take a fine-tuning up again, from its last whole checkpoint; `checkpoint_id` may name that one."""
    raw = await request.body()
    try:
        body = await request.json() if raw else {}
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from error
    wanted = (body or {}).get("checkpoint_id") if isinstance(body, dict) else None
    wanted = wanted or request.query_params.get("checkpoint_id")

    def resume() -> dict[str, Any]:
        partition = trainings.partition_of(here, job_id)
        last = trainings.statuses.last_checkpoint(here.wiring, partition)
        if wanted is not None and str(wanted).removeprefix("checkpoint-") != str(last):
            there = f"the last whole one is {last}" if last is not None else "there is none"
            raise Problem(409, f"checkpoint_id {wanted}: a training goes on from its last whole checkpoint, {there}")
        return trainings.resume(job_id, here, asking)

    return await run_in_threadpool(resume)


@router.get("/finetuning/jobs/{job_id}/logs")
def job_logs(
    job_id: str, here: Here, asking: Asking, lines: Annotated[int, Query(ge=1, le=100_000)] = 100
) -> dict[str, Any]:
    """The last lines of a fine-tuning's log."""
    partition = trainings.partition_of(here, job_id)
    found = list(TrainingLog(here.wiring, partition).lines())
    return {"id": trainings.id_of(partition), "lines": found[-lines:], "total": len(found)}


@router.get("/finetuning/jobs/{job_id}/metrics")
def job_metrics(job_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """Loss and the other curves of a fine-tuning."""
    return trainings.metrics(job_id, request, here, asking)


@router.post("/models/register", status_code=201)
async def register_model(body: RegisterBody, here: Here, asking: Asking) -> JSONResponse:
    """Register a base model."""
    detail = body.model_dump(include={"description", "tags", "base_model"}, exclude_none=True)

    def enter() -> dict[str, Any]:
        model = model_entries.enter_model(
            here.wiring,
            asking.name,
            name=body.name,
            version=body.version,
            storage_uri=body.storage_uri,
            family=body.model_family,
            license=body.license,
            owner="unassigned",
            detail=detail,
            allowed=here.import_roots,
        )
        return models.plain(model)

    return await here.works.run(enter, OPERATIONS, 201)


@router.get("/models")
def list_models(
    here: Here,
    asking: Asking,
    status: str | None = None,
    tags: Annotated[list[str] | None, Query()] = None,
    skip: Skip = 0,
    limit: Most = 100,
) -> dict[str, Any]:
    """Models, newest first; with `tags`, those that have them all."""
    wanted = {tag for part in tags or [] for tag in part.split(",") if tag}
    found = [
        models.plain(one)
        for one in model_entries.list_models(here.wiring, status)
        if wanted <= {*one.detail.get("tags", []), *one.detail.get("aliases", [])}
    ]
    return _part(found, skip, limit)


@router.post("/models/{model_id}/evaluate", status_code=202)
def evaluate_model(model_id: str, body: EvaluateBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Ask a trained version another suite too."""
    return models.evaluated(here, asking.name, model_id, body.test_dataset_id)


@router.post("/models/{model_id}/promote")
async def promote_model(model_id: str, request: Request, here: Here, asking: Asking) -> JSONResponse:
    """Promote a trained version to production, or to what `stage` names."""
    raw = await request.body()
    try:
        body = await request.json() if raw else {}
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from error
    if not isinstance(body, dict) or (unknown := set(body) - {"stage", "to", "status"}):
        raise Problem(422, f"{min(unknown) if isinstance(body, dict) else 'the body'}: there is no such field")
    stage = body.get("stage") or body.get("to") or body.get("status") or "production"
    return await models.change(here, asking.name, model_id, str(stage))


@router.post("/models/{model_id}/deploy", status_code=202)
def deploy_model(model_id: str, body: EndpointBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Have an endpoint serve a model."""
    if body.model_id not in (None, model_id):
        raise Problem(422, f"modelId {body.model_id} is another model than that of the address, {model_id}")
    return endpoints.want(here, asking.name, body.model_copy(update={"model_id": model_id}))


@router.post("/ab-tests", status_code=201)
def create_test(body: AbTestBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Start an A/B test between two models that an endpoint serves."""
    return experiments.start(here, asking.name, body)


@router.get("/ab-tests")
def list_tests(
    here: Here, asking: Asking, status: str | None = None, skip: Skip = 0, limit: Most = 100
) -> dict[str, Any]:
    """A/B tests, newest first."""
    found = [experiments.plain(one) for one in here.wiring.catalog.experiments() if status in (None, one.state)]
    return _part(found, skip, limit)


@router.get("/ab-tests/{test_id}/results")
def test_results(test_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """What is known of an A/B test so far."""
    return experiments.show_results(test_id, request, here, asking)


@router.post("/ab-tests/{test_id}/stop")
def stop_test(test_id: str, here: Here, asking: Asking, body: StopBody | None = None) -> dict[str, Any]:
    """End a running A/B test without a winner."""
    return experiments.stop(test_id, here, asking, body)


@router.post("/ab-tests/{test_id}/conclude")
def conclude_test(test_id: str, body: ConcludeBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Choose the winner of an A/B test."""
    return experiments.conclude(here, asking.name, test_id, body.winner)
