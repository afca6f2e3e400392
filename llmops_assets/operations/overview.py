"""What goes on, what waits for somebody, and what went wrong: the first look at the platform."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from llmops_assets.operations.access import allowed
from llmops_assets.operations.alerts import list_alerts
from llmops_assets.operations.dataset_entries import Version, versions_page
from llmops_assets.operations.reviews import review_queue
from llmops_assets.operations.training_status import TrainingStatus, statuses_page
from llmops_assets.operations.trainings import UNDER_WAY
from llmops_assets.wiring import Wiring
from resources.tracking import ModelVersion

if TYPE_CHECKING:
    from resources.catalog import Alert, BaseModelEntry, Endpoint, Experiment

LOOKED_AT = 20
"""Newest datasets and trainings that are looked at; what is older is on the lists."""
SHOWN = 12


@dataclass(frozen=True)
class Entry:
    """One thing of the first page. `kind` is dataset, training, base_model, model, endpoint, experiment or review;
    `detail` is in the words of whoever found it; `what` names what is to be done or what happened."""

    kind: str
    id: str
    state: str
    what: str
    detail: str = ""
    at: datetime | None = None
    share: float | None = None


@dataclass(frozen=True)
class Overview:
    """`running`: what somebody works on; `waiting`: what a person has to do next, with the action that it takes and
    whether this caller may do it; `alerts`: those that are so now, None where this caller may not read them."""

    running: list[Entry]
    waiting: list[tuple[Entry, str, bool]]
    alerts: "list[Alert] | None"
    counts: dict[str, int]


def overview(wiring: Wiring, actor: str) -> Overview:
    """The first page of whoever asks."""
    versions, all_versions = versions_page(wiring, 0, LOOKED_AT)
    trainings, all_trainings = statuses_page(wiring, 0, LOOKED_AT)
    endpoints, tests = wiring.catalog.endpoints(), wiring.catalog.experiments()
    models, bases = wiring.tracking.models(), wiring.catalog.base_models()
    running = [*_running(versions, trainings, endpoints, tests)]
    waiting = [*_waiting(wiring, versions, models, bases, tests)]
    return Overview(
        running=running[:SHOWN],
        waiting=[(entry, action, allowed(wiring, actor, action)) for entry, action in waiting][:SHOWN],
        alerts=list_alerts(wiring, actor, is_open=True, limit=SHOWN) if allowed(wiring, actor, "alert.read") else None,
        counts={
            "datasets": all_versions,
            "trainings": all_trainings,
            "models": len(models) + len(bases),
            "endpoints": len(endpoints),
            "tests": len(tests),
        },
    )


def _running(
    versions: list[Version], trainings: list[TrainingStatus], endpoints: "list[Endpoint]", tests: "list[Experiment]"
) -> Iterator[Entry]:
    for one in versions:
        if one.state == "ingesting":
            yield Entry("dataset", one.key, one.state, "ingesting", one.detail, one.created_at)
    for status in trainings:
        if status.state in UNDER_WAY:
            yield Entry("training", status.partition, status.state, "training", status.detail, share=share_of(status))
    for endpoint in endpoints:
        if endpoint.state in ("pending", "deploying", "deleting"):
            yield Entry("endpoint", endpoint.name, endpoint.state, "deploying", endpoint.message, endpoint.updated_at)
    for test in tests:
        if test.state == "running":
            yield Entry("experiment", test.name, "running", "testing", "", test.started_at)


def share_of(status: TrainingStatus) -> float | None:
    """How much of a training is done, from 0 to 1; None before its first step."""
    live = status.progress
    return min(1.0, live.step / live.steps) if live is not None and live.steps else None


def _waiting(
    wiring: Wiring,
    versions: list[Version],
    models: list[ModelVersion],
    bases: "list[BaseModelEntry]",
    tests: "list[Experiment]",
) -> Iterator[tuple[Entry, str]]:
    for one in versions:
        if one.state == "awaiting_files":
            yield Entry("dataset", one.key, one.state, "upload", one.detail, one.created_at), "dataset.register"
    for base in bases:
        if base.state == "draft":
            yield Entry("base_model", base.ref, "draft", "approve", base.family, base.created_at), "base.approve"
    for model in models:
        if model.state == "draft":
            entry = Entry("model", model.ref, "draft", "approve", model.tags.get("dataset", ""), model.created_at)
            yield entry, "model.approve"
    for test in tests:
        if test.decision is not None and test.withheld and test.acted_at is None:
            entry = Entry("experiment", test.name, test.decision, "conclude", test.withheld, test.decided_at)
            yield entry, "experiment.conclude"
    reviews = [item for item in review_queue(wiring).items if item.decision.state in ("open", "waiting", "disputed")]
    if reviews:
        yield Entry("review", str(len(reviews)), "open", "review"), "review.decide"
