"""Trainings: asking for one, stopping it, taking it up again."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Unavailable
from llmops_assets.operations.graph import TRAINING
from llmops_assets.operations.training_status import TrainingStatus, intent_of, request_of, status_of
from llmops_assets.records.training import AdapterRecord
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.names import STUDY_ACTOR, training_key
from llmops_assets.specs.rules import check_dataset
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from resources.cancellation import REACH_SECONDS, RunUnreachable
from resources.catalog import Conflict, TrainingRequest

if TYPE_CHECKING:
    from resources.run_log import Run

GATE = ("evaluation", "accuracy_gate")
"""The (asset, check) that withholds a model while its run stays green."""
UNDER_WAY = ("requested", "queued", "planning", "training", "stopping", "finishing")
"""States of a training that somebody works on, or will."""


@dataclass(frozen=True)
class Requested:
    """A training that is wanted: its partition, and the two keys that it is made of."""

    partition: str
    dataset: str
    recipe: str


def request_training(wiring: Wiring, actor: str, spec: TrainJobSpec) -> Requested:
    """Put a training on record as wanted; the graph plans, trains, merges, evaluates and registers it.

    Raises SpecError when its dataset does not fit it, NotFound when there is no such dataset.
    """
    check_request(wiring, actor, spec)
    catalog = wiring.catalog
    key = spec.recipe_key()
    catalog.add_recipe(key, spec.recipe(), actor)
    catalog.request_training(spec.dataset_ref, key, actor)
    return Requested(training_key(spec.dataset_ref, key), spec.dataset_ref, key)


def check_request(wiring: Wiring, actor: str, spec: TrainJobSpec) -> None:
    """Whether a training could be requested so; nothing is. Raises as `request_training`."""
    authorise(wiring, actor, "training.request")
    entry = wiring.catalog.dataset_entry(spec.dataset_ref)
    if faults := check_dataset(spec, entry.spec.type, entry.status):
        raise SpecError(faults)


def request_trial(wiring: Wiring, actor: str, study: str, spec: TrainJobSpec) -> str:
    """Want one trial of a hyperparameter search, unless it is trained already; its partition."""
    authorise(wiring, actor, "training.request")
    key = spec.recipe_key()
    partition = training_key(spec.dataset_ref, key)
    if wiring.records.find(AdapterRecord, partition) is None:
        wiring.catalog.add_recipe(key, spec.recipe(), actor)
        wiring.catalog.request_training(spec.dataset_ref, key, f"{STUDY_ACTOR}{study}")
    return partition


def stop_training(
    wiring: Wiring, actor: str, partition: str, *, reach_seconds: float = REACH_SECONDS
) -> TrainingStatus:
    """Withdraw the request for a training, and ask its runs to save a checkpoint and end; where it stands then.

    A run that is being started is waited for; one that was reached takes a moment to end. Raises Conflict when there
    is nothing to stop, Unavailable when a run is not reached within `reach_seconds`.
    """
    authorise(wiring, actor, "training.stop")
    request = request_of(wiring, partition)
    if not _active(wiring, partition) and (status := status_of(wiring, request)).state not in ("requested", "held"):
        raise Conflict(f"nothing to stop: {partition} is {status.state}")
    # Withdrawn first: a run that ends while its request stands would be asked for again.
    _withdraw(wiring, actor, request)
    if active := _active(wiring, partition):
        wiring.catalog.log(actor, "training.stop", partition, runs=[run.id for run in active])
        cancel_runs(wiring, partition, reach_seconds=reach_seconds)
    return status_of(wiring, request)


def cancel_runs(wiring: Wiring, partition: str, *, reach_seconds: float) -> None:
    """End the runs of a training; raises Unavailable when one is not reached within `reach_seconds`."""
    try:
        wiring.run_log.cancel(partition, TRAINING, reach_seconds=reach_seconds)
    except RunUnreachable as error:
        raise Unavailable(str(error)) from error


def _active(wiring: Wiring, partition: str) -> "list[Run]":
    runs = wiring.run_log.runs([partition], TRAINING)[partition]
    return [run for run in runs if not run.is_finished]


def _withdraw(wiring: Wiring, actor: str, request: TrainingRequest) -> None:
    """Take back the open request for a training, if it is still open."""
    intent = intent_of(wiring, request)
    if intent is not None:
        wiring.catalog.intents.withdraw(intent.kind, intent.key, actor, f"the request was withdrawn by {actor}")
    wiring.catalog.mark_reported([request.id], actor)


def resume_training(wiring: Wiring, actor: str, partition: str) -> None:
    """Ask again for a training that was stopped or failed: it goes on from its last whole checkpoint.

    Raises Conflict for one that is under way, or that can never run.
    """
    authorise(wiring, actor, "training.request")
    status = status_of(wiring, request_of(wiring, partition))
    if status.state in UNDER_WAY:
        raise Conflict(f"nothing to resume: {partition} is {status.state}")
    dataset, recipe = partition.split("|")
    if wiring.catalog.dataset_entry(dataset).status == "erased":
        raise Conflict(f"{partition} cannot be resumed: {status.detail}")
    wiring.catalog.request_training(dataset, recipe, actor)
