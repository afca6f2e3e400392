"""Registering dataset versions."""

from collections.abc import Sequence
from dataclasses import dataclass

from llmops_assets.operations.access import authorise
from llmops_assets.operations.graph import DATASET
from llmops_assets.records.datasets import SplitsRecord
from llmops_assets.specs.dataset import DatasetSpec
from llmops_assets.wiring import Wiring


@dataclass(frozen=True)
class Registered:
    """A registered version: whether this call made it, whether its splits are there already, and what should be known
    of the files: which were left out and why, which are splits, and what names their columns."""

    key: str
    new: bool
    split: bool
    notes: Sequence[str] = ()
    blocked: str | None = None
    """The blocking check that failed on it, where its splits are there; nothing trains on them."""


def register_dataset(wiring: Wiring, actor: str, spec: DatasetSpec, files: Sequence[str]) -> Registered:
    """Register files as a dataset version and ask for its ingestion; the same files again only ask again.

    Raises Conflict for other files under a known version, SpecError for a spec that the policy refuses, SuiteFaults for
    an evaluation suite with items that could not be asked or judged.
    """
    from llmops_assets.datasets.reading.described import columns_beside
    from llmops_assets.datasets.versions.register import find_files, register

    authorise(wiring, actor, "dataset.register")
    found = find_files(files, documents=spec.generation is not None)
    described = columns_beside(files, [name for name, _ in found.data])
    if spec.mapping is None and described.mapping is not None:
        spec = spec.model_copy(update={"mapping": described.mapping})
    known: Sequence[str] = ()
    if spec.type == "eval_suite" and spec.generation is None:
        from llmops_assets.evaluation.register import asked_and_judged

        given = spec.suite is not None and "judge" in spec.suite.model_fields_set
        spec, known = asked_and_judged(spec, files, wiring.catalog, wiring.policy, judge_given=given)
    new = register(
        spec, list(files), artifacts=wiring.artifacts, catalog=wiring.catalog, policy=wiring.policy, actor=actor
    )
    split = not new and wiring.records.find(SplitsRecord, spec.key) is not None
    failed = wiring.run_log.failed_check(spec.key, DATASET) if split else None
    blocked = f"check {failed.asset}.{failed.name} failed: {failed.description}" if failed is not None else None
    return Registered(spec.key, new, split, [*found.words(), *described.notes, *known], blocked)
