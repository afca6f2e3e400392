"""Reads what users write: a spec is valid, of the kind that was asked for, and within the policy, or it is refused."""

from pathlib import Path
from typing import TypeVar

from llmops_assets.specs.base import Spec, SpecError, SpecFault
from llmops_assets.specs.files import load_spec
from llmops_assets.specs.training import TrainJobSpec
from llmops_assets.wiring import Wiring

S = TypeVar("S", bound=Spec)


def load_checked(wiring: Wiring, file: Path, kind: type[S]) -> S:
    """The spec in a file; raises SpecError with every fault."""
    spec = load_spec(file, wiring.policy)
    if not isinstance(spec, kind):
        raise SpecError([SpecFault("", f"this is a spec of kind {spec.kind}, not {kind.kind}", file=str(file))])
    return spec


def pinned(wiring: Wiring, spec: TrainJobSpec) -> TrainJobSpec:
    """The spec with the version that its dataset's tag points to now, so that a moved tag changes no training."""
    from resources.catalog.pointers import resolve

    return spec.model_copy(update={"dataset_ref": resolve(wiring.catalog, spec.dataset_ref)})
