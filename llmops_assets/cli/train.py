"""`llmops train`: ask for a training."""

from pathlib import Path
from typing import Annotated

import typer

from llmops_assets.cli.common import (
    Json,
    Wait,
    actor,
    conclude,
    follow,
    load_checked,
    now,
    out,
    print_json,
    say,
    wiring,
)
from llmops_assets.specs.base import SpecError
from llmops_assets.specs.names import training_key
from llmops_assets.specs.rules import check_dataset
from llmops_assets.specs.training import TrainJobSpec

GATE = ("evaluation", "accuracy_gate")


def train(
    file: Annotated[Path, typer.Argument(metavar="SPEC.yaml", help="A TrainJobSpec.")],
    wait: Wait = False,
    json: Json = False,
) -> None:
    """Ask for a training; the graph plans, trains, merges, evaluates and registers it.

    Exit 3 says that the model missed its gate: the run is green and the release is withheld.

    Example: `llmops train examples/specs/sft-lora.yaml --wait`
    """
    spec = load_checked(file, TrainJobSpec)
    since = now()
    spec = pinned(spec)
    partition = request(spec)
    if json:
        print_json({"partition": partition, "dataset": spec.dataset_ref, "recipe": spec.recipe_key()})
    else:
        out.print(f"requested: {partition}", markup=False)
    if wait:
        conclude(follow(partition, "registered_model", since=since, gate=GATE))


def pinned(spec: TrainJobSpec) -> TrainJobSpec:
    """The spec with the version that its dataset's tag points to now, so that a moved tag changes no training."""
    from resources.pointers import resolve

    key = resolve(wiring().catalog, spec.dataset_ref)
    if key != spec.dataset_ref:
        say(f"{spec.dataset_ref} is {key}")
    return spec.model_copy(update={"dataset_ref": key})


def request(spec: TrainJobSpec) -> str:
    """Put a training on record as wanted; its partition key. Raises SpecError when its dataset does not fit it."""
    catalog = wiring().catalog
    entry = catalog.dataset_entry(spec.dataset_ref)
    if faults := check_dataset(spec, entry.spec.type, entry.status):
        raise SpecError(faults)
    key = spec.recipe_key()
    catalog.add_recipe(key, spec.recipe(), actor())
    catalog.request_training(spec.dataset_ref, key, actor())
    return training_key(spec.dataset_ref, key)
