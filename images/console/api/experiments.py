"""Routes of A/B tests: start, look at."""

from typing import Any

from fastapi import APIRouter, Request, Response

from images.console import translate
from images.console.bodies import AbTestBody, ConcludeBody, StopBody
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
        "other_models": experiment.spec.other_treatments,
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
    return {
        **plain(here.wiring.catalog.experiment(started.name)),
        "is_new": started.new,
        "notes": [*notes, *started.notes],
    }


def results(here: State, name: str) -> dict[str, Any]:
    """A test with its newest analysis, null before the first."""
    report = experiments.experiment_report(here.wiring, name)
    analysis = report.analysis.model_dump(mode="json") if report.analysis else None
    return {**plain(report.experiment), "analysis": analysis}


def ended(here: State, done: experiments.Ended) -> dict[str, Any]:
    """A test that is over; `is_new`: by this request."""
    return {**plain(here.wiring.catalog.experiment(done.name)), "winner": done.winner, "is_new": done.new}


def conclude(here: State, actor: str, name: str, winner: str) -> dict[str, Any]:
    """Give all users to `a`, the model in place, or to `b`."""
    arm: experiments.Winner = "control" if winner == "a" else "treatment"
    return ended(here, experiments.conclude_experiment(here.wiring, actor, name, arm))


@router.post("/{test_id}/stop")
def stop(test_id: str, here: Here, asking: Asking, body: StopBody | None = None) -> dict[str, Any]:
    """End a running test without a winner: the model in place gets all users."""
    reason = body.reason if body else None
    return ended(here, experiments.stop_experiment(here.wiring, asking.name, test_id, reason))


@router.post("/{test_id}/conclude")
def conclude_test(test_id: str, body: ConcludeBody, here: Here, asking: Asking) -> dict[str, Any]:
    """Choose the winner by hand, or carry out a decision that was left to people."""
    return conclude(here, asking.name, test_id, body.winner)


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
