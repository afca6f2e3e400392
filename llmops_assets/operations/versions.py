"""Pointing a dataset's tags to its versions, and moving them back."""

from dataclasses import dataclass

from llmops_assets.datasets.versions.history import Uses, uses
from llmops_assets.operations.access import authorise
from llmops_assets.operations.errors import Refused
from llmops_assets.specs.names import split_versioned
from llmops_assets.wiring import Wiring
from resources.catalog import pointers


@dataclass(frozen=True)
class Pointed:
    """Where a pointer was and is now; `before` is None for a new one."""

    pointer: str
    before: str | None
    key: str


@dataclass(frozen=True)
class RolledBack:
    """A pointer that went back, with what was made from the version that it left and from the one it is at."""

    pointer: str
    before: str
    key: str
    uses: dict[str, Uses]


def tag_version(wiring: Wiring, actor: str, version: str, tag: str) -> Pointed:
    """Let a tag of a dataset point to `version`, a version or another tag of it.

    Raises NotFound for an unknown version, Conflict when a version has the tag's name or was erased.
    """
    authorise(wiring, actor, "dataset.tag")
    key = pointers.resolve(wiring.catalog, version)
    dataset, target = split_versioned(key)
    before = pointers.move(wiring.catalog, dataset, tag, target, actor)
    return Pointed(f"{dataset}@{tag}", before, key)


def roll_back(wiring: Wiring, actor: str, dataset: str, pointer: str, to: str | None = None) -> RolledBack:
    """Move a pointer of a dataset back to version `to`, or to where it was before. No rows are lost.

    Raises Refused when it never was elsewhere, or is there already.
    """
    authorise(wiring, actor, "dataset.rollback")
    if "@" in dataset:
        raise Refused(f"{dataset} names a version: give the name alone, and --to VERSION")
    left = pointers.resolve(wiring.catalog, f"{dataset}@{pointer}")
    target = to.split("@")[-1] if to else pointers.previous(wiring.catalog, dataset, pointer)
    if target is None:
        raise Refused(f"{dataset}@{pointer} was never anywhere else than at {left}: name a version with --to")
    key = f"{dataset}@{target}"
    if key == left:
        raise Refused(f"{dataset}@{pointer} is at {left} already")
    pointers.move(wiring.catalog, dataset, pointer, target, actor, action="rollback")
    used = {version: uses(wiring.catalog, wiring.records, version) for version in (left, key)}
    return RolledBack(f"{dataset}@{pointer}", left, key, used)
