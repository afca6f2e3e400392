"""Routes of A/B tests: start, look at."""

from typing import Any

from fastapi import APIRouter, Request, Response

from images.console import translate
from images.console.bodies import AbTestBody
from images.console.pages import Cursor, Limit, page, tagged
from images.console.state import Asking, Here, State
from llmops_assets.operations import experiments
from llmops_assets.operations.forms import experiment_spec

router = APIRouter(prefix="/ab-tests", tags=["ab-tests"])


def plain(experiment: Any) -> dict[str, Any]:
    """A test as JSON."""
    return {
        "id": experiment.name,
        "status": experiment.state,
        "endpoint": experiment.endpoint,
        "model_a": experiment.spec.control,
        "model_b": experiment.spec.treatment,
        "decision": experiment.decision,
        "reason": experiment.reason,
        "withheld": experiment.withheld,
        "started_at": experiment.started_at,
        "decided_at": experiment.decided_at,
    }


def start(here: State, actor: str, body: AbTestBody) -> dict[str, Any]:
    """Start a test; the test as it stands then, with notes."""
    values, notes = translate.experiment(body, here.wiring.policy.experiments)
    spec = experiment_spec(
        here.wiring, control=body.model_a_id, treatment=body.model_b_id, endpoint=body.endpoint, values=values
    )
    started = experiments.start_experiment(here.wiring, actor, spec)
    return {**plain(here.wiring.catalog.experiment(started.name)), "is_new": started.new, "notes": notes}


def results(here: State, name: str) -> dict[str, Any]:
    """A test with its newest analysis, null before the first."""
    report = experiments.experiment_report(here.wiring, name)
    analysis = report.analysis.model_dump(mode="json") if report.analysis else None
    return {**plain(report.experiment), "analysis": analysis}


@router.post("", status_code=201)
def create(body: AbTestBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Start an A/B test between two models that an endpoint serves: `a` is the one in place."""
    return start(here, asking.name, body)


@router.get("")
def list_(here: Here, asking: Asking, limit: Limit = 50, cursor: Cursor = None) -> dict[str, Any]:
    """A/B tests, newest first."""
    found = page(here.wiring.catalog.experiments(), limit, cursor, lambda one: one.name)
    return {**found, "items": [plain(one) for one in found["items"]]}


@router.get("/{test_id}")
def show(test_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """One A/B test."""
    return tagged(request, plain(here.wiring.catalog.experiment(test_id)))


@router.get("/{test_id}/results")
def show_results(test_id: str, request: Request, here: Here, asking: Asking) -> Response:
    """What is known so far: figures by arm, every test of significance, the decision and its reason."""
    return tagged(request, results(here, test_id))
