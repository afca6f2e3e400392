"""The HTTP interface as an ASGI application: every route calls one operation, errors are problems, keys hold once."""

from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Query
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.types import ASGIApp

from images.console import parts, problems
from images.console.api import admin, alerts, datasets, endpoints, experiments, models, prompts, reviews, trainings
from images.console.login import launches, proxied
from images.console.login import routes as login
from images.console.once import OncePerKey
from images.console.state import Asking, Here, State
from images.console.web import PAGES
from llmops_assets.operations.access import authorise
from llmops_assets.operations.usage import usage_by
from resources.catalog import CatalogTooNew

VERSION = "1"


def create_app(state: State) -> ASGIApp:
    """The application over the platform's resources."""
    app = FastAPI(
        title="LLMOps",
        version=VERSION,
        summary="From raw instruction data to a served, compared and promoted language model.",
        openapi_url="/llm-ops/v1/openapi.json",
        # Their pages load scripts from elsewhere, and a closed network has no elsewhere.
        docs_url=None,
        redoc_url=None,
        responses=problems.DOCUMENTED,
    )
    app.state.console = state
    parts.forget_old(state.uploads)
    app.openapi = lambda: _described(app)
    problems.install(app)
    v1 = APIRouter(prefix="/llm-ops/v1")

    @v1.get("/health", tags=["health"])
    def health(here: Here) -> JSONResponse:
        """200 while the catalog can be read."""
        try:
            here.wiring.catalog.audit_log(limit=1)
        except (SQLAlchemyError, OSError, CatalogTooNew):
            problems.log.exception("the catalog cannot be read")
            return JSONResponse({"status": "degraded", "detail": "the catalog cannot be read"}, 503)
        return JSONResponse({"status": "healthy"})

    @v1.get("/operations/{operation_id}", tags=["operations"])
    async def operation(operation_id: str, here: Here, asking: Asking) -> JSONResponse:
        """The outcome of work that took longer than a request waits."""
        return here.works.look(operation_id)

    @v1.get("/audit", tags=["audit"])
    def audit(here: Here, asking: Asking, limit: int = 100) -> dict[str, Any]:
        """The newest lines of the audit log."""
        authorise(here.wiring, asking.name, "audit.read")
        return {"items": here.wiring.catalog.audit_log(limit=max(1, min(limit, 1000)))}

    @v1.get("/usage", tags=["usage"])
    def usage(
        here: Here,
        asking: Asking,
        by: Annotated[list[str] | None, Query(description="key, team, endpoint, model, day")] = None,
        since: str | None = None,
        until: str | None = None,
    ) -> dict[str, Any]:
        """Requests and tokens, summed by some of key, team, endpoint, model and day."""
        return {"items": usage_by(here.wiring, asking.name, by or ["model"], since=since, until=until)}

    for module in (datasets, models, trainings, endpoints, experiments, prompts, reviews, alerts):
        v1.include_router(module.router)
    v1.include_router(endpoints.serve)
    app.include_router(v1)
    app.include_router(admin.router)
    # Before the pages, which are behind it.
    for door in (login, proxied, launches):
        app.include_router(door.router)
    for pages in PAGES:
        app.include_router(pages)
    return OncePerKey(app, state.wiring.catalog, state.callers)


def _described(app: FastAPI) -> dict[str, Any]:
    """The description of the interface, with the shape of its errors."""
    if app.openapi_schema is None:
        found = get_openapi(title=app.title, version=app.version, summary=app.summary, routes=app.routes)
        shapes = problems.ProblemBody.model_json_schema(ref_template="#/components/schemas/{model}")
        parts = shapes.pop("$defs")
        found.setdefault("components", {}).setdefault("schemas", {}).update(parts, ProblemBody=shapes)
        app.openapi_schema = found
    return app.openapi_schema
