"""Routes of models: enter, list, approve, promote, look at."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from images.console.api.datasets import OPERATIONS
from images.console.archive import weights
from images.console.bodies import EvaluateBody, ModelBody, StatementBody, StatusBody
from images.console.pages import Cursor, Limit, page, tagged
from images.console.problems import Problem
from images.console.state import Asking, Here, State
from llmops_assets.operations import dossiers, model_evidence
from llmops_assets.operations import model_entries as entries
from llmops_assets.operations.models import history

router = APIRouter(prefix="/catalog/models", tags=["models"])


def plain(model: entries.Model) -> dict[str, Any]:
    """A model as JSON; `id` is how other routes name it."""
    values = asdict(model)
    return {**values, "status": values.pop("state")}


@router.post("", status_code=201)
async def create(body: ModelBody, here: Here, asking: Asking) -> JSONResponse:
    """Enter a base model as a draft; files on this machine are looked at at once."""
    family = body.metadata.model_family
    if family is None:
        raise Problem(422, "metadata.model_family names the family of the policy that the model is of")
    detail = body.metadata.model_dump(exclude_none=True)

    def enter() -> dict[str, Any]:
        model = entries.enter_model(
            here.wiring,
            asking.name,
            name=body.name,
            version=body.version,
            storage_uri=body.storage_uri,
            family=family,
            license=body.license,
            owner=body.owner_team,
            detail=detail,
            allowed=here.import_roots,
        )
        return plain(model)

    return await here.works.run(enter, OPERATIONS, 201)


@router.get("")
def list_(
    here: Here, asking: Asking, status: str | None = None, limit: Limit = 50, cursor: Cursor = None
) -> dict[str, Any]:
    """Models, newest first: entered base models and trained versions."""
    found = page(entries.list_models(here.wiring, status), limit, cursor, lambda one: one.id)
    return {**found, "items": [plain(one) for one in found["items"]]}


@router.get("/{model_id:path}/history")
def audit(model_id: str, here: Here, asking: Asking, limit: Limit = 50) -> dict[str, Any]:
    """Who did what with a model, newest first."""
    model = entries.find_model(here.wiring, model_id)
    return {"items": history(here.wiring, model.ref or model.id, limit)}


@router.get("/compare")
def compare(first: str, second: str, request: Request, here: Here, asking: Asking) -> Response:
    """Two trained versions: figures with intervals, McNemar's test on the same items, answers, settings and data."""
    return tagged(request, model_evidence.compare_models(here.wiring, first, second))


@router.get("/{model_id:path}/evaluation")
def evaluation(model_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """The figures of a version's evaluation with their intervals, and every check of its training."""
    found = model_evidence.evidence(here.wiring, model_id)
    recorded = found.recorded.model_dump(mode="json", exclude={"answers", "report"}) if found.recorded else None
    return tagged(request, {"id": found.model.id, "evaluation": recorded, "checks": found.checks})


@router.post("/{model_id:path}/evaluate", status_code=202)
def evaluate(model_id: str, body: EvaluateBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Ask a trained version another suite too; the training that is answered with reuses its weights."""
    return evaluated(here, asking.name, model_id, body.test_dataset_id)


def evaluated(here: State, actor: str, model_id: str, suite: str) -> dict[str, Any]:
    """Have a version evaluated on a suite; where to look."""
    done = model_evidence.request_evaluation(here.wiring, actor, model_id, suite)
    training = done.partition.replace("|", "~")
    return {"id": training, "suite": suite, "location": f"/llm-ops/v1/training/jobs/{training}"}


@router.get(
    "/{model_id:path}/download", response_class=Response, responses={200: {"content": {"application/x-tar": {}}}}
)
def download(model_id: str, here: Here, asking: Asking) -> Response:
    """The files of a trained version, with its card, as one tar archive."""
    name, pieces = weights(here, asking.name, model_id)
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(pieces, headers=headers, media_type="application/x-tar")


@router.get("/{model_id:path}/card", response_class=Response, responses={200: {"content": {"text/markdown": {}}}})
def card(model_id: str, here: Here, asking: Asking) -> Response:
    """The model card of a trained version, in Markdown."""
    text = entries.card(here.wiring, model_id)
    return Response(text, media_type="text/markdown; charset=utf-8")


@router.get(
    "/{model_id:path}/dossier",
    response_class=Response,
    responses={200: {"content": {"text/html": {}, "application/pdf": {}}}},
)
def dossier(
    model_id: str,
    here: Here,
    asking: Asking,
    language: Literal["en", "ko"] = "en",
    format: Literal["html", "pdf"] = "html",
) -> Response:
    """The technical documentation of a trained version, written from its lineage: one HTML file, or a PDF."""
    ref = entries.trained_version(here.wiring, model_id)
    if format == "pdf":
        return Response(dossiers.dossier_pdf(here.wiring, ref, language), media_type="application/pdf")
    return Response(dossiers.dossier_page(here.wiring, ref, language), media_type="text/html; charset=utf-8")


@router.put("/{model_id:path}/dossier/{gap}")
def state(model_id: str, gap: str, body: StatementBody, here: Here, asking: Asking) -> dict[str, Any]:
    """State what lineage cannot tell of a trained version; it is kept with your name and the date."""
    ref = entries.trained_version(here.wiring, model_id)
    return asdict(dossiers.state(here.wiring, asking.name, ref, gap, body.text))


@router.patch("/{model_id:path}/status")
async def status(model_id: str, body: StatusBody, here: Here, asking: Asking) -> JSONResponse:
    """Approve a model, archive it, or move a trained version to staging or production."""
    return await change(here, asking.name, model_id, body.status)


async def change(here: State, actor: str, model_id: str, to: str) -> JSONResponse:
    """A step of a model's life; approving hashes its files, which may take a while."""
    return await here.works.run(
        lambda: plain(entries.set_status(here.wiring, actor, model_id, to, here.import_roots)), OPERATIONS
    )


@router.get("/{model_id:path}")
def show(model_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """One model."""
    return tagged(request, plain(entries.find_model(here.wiring, model_id)))
