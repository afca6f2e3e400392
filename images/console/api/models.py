"""Routes of models: enter, list, approve, promote, look at."""

from dataclasses import asdict
from typing import Any, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from images.console.api.datasets import OPERATIONS
from images.console.bodies import ModelBody, StatementBody, StatusBody
from images.console.pages import Cursor, Limit, page, tagged
from images.console.problems import Problem
from images.console.state import Asking, Here, State
from llmops_assets.operations import dossiers
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


@router.get("/{model_id:path}/card", response_class=Response, responses={200: {"content": {"text/markdown": {}}}})
def card(model_id: str, here: Here, asking: Asking) -> Response:
    """The model card of a trained version, in Markdown."""
    text = entries.card(here.wiring, model_id)
    return Response(text, media_type="text/markdown; charset=utf-8")


@router.get("/{model_id:path}/dossier", response_class=Response, responses={200: {"content": {"text/html": {}}}})
def dossier(model_id: str, here: Here, asking: Asking, language: Literal["en", "ko"] = "en") -> Response:
    """The technical documentation of a trained version, written from its lineage: one HTML file."""
    text = dossiers.dossier_page(here.wiring, entries.trained_version(here.wiring, model_id), language)
    return Response(text, media_type="text/html; charset=utf-8")


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
