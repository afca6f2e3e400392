"""Trainings: asking for one, stopping it, taking it up again."""

from dataclasses import dataclass

from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Unavailable
from llmops_assets.operations.graph import TRAINING
from llmops_assets.operations.training_status import TrainingStatus, request_of, status_of, training_status
from llmops_assets.records.training import AdapterRecord
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.names import STUDY_ACTOR, training_key
from llmops_assets.specs.rules import check_dataset
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring
from resources.catalog import Conflict

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
    authorise(wiring, actor, "training.request")
    catalog = wiring.catalog
    entry = catalog.dataset_entry(spec.dataset_ref)
    if faults := check_dataset(spec, entry.spec.type, entry.status):
        raise SpecError(faults)
    key = spec.recipe_key()
    catalog.add_recipe(key, spec.recipe(), actor)
    catalog.request_training(spec.dataset_ref, key, actor)
    return Requested(training_key(spec.dataset_ref, key), spec.dataset_ref, key)


def request_trial(wiring: Wiring, actor: str, study: str, spec: TrainJobSpec) -> str:
    """Want one trial of a hyperparameter search, unless it is trained already; its partition."""
    authorise(wiring, actor, "training.request")
    key = spec.recipe_key()
    partition = training_key(spec.dataset_ref, key)
    if wiring.records.find(AdapterRecord, partition) is None:
        wiring.catalog.add_recipe(key, spec.recipe(), actor)
        wiring.catalog.request_training(spec.dataset_ref, key, f"{STUDY_ACTOR}{study}")
    return partition


def stop_training(wiring: Wiring, actor: str, partition: str) -> TrainingStatus:
    """Withdraw the request for a training, and ask its runs to save a checkpoint and end; where it stands then.

    Returns at once: a run takes a moment to end. Raises Conflict when there is nothing to stop, Unavailable when a run
    cannot be reached.
    """
    authorise(wiring, actor, "training.stop")
    runs = wiring.run_log.runs([partition], TRAINING)[partition]
    active = [run for run in runs if not run.is_finished]
    # Withdrawn first: a run that ends while its request stands would be asked for again.
    withdrawn = _withdraw(wiring, actor, partition)
    if not active:
        status = training_status(wiring, partition)
        if not withdrawn:
            raise Conflict(f"nothing to stop: {partition} is {status.state}")
        return status
    wiring.catalog.log(actor, "training.stop", partition, runs=[run.id for run in active])
    for run in active:
        if not wiring.run_log.cancel(run.id):
            raise Unavailable(f"run {run.id} cannot be reached: is the platform that started it still there?")
    return training_status(wiring, partition)


def _withdraw(wiring: Wiring, actor: str, partition: str) -> bool:
    """Take back the open request for a training; whether there was one."""
    request = request_of(wiring, partition)
    if request.reported_at is not None:
        return False
    wiring.catalog.mark_reported([request.id])
    wiring.catalog.log(actor, "training.withdraw", partition)
    return True


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
